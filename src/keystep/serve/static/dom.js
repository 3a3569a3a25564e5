/** Elements, words for times, and icons. Text only ever enters the page as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("button.quiet", {onclick, title}, "text", child)`. Absent children and attributes are left out. */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  return filled(node, attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

/** One of the drawings in icons.svg. */
export function icon(name) {
  return svg("svg", {class: "icon", "aria-hidden": "true"}, svg("use", {href: `/static/icons.svg#${name}`}));
}

/** A button of one icon: its name for those who hear the page, and its key in the hint. */
export function iconButton(name, text, key, onclick) {
  const title = key ? `${text} (${key})` : text;
  return h("button.icon-button", {type: "button", "aria-label": text, title, onclick}, icon(name));
}

export const find = selector => document.querySelector(selector);

/** Seconds as m:ss, or h:mm:ss from an hour on, with `digits` decimals. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.max(0, Math.floor(seconds * unit + 1e-6));
  const [total, part] = [Math.floor(whole / unit), whole % unit];
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = number => String(number).padStart(2, "0");
  const text = hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  return digits ? `${text}.${String(part).padStart(digits, "0")}` : text;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** `run`, `wait` milliseconds after the last of several calls. */
export function later(run, wait) {
  let timer = null;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}

/** `run` at most once per drawn frame. */
export function eachFrame(run) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      run();
    });
  };
}

/** Black or white, whichever has more contrast with ``#rrggbb``. */
export function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map(place => {
    const share = parseInt(colour.slice(place, place + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

/** Say something for a few seconds, to eyes and to screen readers. */
export function say(text, action = null) {
  const line = h("div.toast", {}, h("span", {}, text));
  const gone = () => line.remove();
  if (action) line.append(h("button", {type: "button", onclick: () => { gone(); action.run(); }}, action.text));
  find("#toasts").append(line);
  setTimeout(gone, action ? 10000 : 5000);
}
