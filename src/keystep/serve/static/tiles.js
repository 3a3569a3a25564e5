/**
 * Ribbons as the server draws them: tiles of up to 1024 columns at the zoom level asked for. At level k a column stands
 * for 2^k slots. What is not there yet is drawn from a coarser level; nothing loads a whole video at its full rate.
 */

import * as api from "./api.js";

const COLUMNS = 1024;
const KEPT = 500; // tiles
const COARSER = 8; // levels to look for something to draw meanwhile

/** Event "tile": something arrived. */
export class Tiles extends EventTarget {
  #tiles = new Map();
  #asked = new Map();

  constructor(video, slots, lanes, classes) {
    super();
    Object.assign(this, {video, slots, lanes, classes});
  }

  /** The level whose columns are at most one pixel wide. */
  static level(slotsPerPixel) {
    return Math.max(0, Math.floor(Math.log2(slotsPerPixel) + 1e-9));
  }

  /** Tiles that cover from..to at a level, each as loaded, or a coarser one, or null; asks for what is missing. */
  cover(lane, from, to, level) {
    const length = COLUMNS * 2 ** level;
    const [first, last] = [Math.max(0, Math.floor(from / length)), Math.ceil(Math.min(to, this.slots) / length)];
    const found = [];
    const wanted = new Set();
    for (let index = first; index < last; index++) {
      const key = `${lane.id}/${level}/${index}`;
      wanted.add(key);
      const tile = this.#tiles.get(key);
      if (!tile || tile.stale) this.#load(lane, level, index, key);
      else this.#touch(key, tile);
      const start = index * length;
      found.push({tile: tile ?? this.#coarser(lane, level, start), start, stop: Math.min(start + length, this.slots)});
    }
    for (const [key, asked] of this.#asked) if (asked.lane === lane.id && !wanted.has(key)) asked.stop.abort();
    return found;
  }

  /** What a lane says at a slot: a class id, a share 0..1, or null where nothing has been loaded. */
  value(lane, slot) {
    for (let level = 0; level < 24; level++) {
      const tile = this.#tiles.get(`${lane.id}/${level}/${Math.floor(slot / (COLUMNS * 2 ** level))}`);
      if (!tile || lane.kind === "colour") continue;
      const column = Math.floor(((slot - tile.start) / (tile.stop - tile.start)) * tile.width);
      return lane.kind === "level" ? tile.data[column] / 255 : tile.data[column];
    }
    return null;
  }

  /** Ask again for what a lane shows (all lanes without a name), and show the old until the new is there. */
  refresh(id = null) {
    for (const [key, tile] of this.#tiles) if (id === null || key.startsWith(`${id}/`)) tile.stale = true;
    this.dispatchEvent(new Event("tile"));
  }

  /** Draw classes in their new colours. */
  recolour() {
    for (const tile of this.#tiles.values()) tile.image = null;
  }

  /** A tile as a picture one pixel high. */
  image(lane, tile) {
    return (tile.image ??= lane.kind === "level" ? null : this.#drawn(lane, tile));
  }

  close() {
    for (const {stop} of this.#asked.values()) stop.abort();
  }

  #touch(key, tile) {
    this.#tiles.delete(key);
    this.#tiles.set(key, tile);
  }

  #coarser(lane, level, start) {
    for (let above = level + 1; above <= level + COARSER; above++) {
      const tile = this.#tiles.get(`${lane.id}/${above}/${Math.floor(start / (COLUMNS * 2 ** above))}`);
      if (tile) return tile;
    }
    return null;
  }

  async #load(lane, level, index, key) {
    if (this.#asked.has(key)) return;
    const start = index * COLUMNS * 2 ** level;
    const stop = Math.min(this.slots, start + COLUMNS * 2 ** level);
    const width = Math.ceil((stop - start) / 2 ** level);
    const control = new AbortController();
    this.#asked.set(key, {lane: lane.id, stop: control});
    try {
      const path = `/api/videos/${this.video}/lanes/${encodeURIComponent(lane.id)}`;
      const data = await api.bytes(path, {start, stop, width}, control.signal);
      this.#tiles.set(key, {start, stop, width, data: typed(lane.kind, data), image: null, stale: false});
      if (this.#tiles.size > KEPT) this.#tiles.delete(this.#tiles.keys().next().value);
      this.#asked.delete(key);
      this.dispatchEvent(new Event("tile"));
    } catch (error) {
      // a lane that does not exist yet, or a silent server, is asked again at most every five seconds
      if (error.name === "AbortError") this.#asked.delete(key);
      else setTimeout(() => this.#asked.delete(key), 5000);
    }
  }

  #drawn(lane, tile) {
    const canvas = new OffscreenCanvas(tile.width, 1);
    const context = canvas.getContext("2d");
    const picture = context.createImageData(tile.width, 1);
    for (let column = 0; column < tile.width; column++) {
      const own = lane.kind === "colour" ? tile.data.subarray(3 * column, 3 * column + 3) : null;
      const rgb = own ?? this.#rgb(tile.data[column]);
      if (rgb) picture.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * column);
    }
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  #rgb(id) {
    return id < 0 ? null : this.classes.rgb(id);
  }
}

function typed(kind, buffer) {
  return kind === "classes" ? new Int16Array(buffer) : new Uint8Array(buffer);
}
