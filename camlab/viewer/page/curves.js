"use strict";
// Curves of the training, with a cursor that is the scrubber.

/** @typedef {{run: number, split: string, points: [number, number][], chance: number | null}} Curve */
/** @typedef {{title: string, curves: Curve[], cursor: SVGLineElement, values: HTMLElement[]}} Chart */
/** @typedef {{bottom: number, top: number}} Bounds */

const SVG = "http://www.w3.org/2000/svg";
const [CHART_WIDTH, CHART_HEIGHT, CHART_EDGE, CHART_LEFT, CHART_TEXT] = [264, 80, 6, 44, 11];
const DASHES = { train: "4 3", test: "1.5 3" }; // val, and what belongs to no split, has solid lines
const CHANCE = "_chance"; // ends the name of a metric's chance level
const NO_CHARTS = ["", "best_acc", "images_per_second"]; // metrics that say nothing about learning

/** @type {Object<string, string>} */
const TITLES = {
  acc: "Accuracy",
  loss: "Loss",
  lr: "Learning rate",
  balanced_acc: "Balanced accuracy",
  f1: "Macro F1",
  ...about.scoreTitles,
};

/** @type {Chart[]} */
const charts = [];

function buildCurves() {
  const groups = about.hasEpochs ? curveGroups() : [];
  for (const [title, curves] of groups) charts.push(buildChart(title, curves));
  byId("curves").hidden = charts.length === 0;
  drawers.push(drawCurves);
}

/** @returns {[string, Curve[]][]} The curves by the chart in which they are drawn. */
function curveGroups() {
  const first = ["Accuracy", "Loss", chartTitle("val/heat/auroc"), ...about.runs.map(onObjectTitle), "Learning rate"];
  /** @type {Map<string, Curve[]>} */
  const groups = new Map(first.map((title) => [title, []]));
  about.runs.forEach((run, number) => {
    for (const [name, points] of Object.entries(run.curves)) {
      const title = name.endsWith(CHANCE) ? "" : chartTitle(name);
      const chance = run.curves[name + CHANCE]?.[0]?.[1] ?? null;
      const curve = { run: number, split: name.split("/")[0], points, chance };
      if (title) groups.set(title, [...(groups.get(title) ?? []), curve]);
    }
    if (run.onObject)
      groups.get(onObjectTitle(run))?.push({
        run: number,
        split: "",
        points: run.onObject,
        chance: mean(about.pictures.map((_, picture) => objectArea(picture))),
      });
  });
  return [...groups].filter(([, curves]) => curves.some((curve) => curve.points.length > 0));
}

/**
 * The chart of the heat on the object, which names the maps that are measured.
 * @param {Run} run
 */
function onObjectTitle({ series, labels }) {
  const isKnown = labels.some((label) => label !== null);
  return `Heat on the object (${series[0].title}, ${isKnown ? "true" : "predicted"} class)`;
}

/**
 * The chart in which a metric is drawn; empty for those that say nothing about learning.
 * @param {string} name such as val/acc
 */
function chartTitle(name) {
  const metric = name
    .split("/")
    .slice(1)
    .join("/")
    .replace(/^heat\//, "");
  if (NO_CHARTS.includes(metric)) return "";
  const words = metric.replaceAll(/[_/]/g, " ");
  return TITLES[metric] ?? words[0].toUpperCase() + words.slice(1);
}

/** @param {(number | null)[]} values */
function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.reduce((sum, value) => sum + value, 0) / Math.max(known.length, 1);
}

/**
 * @param {string} title
 * @param {Curve[]} curves
 * @returns {Chart}
 */
function buildChart(title, curves) {
  const [figure, head] = [make("figure", "chart"), make("figcaption")];
  const values = about.runs.map((_, run) => {
    const place = make("span", "values");
    place.dataset.run = about.runs.length > 1 ? String(run) : "";
    return place;
  });
  head.append(make("span", "chart-title", title), ...values);
  const svg = drawing("svg", "", { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, "aria-hidden": "true" });
  const range = rangeOf(curves, title === "Accuracy");
  const hasLines = curves.some((curve) => curve.points.length > 1);
  svg.append(...axisOf(range), ...curves.flatMap((curve) => curveParts(curve, range, !hasLines)));
  const cursor = /** @type {SVGLineElement} */ (drawing("line", "cursor", { y1: "0", y2: String(CHART_HEIGHT) }));
  svg.append(cursor);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    goTo(nearestEpoch(epochAt((event.clientX - box.left) / box.width)));
  });
  figure.append(head, svg);
  byId("curves").append(figure);
  return { title, curves, cursor, values };
}

/**
 * The values at the lower and upper edge of a chart: 0 is always within, and so are the curves and their chance levels.
 * @param {Curve[]} curves
 * @param {boolean} isShare whether the upper edge is 1
 * @returns {Bounds}
 */
function rangeOf(curves, isShare) {
  const drawn = curves.flatMap(({ points, chance }) => [...points.map(([, value]) => value), chance ?? 0]);
  const bottom = drawn.reduce((least, value) => Math.min(least, value), 0);
  const highest = drawn.reduce((most, value) => Math.max(most, value), isShare ? 1 : 0);
  return { bottom, top: highest > bottom ? highest : bottom + 1 };
}

