/** All keys, once: what they do, and what the help says of them. */

import {find, h} from "./dom.js";

/**
 * The commands. `key` is what the keyboard reports ("mod+" is Ctrl or Cmd); several are separated by spaces, and the
 * help shows `shown` where that reads better. Letters here are those that classes.js leaves free.
 */
export function commands({player, timeline, editor, classes, actions}) {
  const {view} = timeline;
  const second = () => timeline.rate;
  const move = slots => () => {
    player.seek(player.slot + slots());
    view.follow(player.slot);
  };
  const to = slot => () => { player.seek(slot()); view.follow(player.slot); };
  return [
    ["Move", [
      ["Space", "Space", "play or pause", () => player.toggle()],
      ["ArrowLeft ArrowRight", "← →", "one slot back or on", move(() => -1), move(() => 1)],
      ["shift+ArrowLeft shift+ArrowRight", "Shift ← →", "one second back or on",
        move(() => -second()), move(second)],
      ["mod+ArrowLeft mod+ArrowRight", "Ctrl ← →", "to the border or change point before or after",
        to(() => neighbour(editor, timeline, -1)), to(() => neighbour(editor, timeline, 1))],
      ["ArrowUp ArrowDown", "↑ ↓", "select the segment before or after",
        () => editor.step(-1), () => editor.step(1)],
      ["Home End", "Home End", "to the start or the end", to(() => 0), to(() => timeline.slots)],
      ["< >", "< >", "slower or faster", () => player.faster(-1), () => player.faster(1)],
      ["PageUp PageDown", "PageUp PageDown", "the video before or after",
        () => actions.beside(-1), () => actions.beside(1)],
    ]],
    ["Look", [
      ["+ -", "+ −", "zoom in or out at the playhead",
        () => view.zoom(0.5, playheadX(view, player)), () => view.zoom(2, playheadX(view, player))],
      ["w", "W", "the whole video", () => view.fit()],
      ["z", "Z", "zoom to the selected segment", () => zoomTo(editor, view)],
      ["f", "F", "find moments like this", actions.findMoments],
      ["/", "/", "search videos", () => find("#search").focus()],
      ["?", "?", "this help", actions.help],
    ]],
    ["Label", [
      [null, "1 2 3 …", "a class's key: begin at the playhead; again: end; another class: end and begin. "
        + "With a segment selected: rename it"],
      ["Escape", "Esc", "leave what was begun, or the selection", () => editor.cancel()],
      ["n", "N", "a new class", () => classes.focusForm()],
      ["Enter", "Enter", "name a segment, with a new class too", () => editor.name()],
      ["i o", "I O", "begin or end the segment at the playhead",
        () => editor.border("start"), () => editor.border("stop")],
      ["alt+ArrowLeft alt+ArrowRight", "Alt ← →", "move its start by a slot",
        () => editor.border("start", -1), () => editor.border("start", 1)],
      ["alt+shift+ArrowLeft alt+shift+ArrowRight", "Alt Shift ← →", "move its end by a slot",
        () => editor.border("stop", -1), () => editor.border("stop", 1)],
      ["s m", "S M", "split at the playhead; merge with the next", () => editor.split(), () => editor.merge()],
      ["Delete Backspace", "Delete", "remove the label", () => editor.erase(), () => editor.erase()],
      ["x", "X", "snap to change points, or not", actions.toggleSnap],
      ["mod+z mod+shift+z mod+y", "Ctrl Z, Ctrl Y", "undo, redo",
        () => editor.undo(), () => editor.redo(), () => editor.redo()],
    ]],
    ["Learn", [
      ["a shift+A", "A, Shift A", "accept the prediction here, or all in view where nothing is labelled",
        () => editor.accept(), () => editor.acceptView()],
      ["u", "U", "mark as unsure: not learned from", () => editor.unsure()],
      ["l", "L", "learn from what is labelled, or cancel", actions.learn],
      ["j", "J", "go to what is worth labelling next", actions.next],
    ]],
  ];
}

