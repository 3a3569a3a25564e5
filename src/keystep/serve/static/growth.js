/** How accuracy grew with what was labelled, as a small chart. */

import {clock, svg} from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [264, 110, 28, 6, 8, 18];

const y = value => TOP + (1 - Math.min(100, Math.max(0, value)) / 100) * (HEIGHT - TOP - BOTTOM);

/** Draw points with their spread, from two on. */
export function showGrowth(holder, history) {
  const rows = history.filter(row => typeof row.accuracy === "number");
  holder.hidden = rows.length < 2;
  if (holder.hidden) return;
  const most = Math.max(...rows.map(row => row.labelled_seconds), 1);
  const x = row => LEFT + (row.labelled_seconds / most) * (WIDTH - LEFT - RIGHT);
  const path = rows.map(row => `${x(row)},${y(row.accuracy)}`).join(" ");
  const look = {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words(rows)};
  holder.replaceChildren(svg("svg", look, ...axes(most), ...rows.map(row => bar(row, x(row))),
    svg("polyline", {points: path, class: "curve"}), ...rows.map(row => dot(row, x(row)))));
}

function axes(most) {
  const lines = [0, 50, 100].flatMap(value => [
    svg("line", {x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value), class: "grid"}),
    svg("text", {x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end"}, String(value))]);
  const bottom = {y: HEIGHT - 4};
  return [...lines, svg("text", {x: LEFT, ...bottom}, "0:00"),
    svg("text", {x: WIDTH, "text-anchor": "end", ...bottom}, `${clock(most)} labelled`)];
}

function bar(row, x) {
  const spread = row.spread ?? 0;
  return svg("line", {x1: x, x2: x, y1: y(row.accuracy + spread), y2: y(row.accuracy - spread), class: "spread"});
}

function dot(row, x) {
  const labelled = `${clock(row.labelled_seconds)} of ${row.labelled_videos} videos labelled`;
  const text = `${row.accuracy.toFixed(1)} % with ${labelled}`;
  return svg("circle", {cx: x, cy: y(row.accuracy), r: 2.6}, svg("title", {}, text));
}

function words(rows) {
  const [first, last] = [rows[0], rows.at(-1)];
  const [from, to] = [first, last].map(row => row.accuracy.toFixed(1));
  return `Accuracy went from ${from} to ${to} % as labels grew to ${clock(last.labelled_seconds)}`;
}
