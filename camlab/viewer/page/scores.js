"use strict";
// The scores of each picture, method by method, which folders of `camlab.score` have.

/** The score by which pictures are sorted; undefined if they are sorted by something else. */
function sortedMeasure() {
  return measures.find(({ name }) => state.sort === SCORE + name);
}

/**
 * A score of a method's map of a picture; null if there is none.
 * @param {number} run
 * @param {string} title of the method
 * @param {number} picture
 * @param {string} name of the score
 * @returns {number | null}
 */
function scoreOf(run, title, picture, name) {
  const series = about.runs[run].series.findIndex((one) => one.title === title);
  const measure = about.runs[run].measures.find((one) => one.name === name);
  return measure?.values[series]?.[picture] ?? null;
}

/**
 * Pictures are sorted by this number, the smallest first: the worst, and pictures without a score at the end.
 * @param {Measure} measure
 * @param {number} picture
 */
function scoreKey(measure, picture) {
  const value = scoreOf(state.run, sortedMethod(), picture, measure.name);
  if (value === null) return Number.MAX_VALUE;
  return measure.higherIsBetter === false ? -value : value;
}

/**
 * The score by which pictures are sorted, as text for a caption; empty if they are sorted by something else.
 * @param {Slot} slot
 * @param {number} picture
 */
function scoreText(slot, picture) {
  const measure = slot.isDifference ? undefined : sortedMeasure();
  if (!measure) return "";
  return `${measure.title} ${scoreNumber(scoreOf(slot.run, slot.title, picture, measure.name))}`;
}

/** @param {number | null} value */
function scoreNumber(value) {
  return value === null ? "–" : (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "−"); // + 0: no -0
}

/** Offer all scores as orders of the pictures. */
function addScoreSorts() {
  const group = make("optgroup");
  group.id = "sort-scores";
  for (const { name, title, higherIsBetter } of measures) {
    const option = make("option", "", `${higherIsBetter === false ? "highest" : "lowest"} ${title} first`);
    option.value = SCORE + name;
    group.append(option);
  }
  if (measures.length > 0) selectById("sort").append(group);
}

/**
 * Draw the table of a picture's scores: a row for each method, and a column for each score.
 * @param {number} run
 * @param {string} shown title of the method that is shown
 */
function drawScores(run, shown) {
  const { series, labels } = about.runs[run];
  const own = about.runs[run].measures;
  const isKnown = labels[state.picture] !== null;
  const ofTrue = own.filter(({ ofClass }) => isKnown && ofClass === "true");
  const ofPredicted = own.filter((measure) => !ofTrue.includes(measure));
  const columns = [...ofTrue, ...ofPredicted];
  for (const part of document.querySelectorAll(".of-scores")) part.toggleAttribute("hidden", columns.length === 0);
  const table = make("table");
  const [classes, titles] = [table.insertRow(), table.insertRow()];
  classes.append(make("td"));
  titles.append(make("td"));
  for (const [group, klass] of /** @type {[Measure[], string][]} */ ([
    [ofTrue, "true"],
    [ofPredicted, "predicted"],
  ])) {
    if (group.length === 0) continue;
    const head = make("th", "quiet", `map of the ${klass} class`);
    head.colSpan = group.length;
    classes.append(head);
  }
  for (const { title } of columns) titles.append(make("th", "", title));
  series.forEach((one) => {
    const row = table.insertRow();
    row.classList.toggle("is-shown", one.title === shown);
    row.append(make("th", "", one.title));
    for (const { name } of columns)
      row.append(make("td", "", scoreNumber(scoreOf(run, one.title, state.picture, name))));
  });
  byId("detail-scores").replaceChildren(table);
}