const playheadX = (view, player) => {
  const x = view.xOf(player.slot);
  return x < 0 || x > view.width ? view.width / 2 : x;
};

function zoomTo(editor, view) {
  const span = editor.spans[editor.target];
  if (span) view.show(span.start, span.stop);
}

function neighbour(editor, timeline, direction) {
  const places = [...timeline.changes, ...editor.spans.flatMap(span => [span.start, span.stop])];
  const {slot} = editor;
  if (direction > 0) return Math.min(timeline.slots, ...places.filter(place => place > slot));
  return Math.max(0, ...places.filter(place => place < slot));
}

const name = event => {
  const parts = [];
  if (event.altKey) parts.push("alt");
  if (event.ctrlKey || event.metaKey) parts.push("mod");
  if (event.shiftKey && (event.key.length > 1 || /[a-z]/i.test(event.key))) parts.push("shift");
  const shown = event.key === " " ? "Space" : event.key;
  return [...parts, parts.includes("mod") && shown.length === 1 ? shown.toLowerCase() : shown].join("+");
};

/** Whether the key belongs to a field or a button that has the focus. */
function taken(event) {
  const {target} = event;
  if (!(target instanceof Element)) return false;
  if (target.closest("input, textarea, select, dialog")) return true;
  return ["Enter", " "].includes(event.key) && target.closest("button, a, summary") !== null;
}

/**
 * After a click the time line has the focus, so that the next key is a command and not the button's or the list's. Who
 * moves by keys keeps the focus where it is; Escape leaves a field.
 */
export function returnFocus(canvas) {
  let pressed = null;
  const back = target => {
    if (target.closest("#top, #work") && !target.closest("#moments")) canvas.focus({preventScroll: true});
  };
  addEventListener("pointerdown", event => { pressed = event.target; }, {capture: true});
  addEventListener("keydown", event => {
    pressed = null;
    if (event.key === "Escape" && event.target.matches("input")) back(event.target);
  }, {capture: true});
  addEventListener("click", event => event.detail > 0 && event.target.closest("button") && back(event.target));
  addEventListener("change", event => event.target.matches("select") && event.target === pressed && back(event.target));
}

/** Let the keys do what the table says; classes come first. */
export function bind(table, classes, editor, active) {
  const runs = new Map();
  for (const [, rows] of table) {
    for (const [keys, , , ...run] of rows) keys?.split(" ").forEach((key, place) => runs.set(key, run[place]));
  }
  addEventListener("keydown", event => {
    if (event.defaultPrevented || taken(event) || !active()) return;
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const label = plain && !event.repeat ? classes.byKey(event.key) : null;
    const run = label ? () => editor.choose(label.name) : runs.get(name(event));
    if (!run) return;
    event.preventDefault();
    run();
  });
}

/** Fill the help. */
export function showHelp(table) {
  const groups = table.map(([title, rows]) => h("section", {}, h("h3", {}, title),
    h("dl", {}, ...rows.flatMap(([, shown, text]) => [
      h("dt", {}, ...shown.split(" ").map(key => h("kbd", {}, key.replace(",", "")))), h("dd", {}, text)]))));
  const pointer = [
    ["Wheel", "zoom; sideways or with Shift: pan"], ["Drag on the labels", "draw the marked class"],
    ["Drag a border", "move it, for both neighbours"], ["Drag elsewhere", "scrub"],
    ["Double click on a prediction", "accept it"], ["One finger, two fingers", "pan, zoom"]];
  groups.push(h("section", {}, h("h3", {}, "Pointer"),
    h("dl", {}, ...pointer.flatMap(([what, text]) => [h("dt", {}, what), h("dd", {}, text)]))));
  find("#help .help-groups").replaceChildren(...groups);
  find("#help").showModal();
}
