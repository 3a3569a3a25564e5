/** Live streams: one card each, with its ribbon, probabilities and delay. */

import * as api from "./api.js";
import {clock, find, h, iconButton, say} from "./dom.js";
import {swatch} from "./classes.js";
import {colours} from "./paint.js";

const KEPT = 600; // frames of the ribbon
const CONNECTED = 3; // a browser allows six connections a server, and the page needs some itself
const EVERY = 2000; // milliseconds between two looks at the list

export class Live {
  constructor(classes) {
    Object.assign(this, {classes, list: find("#streams"), cards: new Map(), timer: null, there: false});
    find("#open-stream").addEventListener("submit", event => {
      event.preventDefault();
      this.#openNew(new FormData(event.target), event.submitter);
    });
    find("#stream-kind").addEventListener("change", event => {
      const field = find("#stream-source");
      field.parentElement.hidden = event.target.value === "push";
      field.placeholder = event.target.value === "url" ? "rtsp://…" : "path of a recording";
    });
  }

  /** Whether the server has streams at all. */
  async look() {
    try {
      const {items = [], window = null, learning = null} = await api.get("/api/streams");
      this.there = true;
      if (this.shown) {
        this.#list(items);
        if (!this.waiting) find("#live-note").replaceChildren(...facts(window, learning));
      }
    } catch (error) {
      if (error.status === 404) this.there = false;
    }
    find("#views").hidden = !this.there;
    return this.there;
  }

  show(shown) {
    this.shown = shown;
    clearInterval(this.timer);
    if (shown) {
      this.look();
      this.timer = setInterval(() => document.hidden || this.look(), EVERY);
    } else for (const card of this.cards.values()) card.disconnect();
  }

  async #openNew(form, button) {
    if (button) button.disabled = true;
    try {
      await this.#openWhenReady(form);
    } finally {
      if (button) button.disabled = false;
      this.waiting = "";
    }
  }

  async #openWhenReady(form) {
    const kind = form.get("kind");
    const place = {file: "path", url: "url"}[kind];
    const source = place ? {kind, [place]: form.get("source")} : {kind};
    while (this.shown) {
      try {
        await api.post("/api/streams", {source, name: form.get("name")});
        await this.look();
        return;
      } catch (error) {
        if (error.status !== 503) {
          say(error.message);
          return;
        }
        this.waiting = `${error.message} (${Math.round(100 * error.body.progress)} %)`;
        find("#live-note").textContent = this.waiting;
      }
      await new Promise(resolve => { setTimeout(resolve, EVERY); });
    }
  }

  #list(items) {
    const there = new Set(items.map(item => item.id));
    for (const [id, card] of this.cards) if (!there.has(id)) { card.close(); this.cards.delete(id); }
    for (const item of items) {
      if (!this.cards.has(item.id)) {
        const card = new StreamCard(item, this.classes, () => this.#remove(item.id));
        this.cards.set(item.id, card);
        this.list.append(card.node);
      }
      this.cards.get(item.id).update(item);
    }
    find("#no-streams").hidden = items.length > 0;
    const live = [...this.cards.values()].sort((one, other) => other.urgency - one.urgency);
    live.forEach((card, place) => (place < CONNECTED && card.urgency ? card.connect() : card.disconnect()));
  }

  async #remove(id) {
    try {
      await api.remove(`/api/streams/${encodeURIComponent(id)}`);
      await this.look();
    } catch (error) {
      say(error.message);
    }
  }
}

/** What answers streams, and how far back it sees, in words. */
function facts(window, learning) {
  const found = learning?.accuracy;
  const spread = typeof found?.spread === "number" ? ` ± ${found.spread.toFixed(1)}` : "";
  return [
    found && `Learned from your labels, seeing only the past: ${found.mean.toFixed(1)} %${spread} of labelled slots right in `
      + `${found.videos} held-out videos. `,
    window && `A stream remembers the last ${clock(window)}.`,
  ].filter(Boolean);
}

class StreamCard {
  constructor(item, classes, onclose) {
    Object.assign(this, {id: item.id, classes, steps: [], stop: null});
    this.canvas = h("canvas.ribbon", {role: "img", "aria-label": `Steps of ${item.name || item.id}`});
    this.now = h("div.stream-now", {}, "waiting for the first frame");
    this.bars = h("ol.bars");
    this.facts = h("p.note");
    const title = item.name || `stream ${item.id}`;
    const header = h("header", {}, h("h3", {}, title), iconButton("close", `End ${title}`, "", onclose));
    this.node = h("li.stream", {}, header, this.now, this.canvas, this.bars, this.facts);
  }

  connect() {
    this.stop ??= api.listen(`/api/streams/${encodeURIComponent(this.id)}/events`, {
      message: step => this.#step(step), step: step => this.#step(step),
    });
  }

  /** Streams that flow come first, those that wait for their client next; what has ended needs no connection. */
  get urgency() {
    return {live: 2, waiting: 1}[this.node.dataset.state] ?? 0;
  }

  disconnect() {
    this.stop?.();
    this.stop = null;
  }

  close() {
    this.disconnect();
    this.node.remove();
  }

  /** What the list says of the stream. */
  update(item) {
    const facts = [item.state, item.message, item.frames !== undefined && `${item.frames} frames`,
      item.dropped && `${item.dropped} dropped`,
      this.delay !== undefined && `${Math.round(1000 * this.delay)} ms behind`];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
    this.node.dataset.state = item.state;
    if (item.last && item.last.frame !== this.steps.at(-1)?.frame && !this.stop) this.#step(item.last);
  }

  #step(step) {
    this.delay = step.delay;
    this.steps.push(step);
    if (this.steps.length > KEPT) this.steps.shift();
    const look = this.#look(step.step);
    this.now.replaceChildren(swatch(look.colour), h("b", {}, look.name));
    this.#drawBars(step.probabilities ?? step.probability);
    requestAnimationFrame(() => this.#drawRibbon());
  }

  #look(step) {
    const found = typeof step === "number" ? this.classes.byId(step) : this.classes.get(step);
    return found ?? {name: String(step), colour: "#888888"};
  }

  /** The likeliest classes: from a number for the step itself, a list by class id, or an object by name. */
  #drawBars(probability) {
    if (probability === null || probability === undefined) return;
    const step = this.steps.at(-1).step;
    const pairs = typeof probability === "number" ? [[step, probability]]
      : Array.isArray(probability) ? probability.map((value, id) => [id, value]) : Object.entries(probability);
    const best = pairs.sort((a, b) => b[1] - a[1]).slice(0, 3);
    this.bars.replaceChildren(...best.map(([key, value]) => {
      const look = this.#look(key);
      const bar = h("i");
      bar.style.width = `${100 * value}%`;
      bar.style.background = look.colour;
      const share = `${Math.round(100 * value)} %`;
      return h("li", {}, h("span.name", {}, look.name), h("span.bar", {}, bar), h("span.value", {}, share));
    }));
  }

  #drawRibbon() {
    const {canvas, steps} = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    canvas.width = KEPT;
    canvas.height = height;
    const context = canvas.getContext("2d");
    context.fillStyle = colours().well;
    context.fillRect(0, 0, KEPT, height);
    const end = (steps.at(-1)?.frame ?? 0) + 1;
    steps.forEach((step, index) => {
      const next = steps[index + 1]?.frame ?? end;
      context.fillStyle = this.#look(step.step).colour;
      context.fillRect(KEPT - end + step.frame, 0, next - step.frame, height);
    });
  }
}
