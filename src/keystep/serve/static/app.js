/** The page as a whole: what is loaded first, what follows what, what the server tells. */

import * as api from "./api.js";
import {Annotation, drafts} from "./annotation.js";
import {Classes} from "./classes.js";
import {showConflict} from "./conflict.js";
import {find, h, say} from "./dom.js";
import {Editor} from "./editor.js";
import {Exporting} from "./exporting.js";
import {Gestures} from "./gestures.js";
import {HoverCard} from "./hover.js";
import {bind, commands, returnFocus, showHelp} from "./keys.js";
import {Learning} from "./learning.js";
import {Live} from "./live.js";
import {Moments} from "./moments.js";
import {controls, Player} from "./player.js";
import {hint, Segments} from "./segments.js";
import {Similarity} from "./similarity.js";
import {Tiles} from "./tiles.js";
import {Timeline} from "./timeline.js";
import {Videos} from "./videos.js";

class App {
  #turn = 0;

  constructor(project) {
    this.project = project;
    const readOnly = project.read_only;
    this.classes = new Classes(find("#classes"), {readOnly});
    this.timeline = new Timeline(find("#timeline"), find("#headings"), this.classes);
    this.player = new Player(find("#player"));
    this.editor = new Editor({timeline: this.timeline, player: this.player, classes: this.classes, readOnly});
    this.gestures = new Gestures(this.timeline, this.editor);
    this.hover = new HoverCard(this.timeline, this.classes);
    this.segments = new Segments(this.editor, this.timeline);
    this.similarity = new Similarity(this.timeline, this.player);
    this.moments = new Moments();
    this.videos = new Videos();
    this.learning = new Learning(project);
    this.live = new Live(this.classes);
    this.exporting = new Exporting(() => this.#settled());
    this.annotations = new Map(); // of all videos that were open, with their undo
    this.table = commands({...this, actions: this.actions()});
  }

  async start() {
    const {project} = this;
    document.title = `${project.name} · keystep`;
    find("#project").textContent = project.name;
    find("#model").textContent = project.model ? `model ${project.model}` : "raw features";
    controls(this.player);
    hint(this.editor, this.timeline);
    this.#wire();
    this.#buttons();
    this.classes.set(project.classes);
    await this.videos.load();
    this.learning.show(project.learning);
    addEventListener("hashchange", () => this.#route());
    await this.#route();
    this.#listen();
    this.learning.load();
    this.live.look();
    await this.#restoreDrafts();
  }

  actions() {
    return {
      beside: direction => {
        const id = this.videos.beside(direction);
        if (id !== null) this.go(id);
      },
      findMoments: () => this.findMoments(),
      help: () => showHelp(this.table),
      toggleSnap: () => this.toggleSnap(),
      learn: () => this.learning.toggle(),
      next: () => this.learning.openNext(),
    };
  }

  #wire() {
    const {timeline, player, learning, moments, videos} = this;
    const open = event => this.open(event.detail.video, event.detail);
    timeline.addEventListener("seek", event => player.seek(event.detail));
    player.addEventListener("time", () => {
      timeline.setPlayhead(player.slot);
      if (player.playing) timeline.view.follow(player.slot);
    });
    player.addEventListener("state", () => player.playing && this.editor.selected >= 0 && this.editor.select(-1));
    videos.addEventListener("open", event => { this.go(event.detail); find("#list").classList.remove("shown"); });
    moments.addEventListener("open", open);
    learning.addEventListener("open", open);
    learning.addEventListener("learned", () => this.#learned());
    addEventListener("pagehide", () => this.annotation?.save({keepalive: true}));
    addEventListener("online", () => this.#saveAll());
  }

  #buttons() {
    const {editor, timeline, player} = this;
    const view = () => timeline.view;
    const runs = {
      "#undo": () => editor.undo(), "#redo": () => editor.redo(), "#show-help": () => showHelp(this.table),
      "#zoom-in": () => view().zoom(0.5), "#zoom-out": () => view().zoom(2), "#fit": () => view().fit(),
      "#split": () => editor.split(), "#merge": () => editor.merge(), "#erase": () => editor.erase(),
      "#snap": () => this.toggleSnap(), "#accept": () => editor.accept(), "#accept-view": () => editor.acceptView(),
      "#unsure": () => editor.unsure(), "#find": () => this.findMoments(), "#theme": () => this.#theme(),
      "#show-export": () => this.exporting.show(this.item),
      "#show-list": () => find("#list").classList.toggle("shown"),
      "#close-list": () => find("#list").classList.remove("shown"),
      "#save-state": () => this.#saveOrSettle(),
    };
    for (const [selector, run] of Object.entries(runs)) find(selector).addEventListener("click", run);
    for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => this.tab(tab));
    for (const close of document.querySelectorAll("dialog .close")) {
      close.addEventListener("click", () => close.closest("dialog").close());
    }
    const author = find("#author");
    author.value = localStorage.getItem("keystep:author") ?? "";
    author.addEventListener("change", () => localStorage.setItem("keystep:author", author.value));
    returnFocus(timeline.canvas);
    bind(this.table, this.classes, editor, () => !document.body.classList.contains("live") && player.item);
  }

  #listen() {
    const states = {onopen: () => { this.#saveAll(); this.#connected(true); }, onerror: () => this.#connected(false)};
    api.listen("/api/events", {
      learning: said => this.learning.show(said),
      classes: ({classes}) => this.classes.set(classes),
      annotation: ({video, revision}) => {
        if (video === this.annotation?.video) this.annotation.follow(revision);
        this.videos.reload();
      },
      encoding: ({done, total}) => this.#progress(`Encoding ${done} of ${total} videos`, done / total),
      index: ({done, total}) => this.#progress("Indexing moments", done / total),
    }, states);
  }

  #connected(there) {
    if (there && this.lost) this.videos.reload();
    this.lost = !there;
  }

  #progress(text, share) {
    find("#activity").hidden = share >= 1;
    find("#activity span").textContent = text;
    find("#activity progress").value = share;
    if (share >= 1) this.timeline.tiles?.refresh();
  }

