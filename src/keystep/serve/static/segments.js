/** The labelled stretches as a list: read by screen readers, walked by keys. */

import {clock, eachFrame, find, h} from "./dom.js";
import {swatch} from "./classes.js";

export class Segments {
  constructor(editor, timeline) {
    Object.assign(this, {editor, timeline, list: find("#segments"), count: find("#segment-count")});
    this.draw = eachFrame(() => this.#draw());
    editor.addEventListener("change", () => this.mark());
    this.list.addEventListener("keydown", event => this.#keys(event));
  }

  #draw() {
    const {rate, start} = this.timeline;
    const held = this.list.contains(document.activeElement) ? Number(document.activeElement.dataset.index) : null;
    const rows = this.editor.spans.map((span, index) => {
      const time = clock(start + span.start / rate, 1);
      const go = () => {
        this.editor.player.seek(span.start);
        this.timeline.view.follow(span.start);
        this.editor.select(index);
      };
      return h("li", {}, h("button.segment", {type: "button", "data-index": index, onclick: go},
        h("span.when", {}, time), swatch(this.editor.classes.get(span.label)?.colour ?? "#888888"),
        h("span.name", {title: span.label}, span.label),
        h("span.long", {}, `${((span.stop - span.start) / rate).toFixed(1)} s`)));
    });
    this.list.replaceChildren(...rows);
    if (!rows.length) this.list.append(h("li.empty", {}, "Nothing labelled yet."));
    this.count.textContent = rows.length ? String(rows.length) : "";
    if (held !== null) this.list.querySelector(`[data-index="${held}"]`)?.focus();
    this.mark();
  }

  mark() {
    const {selected} = this.editor;
    this.list.querySelectorAll("button").forEach((button, index) => {
      button.classList.toggle("selected", index === selected);
      button.setAttribute("aria-pressed", String(index === selected));
      button.tabIndex = index === Math.max(0, selected) ? 0 : -1;
    });
    this.list.querySelector(".selected")?.scrollIntoView({block: "nearest"});
  }

  #keys(event) {
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!step) return;
    const buttons = [...this.list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    next?.focus();
    next?.click();
    event.preventDefault();
    event.stopPropagation();
  }
}

/** One line on what the next key will do, beside the tools. */
export function hint(editor, timeline) {
  const time = slot => clock(timeline.start + slot / timeline.rate, 1);
  const show = () => {
    const span = editor.spans[editor.selected];
    const {begun} = editor;
    find("#hint").textContent = begun ? `Drawing “${begun.label}” from ${time(begun.from)} · its key again: end`
      : span ? `${time(span.start)}–${time(span.stop)}: class key: rename · I O: ends · Esc: leave` : "";
  };
  editor.addEventListener("change", show);
}
