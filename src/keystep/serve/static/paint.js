/** How the time line looks: each function draws one thing on a canvas and keeps nothing. */

import {UNSURE} from "./classes.js";
import {clock} from "./dom.js";
import {Tiles} from "./tiles.js";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400]; // seconds
const FONT = "system-ui, sans-serif";

/** The page's colours as a canvas needs them. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "soft", "line", "card", "well", "accent", "mark"];
  return Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export function ruler(context, {view, rate, start, top, height, colour}) {
  const seconds = view.perPixel / rate;
  const step = STEPS.find(each => each / seconds >= 72) ?? STEPS.at(-1);
  const digits = step < 1 ? 1 : 0;
  context.font = `11px ${FONT}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const first = Math.floor((start + view.from / rate) / step) * step;
  for (let time = first; time <= start + view.to / rate; time += step) {
    const x = Math.round(view.xOf((time - start) * rate)) + 0.5;
    context.fillStyle = colour.line;
    context.fillRect(x - 0.5, top, 1, height);
    context.fillStyle = colour.soft;
    context.fillText(clock(time + 1e-6, digits), x + 4, top + height / 2 + 0.5);
  }
}

export function spans(context, list, {view, classes, top, height, colour, selected = -1, alpha = 1, names = true}) {
  context.globalAlpha = alpha;
  context.textBaseline = "middle";
  context.font = `12px ${FONT}`;
  for (let index = 0; index < list.length; index++) {
    const span = list[index];
    if (span.stop <= view.from || span.start >= view.to) continue;
    const [left, right] = [view.xOf(span.start), view.xOf(span.stop)];
    const width = Math.max(1, right - left - (right - left > 4 ? 1 : 0));
    const look = classes.get(span.label);
    context.fillStyle = span.label === UNSURE ? hatching(context, colour) : look?.colour ?? colour.soft;
    box(context, left, top, width, height);
    const ink = span.label === UNSURE ? colour.ink : look?.ink ?? colour.paper;
    if (names) word(context, span.label, {left, width, top, height, ink, view});
    if (index === selected) frame(context, {left, width, top, height, colour});
  }
  context.globalAlpha = 1;
}

/** Stripes, for what nobody should learn from. */
function hatching(context, colour) {
  const tile = new OffscreenCanvas(8, 8);
  const pen = tile.getContext("2d");
  pen.fillStyle = colour.line;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = colour.paper;
  pen.lineWidth = 2.5;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(shift - 1, 9);
    pen.lineTo(shift + 9, -1);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

function box(context, left, top, width, height) {
  context.beginPath();
  context.roundRect(left, top, width, height, Math.min(3, width / 3));
  context.fill();
}

function word(context, text, {left, width, top, height, ink, view}) {
  const from = Math.max(left, 0) + 5;
  const room = Math.min(left + width, view.width) - from - 4;
  if (room < 16) return;
  const shown = shortened(context, text, room);
  if (!shown) return;
  context.fillStyle = ink;
  context.textAlign = "left";
  context.fillText(shown, from, top + height / 2 + 0.5);
}

function shortened(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  const letters = Math.floor((text.length * room) / context.measureText(text).width) - 1;
  return letters < 2 ? "" : `${text.slice(0, letters)}…`;
}

function frame(context, {left, width, top, height, colour}) {
  context.strokeStyle = colour.paper;
  context.lineWidth = 4;
  context.strokeRect(left + 1, top + 1, Math.max(0, width - 2), height - 2);
  context.strokeStyle = colour.ink;
  context.lineWidth = 2;
  context.strokeRect(left + 1, top + 1, Math.max(0, width - 2), height - 2);
  context.fillStyle = colour.ink;
  for (const x of [left - 1.5, left + width - 1.5]) box(context, x, top + height / 4, 4, height / 2);
}

/** A lane of tiles: colours as a ribbon, levels as a filled curve. */
export function lane(context, one, {view, tiles, classes, top, height, colour, density}) {
  const level = Tiles.level(view.perPixel / density);
  for (const {tile, start, stop} of tiles.cover(one, view.from, view.to, level)) {
    const [left, right] = [view.xOf(start), view.xOf(stop)];
    if (!tile) {
      context.fillStyle = colour.well;
      context.fillRect(left, top, right - left, height);
    } else if (one.kind === "level") curve(context, tile, {view, start, stop, top, height, colour});
    else {
      const perSlot = tile.width / (tile.stop - tile.start);
      const source = [(start - tile.start) * perSlot, (stop - start) * perSlot];
      context.drawImage(tiles.image(one, tile), source[0], 0, source[1], 1, left, top, right - left, height);
      if (one.kind === "classes") runNames(context, tile, {view, classes, start, stop, top, height});
    }
  }
}

/** Names on the runs of a ribbon that are wide enough. */
function runNames(context, tile, {view, classes, start, stop, top, height}) {
  context.textBaseline = "middle";
  context.font = `12px ${FONT}`;
  const perColumn = (tile.stop - tile.start) / tile.width;
  const place = column => view.xOf(tile.start + column * perColumn);
  const first = Math.max(0, Math.floor((Math.max(start, view.from) - tile.start) / perColumn));
  const last = Math.min(tile.width, Math.ceil((Math.min(stop, view.to) - tile.start) / perColumn));
  for (let column = first, begun = first; column < last; column++) {
    if (column + 1 < last && tile.data[column + 1] === tile.data[begun]) continue;
    const look = classes.byId(tile.data[begun]);
    const left = place(begun);
    if (look) word(context, look.name, {left, width: place(column + 1) - left, top, height, ink: look.ink, view});
    begun = column + 1;
  }
}

function curve(context, tile, {view, start, stop, top, height, colour}) {
  const perSlot = tile.width / (tile.stop - tile.start);
  const column = slot => (slot - tile.start) * perSlot;
  const first = Math.max(0, Math.floor(column(Math.max(start, view.from))));
  const last = Math.min(tile.width, Math.ceil(column(Math.min(stop, view.to))));
  const x = place => view.xOf(tile.start + place / perSlot);
  const y = place => top + height - 1 - (tile.data[place] / 255) * (height - 2);
  context.beginPath();
  context.moveTo(x(first), top + height);
  for (let place = first; place < last; place++) {
    context.lineTo(x(place), y(place));
    context.lineTo(x(place + 1), y(place));
  }
  context.lineTo(x(last), top + height);
  context.closePath();
  context.fillStyle = colour.mark;
  context.fill();
}

export function ticks(context, slots, {view, top, height, colour}) {
  const pixels = new Set(slots.map(slot => Math.round(view.xOf(slot))));
  if (pixels.size > view.width / 6 && slots.length > 1) return;
  context.fillStyle = colour.ink;
  for (const x of pixels) context.fillRect(x, top, 1, height);
}

export function line(context, x, {top, height, colour, width = 1}) {
  context.fillStyle = colour;
  context.fillRect(Math.round(x) - width / 2, top, width, height);
}

/** Where the view lies in the whole video. */
export function overview(context, list, {view, classes, top, height, colour}) {
  const whole = {from: 0, to: view.slots, width: view.width, xOf: slot => (slot / view.slots) * view.width};
  context.fillStyle = colour.well;
  box(context, 0, top, view.width, height);
  spans(context, list, {view: whole, classes, top: top + 2, height: height - 4, colour, names: false});
  if (view.isWhole) return;
  const [left, right] = [whole.xOf(view.from), Math.max(whole.xOf(view.to), whole.xOf(view.from) + 6)];
  context.fillStyle = colour.paper;
  context.globalAlpha = 0.65;
  context.fillRect(0, top, left, height);
  context.fillRect(right, top, view.width - right, height);
  context.globalAlpha = 1;
  context.strokeStyle = colour.ink;
  context.lineWidth = 1.5;
  context.beginPath();
  context.roundRect(left + 0.75, top + 0.75, right - left - 1.5, height - 1.5, 3);
  context.stroke();
}
