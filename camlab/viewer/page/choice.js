"use strict";
// Which map a tile shows: method, class, run and epoch as they are chosen, and the scale of its values.

/**
 * A tile of a picture: a method's map in one run, or how far it differs from that in the first run.
 * @typedef {{run: number, title: string, isDifference: boolean}} Slot
 * A map, scaled for drawing: 0 to 1, or -1 to 1 if it is signed; a class that is neither predicted nor true may exceed
 * the common maximum, and gets the last colour. One unit of `values` is `unit` in the map's own units.
 * `otherIdx` is the class whose map is subtracted.
 * @typedef {{values: Float32Array, grid: [number, number], isSigned: boolean, unit: number, boxShare: number,
 *   classIdx: number, otherIdx: number | null}} Heat
 */

/** Whether the tiles show differences: of two classes, or of two runs. */
function isSignedView() {
  return state.klass === "difference" || (about.runs.length > 1 && state.compare === "difference");
}

/** The method by whose maps pictures are sorted: the one that is shown, or the first of several. */
function sortedMethod() {
  return state.method === ALL_METHODS ? methods[0] : state.method;
}

/** @returns {Slot[]} The tiles of each picture. */
function slots() {
  const titles = state.method === ALL_METHODS ? methods : [state.method];
  const runs = about.runs.map((_, run) => run);
  const shown = state.compare === "flip" ? [state.run] : state.compare === "difference" ? runs.slice(1) : runs;
  const isDifference = state.compare === "difference" && about.runs.length > 1;
  return titles.flatMap((title) => (about.runs.length > 1 ? shown : [0]).map((run) => ({ run, title, isDifference })));
}

/**
 * The two classes whose maps are subtracted, or one class alone: indices among the run's own classes.
 * @param {number} run
 * @param {number} own index of the run's own epoch
 * @param {number} picture
 * @returns {[number, number | null] | null} null if there is no such class
 */
function chosenClasses(run, own, picture) {
  const { predicted, reference, runnersUp, classes, labels } = about.runs[run];
  if (state.klass === "predicted") return [predicted[own][picture], null];
  if (state.klass === "true") return labels[picture] === null ? null : [reference[own][picture], null];
  if (state.klass === "difference") return [reference[own][picture], runnersUp[own][picture]];
  const classIdx = classes.indexOf(about.classes.indexOf(state.klass.slice(ONE_CLASS.length)));
  return classIdx < 0 ? null : [classIdx, null];
}

/**
 * The heat of a tile.
 * @param {Slot} slot
 * @param {number} picture
 * @param {number} epoch index in about.epochs
 * @returns {Heat | string} the reason if there is none
 */
function heatOf(slot, picture, epoch) {
  const own = heatOfRun(slot.run, slot.title, picture, epoch);
  if (!slot.isDifference || typeof own === "string") return own;
  const first = heatOfRun(0, slot.title, picture, epoch);
  if (typeof first === "string") return first;
  if (first.grid.join() !== own.grid.join()) return "maps of different sizes";
  if (className(0, first.classIdx) !== className(slot.run, own.classIdx)) return "different classes predicted";
  const half = own.isSigned ? 2 : 1; // the difference of two signed maps lies within ±2
  const values = own.values.map((value, i) => (value - first.values[i]) / half);
  return { ...own, values, isSigned: true, unit: state.scale === "raw" ? own.unit * half : half };
}

/**
 * The heat of a method in one run.
 * @param {number} run
 * @param {string} title
 * @param {number} picture
 * @param {number} epoch index in about.epochs
 * @returns {Heat | string}
 */
function heatOfRun(run, title, picture, epoch) {
  const series = about.runs[run].series.findIndex((one) => one.title === title);
  if (series < 0) return `no ${title}`;
  const own = ownEpoch(run, epoch);
  if (own < 0) return "not drawn yet";
  const chosen = chosenClasses(run, own, picture);
  if (!chosen) return state.klass === "true" ? "true class not known" : "no such class";
  const [classIdx, other] = chosen;
  const map = storedMap(run, series, own, picture, classIdx);
  const minus = other === null ? null : storedMap(run, series, own, picture, other);
  if (!map || (other !== null && !minus)) return "map not stored";
  const { grid, boxShare } = about.runs[run].series[series];
  const values = minus
    ? map.map((value, i) => finite(value) - finite(minus[i]))
    : map.map((value) => Math.max(finite(value), 0));
  const unit = divisor(run, series, own, values, minus !== null);
  for (let i = 0; i < values.length; i++) values[i] = unit > 0 ? values[i] / unit : 0;
  return { values, grid, isSigned: minus !== null, unit, boxShare, classIdx, otherIdx: other };
}

/**
 * What values are divided by. `per_image`: the map's own maximum; `shared`: that of all pictures in this epoch; `raw`:
 * that of all epochs and runs, so that colours stand for the map's own units.
 * @param {number} run
 * @param {number} series
 * @param {number} own
 * @param {Float32Array} values
 * @param {boolean} isSigned
 */
function divisor(run, series, own, values, isSigned) {
  if (state.scale === "per_image") return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const key = isSigned ? "signedPeaks" : "peaks";
  if (state.scale === "shared") return about.runs[run].series[series][key][own];
  return rawPeak(about.runs[run].series[series].title, key);
}

/**
 * Maximum of a method over all runs and epochs.
 * @param {string} title
 * @param {"peaks" | "signedPeaks"} key
 */
function rawPeak(title, key) {
  const same = about.runs.flatMap((run) => run.series.filter((series) => series.title === title));
  return same.reduce((most, series) => series[key].reduce((a, b) => Math.max(a, b), most), 0);
}

/** @param {number} value */
function finite(value) {
  return Number.isNaN(value) ? 0 : value;
}

/**
 * What is told of a picture in a run: classes and probabilities.
 * @param {number} run
 * @param {number} picture
 * @param {number} epoch index in about.epochs
 */
function prediction(run, picture, epoch) {
  const own = ownEpoch(run, epoch);
  if (own < 0) return null;
  const predicted = about.runs[run].predicted[own][picture];
  const label = about.runs[run].labels[picture];
  return {
    name: className(run, predicted),
    share: probability(run, own, picture, predicted),
    isWrong: label !== null && label !== about.runs[run].classes[predicted],
    isKnown: label !== null,
  };
}
