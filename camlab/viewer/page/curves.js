"use strict";
// Curves of the training, with a cursor that is the scrubber.

/** @typedef {{run: number, split: string, points: [number, number][]}} Curve */
/** @typedef {{title: string, top: number, curves: Curve[], cursor: SVGLineElement, values: HTMLElement[]}} Chart */

const SVG = "http://www.w3.org/2000/svg";
const [CHART_WIDTH, CHART_HEIGHT, CHART_EDGE] = [264, 72, 4];
const DASHES = { train: "4 3", test: "1.5 3" }; // val, and what belongs to no split, has solid lines

/** @type {Chart[]} */
const charts = [];

function buildCurves() {
  const groups = curveGroups();
  for (const [title, curves] of groups) charts.push(buildChart(title, curves));
  byId("curves").hidden = charts.length === 0;
  drawers.push(drawCurves);
}

/** @returns {[string, Curve[]][]} The curves by the chart in which they are drawn. */
function curveGroups() {
  /** @type {Map<string, Curve[]>} */
  const groups = new Map(["Accuracy", "Loss", "Heat on the object", "Learning rate"].map((title) => [title, []]));
  about.runs.forEach((run, number) => {
    for (const [name, points] of Object.entries(run.curves)) {
      const title = chartTitle(name);
      if (title) groups.set(title, [...(groups.get(title) ?? []), { run: number, split: name.split("/")[0], points }]);
    }
    const onObject = run.onObject;
    if (onObject)
      groups
        .get("Heat on the object")
        ?.push({ run: number, split: "", points: run.epochs.map((epoch, i) => [epoch, mean(onObject[i])]) });
  });
  return [...groups].filter(([, curves]) => curves.some((curve) => curve.points.length > 1));
}

/**
 * The chart in which a metric is drawn; empty for those that say nothing about learning.
 * @param {string} name such as val/acc
 */
function chartTitle(name) {
  const metric = name.split("/").slice(1).join("/");
  if (metric === "acc") return "Accuracy";
  if (metric === "loss") return "Loss";
  if (metric === "lr") return "Learning rate";
  return metric === "" || metric === "best_acc" || metric === "images_per_second" ? "" : metric.replaceAll("_", " ");
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
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`);
  svg.setAttribute("aria-hidden", "true");
  const highest = curves.flatMap((curve) => curve.points).reduce((most, [, value]) => Math.max(most, value), 0);
  const top = title === "Accuracy" || title === "Heat on the object" ? 1 : highest || 1;
  for (const part of [0, 0.5, 1])
    svg.append(
      line(
        "gridline",
        [
          [0, part * top],
          [lastEpoch(), part * top],
        ],
        top,
      ),
    );
  for (const curve of curves) {
    const drawn = line(`curve run-${curve.run}`, curve.points, top);
    drawn.setAttribute("stroke-dasharray", DASHES[/** @type {keyof DASHES} */ (curve.split)] ?? "");
    svg.append(drawn);
  }
  const cursor = document.createElementNS(SVG, "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", "0");
  cursor.setAttribute("y2", String(CHART_HEIGHT));
  svg.append(cursor);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    goTo(nearestEpoch(epochAt((event.clientX - box.left) / box.width)));
  });
  figure.append(head, svg);
  byId("curves").append(figure);
  return { title, top, curves, cursor, values };
}

/**
 * @param {string} className
 * @param {[number, number][]} points
 * @param {number} top value at the upper edge
 */
function line(className, points, top) {
  const drawn = document.createElementNS(SVG, "polyline");
  const inner = CHART_HEIGHT - 2 * CHART_EDGE;
  drawn.setAttribute("class", className);
  drawn.setAttribute(
    "points",
    points
      .map(
        ([epoch, value]) =>
          `${placeOf(epoch).toFixed(1)},${(CHART_HEIGHT - CHART_EDGE - (value / top) * inner).toFixed(1)}`,
      )
      .join(" "),
  );
  return drawn;
}

function lastEpoch() {
  return Math.max(about.epochs[about.epochs.length - 1], 1);
}

/** @param {number} epoch */
function placeOf(epoch) {
  return CHART_EDGE + (epoch / lastEpoch()) * (CHART_WIDTH - 2 * CHART_EDGE);
}

/**
 * The number of epochs done at a place in a chart.
 * @param {number} part of the chart's width, 0 to 1
 */
function epochAt(part) {
  return ((part * CHART_WIDTH - CHART_EDGE) / (CHART_WIDTH - 2 * CHART_EDGE)) * lastEpoch();
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
          return before.length ? `${curve.split} ${significant(before[before.length - 1][1])}`.trim() : "";
        });
      if (about.runs.length > 1) told.unshift(LETTERS[run]);
      setText(place, told.filter(Boolean).join("   "));
    });
  }
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
