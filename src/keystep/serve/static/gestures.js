/** What a mouse, a pen or fingers do on the time line. */

import {clamp} from "./dom.js";
import {indexAt, moveBorder} from "./spans.js";

const NEAR = {mouse: 5, pen: 8, touch: 14}; // pixels around a border
const STILL = 4; // pixels that do not count as a drag

/**
 * Events on the time line: "seek" (detail: slot), "hover" (detail: {slot, x, row} or null), "select" (detail: index),
 * "drawn" (detail: {start, stop}), "accept" (detail: {slot, lane}). Borders are moved here.
 */
export class Gestures {
  #fingers = new Map();
  #drag = null;

  constructor(timeline, editor) {
    Object.assign(this, {timeline, editor, canvas: timeline.canvas, view: timeline.view});
    const on = (kind, handle, options) => this.canvas.addEventListener(kind, handle.bind(this), options);
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.cancel);
    on("pointerleave", () => this.#hover(null));
    on("dblclick", this.doubled);
    on("wheel", this.wheel, {passive: false});
    addEventListener("keydown", event => {
      if (event.key === "Escape" && this.#drag) { event.stopImmediatePropagation(); this.cancel(); }
    }, {capture: true});
  }

  #tell(kind, detail) {
    this.timeline.dispatchEvent(new CustomEvent(kind, {detail}));
  }

