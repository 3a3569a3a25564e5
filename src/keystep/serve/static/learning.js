/** What the model has learned from the labels: state, progress, honest numbers, what to label next. */

import * as api from "./api.js";
import {clock, find, h, icon, say} from "./dom.js";
import {showGrowth} from "./growth.js";

/** Event "open" (detail: {video, start, stop}), "learned". */
export class Learning extends EventTarget {
  constructor({rate, start}) {
    super();
    Object.assign(this, {rate, start, state: "idle", stamp: 0, panel: find("#learning"), next: []});
    this.automatic = find("#automatic");
    this.automatic.checked = localStorage.getItem("keystep:automatic") !== "no";
    this.automatic.addEventListener("change", () => {
      localStorage.setItem("keystep:automatic", this.automatic.checked ? "yes" : "no");
    });
    find("#learn").addEventListener("click", () => this.toggle());
  }

  /** What has happened since the page asked for the project. */
  async load() {
    try {
      this.show(await api.get("/api/learning"));
    } catch { /* a silent server tells of it once it is back */ }
    await this.suggest();
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

  /** A video was left whose labels changed. */
  async startAfterVideo() {
    if (!this.automatic.checked) return;
    try {
      this.show(await api.post("/api/learning", {}));
    } catch { /* whoever asks by the button is told why not */ }
  }

  /** Show the server's word; parts that an event leaves out stay as they are. */
  show(said) {
    if (said.stamp < this.stamp) return; // an answer that an event has overtaken
    this.stamp = said.stamp ?? this.stamp;
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
    if (said.history) showGrowth(find("#growth"), said.history);
    if (before === "running" && this.state === "idle") {
      this.dispatchEvent(new Event("learned"));
      this.suggest();
    }
  }

  #accuracy(found) {
    const place = find("#accuracy");
    find("#measured").hidden = !found;
    if (!found) {
      place.replaceChildren(); // the message says what is missing
      return;
    }
    const spread = found.spread === null || found.spread === undefined ? "" : ` ± ${found.spread.toFixed(1)}`;
    place.replaceChildren(h("b", {}, `${found.mean.toFixed(1)} %`), h("span", {}, spread),
      h("span.note", {}, `of labelled slots right in ${found.videos} held-out videos, ${found.folds} folds`));
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
