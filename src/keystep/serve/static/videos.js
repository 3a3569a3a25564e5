/** The list of videos: search, filter, sort; a hundred at a time, pictures only for what is in view. */

import * as api from "./api.js";
import {clock, find, h, later} from "./dom.js";
import {Pictures} from "./pictures.js";

const PAGE = 100;

/** Event "open" (detail: a video's index). */
export class Videos extends EventTarget {
  #turn = 0;

  constructor() {
    super();
    this.list = find("#videos");
    this.count = find("#video-count");
    this.items = [];
    this.total = 0;
    this.openId = null;
    this.pictures = new Pictures(this.list.parentElement);
    const seen = entries => entries[0].isIntersecting && this.#loadMore();
    this.more = new IntersectionObserver(seen, {root: this.list.parentElement});
    find("#search").addEventListener("input", later(() => this.load(), 150));
    for (const name of ["#show", "#sort"]) find(name).addEventListener("change", () => this.load());
    this.list.addEventListener("keydown", event => this.#keys(event));
    this.reload = later(() => this.load(), 400);
  }

  get #asked() {
    return {search: find("#search").value, show: find("#show").value, sort: find("#sort").value};
  }

  /** Ask again; what is shown stays until the answer is there. */
  async load() {
    const turn = ++this.#turn;
    const limit = Math.max(PAGE, Math.min(this.items.length, 500));
    try {
      const {total, items} = await api.get("/api/videos", {...this.#asked, offset: 0, limit});
      if (turn !== this.#turn) return;
      Object.assign(this, {items, total});
      this.#draw();
    } catch (error) {
      if (turn === this.#turn) this.count.textContent = error.message;
    }
  }

  async #loadMore() {
    if (this.items.length >= this.total) return;
    const turn = this.#turn;
    const asked = {...this.#asked, offset: this.items.length, limit: PAGE};
    const {items} = await api.get("/api/videos", asked).catch(() => ({items: []}));
    if (turn !== this.#turn || !items.length) return;
    this.items = [...this.items, ...items];
    this.#draw();
  }

  /** Mark the video that is open. */
  mark(id) {
    this.openId = id;
    for (const button of this.list.querySelectorAll("button")) this.#markOne(button);
    this.list.querySelector(".open")?.scrollIntoView({block: "nearest"});
  }

  /** The video before (-1) or after (1) the open one, as the list is sorted; null at its ends. */
  beside(direction) {
    const place = this.items.findIndex(item => item.id === this.openId);
    return this.items[place + direction]?.id ?? null;
  }

  #draw() {
    const held = this.list.contains(document.activeElement) ? Number(document.activeElement.dataset.id) : null;
    this.pictures.clear();
    this.list.replaceChildren(...this.items.map(item => this.#row(item)));
    if (!this.items.length) this.list.append(h("li.empty", {}, "No video fits."));
    const shown = this.items.length;
    this.count.textContent = shown === this.total ? `${shown}` : `${shown} of ${this.total}`;
    if (held !== null) this.list.querySelector(`[data-id="${held}"]`)?.focus();
    const last = this.list.lastElementChild;
    this.more.disconnect();
    if (this.items.length < this.total) this.more.observe(last);
  }

  #row(item) {
    const share = h("span.share", {title: `${Math.round(100 * item.labelled)} % labelled`}, h("i"));
    share.firstChild.style.width = `${100 * item.labelled}%`;
    const unsure = item.uncertainty === null || item.labelled === 1 ? null
      : h("span", {title: "How unsure the model is, from 0 to 1"}, `unsure ${item.uncertainty.toFixed(2)}`);
    const pictured = this.items.some(one => one.has_video);
    const picture = item.has_video ? this.pictures.add(h("img", {alt: ""}), this.#thumbnail(item))
      : pictured ? h("span.no-picture", {"aria-hidden": "true"}) : null;
    const labelled = `${Math.round(100 * item.labelled)} %`;
    const open = () => this.dispatchEvent(new CustomEvent("open", {detail: item.id}));
    const button = h("button.video", {type: "button", "data-id": item.id, onclick: open}, picture,
      h("span.video-name", {title: item.name}, item.name),
      h("span.video-facts", {}, clock(item.seconds), h("span.sr", {}, `, ${labelled} labelled`), unsure), share);
    button.classList.toggle("plain", picture === null);
    this.#markOne(button);
    return h("li", {}, button);
  }

  #thumbnail(item) {
    return api.address(`/api/videos/${item.id}/thumbnail`, {slot: Math.floor(item.slots / 2), height: 72});
  }

  #markOne(button) {
    const own = Number(button.dataset.id) === this.openId;
    button.classList.toggle("open", own);
    if (own) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const reachable = own || (this.openId === null && button === this.list.querySelector("button"));
    button.tabIndex = reachable ? 0 : -1;
  }

  #keys(event) {
    const step = {ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity}[event.key];
    if (!step) return;
    const buttons = [...this.list.querySelectorAll("button")];
    const place = buttons.indexOf(document.activeElement) + step;
    buttons[Math.min(Math.max(place, 0), buttons.length - 1)]?.focus();
    event.preventDefault();
    event.stopPropagation();
  }
}
