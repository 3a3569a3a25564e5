/** The time line: one canvas with a ruler, the labels, a row for each lane, and the whole video beneath. */

import {clamp, clock, eachFrame, h} from "./dom.js";
import * as paint from "./paint.js";
import {View} from "./view.js";

const RULER = 22;
const GAP = 3;
const HEIGHTS = {labels: 44, classes: 26, level: 26, colour: 18, overview: 22};

/** Events: "seek" (detail: slot) by the slider's own keys; gestures.js adds the pointer's. */
export class Timeline extends EventTarget {
  constructor(canvas, headings, classes) {
    super();
    Object.assign(this, {canvas, headings, classes, view: new View(), rows: [], tiles: null, annotation: null});
    Object.assign(this, {playhead: 0, selected: -1, hover: null, draft: null, changes: [], snapping: true});
    this.context = canvas.getContext("2d");
    this.draw = eachFrame(() => this.#draw());
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
    this.view.addEventListener("change", this.draw);
    classes.addEventListener("change", () => { this.tiles?.recolour(); this.draw(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    this.recolour();
  }

  /** Show another video. */
  open({item, rate, start, lanes, tiles, annotation}) {
    this.tiles?.close();
    Object.assign(this, {rate, start, slots: item.slots, tiles, annotation, lanes});
    Object.assign(this, {selected: -1, draft: null, changes: []});
    tiles.addEventListener("tile", this.draw);
    this.#layOut();
    this.view.open(item.slots);
    this.#resize();
    this.setPlayhead(0);
  }

  /** Show other lanes of the same video. */
  setLanes(lanes) {
    this.lanes = lanes;
    this.#layOut();
    this.#resize();
  }

  recolour() {
    this.colour = paint.colours();
    this.draw();
  }

  /** Rows from top to bottom: {id, kind, title, top, height, lane}. */
  #layOut() {
    let top = RULER + GAP;
    const row = (id, kind, title, lane = null) => {
      const made = {id, kind, title, top, height: HEIGHTS[kind], lane};
      top += HEIGHTS[kind] + GAP;
      return made;
    };
    const drawn = this.lanes.filter(lane => lane.id !== "labels");
    this.rows = [row("labels", "labels", "Labels"), ...drawn.map(lane => row(lane.id, lane.kind, lane.title, lane))];
    top += GAP;
    this.rows.push(row("overview", "overview", "Whole video"));
    this.height = top;
    this.headings.replaceChildren(...this.rows.map(one => {
      const heading = h("span", {title: one.title}, one.title);
      heading.style.top = `${one.top}px`;
      heading.style.lineHeight = `${one.height}px`;
      return heading;
    }));
  }

  rowAt(y) {
    if (y < RULER) return {id: "ruler", kind: "ruler"};
    return this.rows.find(row => y >= row.top - GAP / 2 && y < row.top + row.height + GAP / 2) ?? null;
  }

  get labelsRow() {
    return this.rows[0];
  }

  setPlayhead(slot) {
    this.playhead = clamp(slot, 0, this.slots);
    this.canvas.setAttribute("aria-valuenow", String(Math.floor(this.playhead)));
    this.canvas.setAttribute("aria-valuemax", String(this.slots));
    this.canvas.setAttribute("aria-valuetext", this.#inWords(this.playhead));
    this.draw();
  }

  #inWords(slot) {
    const at = this.annotation.spans.find(span => span.start <= slot && slot < span.stop);
    const whole = clock(this.start + this.slots / this.rate);
    return `${clock(this.start + slot / this.rate, 1)} of ${whole}, ${at ? at.label : "no label"}`;
  }

  #resize() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width || !this.tiles) return;
    this.density = devicePixelRatio || 1;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * this.density);
    this.canvas.height = Math.round(this.height * this.density);
    this.headings.style.height = `${this.height}px`;
    this.view.resize(width);
    this.draw();
  }

  #draw() {
    if (!this.tiles || !this.density) return;
    const {context, view, colour} = this;
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, view.width, this.height);
    context.imageSmoothingEnabled = false;
    paint.ruler(context, {view, rate: this.rate, start: this.start, top: 0, height: RULER, colour});
    for (const row of this.rows) this.#drawRow(row);
    this.#drawCursor();
  }

  #drawRow(row) {
    const {context, view, classes, colour, tiles, density} = this;
    const place = {view, classes, colour, tiles, density, top: row.top, height: row.height};
    if (row.kind === "overview") {
      paint.overview(context, this.annotation.current, place);
      const x = (this.playhead / view.slots) * view.width;
      paint.line(context, x, {top: row.top, height: row.height, colour: colour.accent, width: 2});
      return;
    }
    context.fillStyle = colour.well;
    context.fillRect(0, row.top, view.width, row.height);
    if (row.kind !== "labels") return paint.lane(context, row.lane, place);
    paint.spans(context, this.annotation.current, {...place, selected: this.selected});
    if (this.draft) paint.spans(context, [this.draft], {...place, alpha: 0.6});
    const foot = {...place, top: row.top + row.height - 5, height: 5};
    if (this.snapping) paint.ticks(context, this.#visibleChanges(), foot);
  }

  #visibleChanges() {
    return this.changes.filter(slot => slot >= this.view.from && slot <= this.view.to);
  }

  #drawCursor() {
    const {context, view, colour} = this;
    const height = this.rows.at(-1).top - GAP;
    if (this.hover !== null) paint.line(context, view.xOf(this.hover), {top: 0, height, colour: colour.soft});
    const x = view.xOf(this.playhead);
    if (x < -8 || x > view.width + 8) return;
    paint.line(context, x, {top: 0, height, colour: colour.accent, width: 2});
    context.beginPath();
    context.moveTo(x - 6, 0);
    context.lineTo(x + 6, 0);
    context.lineTo(x, 8);
    context.fill();
  }
}
