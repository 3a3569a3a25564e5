/** The self-similarity of what the time line shows, as a picture that seeks. */

import * as api from "./api.js";
import {clock, eachFrame, find, later} from "./dom.js";

const LARGEST = 512;

export class Similarity {
  #turn = 0;

  constructor(timeline, player) {
    Object.assign(this, {timeline, player, canvas: find("#similarity"), note: find("#similarity-note")});
    this.context = this.canvas.getContext("2d");
    this.picture = null;
    this.draw = eachFrame(() => this.#draw());
    this.load = later(() => this.#load(), 250);
    timeline.view.addEventListener("change", this.load);
    player.addEventListener("time", this.draw);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointerdown", event => this.#seek(event.offsetX));
    this.canvas.addEventListener("dblclick", event => this.#seek(event.offsetY));
    this.canvas.addEventListener("pointermove", event => {
      if (event.buttons) this.#seek(event.offsetX);
      this.#tell(event);
    });
  }

  open(item) {
    this.item = item;
    this.picture = null;
    this.load();
    this.draw();
  }

  get #visible() {
    return this.canvas.offsetParent !== null;
  }

  async #load() {
    if (!this.item || !this.#visible) return;
    const turn = ++this.#turn;
    const [start, stop] = [Math.floor(this.timeline.view.from), Math.ceil(this.timeline.view.to)];
    const size = Math.max(2, Math.min(LARGEST, stop - start, Math.round(this.canvas.clientWidth * devicePixelRatio)));
    try {
      const found = await api.blob(`/api/videos/${this.item.id}/similarity`, {start, stop, size});
      const picture = await createImageBitmap(found);
      if (turn !== this.#turn) return;
      Object.assign(this, {picture, from: start, to: stop});
      this.note.textContent = "Click to seek; double-click goes to the row's moment.";
    } catch (error) {
      this.note.textContent = error.message;
    }
    this.draw();
  }

  #draw() {
    const {canvas, context, picture} = this;
    const side = canvas.clientWidth;
    if (!side) return;
    const density = devicePixelRatio || 1;
    const pixels = Math.round(side * density);
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, side, side);
    if (!picture) return;
    context.imageSmoothingEnabled = picture.width > side;
    context.drawImage(picture, 0, 0, side, side);
    const place = ((this.player.slot - this.from) / (this.to - this.from)) * side;
    context.fillStyle = this.timeline.colour.accent;
    context.fillRect(place - 0.75, 0, 1.5, side);
    context.fillRect(0, place - 0.75, side, 1.5);
  }

  #slot(pixel) {
    return this.from + (pixel / this.canvas.clientWidth) * (this.to - this.from);
  }

  #seek(pixel) {
    if (this.picture) this.player.seek(this.#slot(pixel));
  }

  #tell(event) {
    if (!this.picture) return;
    const {start, rate} = this.timeline;
    const [column, row] = [event.offsetX, event.offsetY].map(pixel => clock(start + this.#slot(pixel) / rate, 1));
    this.note.textContent = `${column} against ${row}`;
  }
}
