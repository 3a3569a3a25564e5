/** "Find moments like this": the nearest moments of all videos, as a grid of cards that play and open. */

import * as api from "./api.js";
import {clock, find, h} from "./dom.js";

const COUNT = 24;
const RETRY = 1500; // milliseconds while the index is built

/** Event "open" (detail: {video, slot, start, stop}). */
export class Moments extends EventTarget {
  #turn = 0;

  constructor() {
    super();
    Object.assign(this, {grid: find("#moments"), note: find("#moments-note"), playing: null});
  }

  async find(item, slot, timeline) {
    const turn = ++this.#turn;
    this.timeline = timeline;
    const asked = clock(timeline.start + slot / timeline.rate, 1);
    this.grid.replaceChildren();
    this.note.textContent = `Looking for moments like ${item.name} at ${asked}…`;
    for (;;) {
      try {
        const {items, exact} = await api.get("/api/moments", {video: item.id, slot, count: COUNT});
        if (turn !== this.#turn) return;
        this.grid.replaceChildren(...items.map(one => this.#card(one)));
        const how = exact ? "" : " (approximate search)";
        const found = `Like ${item.name} at ${asked}, nearest first${how}.`;
        this.note.textContent = items.length ? found : "Nothing alike was found.";
        return;
      } catch (error) {
        if (turn !== this.#turn) return;
        this.note.textContent = error.status === 404 ? "This server cannot search for moments yet." : error.message;
        if (error.status !== 503) return;
        const share = error.body.progress;
        if (share !== undefined) this.note.textContent += ` ${Math.round(100 * share)} %`;
      }
      await new Promise(resolve => { setTimeout(resolve, RETRY); });
      if (turn !== this.#turn) return;
    }
  }

  #card(one) {
    const {start, rate} = this.timeline;
    const picture = h("img", {alt: "", loading: "lazy", src: this.#thumbnail(one, one.slot)});
    const holder = h("span.moment-picture", {}, picture);
    const draw = () => this.#ribbon(one).then(ribbon => picture.replaceWith(ribbon), () => {});
    picture.addEventListener("error", draw, {once: true});
    const open = () => this.dispatchEvent(new CustomEvent("open", {detail: one}));
    const card = h("button.moment", {type: "button", onclick: open, title: `${one.name}: open here`}, holder,
      h("span.video-name", {}, one.name),
      h("span.video-facts", {}, clock(start + one.slot / rate, 1), h("span", {}, one.score.toFixed(2))));
    for (const kind of ["pointerenter", "focus"]) card.addEventListener(kind, () => this.#play(one, picture));
    for (const kind of ["pointerleave", "blur"]) card.addEventListener(kind, () => this.#stop());
    return h("li", {}, card);
  }

  /** The colours of the representation, for a moment without a recording. */
  async #ribbon(one) {
    const {video, start, stop} = one;
    const width = stop - start;
    const colours = new Uint8Array(await api.bytes(`/api/videos/${video}/lanes/colour`, {start, stop, width}));
    const canvas = h("canvas", {width, height: 1});
    const context = canvas.getContext("2d");
    for (let column = 0; column < width; column++) {
      context.fillStyle = `rgb(${colours.subarray(3 * column, 3 * column + 3).join()})`;
      context.fillRect(column, 0, 1, 1);
    }
    return canvas;
  }

  #thumbnail(one, slot) {
    return api.address(`/api/videos/${one.video}/thumbnail`, {slot: Math.round(slot), height: 120});
  }

  /** Let the moment run in its picture: eight frames from its start to its end, over and over. */
  #play(one, picture) {
    this.#stop();
    let frame = 0;
    const step = Math.max(1, (one.stop - one.start) / 8);
    const next = () => {
      const slot = one.start + (frame++ % 8) * step;
      const film = new Image();
      film.onload = () => { if (this.playing === timer) picture.src = film.src; };
      film.src = this.#thumbnail(one, Math.min(slot, one.stop - 1));
    };
    const timer = setInterval(next, 250);
    this.playing = timer;
  }

  #stop() {
    clearInterval(this.playing);
    this.playing = null;
  }
}
