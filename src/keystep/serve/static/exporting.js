/** Labels as files of other programs: what each format is for, what it cannot hold, and the download. */

import * as api from "./api.js";
import {find, h} from "./dom.js";

/** Title of a format, and what its files are for; one that an installed package brings has its own name only. */
const KNOWN = {
  csv: ["CSV", "start, end and label in seconds, for any spreadsheet"],
  webvtt: ["WebVTT", "captions for a web page or VLC"],
  elan: ["ELAN", "an .eaf file for each video"],
  labelstudio: ["Label Studio", "tasks and an interface, to be imported"],
  cvat: ["CVAT", "a track for each segment, to be uploaded as CVAT 1.1"],
  mstcn: ["MS-TCN", "a label for each slot, as code for action segmentation reads it"],
  fiftyone: ["FiftyOne", "temporal detections"],
  lerobot: ["LeRobot", "subtasks of a robot data set, in Parquet"],
  rerun: ["Rerun", "a recording for its viewer"],
  mp4: ["Film", "the recording with its labels drawn below; takes about as long as watching it"],
};

export class Exporting {
  /** `prepare` saves what is open, and answers the open video or nothing. */
  constructor(prepare) {
    Object.assign(this, {prepare, dialog: find("#export"), running: null});
    this.button = this.dialog.querySelector("[type=submit]");
    this.dialog.querySelector("form").addEventListener("submit", event => {
      event.preventDefault();
      this.#download(new FormData(event.target).get("format"));
    });
    this.dialog.addEventListener("close", () => this.running?.abort());
  }

  async show(item) {
    const one = find("#export-one");
    one.disabled = !item;
    one.nextElementSibling.textContent = item ? `only ${item.name}` : "only the open video";
    this.dialog.showModal();
    this.#tell("");
    if (find("#formats").childElementCount) return;
    try {
      const {items} = await api.get("/api/formats");
      find("#formats").replaceChildren(...items.map(row));
      find("#formats input:enabled").checked = true;
    } catch (error) {
      this.#tell(error.message, [], true);
    }
  }

  async #download(format) {
    this.running = new AbortController();
    this.button.disabled = true;
    this.#tell("Writing the files…");
    try {
      const item = await this.prepare();
      const values = {format, ...(find("#export-one").checked && item ? {video: item.id} : {})};
      const {blob, name, notes} = await api.file("/api/export", values, this.running.signal);
      save(blob, name);
      this.#tell(notes.length ? "Downloaded. What to know of the files:" : "Downloaded.", notes);
    } catch (error) {
      if (error.name !== "AbortError") this.#tell(error.message, [], true);
    }
    this.button.disabled = false;
  }

  #tell(text, notes = [], bad = false) {
    const place = find("#export-said");
    place.textContent = text;
    place.classList.toggle("bad", bad);
    const list = find("#export-notes");
    list.replaceChildren(...notes.map(line => h("li", {}, line)));
    (notes.length ? list : place).scrollIntoView({block: "nearest"});
  }
}

function row({name, loses, problem}) {
  const [title, use] = KNOWN[name] ?? [name, ""];
  const radio = h("input", {type: "radio", name: "format", value: name, required: true, disabled: problem !== ""});
  const lost = loses.startsWith(`${name} `) ? title + loses.slice(name.length) : loses;
  return h("label.format", {}, radio, h("span", {}, h("b", {}, title), use && ` · ${use}`),
    h("span.note", {}, problem || lost));
}

function save(blob, name) {
  const link = h("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
