/** Every change that can be made to the labels of the video in view, by key, button or pointer. */

import * as api from "./api.js";
import {askForClass, UNSURE} from "./classes.js";
import {clamp, clock, say} from "./dom.js";
import * as edit from "./spans.js";

const SNAP_PIXELS = 8;
const SNAP_SECONDS = 1;

/** Event "change": the selection or the stretch that is being drawn by key. */
export class Editor extends EventTarget {
  constructor({timeline, player, classes, readOnly}) {
    super();
    Object.assign(this, {timeline, player, classes, readOnly, annotation: null, begun: null});
    timeline.addEventListener("drawn", event => this.drawn(event.detail));
    timeline.addEventListener("select", event => this.select(event.detail));
    timeline.addEventListener("accept", event => this.accept(event.detail.slot, event.detail.lane));
    classes.addEventListener("choose", event => this.choose(event.detail));
    player.addEventListener("time", () => this.#grow());
  }

  open(annotation) {
    this.annotation = annotation;
    this.cancel();
  }

  get spans() {
    return this.annotation?.spans ?? [];
  }

  get slot() {
    return Math.floor(this.player.slot);
  }

  get selected() {
    return this.timeline.selected < this.spans.length ? this.timeline.selected : -1;
  }

  /** The selected stretch, or else the one at the playhead; -1 where there is none. */
  get target() {
    return this.selected >= 0 ? this.selected : edit.indexAt(this.spans, this.slot);
  }

  select(index) {
    this.timeline.selected = index;
    if (index >= 0) this.classes.use(this.spans[index].label);
    this.#told();
  }

  /** Select the stretch before (-1) or after (1) and go to its start. */
  step(direction) {
    const {slot} = this;
    const beside = direction > 0
      ? this.spans.findIndex(span => span.start > slot)
      : this.spans.findLastIndex(span => span.start < (this.selected >= 0 ? this.spans[this.selected].start : slot));
    if (beside < 0) return;
    this.player.seek(this.spans[beside].start);
    this.timeline.view.follow(this.spans[beside].start);
    this.select(beside);
  }

  /** The nearest change point or border within reach, if snapping is on; else the nearest slot. */
  snap(slot, {except = null} = {}) {
    const nearest = Math.round(slot);
    const reach = Math.min(SNAP_PIXELS * this.timeline.view.perPixel, SNAP_SECONDS * this.timeline.rate);
    const places = [...this.spans.flatMap(span => [span.start, span.stop]), 0, this.timeline.slots];
    if (this.timeline.snapping) places.push(...this.timeline.changes);
    const near = places.filter(place => place !== except && Math.abs(place - slot) <= reach);
    if (!near.length) return clamp(nearest, 0, this.timeline.slots);
    return near.reduce((best, place) => (Math.abs(place - slot) < Math.abs(best - slot) ? place : best));
  }

  /** A class was pressed: rename what is selected, or begin or end drawing at the playhead. */
  choose(label) {
    if (this.#refused()) return;
    this.classes.use(label);
    if (this.selected >= 0 && !this.begun) return this.#rename(label);
    const slot = this.snap(this.player.slot);
    const before = this.begun;
    this.#end(slot);
    if (before?.label !== label) {
      this.begun = {label, from: slot};
      this.classes.open = label;
      this.#grow();
    }
    this.classes.mark();
    this.#told();
  }

  #rename(label) {
    this.annotation.change(edit.rename(this.spans, this.selected, label));
  }

  #end(slot) {
    if (!this.begun) return;
    const [start, stop] = [this.begun.from, slot].sort((a, b) => a - b);
    const {label} = this.begun;
    this.cancel();
    this.annotation.change(edit.paint(this.spans, start, stop, label));
  }

