/** The same slots were changed in two windows: both are shown, and one is chosen. Undo brings mine back. */

import {clock, find, h} from "./dom.js";
import * as paint from "./paint.js";
import {differences, fill} from "./spans.js";

export function showConflict(annotation, timeline) {
  const dialog = find("#conflict");
  const {theirs} = annotation;
  const changes = differences(theirs.spans, annotation.spans);
  const time = slot => clock(timeline.start + slot / timeline.rate, 1);
  find("#conflict-where").replaceChildren(...changes.slice(0, 8).map(({start, stop, label}) => {
    const other = theirs.spans.find(span => span.start <= start && start < span.stop);
    return h("tr", {}, h("td", {}, `${time(start)}–${time(stop)}`), h("td", {}, label ?? "no label"),
      h("td", {}, other?.label ?? "no label"));
  }));
  find("#conflict-more").textContent = changes.length > 8 ? `and ${changes.length - 8} more` : "";
  const outcomes = {
    mine: () => annotation.spans,
    theirs: () => theirs.spans,
    both: () => fill(annotation.spans, theirs.spans),
  };
  dialog.onclose = () => {
    const chosen = outcomes[dialog.returnValue];
    if (chosen && annotation.theirs === theirs) annotation.settle(chosen());
  };
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  const drawn = [["#conflict-mine", annotation.spans], ["#conflict-theirs", theirs.spans]];
  for (const [selector, spans] of drawn) strip(find(selector), spans, changes, timeline);
}

/** A ribbon of a whole video, with a mark under what differs. */
function strip(canvas, spans, changes, timeline) {
  const [width, height, density] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio || 1];
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  const view = {from: 0, to: timeline.slots, width, xOf: slot => (slot / timeline.slots) * width};
  const {classes, colour} = timeline;
  context.fillStyle = colour.well;
  context.fillRect(0, 0, width, height);
  paint.spans(context, spans, {view, classes, top: 0, height: height - 6, colour});
  context.fillStyle = colour.accent;
  for (const {start, stop} of changes) {
    context.fillRect(view.xOf(start), height - 4, Math.max(2, view.xOf(stop) - view.xOf(start)), 4);
  }
}
