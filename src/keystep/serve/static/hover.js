/** The card over the time line: the frame under the pointer, its time, and what is said about it. */

import * as api from "./api.js";
import {clamp, clock, find, h, later} from "./dom.js";
import {indexAt} from "./spans.js";

const WIDTH = 176;

export class HoverCard {
  constructor(timeline, classes) {
    Object.assign(this, {timeline, classes, card: find("#hover")});
    this.picture = h("img", {alt: ""});
    this.words = h("div.hover-words");
    this.card.append(this.picture, this.words);
    this.picture.addEventListener("error", () => { this.picture.hidden = true; });
    this.picture.addEventListener("load", () => { this.picture.hidden = false; });
    this.load = later(slot => this.#load(slot), 70);
    timeline.addEventListener("hover", event => this.show(event.detail));
  }

  open(item) {
    this.item = item;
    this.picture.hidden = true;
    this.picture.removeAttribute("src");
    this.show(null);
  }

  show(place) {
    this.card.hidden = !place;
    if (!place) return;
    const {timeline} = this;
    const room = timeline.canvas.clientWidth;
    this.card.style.left = `${timeline.canvas.offsetLeft + clamp(place.x - WIDTH / 2, 0, Math.max(0, room - WIDTH))}px`;
    const time = clock(timeline.start + place.slot / timeline.rate, 1);
    this.words.replaceChildren(h("b", {}, time), ...this.#said(place.slot));
    if (this.item.has_video) this.load(Math.floor(place.slot));
  }

  /** The label, and each lane's word on this slot. */
  #said(slot) {
    const {timeline, classes} = this;
    const label = timeline.annotation.spans[indexAt(timeline.annotation.spans, slot)]?.label;
    const lines = [["Label", label ?? "none", classes.get(label)?.colour]];
    for (const lane of timeline.lanes) {
      if (lane.id === "labels" || lane.kind === "colour") continue;
      const value = timeline.tiles.value(lane, slot);
      if (value === null) continue;
      const one = lane.kind === "classes" ? classes.byId(value) : null;
      const text = lane.kind === "level" ? `${Math.round(100 * value)} %` : one?.name ?? "none";
      lines.push([lane.title, text, one?.colour]);
    }
    return lines.map(([title, text, colour]) => {
      const dot = h("i");
      if (colour) dot.style.background = colour;
      return h("span", {}, dot, h("em", {}, title), h("span.name", {}, text));
    });
  }

  #load(slot) {
    if (this.card.hidden) return;
    this.picture.src = api.address(`/api/videos/${this.item.id}/thumbnail`, {slot, height: 108});
  }
}
