/** The labels of one video while they are edited: undo, redo, autosave, drafts that survive the browser. */

import * as api from "./api.js";
import {apply, differences, same} from "./spans.js";

const SAVE_AFTER = 500; // milliseconds after the last change
const RETRY_SECONDS = [1, 2, 4, 8, 15];
const PREFIX = "keystep:draft:";
const ANSWER = 300; // milliseconds in which living windows answer
const WINDOW = String(Math.random());

const windows = new BroadcastChannel("keystep:windows");
windows.addEventListener("message", event => event.data === "who?" && windows.postMessage(WINDOW));

/** States: "saved", "unsaved", "saving", "offline", "conflict", "refused". Events: "change", "state". */
export class Annotation extends EventTarget {
  #past = [];
  #future = [];
  #timer = null;
  #fails = 0;
  #saved;

  constructor({project, item, revision, spans, author}) {
    super();
    Object.assign(this, {video: item.id, name: item.name, slots: item.slots, revision, author});
    this.spans = this.#saved = spans;
    this.key = `${PREFIX}${project}:${item.name}:${WINDOW}`;
    this.shown = null; // what a drag would make of it, not yet a change
    this.state = "saved";
    this.message = "";
    this.theirs = null;
    this.changed = false; // since it was last learned from
  }

  get current() {
    return this.shown ?? this.spans;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** Show what a drag would do; null ends that. */
  preview(spans) {
    this.shown = spans;
    this.dispatchEvent(new Event("change"));
  }

  change(spans) {
    this.shown = null;
    if (!same(spans, this.spans)) {
      this.#past.push(this.spans);
      this.#future = [];
      this.#set(spans);
    } else this.dispatchEvent(new Event("change"));
  }

  undo() {
    if (!this.#past.length) return;
    this.#future.push(this.spans);
    this.#set(this.#past.pop());
  }

  redo() {
    if (!this.#future.length) return;
    this.#past.push(this.spans);
    this.#set(this.#future.pop());
  }

  #set(spans) {
    this.spans = spans;
    this.changed = true;
    this.#keepDraft();
    this.dispatchEvent(new Event("change"));
    if (this.state === "conflict") return;
    if (this.state !== "saving") this.#tell("unsaved");
    this.#saveAfter(SAVE_AFTER);
  }

  #saveAfter(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.save(), wait);
  }

  /** Save now what is not saved yet; again and again while the server is silent. */
  async save({keepalive = false} = {}) {
    clearTimeout(this.#timer);
    if (this.state === "saving" || this.state === "conflict") return;
    if (same(this.spans, this.#saved)) return this.#settle();
    const sent = this.spans;
    this.#tell("saving");
    try {
      const body = {base_revision: this.revision, spans: sent, author: this.author()};
      const answer = await api.put(`/api/videos/${this.video}/annotation`, body, {keepalive});
      this.#fails = 0;
      this.revision = answer.revision;
      this.#saved = sent;
      this.state = "unsaved";
      if (answer.merged) this.take(answer, "Merged with what was changed in another window.");
      if (same(this.spans, this.#saved)) this.#settle();
      else this.#saveAfter(SAVE_AFTER);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Save, and wait for the answer to what is under way; whether the server has everything now. */
  async settled() {
    await this.save();
    while (this.state === "saving" || this.state === "unsaved") {
      await new Promise(resolve => { this.addEventListener("state", resolve, {once: true}); });
    }
    return this.state === "saved";
  }

  #failed(error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 409 && error.body.spans) {
      this.theirs = {revision: error.body.revision, spans: error.body.spans};
      this.#tell("conflict", error.message);
    } else if (error.passing) {
      const wait = RETRY_SECONDS[Math.min(this.#fails++, RETRY_SECONDS.length - 1)];
      this.#tell("offline", `${error.message} Trying again in ${wait} s; your changes are kept in this browser.`);
      this.#saveAfter(1000 * wait);
    } else this.#tell("refused", error.message);
  }

  /** Take over what another window saved: only what it changed, in the present, the past and the future. */
  take({revision, spans}, message = "") {
    const changes = differences(this.#saved, spans);
    this.revision = revision;
    this.#saved = spans;
    this.spans = apply(this.spans, changes);
    this.#past = this.#past.map(one => apply(one, changes));
    this.#future = this.#future.map(one => apply(one, changes));
    this.dispatchEvent(new Event("change"));
    if (message) this.dispatchEvent(new CustomEvent("note", {detail: message}));
  }

  /** Another window saved a later revision. */
  async follow(revision) {
    if (revision > this.revision) await this.refresh();
  }

  /** Take over what the server has, unless something here waits to be saved. */
  async refresh() {
    if (this.state !== "saved") return;
    try {
      const theirs = await api.get(`/api/videos/${this.video}/annotation`);
      if (this.state === "saved" && theirs.revision > this.revision) this.take(theirs, "Changed in another window.");
    } catch { /* a silent server tells of the change again once it is back */ }
  }

  /** End a conflict with these spans, mine or theirs or something between; undo brings mine back. */
  settle(spans) {
    this.revision = this.theirs.revision;
    this.#saved = this.theirs.spans;
    this.theirs = null;
    this.state = "unsaved";
    this.change(spans);
    this.save();
  }

  /** Begin with what a draft holds, made upon an earlier or the same revision. */
  restore({base_revision: revision, base, spans}) {
    this.revision = revision;
    this.#past.push(this.spans);
    this.#saved = base;
    this.#set(spans);
    return this.save();
  }

  #settle() {
    try {
      localStorage.removeItem(this.key);
    } catch { /* a browser without storage holds no draft either */ }
    this.#tell("saved");
  }

  #keepDraft() {
    const {video, name, revision, spans} = this;
    const draft = {video, name, base_revision: revision, base: this.#saved, spans, at: Date.now()};
    try {
      localStorage.setItem(this.key, JSON.stringify(draft));
    } catch {
      const detail = "This browser keeps no drafts: wait for “saved” before you close it.";
      this.dispatchEvent(new CustomEvent("note", {detail}));
    }
  }

  #tell(state, message = "") {
    this.state = state;
    this.message = message;
    this.dispatchEvent(new Event("state"));
  }
}

/** Unsaved work of windows that are gone, oldest first. Living windows save their own. */
export async function drafts(project) {
  const living = new Set();
  const hear = event => living.add(event.data);
  windows.addEventListener("message", hear);
  windows.postMessage("who?");
  await new Promise(resolve => { setTimeout(resolve, ANSWER); });
  windows.removeEventListener("message", hear);
  return Object.keys(localStorage)
    .filter(key => key.startsWith(`${PREFIX}${project}:`) && !living.has(key.split(":").at(-1)))
    .map(key => ({...JSON.parse(localStorage[key]), key}))
    .filter(draft => !draft.key.endsWith(`:${WINDOW}`))
    .sort((a, b) => a.at - b.at);
}