  #learned() {
    this.videos.reload();
    if (this.item) this.#reopenLanes();
  }

  /** Lanes that came with learning appear; those that were there are asked again. */
  async #reopenLanes() {
    const turn = this.#turn;
    const item = await api.get(`/api/videos/${this.item.id}`).catch(() => null);
    if (item === null || turn !== this.#turn) return;
    const known = this.timeline.lanes.map(lane => lane.id).join();
    const lanes = this.#lanes(item);
    if (lanes.map(lane => lane.id).join() !== known) this.timeline.setLanes(lanes);
    for (const id of ["prediction", "confidence"]) this.timeline.tiles.refresh(id);
  }

  #lanes(item) {
    return this.project.lanes.filter(lane => item.lanes.includes(lane.id));
  }

  go(id) {
    const hash = `#v=${id}`;
    if (location.hash === hash) this.open(id);
    else location.hash = hash;
  }

  async #route() {
    const live = location.hash === "#live";
    document.body.classList.toggle("live", live);
    for (const [selector, own] of [["#live-link", live], ["#videos-link", !live]]) {
      if (own) find(selector).setAttribute("aria-current", "page");
      else find(selector).removeAttribute("aria-current");
    }
    this.live.show(live);
    if (live) return this.player.item && this.player.pause();
    const asked = Number(new URLSearchParams(location.hash.slice(1)).get("v") ?? NaN);
    const id = Number.isInteger(asked) ? asked : this.item?.id ?? this.videos.items[0]?.id;
    if (id !== undefined && id !== this.item?.id) await this.open(id);
    return null;
  }

  /** Open a video, at a slot if one is given, with start..stop in view if they are. */
  async open(id, {slot = null, start = null, stop = null} = {}) {
    const turn = ++this.#turn;
    this.videos.mark(id);
    try {
      if (id !== this.item?.id) {
        this.#leave();
        const coming = api.get(`/api/videos/${id}`);
        const [item, annotation] = await Promise.all([coming, this.#annotationOf(id, coming)]);
        if (turn !== this.#turn) return;
        this.#show(item, annotation);
      }
      if (slot !== null) this.player.seek(slot);
      if (start !== null) this.timeline.view.show(start, stop);
    } catch (error) {
      say(error.message);
    }
  }

  /** Save what was open, and learn from it if it changed. */
  async #leave() {
    const left = this.annotation;
    if (!left) return;
    await left.save();
    if (left.changed && left.state === "saved") {
      left.changed = false;
      this.learning.startAfterVideo();
    }
  }

  async #annotationOf(id, coming = null) {
    for (const open of this.annotations.values()) {
      if (open.video !== id) continue;
      await open.refresh();
      return open;
    }
    const path = `/api/videos/${id}`;
    const [item, {revision, spans}] = await Promise.all([coming ?? api.get(path), api.get(`${path}/annotation`)]);
    return this.#newAnnotation(item, revision, spans);
  }

  #newAnnotation(item, revision, spans) {
    const author = () => find("#author").value.trim();
    const made = new Annotation({project: this.project.name, item, revision, spans, author});
    made.addEventListener("state", () => {
      if (made === this.annotation) this.#showState();
      if (made.state === "conflict") this.#conflict(made);
    });
    made.addEventListener("change", () => made === this.annotation && this.#changed());
    made.addEventListener("note", event => say(event.detail));
    this.annotations.set(item.name, made);
    return made;
  }

  #show(item, annotation) {
    const {project, timeline} = this;
    Object.assign(this, {item, annotation});
    document.body.classList.add("opened");
    find("#name").textContent = item.name;
    const tiles = new Tiles(item.id, item.slots, project.lanes, this.classes);
    timeline.open({item, rate: project.rate, start: project.start, lanes: this.#lanes(item), tiles, annotation});
    this.hover.open(item);
    this.editor.open(annotation);
    this.player.open(item, project);
    this.similarity.open(item);
    history.replaceState(null, "", `#v=${item.id}`);
    this.#changed();
    this.#showState();
    const turn = this.#turn;
    const changes = api.get(`/api/videos/${item.id}/changes`, {start: 0, stop: item.slots});
    changes.then(({slots}) => {
      if (turn === this.#turn) timeline.changes = slots;
      timeline.draw();
    }, () => { /* without them borders snap to each other only */ });
  }

  #changed() {
    this.timeline.draw();
    this.segments.draw();
    find("#undo").disabled = !this.annotation.canUndo;
    find("#redo").disabled = !this.annotation.canRedo;
  }

  #showState() {
    const {state, message} = this.annotation;
    const word = {saving: "saving…", refused: "not saved"}[state] ?? state;
    const place = find("#save-state");
    place.dataset.state = state;
    const more = state === "offline" ? h("span.more", {}, "· kept in this browser") : null;
    place.replaceChildren(this.project.read_only ? "read-only" : word, ...(more ? [more] : []));
    place.title = message || (state === "saved" ? `Revision ${this.annotation.revision} is on the server` : "");
    if (state === "refused") say(message);
  }

  #saveOrSettle() {
    if (this.annotation?.theirs) showConflict(this.annotation, this.timeline);
    else this.annotation?.save();
  }

  #conflict(annotation) {
    if (annotation === this.annotation) showConflict(annotation, this.timeline);
    else {
      const look = {text: "Look", run: () => this.go(annotation.video)};
      say(`${annotation.name} was changed in another window too.`, look);
    }
  }

  #saveAll() {
    for (const annotation of this.annotations.values()) if (annotation.state === "offline") annotation.save();
  }

  /** Wait until the server has all changes; answers the open video. */
  async #settled() {
    for (const annotation of this.annotations.values()) {
      if (!await annotation.settled()) throw new Error(`Changes of ${annotation.name} are not saved. ${annotation.message}`);
    }
    return this.item;
  }

  /** What was not saved when a window was closed, or the server died, is saved now. */
  async #restoreDrafts() {
    for (const draft of await drafts(this.project.name)) {
      if (this.annotations.has(draft.name) && this.annotations.get(draft.name).state !== "saved") continue;
      try {
        const {items} = await api.get("/api/videos", {search: draft.name, limit: 1000});
        const item = items.find(one => one.name === draft.name);
        if (!item) continue;
        const annotation = await this.#annotationOf(item.id);
        localStorage.removeItem(draft.key);
        say(`Restored changes of ${draft.name} that had not been saved.`);
        await annotation.restore(draft);
      } catch (error) {
        say(`${draft.name}: ${error.message}`);
      }
    }
  }

  findMoments() {
    this.tab(find("#tab-moments"));
    this.moments.find(this.item, Math.floor(this.player.slot), this.timeline);
  }

  toggleSnap() {
    this.timeline.snapping = !this.timeline.snapping;
    find("#snap").setAttribute("aria-pressed", String(this.timeline.snapping));
    this.timeline.draw();
  }

  tab(chosen) {
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const own = tab === chosen;
      tab.setAttribute("aria-selected", String(own));
      tab.tabIndex = own ? 0 : -1;
      find(`#${tab.getAttribute("aria-controls")}`).hidden = !own;
    }
    this.similarity.load();
    this.similarity.draw();
  }

  #theme() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
      || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    setTheme(dark ? "light" : "dark");
    this.timeline.recolour();
    this.similarity.draw();
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("keystep:theme", theme);
}

/** Ask for the token until the server takes it. */
async function loadProject() {
  for (;;) {
    try {
      return await api.get("/api/project");
    } catch (error) {
      if (error.status === 401) await askForToken();
      else {
        find("#problem").hidden = false;
        find("#problem").textContent = `${error.message} Trying again…`;
        await new Promise(resolve => { setTimeout(resolve, 2000); });
      }
    }
  }
}

function askForToken() {
  const dialog = find("#token");
  dialog.showModal();
  return new Promise(resolve => {
    dialog.onclose = () => {
      api.setToken(find("#token-field").value.trim());
      resolve();
    };
  });
}

const theme = localStorage.getItem("keystep:theme");
if (theme) document.documentElement.dataset.theme = theme;
api.takeToken();
const project = await loadProject();
find("#problem").hidden = true;
window.keystep = new App(project);
await window.keystep.start();
document.body.dataset.ready = "true";
