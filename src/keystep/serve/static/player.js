/** The recording in step with the time line; without one, a clock that runs through the slots. */

import * as api from "./api.js";
import {clamp, clock, find, h, later} from "./dom.js";

const SPEEDS = [0.25, 0.5, 1, 1.5, 2, 4, 8];

/** Events: "time" (whenever `slot` changes), "state" (playing or not, speed). */
export class Player extends EventTarget {
  #target = null; // where a film that is still seeking will be
  #opened = 0;

  constructor(holder) {
    super();
    this.holder = holder;
    this.film = h("video", {playsinline: true, preload: "auto", "aria-label": "Recording"});
    this.film.muted = localStorage.getItem("keystep:sound") !== "yes";
    this.still = h("img", {alt: "Frame at the playhead"});
    this.note = h("div.player-note");
    holder.replaceChildren(this.film, this.still, this.note);
    Object.assign(this, {slot: 0, slots: 1, rate: 1, start: 0, speed: 1, playing: false, usesFilm: false});
    this.film.addEventListener("seeked", () => this.#arrived());
    this.film.addEventListener("error", () => this.#cannotPlay());
    this.film.addEventListener("ended", () => this.pause());
    this.showStill = later(() => this.#showStill(), 60);
  }

  open(item, {rate, start}) {
    this.pause();
    this.#opened++;
    Object.assign(this, {item, rate, start, slots: item.slots, slot: 0});
    this.still.removeAttribute("src");
    this.note.replaceChildren();
    this.holder.classList.toggle("no-video", !item.has_video);
    this.#use(Boolean(item.media && item.playable));
    if (item.has_video && !this.usesFilm) this.#offerProxy();
    this.seek(0);
  }

  #use(film) {
    this.usesFilm = film;
    this.film.hidden = !film;
    this.still.hidden = film || !this.item.has_video;
    if (film) this.film.src = api.address(this.item.media);
    else this.film.removeAttribute("src");
    this.film.load();
  }

  /** Whether the recording is heard. */
  get sounds() {
    return !this.film.muted;
  }

  toggleSound() {
    this.film.muted = this.sounds;
    localStorage.setItem("keystep:sound", this.sounds ? "yes" : "no");
    this.#told();
  }

  get time() {
    return this.start + this.slot / this.rate;
  }

  seek(slot) {
    this.slot = clamp(slot, 0, Math.max(0, this.slots - 1));
    if (this.usesFilm) {
      if (this.film.seeking) this.#target = this.slot;
      else this.film.currentTime = this.#filmTime(this.slot);
    } else this.showStill();
    this.dispatchEvent(new Event("time"));
  }

  #filmTime(slot) {
    return Math.max(0, this.start + (slot + 0.01) / this.rate);
  }

  #arrived() {
    if (this.#target === null) return;
    const slot = this.#target;
    this.#target = null;
    this.film.currentTime = this.#filmTime(slot);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.playing || !this.item) return;
    if (this.slot >= this.slots - 1) this.seek(0);
    this.playing = true;
    if (this.usesFilm) {
      this.film.playbackRate = this.speed;
      this.film.play().catch(() => this.pause());
    }
    this.#told();
    let before = performance.now();
    const run = now => {
      if (!this.playing) return;
      this.#advance((now - before) / 1000);
      before = now;
      requestAnimationFrame(run);
    };
    requestAnimationFrame(run);
  }

  #advance(seconds) {
    const film = (this.film.currentTime - this.start) * this.rate;
    const slot = this.usesFilm ? (this.film.seeking ? this.slot : film) : this.slot + seconds * this.rate * this.speed;
    this.slot = clamp(slot, 0, this.slots - 1);
    if (!this.usesFilm) this.showStill();
    this.dispatchEvent(new Event("time"));
    if (slot >= this.slots - 1) this.pause();
  }

  pause() {
    this.playing = false;
    this.film.pause();
    this.#told();
  }

  setSpeed(speed) {
    this.speed = speed;
    this.film.playbackRate = speed;
    this.#told();
  }

  faster(step) {
    this.setSpeed(SPEEDS[clamp(SPEEDS.indexOf(this.speed) + step, 0, SPEEDS.length - 1)]);
  }

  #told() {
    this.dispatchEvent(new Event("state"));
  }

  #showStill() {
    if (this.usesFilm || !this.item?.has_video) return;
    const slot = Math.floor(this.slot);
    this.still.src = api.address(`/api/videos/${this.item.id}/thumbnail`, {slot, height: 480});
  }

  #cannotPlay() {
    if (!this.usesFilm || !this.film.getAttribute("src")) return;
    const {slot} = this;
    this.#use(false);
    this.#offerProxy();
    this.seek(slot);
  }

  #offerProxy() {
    const button = h("button", {type: "button", onclick: () => this.#makeProxy()}, "Make a playable copy");
    this.note.replaceChildren(h("span", {}, "Single frames: browsers cannot play this file."), button);
  }

  /** Ask for a copy in a codec that browsers know, and wait for it. */
  async #makeProxy() {
    const turn = this.#opened;
    for (;;) {
      try {
        const {status, body} = await api.probe(`/media/${this.item.id}`, {proxy: 1});
        if (turn !== this.#opened) return;
        if (status !== 202) break;
        const bar = h("progress", {max: 1, value: body.progress ?? 0, "aria-label": "Progress of the copy"});
        this.note.replaceChildren(h("span", {}, "Making a copy that this browser can play"), bar);
      } catch (error) {
        this.note.replaceChildren(h("span", {}, error.message));
        return;
      }
      await new Promise(resolve => { setTimeout(resolve, 700); });
    }
    this.note.replaceChildren();
    const {slot} = this;
    this.item = {...this.item, media: `/media/${this.item.id}?proxy=1`};
    this.#use(true);
    this.seek(slot);
  }
}

/** The buttons under the recording. */
export function controls(player) {
  const [button, sound, speed, time] = ["#play", "#sound", "#speed", "#time"].map(find);
  speed.replaceChildren(...SPEEDS.map(each => h("option", {value: each}, `${each}×`)));
  button.addEventListener("click", () => player.toggle());
  sound.addEventListener("click", () => player.toggleSound());
  speed.addEventListener("change", () => player.setSpeed(Number(speed.value)));
  const state = () => {
    button.querySelector("use").setAttribute("href", `/static/icons.svg#${player.playing ? "pause" : "play"}`);
    button.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    speed.value = String(player.speed);
    sound.setAttribute("aria-pressed", String(player.sounds));
    sound.querySelector("use").setAttribute("href", `/static/icons.svg#${player.sounds ? "sound" : "silence"}`);
  };
  player.addEventListener("state", state);
  player.addEventListener("time", () => {
    const whole = clock(player.start + player.slots / player.rate, 1);
    time.textContent = `${clock(player.time, 1)} / ${whole}`;
  });
  state();
}
