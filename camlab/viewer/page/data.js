"use strict";
// The data inside the page: the document "about", and maps that are decoded when they are first drawn.

/**
 * @typedef {{name: string, width: number, height: number, image: string, mask: string | null}} Picture
 * @typedef {{method: string, title: string, layer: string, isComplete: boolean, grid: [number, number], boxShare: number,
 *   peaks: number[], signedPeaks: number[]}} Series
 * @typedef {{name: string, overrides: string[], epochs: number[], classes: number[], labels: (number | null)[], predicted: number[][],
 *   explained: number[][][], reference: number[][], runnersUp: number[][], series: Series[], curves: Object<string, [number, number][]>,
 *   shift: number[], onObject: [number, number][] | null, measures: Measure[]}} Run
 * @typedef {{name: string, title: string, higherIsBetter: boolean | null, ofClass: string, values: (number | null)[][]}} Measure
 * @typedef {{klass: string, box: boolean, colours: string, scale: string, opacity: number}} Style
 * @typedef {{title: string, classes: string[], pictures: Picture[], epochs: number[], hasEpochs: boolean,
 *   runs: Run[], colours: Object<string, string>, style: Style, scoreTitles: Object<string, string>, notes: string[]}} About
 */

/** @type {About} */
const about = JSON.parse(byId("about").textContent || "");

const HALVES = decodeEveryHalf();

/** @type {Map<string, Float32Array>} */
const decoded = new Map();

/**
 * The element with an id, which must exist.
 * @param {string} id
 * @returns {HTMLElement}
 */
function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/**
 * The input element with an id.
 * @param {string} id
 */
function inputById(id) {
  return /** @type {HTMLInputElement} */ (byId(id));
}

/**
 * The select element with an id.
 * @param {string} id
 */
function selectById(id) {
  return /** @type {HTMLSelectElement} */ (byId(id));
}

/** The value of each of the 65,536 numbers of 16 bits (IEEE 754 binary16). */
function decodeEveryHalf() {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) values[bits] = sign * fraction * 2 ** -24;
    else values[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
}

/**
 * Bytes from base64.
 * @param {string} text
 * @returns {Uint8Array}
 */
function bytesOf(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/**
 * The numbers of a block, decoded at the first use.
 * @param {string} name
 * @returns {Float32Array}
 */
function numbers(name) {
  const known = decoded.get(name);
  if (known) return known;
  const bytes = bytesOf(byId(name).textContent || "");
  const values = new Float32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = HALVES[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
  decoded.set(name, values);
  return values;
}

/**
 * Index of a run's own epoch for an epoch of the page: the same, or the nearest earlier one; -1 if there is none.
 * @param {number} run
 * @param {number} epoch index in about.epochs
 */
function ownEpoch(run, epoch) {
  const { epochs } = about.runs[run];
  for (let own = epochs.length - 1; own >= 0; own--) if (epochs[own] <= about.epochs[epoch]) return own;
  return -1;
}

/**
 * The raw map of a class; null if it is not stored.
 * @param {number} run
 * @param {number} series
 * @param {number} own index of the run's own epoch
 * @param {number} picture
 * @param {number} classIdx index among the run's own classes
 * @returns {Float32Array | null}
 */
function storedMap(run, series, own, picture, classIdx) {
  const { grid, isComplete } = about.runs[run].series[series];
  const explained = about.runs[run].explained[own][picture];
  const rank = isComplete ? classIdx : explained.indexOf(classIdx);
  if (rank < 0) return null;
  const count = isComplete ? about.runs[run].classes.length : explained.length;
  const cells = grid[0] * grid[1];
  const start = (picture * count + rank) * cells;
  return numbers(`maps-${run}-${series}-${own}`).subarray(start, start + cells);
}

/** Whether the true class of some picture is known. */
function hasLabels() {
  return about.runs.some((run) => run.labels.some((label) => label !== null));
}

/** @returns {string[]} Names of the classes that have maps somewhere. */
function classesWithMaps() {
  const stored = about.runs.flatMap((run) => {
    const every = run.series.some((series) => series.isComplete);
    return every ? run.classes : [...new Set(run.explained.flat(2))].map((classIdx) => run.classes[classIdx]);
  });
  const known = new Set(stored);
  return about.classes.filter((_, i) => known.has(i));
}

/** Whether the maps of two classes of a picture are stored somewhere. */
function hasTwoMaps() {
  return about.runs.some((run) =>
    run.series.some((series) => (series.isComplete ? run.classes : run.explained[0][0]).length > 1),
  );
}

/**
 * Probability of a class.
 * @param {number} run
 * @param {number} own
 * @param {number} picture
 * @param {number} classIdx index among the run's own classes
 */
function probability(run, own, picture, classIdx) {
  const count = about.runs[run].classes.length;
  return numbers(`probabilities-${run}`)[(own * about.pictures.length + picture) * count + classIdx];
}

/**
 * Index of a run's class among the page's classes.
 * @param {number} run
 * @param {number} classIdx index among the run's own classes
 */
function className(run, classIdx) {
  return about.classes[about.runs[run].classes[classIdx]];
}