/**
 * Horizontal lines at the edges, in the middle and at 0, and the numbers that they stand for.
 * @param {Bounds} range
 * @returns {SVGElement[]}
 */
function axisOf(range) {
  const { bottom, top } = range;
  const lines = [bottom, (bottom + top) / 2, top].map((value) => across("gridline", value, range));
  if (bottom < 0) lines.push(across("zero", 0, range));
  const marked = [bottom, top];
  const isFree = marked.every((value) => Math.abs(heightOf(0, range) - heightOf(value, range)) > CHART_TEXT);
  return [...lines, ...(isFree ? [...marked, 0] : marked).map((value) => numberAt(value, range))];
}

/**
 * What is drawn of a curve: its line, or a dot if it has one point, and its chance level, dotted.
 * @param {Curve} curve
 * @param {Bounds} range
 * @param {boolean} hasNumber whether the number of a dot stands beside it, where no line can cross it
 * @returns {SVGElement[]}
 */
function curveParts({ run, split, points, chance }, range, hasNumber) {
  /** @type {(point: [number, number]) => [number, number]} */
  const placed = ([epoch, value]) => [placeOf(epoch), heightOf(value, range)];
  const dashes = DASHES[/** @type {keyof typeof DASHES} */ (split)] ?? "";
  const path = points.map((point) => placed(point).map((place) => place.toFixed(1))).join(" ");
  const parts = [drawing("polyline", `curve run-${run}`, { points: path, "stroke-dasharray": dashes })];
  if (points.length === 1) {
    const [x, y] = placed(points[0]);
    const isRight = x > CHART_WIDTH / 2;
    parts.push(drawing("circle", `dot run-${run}`, { cx: x, cy: y, r: 3 }));
    const side = { x: isRight ? x - 6 : x + 6, y: y > CHART_HEIGHT / 2 ? y - 3 : y + CHART_TEXT };
    if (hasNumber)
      parts.push(drawing("text", "number", { ...side, "text-anchor": isRight ? "end" : "start" }, minus(points[0][1])));
  }
  if (chance !== null) parts.push(across(`chance run-${run}`, chance, range));
  return parts;
}

/**
 * @param {string} className
 * @param {number} value
 * @param {Bounds} range
 */
function across(className, value, range) {
  const y = heightOf(value, range).toFixed(1);
  return drawing("line", className, { x1: CHART_LEFT, x2: CHART_WIDTH - CHART_EDGE, y1: y, y2: y });
}

/**
 * A number at the left of a chart.
 * @param {number} value
 * @param {Bounds} range
 */
function numberAt(value, range) {
  const place = { x: CHART_LEFT - 4, y: heightOf(value, range) + 4, "text-anchor": "end" };
  return drawing("text", "number", place, minus(value));
}

/**
 * An element of a chart.
 * @param {string} tag
 * @param {string} className
 * @param {Object<string, string | number>} attributes
 * @param {string} [text]
 * @returns {SVGElement}
 */
function drawing(tag, className, attributes, text = "") {
  const made = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  if (className) made.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.textContent = text;
  return made;
}

/**
 * @param {number} value
 * @param {Bounds} range
 */
function heightOf(value, { bottom, top }) {
  return CHART_HEIGHT - CHART_EDGE - ((value - bottom) / (top - bottom)) * (CHART_HEIGHT - 2 * CHART_EDGE);
}

function lastEpoch() {
  return Math.max(about.epochs[about.epochs.length - 1], 1);
}

/** @param {number} epoch */
function placeOf(epoch) {
  return CHART_LEFT + (epoch / lastEpoch()) * (CHART_WIDTH - CHART_LEFT - CHART_EDGE);
}

/**
 * The number of epochs done at a place in a chart.
 * @param {number} part of the chart's width, 0 to 1
 */
function epochAt(part) {
  return ((part * CHART_WIDTH - CHART_LEFT) / (CHART_WIDTH - CHART_LEFT - CHART_EDGE)) * lastEpoch();
}

function drawCurves() {
  const epoch = about.epochs[state.epoch];
  for (const chart of charts) {
    const place = String(placeOf(epoch));
    chart.cursor.setAttribute("x1", place);
    chart.cursor.setAttribute("x2", place);
    chart.values.forEach((place, run) => {
      const told = chart.curves
        .filter((curve) => curve.run === run)
        .map((curve) => {
          const before = curve.points.filter(([at]) => at <= epoch);
          const shown = before.length ? `${curve.split} ${minus(before[before.length - 1][1])}`.trim() : "";
          return curve.chance === null ? shown : `${shown}   chance ${minus(curve.chance)}`.trim();
        });
      if (about.runs.length > 1) told.unshift(LETTERS[run]);
      setText(place, told.filter(Boolean).join("   "));
    });
  }
}

/**
 * A number with three digits, and a minus sign of its own width.
 * @param {number} value
 */
function minus(value) {
  return significant(value).replace("-", "−");
}

/**
 * A number with three digits.
 * @param {number} value
 */
function significant(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e4 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
