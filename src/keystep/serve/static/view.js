/** Which part of a video the time line shows: slots <-> pixels, zoom and pan. */

import {clamp} from "./dom.js";

const NEAREST = 64; // pixels of a slot at the deepest zoom

/** Event "change". */
export class View extends EventTarget {
  constructor() {
    super();
    Object.assign(this, {slots: 1, width: 1, from: 0, perPixel: 1});
  }

  /** Begin with a whole video. */
  open(slots) {
    this.slots = slots;
    this.fit();
  }

  resize(width) {
    const whole = this.isWhole;
    this.width = Math.max(1, width);
    if (whole) this.fit();
    else this.#set(this.from, this.perPixel);
  }

  get to() {
    return Math.min(this.slots, this.from + this.width * this.perPixel);
  }

  get isWhole() {
    return this.perPixel >= this.slots / this.width - 1e-9;
  }

  xOf(slot) {
    return (slot - this.from) / this.perPixel;
  }

  slotOf(x) {
    return this.from + x * this.perPixel;
  }

  fit() {
    this.#set(0, this.slots / this.width);
  }

  /** Show start..stop with some room around it. */
  show(start, stop) {
    const room = 0.15 * (stop - start) + 1;
    this.#set(start - room, (stop - start + 2 * room) / this.width);
  }

  /** Zoom by a factor (below 1: closer) around a pixel. */
  zoom(factor, x = this.width / 2) {
    const slot = this.slotOf(x);
    const perPixel = this.#clamped(this.perPixel * factor);
    this.#set(slot - x * perPixel, perPixel);
  }

  pan(pixels) {
    this.#set(this.from + pixels * this.perPixel, this.perPixel);
  }

  centre(slot) {
    this.#set(slot - (this.width * this.perPixel) / 2, this.perPixel);
  }

  /** Turn the page when a slot has left the view. */
  follow(slot) {
    if (slot < this.from || slot > this.to) this.#set(slot - 0.05 * this.width * this.perPixel, this.perPixel);
  }

  #clamped(perPixel) {
    const whole = this.slots / this.width;
    return clamp(perPixel, Math.min(1 / NEAREST, whole), whole);
  }

  #set(from, perPixel) {
    this.perPixel = this.#clamped(perPixel);
    this.from = clamp(from, 0, Math.max(0, this.slots - this.width * this.perPixel));
    this.dispatchEvent(new Event("change"));
  }
}