  #grow() {
    if (!this.begun) return;
    const [start, stop] = [this.begun.from, this.player.slot].sort((a, b) => a - b);
    this.timeline.draft = {start, stop, label: this.begun.label};
    this.timeline.draw();
  }

  /** Leave what was begun, and the selection. */
  cancel() {
    this.begun = null;
    this.classes.open = null;
    this.classes.mark();
    this.timeline.draft = null;
    this.select(-1);
    this.timeline.draw();
  }

  /** A stretch was drawn by dragging. */
  async drawn({start, stop}) {
    if (stop <= start || this.#refused()) return;
    const label = this.classes.current ?? (await askForClass(this.classes, "Which class is this?"));
    if (label === null) return;
    this.annotation.change(edit.paint(this.spans, start, stop, label));
    this.select(edit.indexAt(this.spans, start));
  }

  split() {
    this.#edit(edit.splitAt(this.spans, this.slot), "Put the playhead inside a labelled segment to split it.");
  }

  merge() {
    const {target} = this;
    this.#edit(edit.mergeNext(this.spans, target), "There is no next segment to merge with.");
    this.select(target);
  }

  erase() {
    const {target} = this;
    if (target < 0) return;
    this.select(-1);
    this.#edit(edit.removeAt(this.spans, target));
  }

  /** Give a stretch a class by name, a new one too. */
  async name() {
    const {target} = this;
    if (this.#refused() || target < 0) return;
    const label = await askForClass(this.classes, "Name of this segment");
    if (label !== null) this.annotation.change(edit.rename(this.spans, target, label));
  }

  /** Put one end of a stretch at the playhead, or move it by slots. */
  border(edge, by = null) {
    const {target} = this;
    if (target < 0) return;
    const now = this.spans[target][edge];
    const place = by === null ? this.snap(this.player.slot, {except: now}) : now + by;
    this.#edit(edit.moveBorder(this.spans, target, edge, place, this.timeline.slots));
  }

  #edit(spans, otherwise = "") {
    if (this.#refused()) return;
    if (edit.same(spans, this.spans) && otherwise) return say(otherwise);
    this.annotation.change(spans);
    if (this.selected >= this.spans.length) this.select(-1);
    this.#told();
  }

  undo() {
    this.annotation?.undo();
    this.select(-1);
  }

  redo() {
    this.annotation?.redo();
    this.select(-1);
  }

  /** Predicted stretches that meet start..stop: of a lane, or of what was learned here, or of the first there is. */
  #predictions(start, stop, lane = null) {
    const lanes = this.timeline.lanes.filter(one => one.kind === "classes" && one.id !== "labels");
    const id = lane ?? (lanes.find(one => one.id === "prediction") ?? lanes[0])?.id;
    if (id === undefined) {
      say("Nothing has been predicted yet: label something and press Learn.");
      return null;
    }
    const path = `/api/videos/${this.annotation.video}/lanes/${encodeURIComponent(id)}/spans`;
    return api.get(path, {start: Math.floor(start), stop: Math.ceil(stop)}).catch(error => say(error.message));
  }

  async #predictedAt(slot, lane = null) {
    const found = await this.#predictions(slot, slot + 1, lane);
    return found?.spans[edit.indexAt(found.spans, slot)] ?? null;
  }

  /** Take over the predicted stretch at a slot. */
  async accept(slot = this.slot, lane = null) {
    if (this.#refused()) return;
    const one = await this.#predictedAt(Math.floor(slot), lane);
    if (!one) return;
    this.annotation.change(edit.paint(this.spans, one.start, one.stop, one.label));
    this.player.seek(Math.min(one.stop, this.timeline.slots - 1));
    this.timeline.view.follow(one.stop);
  }

  /** Take over what is predicted in view, where nothing is labelled. */
  async acceptView() {
    if (this.#refused()) return;
    const {from, to} = this.timeline.view;
    const found = await this.#predictions(from, to);
    if (!found) return;
    const inside = edit.apply([], found.spans).map(span => ({
      ...span, start: Math.max(span.start, Math.floor(from)), stop: Math.min(span.stop, Math.ceil(to)),
    }));
    const filled = edit.fill(this.spans, inside.filter(span => span.stop > span.start));
    const added = edit.differences(this.spans, filled).length;
    this.annotation.change(filled);
    const period = [from, to].map(slot => clock(this.timeline.start + slot / this.timeline.rate)).join(" to ");
    say(added ? `Accepted what was predicted from ${period}.` : `Nothing new was predicted from ${period}.`,
      added ? {text: "Undo", run: () => this.undo()} : null);
  }

  /** Mark the stretch, or what is predicted here, as unsure: it is neither learned from nor counted as right. */
  async unsure() {
    if (this.#refused()) return;
    const {target, slot} = this;
    const found = target >= 0 ? this.spans[target] : await this.#predictedAt(slot);
    if (!found || !(await this.classes.create(UNSURE))) return;
    this.annotation.change(edit.paint(this.spans, found.start, found.stop, UNSURE));
  }

  #refused() {
    if (!this.annotation) return true;
    if (this.readOnly) say("This folder is served read-only: labels cannot be changed.");
    return this.readOnly;
  }

  #told() {
    this.timeline.draw();
    this.dispatchEvent(new Event("change"));
  }
}
