/** What the model has learned from the labels: state, progress, honest numbers, what to label next. */

import * as api from "./api.js";
import {clock, find, h, icon, say, svg} from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [264, 110, 28, 18, 8];

/** Event "open" (detail: {video, start, stop}), "learned". */
export class Learning extends EventTarget {
  constructor({rate, start}) {
    super();
    Object.assign(this, {rate, start, state: "idle", panel: find("#learning"), next: []});
    find("#learn").addEventListener("click", () => this.toggle());
  }

  async load() {
    try {
      this.show(await api.get("/api/learning"));
      await this.suggest();
    } catch (error) {
      this.panel.hidden = error.status === 404;
    }
  }

  /** Start, or cancel what runs. */
  async toggle() {
    try {
      const running = this.state === "running";
      this.show(await (running ? api.remove("/api/learning") : api.post("/api/learning", {})));
    } catch (error) {
      say(error.message);
    }
  }

  /** Show the server's word; parts that an event leaves out stay as they are. */
  show(said) {
    const before = this.state;
    this.panel.hidden = false;
    this.state = said.state ?? this.state;
    const running = this.state === "running";
    const button = find("#learn");
    button.replaceChildren(icon(running ? "close" : "spark"), running ? "Cancel" : "Learn");
    button.classList.toggle("primary", !running);
    const bar = find("#learning-progress");
    bar.hidden = !running;
    if (typeof said.progress === "number") bar.value = said.progress;
    const message = find("#learning-message");
    message.textContent = said.message ?? "";
    message.classList.toggle("bad", this.state === "failed");
    if ("accuracy" in said) this.#accuracy(said.accuracy);
    if (said.history) this.#history(said.history);
    if (before === "running" && this.state === "idle") {
      this.dispatchEvent(new Event("learned"));
      this.suggest();
    }
  }

  #accuracy(found) {
    const place = find("#accuracy");
    if (!found) {
      place.replaceChildren(h("span.note", {}, "Label parts of two videos or more, then let it learn."));
      return;
    }
    const spread = found.spread === null || found.spread === undefined ? "" : ` ± ${found.spread.toFixed(1)}`;
    place.replaceChildren(h("b", {}, `${found.mean.toFixed(1)} %`), h("span", {}, spread),
      h("span.note", {}, `of labelled slots right in held-out videos, ${found.folds} folds`));
  }

  /** How accuracy grew with what was labelled: points with their spread. */
  #history(rows) {
    const known = rows.filter(row => typeof row.accuracy === "number");
    const holder = find("#growth");
    holder.hidden = known.length < 2;
    if (holder.hidden) return;
    const most = Math.max(...known.map(row => row.labelled_seconds), 1);
    const x = row => LEFT + (row.labelled_seconds / most) * (WIDTH - LEFT - 6);
    const y = value => TOP + (1 - value / 100) * (HEIGHT - TOP - BOTTOM);
    const lines = [0, 50, 100].flatMap(value => [
      svg("line", {x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value), class: "grid"}),
      svg("text", {x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end"}, String(value))]);
    const spread = row => row.spread ?? 0;
    const bars = known.filter(spread).map(row => svg("line", {
      x1: x(row), x2: x(row), y1: y(Math.min(100, row.accuracy + spread(row))), y2: y(Math.max(0, row.accuracy - spread(row))), class: "spread"}));
    const path = svg("polyline", {points: known.map(row => `${x(row)},${y(row.accuracy)}`).join(" "), class: "curve"});
    const dots = known.map(row => svg("circle", {cx: x(row), cy: y(row.accuracy), r: 2.6},
      svg("title", {}, `${row.accuracy.toFixed(1)} % with ${clock(row.labelled_seconds)} labelled in ${row.labelled_videos} videos`)));
    const ends = [svg("text", {x: LEFT, y: HEIGHT - 4}, "0:00"), svg("text", {x: WIDTH, y: HEIGHT - 4, "text-anchor": "end"}, `${clock(most)} labelled`)];
    const last = known.at(-1);
    const words = `Accuracy grew from ${known[0].accuracy.toFixed(1)} to ${last.accuracy.toFixed(1)} % as labels grew to ${clock(last.labelled_seconds)}`;
    holder.replaceChildren(svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words}, ...lines, ...bars, path, ...dots, ...ends));
  }

  /** What is worth labelling next. */
  async suggest() {
    let items = [];
    try {
      ({items} = await api.get("/api/suggestions", {count: 5}));
    } catch (error) {
      if (!error.status) return;
    }
    this.next = items;
    find("#next").hidden = !items.length;
    find("#suggestions").replaceChildren(...items.map(one => {
      const period = [one.start, one.stop].map(slot => clock(this.start + slot / this.rate)).join("–");
      return h("li", {}, h("button.suggestion", {type: "button", onclick: () => this.#open(one)},
        h("span.video-name", {title: one.name}, one.name), h("span.when", {}, period), h("span.note", {}, one.reason)));
    }));
  }

  /** Open the first suggestion. */
  openNext() {
    if (this.next.length) this.#open(this.next[0]);
    else say("No suggestion yet: let the model learn first.");
  }

  #open(one) {
    this.dispatchEvent(new CustomEvent("open", {detail: {...one, slot: one.start}}));
  }
}
