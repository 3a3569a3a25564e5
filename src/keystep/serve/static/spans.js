/**
 * Changes of labelled stretches. Every function takes and returns a sorted list of {start, stop, label} in slots
 * (stop exclusive) that never overlap, and leaves the list that it was given alone.
 */

/** The stretch at a slot: its place in the list, or -1. */
export function indexAt(spans, slot) {
  let [low, high] = [0, spans.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (slot < spans[middle].start) high = middle - 1;
    else if (slot >= spans[middle].stop) low = middle + 1;
    else return middle;
  }
  return -1;
}

export function erase(spans, start, stop) {
  return spans.flatMap(span => {
    if (span.stop <= start || span.start >= stop) return [span];
    const left = span.start < start ? [{...span, stop: start}] : [];
    return span.stop > stop ? [...left, {...span, start: stop}] : left;
  });
}

/** Label a stretch, over whatever was there; it unites with stretches of the same label that it meets. */
export function paint(spans, start, stop, label) {
  if (stop <= start) return spans;
  const met = spans.filter(span => span.label === label && span.start <= stop && span.stop >= start);
  const from = Math.min(start, ...met.map(span => span.start));
  const to = Math.max(stop, ...met.map(span => span.stop));
  return sorted([...erase(spans, from, to), {start: from, stop: to, label}]);
}

/** Label what has no label yet with the parts of `found` that fall there. */
export function fill(spans, found) {
  const free = found.flatMap(one => gaps(spans, one.start, one.stop).map(gap => ({...gap, label: one.label})));
  return free.reduce((all, {start, stop, label}) => paint(all, start, stop, label), spans);
}

/** The parts of start..stop that have no label. */
function gaps(spans, start, stop) {
  const free = [];
  let from = start;
  for (const span of spans) {
    if (span.stop <= from || span.start >= stop) continue;
    if (span.start > from) free.push({start: from, stop: span.start});
    from = span.stop;
  }
  return from < stop ? [...free, {start: from, stop}] : free;
}

export function splitAt(spans, slot) {
  const index = indexAt(spans, slot);
  if (index < 0 || spans[index].start === slot) return spans;
  return spans.toSpliced(index, 1, {...spans[index], stop: slot}, {...spans[index], start: slot});
}

/** Unite a stretch with the next one, and the gap between them, under its own label. */
export function mergeNext(spans, index) {
  if (index < 0 || index + 1 >= spans.length) return spans;
  return spans.toSpliced(index, 2, {...spans[index], stop: spans[index + 1].stop});
}

export function removeAt(spans, index) {
  return spans.toSpliced(index, 1);
}

export function rename(spans, index, label) {
  return spans.with(index, {...spans[index], label});
}

/** Move one end ("start" or "stop") of a stretch. A shared border moves for both neighbours; none is swallowed. */
export function moveBorder(spans, index, edge, slot, slots) {
  const span = spans[index];
  const step = edge === "start" ? -1 : 1;
  const beside = spans[index + step];
  const far = edge === "start" ? "stop" : "start";
  const shared = beside !== undefined && beside[far] === span[edge];
  const limit = beside === undefined ? (step < 0 ? 0 : slots) : shared ? beside[edge] - step : beside[far];
  const inner = span[far] + step;
  const place = Math.min(Math.max(slot, Math.min(limit, inner)), Math.max(limit, inner));
  const moved = spans.with(index, {...span, [edge]: place});
  return shared ? moved.with(index + step, {...beside, [far]: place}) : moved;
}

/** Where two lists disagree: {start, stop, label} of the second, label null where it has none. */
export function differences(before, after) {
  const borders = new Set([...before, ...after].flatMap(span => [span.start, span.stop]));
  const places = [...borders].sort((a, b) => a - b);
  const label = (spans, slot) => spans[indexAt(spans, slot)]?.label ?? null;
  const found = [];
  for (let place = 0; place + 1 < places.length; place++) {
    const [start, stop] = [places[place], places[place + 1]];
    const wanted = label(after, start);
    if (wanted === label(before, start)) continue;
    const last = found.at(-1);
    if (last && last.stop === start && last.label === wanted) last.stop = stop;
    else found.push({start, stop, label: wanted});
  }
  return found;
}

/** Make the same changes to another list. */
export function apply(spans, changes) {
  return changes.reduce(
    (all, {start, stop, label}) => (label === null ? erase(all, start, stop) : paint(all, start, stop, label)), spans,
  );
}

export function same(first, second) {
  return first.length === second.length && first.every((span, index) => {
    const other = second[index];
    return span.start === other.start && span.stop === other.stop && span.label === other.label;
  });
}

export function sorted(spans) {
  return spans.toSorted((a, b) => a.start - b.start);
}