  #slot(x) {
    return clamp(this.view.slotOf(x), 0, this.timeline.slots);
  }

  /** The nearest end of a labelled stretch: {index, edge}, or null. */
  #borderAt(x, kind) {
    if (this.editor.readOnly) return null;
    const {spans} = this.timeline.annotation;
    const reach = NEAR[kind] ?? NEAR.mouse;
    const [low, high] = [this.view.slotOf(x - reach), this.view.slotOf(x + reach)];
    let best = null;
    spans.forEach((span, index) => {
      if (kind === "touch" && index !== this.timeline.selected) return;
      for (const edge of ["start", "stop"]) {
        if (span[edge] < low || span[edge] > high) continue;
        const chosen = index === this.timeline.selected ? -0.5 : 0;
        const far = Math.abs(this.view.xOf(span[edge]) - x) + chosen;
        if (!best || far < best.far) best = {index, edge, far};
      }
    });
    return best;
  }

  down(event) {
    if (!this.timeline.tiles || event.button > 1) return;
    const {offsetX: x, offsetY: y, pointerType: kind} = event;
    this.canvas.focus({preventScroll: true});
    this.canvas.setPointerCapture(event.pointerId);
    this.#fingers.set(event.pointerId, x);
    if (this.#fingers.size === 2) return this.#startPinch();
    const row = this.timeline.rowAt(y);
    const border = row?.id === "labels" && event.button === 0 ? this.#borderAt(x, kind) : null;
    const base = {row, kind, from: x, last: x, spans: this.timeline.annotation.spans, moved: false};
    if (row?.id === "overview") this.#drag = {...base, does: "overview"};
    else if (border) this.#drag = {...base, does: "border", ...border};
    else if (event.button === 1 || event.shiftKey || kind === "touch") this.#drag = {...base, does: "pan"};
    else if (row?.id === "labels" && !this.editor.readOnly) this.#drag = {...base, does: "draw"};
    else this.#drag = {...base, does: "scrub"};
    if (["overview", "scrub"].includes(this.#drag.does)) this.move(event);
    event.preventDefault();
  }

  #startPinch() {
    this.timeline.annotation.preview(null);
    this.timeline.draft = null;
    this.#drag = {does: "pinch", row: null, moved: true, ...this.#spread()};
  }

  #spread() {
    const [first, second] = [...this.#fingers.values()];
    return {centre: (first + second) / 2, apart: Math.max(10, Math.abs(first - second))};
  }

  move(event) {
    if (!this.timeline.tiles) return;
    const {offsetX: x, offsetY: y} = event;
    if (this.#fingers.has(event.pointerId)) this.#fingers.set(event.pointerId, x);
    const drag = this.#drag;
    if (!drag) return this.#pointed(x, y, event.pointerType);
    if (Math.abs(x - drag.from) > STILL) drag.moved = true;
    this[`_${drag.does}`]?.(drag, x);
    drag.last = x;
  }

  #pointed(x, y, kind) {
    const row = this.timeline.rowAt(y);
    const border = row?.id === "labels" ? this.#borderAt(x, kind) : null;
    const draws = row?.id === "labels" && !this.editor.readOnly;
    this.canvas.style.cursor = border ? "ew-resize" : draws ? "crosshair" : "pointer";
    if (kind !== "touch") this.#hover(row && row.id !== "overview" ? {slot: this.#slot(x), x, row} : null);
  }

  #hover(detail) {
    this.timeline.hover = detail?.slot ?? null;
    this.timeline.draw();
    this.#tell("hover", detail);
  }

  _pan(drag, x) {
    if (drag.moved) this.view.pan(drag.last - x);
  }

  _pinch(drag) {
    const now = this.#spread();
    this.view.pan(drag.centre - now.centre);
    this.view.zoom(drag.apart / now.apart, now.centre);
    Object.assign(drag, now);
  }

  _overview(drag, x) {
    const slot = (x / this.view.width) * this.timeline.slots;
    if (this.view.isWhole) this.#tell("seek", slot);
    else this.view.centre(slot);
  }

  _scrub(drag, x) {
    this.#tell("seek", this.#slot(x));
    this.#hover({slot: this.#slot(x), x, row: drag.row});
  }

  _border(drag, x) {
    if (!drag.moved) return;
    const slot = this.editor.snap(this.#slot(x), {except: drag.spans[drag.index][drag.edge]});
    const {annotation, slots} = this.timeline;
    annotation.preview(moveBorder(drag.spans, drag.index, drag.edge, slot, slots));
    const at = annotation.current[drag.index][drag.edge];
    this.#hover({slot: at, x: this.view.xOf(at), row: drag.row});
  }

  _draw(drag, x) {
    if (!drag.moved) return;
    const ends = [this.editor.snap(this.#slot(drag.from)), this.editor.snap(this.#slot(x))].sort((a, b) => a - b);
    drag.ends = ends;
    this.timeline.draft = {start: ends[0], stop: ends[1], label: this.editor.classes.current ?? ""};
    this.#hover({slot: this.#slot(x), x, row: drag.row});
  }

  up(event) {
    this.#fingers.delete(event.pointerId);
    const drag = this.#drag;
    this.#drag = null;
    this.timeline.draft = null;
    if (!drag) return;
    if (drag.does === "border" && drag.moved) this.timeline.annotation.change(this.timeline.annotation.current);
    else if (drag.ends) this.#tell("drawn", {start: drag.ends[0], stop: drag.ends[1]});
    else if (!drag.moved && drag.does !== "overview") this.#clicked(drag);
    this.timeline.draw();
  }

  #clicked(drag) {
    const slot = this.#slot(drag.from);
    if (drag.row?.id === "labels") this.#tell("select", indexAt(this.timeline.annotation.spans, slot));
    if (drag.does !== "scrub") this.#tell("seek", slot);
  }

  cancel() {
    this.#fingers.clear();
    this.#drag = null;
    this.timeline.draft = null;
    this.timeline.annotation.preview(null);
  }

  doubled(event) {
    const row = this.timeline.rowAt(event.offsetY);
    if (row?.lane?.kind === "classes") this.#tell("accept", {slot: this.#slot(event.offsetX), lane: row.lane.id});
    else if (row?.id === "overview") this.view.fit();
  }

  wheel(event) {
    if (!this.timeline.tiles) return;
    const unit = event.deltaMode === 1 ? 16 : 1;
    const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (Math.abs(sideways) > Math.abs(event.deltaY) || event.shiftKey) this.view.pan(sideways * unit);
    else if (event.deltaY > 0 && this.view.isWhole && !event.ctrlKey) return; // let the page scroll
    else this.view.zoom(Math.exp(event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.002)), event.offsetX);
    event.preventDefault();
  }
}

