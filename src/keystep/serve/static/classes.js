/** The classes: colours, keys, the list from which one is chosen. */

import * as api from "./api.js";
import {find, h, icon, inkOn, say} from "./dom.js";

/** The class of stretches that nobody should learn from. */
export const UNSURE = "unsure";

const KEYS = [..."1234567890", ..."bcdeghkqrtvy"]; // letters that no command takes

/** Events: "change" (the classes), "choose" (detail: a label), "current". */
export class Classes extends EventTarget {
  #byName = new Map();

  constructor(holder, {readOnly}) {
    super();
    this.holder = holder;
    this.readOnly = readOnly;
    this.all = [];
    this.current = null; // the label that a drag draws
    this.open = null; // the label that is being drawn by its key
    if (!readOnly) this.#buildForm();
  }

  /** Take the server's list; a class keeps the key that it names unless a command or another class has it. */
  set(list) {
    const taken = new Set();
    this.all = list.map(one => {
      const own = KEYS.includes(one.key) && !taken.has(one.key) ? one.key : KEYS.find(key => !taken.has(key));
      if (own) taken.add(own);
      const rgb = [1, 3, 5].map(place => parseInt(one.colour.slice(place, place + 2), 16));
      return {...one, key: own ?? null, rgb, ink: inkOn(one.colour)};
    });
    this.#byName = new Map(this.all.map(one => [one.name, one]));
    if (!this.#byName.has(this.current)) this.current = this.all[0]?.name ?? null;
    this.draw();
    this.dispatchEvent(new Event("change"));
  }

  get(name) {
    return this.#byName.get(name) ?? null;
  }

  byId(id) {
    return this.all.find(one => one.id === id) ?? null;
  }

  byKey(key) {
    return this.all.find(one => one.key === key) ?? null;
  }

  rgb(id) {
    return this.byId(id)?.rgb ?? [128, 128, 128];
  }

  use(name) {
    this.current = name;
    this.mark();
  }

  /** Add a class; answers its name, or null when the server refuses. */
  async create(name) {
    const wanted = name.trim();
    if (!wanted) return null;
    if (this.get(wanted)) return wanted;
    try {
      this.set((await api.post("/api/classes", {name: wanted})).classes);
      return wanted;
    } catch (error) {
      say(error.message);
      return null;
    }
  }

  focusForm() {
    this.field?.focus();
  }

  #buildForm() {
    const name = {"aria-label": "Name of a new class", placeholder: "New class", maxlength: 200};
    this.field = h("input", {type: "text", ...name});
    const form = h("form.inline", {onsubmit: event => {
      event.preventDefault();
      this.create(this.field.value).then(made => {
        if (!made) return;
        this.field.value = "";
        this.field.blur();
        this.use(made);
      });
    }}, this.field, h("button", {type: "submit", title: "Add the class"}, icon("plus"), "Add"));
    this.holder.after(form);
  }

  draw() {
    const rows = this.all.map(one => {
      const pressed = () => this.dispatchEvent(new CustomEvent("choose", {detail: one.name}));
      return h("li", {}, h("button.class-chip", {type: "button", "data-name": one.name, onclick: pressed},
        h("kbd", {}, one.key ?? ""), swatch(one.colour), h("span.name", {}, one.name)));
    });
    const hint = "No classes yet: name the first one below.";
    this.holder.replaceChildren(...(rows.length ? rows : [h("li.empty", {}, hint)]));
    this.mark();
  }

  /** Show which class is drawn by drags, and which is open by its key. */
  mark() {
    for (const button of this.holder.querySelectorAll("button")) {
      button.classList.toggle("current", button.dataset.name === this.current);
      button.setAttribute("aria-pressed", String(button.dataset.name === this.open));
    }
  }
}

/** A small square of a class's colour. */
export function swatch(colour) {
  const square = h("span.swatch", {"aria-hidden": "true"});
  square.style.background = colour;
  return square;
}

/** Ask for a class by name, with what is there to choose from; answers a label, or null. A new name makes a class. */
export function askForClass(classes, title) {
  const dialog = find("#chooser");
  const field = dialog.querySelector("input");
  const options = dialog.querySelector("datalist");
  dialog.querySelector("h2").textContent = title;
  options.replaceChildren(...classes.all.map(one => h("option", {value: one.name})));
  field.value = "";
  dialog.showModal();
  return new Promise(resolve => {
    dialog.addEventListener("close", async () => {
      resolve(dialog.returnValue === "ok" ? await classes.create(field.value) : null);
    }, {once: true});
  });
}
