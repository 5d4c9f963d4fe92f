"use strict";
// What is shown: one object, which is also in the address after the #, so that a view can be sent to a colleague.

/**
 * @typedef {{epoch: number, klass: string, method: string, compare: string, run: number, opacity: number,
 *   threshold: number, scale: string, colours: string, box: boolean, mask: boolean, sort: string, filter: string,
 *   search: string, theme: string, speed: number, picture: number}} State
 */

const CLASS_KINDS = ["predicted", "true", "difference"];
const ONE_CLASS = "name:"; // before the name of a class, which may be "true"
const ALL_METHODS = "all";
const SCORE = "score:"; // before the name of a score by which pictures are sorted

/** The scores of all runs, each once. */
const measures = [
  ...new Map(about.runs.flatMap((run) => run.measures.map((one) => /** @type {const} */ ([one.name, one])))).values(),
];

const CHOICES = {
  compare: ["side", "flip", "difference"],
  scale: ["per_image", "shared", "raw"],
  colours: ["jet", "viridis", "cividis"],
  sort: ["stored", "wrong", "unsure", "object", "shift", ...measures.map(({ name }) => SCORE + name)],
  filter: ["all", "wrong", "right"],
  theme: ["auto", "light", "dark"],
};

/** Titles of the methods of all runs, each once. */
const methods = [...new Set(about.runs.flatMap((run) => run.series.map((series) => series.title)))];

/** Names of the classes that can be chosen. */
const classChoices = classesWithMaps();

/** @type {State} */
const DEFAULTS = {
  epoch: about.epochs.length - 1,
  klass: about.style.klass,
  method: methods[0],
  compare: "side",
  run: 0,
  opacity: about.style.opacity,
  threshold: 0,
  scale: about.style.scale,
  colours: about.style.colours,
  box: about.style.box,
  mask: about.pictures.some((picture) => picture.mask !== null),
  sort: "stored",
  filter: "all",
  search: "",
  theme: "auto",
  speed: 4,
  picture: -1,
};

/** @type {State} */
const state = { ...DEFAULTS };

/** @type {(() => void)[]} Functions that draw; each is called when the state has changed. */
const drawers = [];
let waitsForFrame = false;
let waitsForAddress = 0;

/**
 * Change what is shown.
 * @param {Partial<State>} change
 */
function show(change) {
  Object.assign(state, change);
  redraw();
  clearTimeout(waitsForAddress);
  waitsForAddress = window.setTimeout(writeAddress, 150); // browsers allow about a hundred changes in 30 seconds
}

/** Draw at the next frame, once, however often this is called. */
function redraw() {
  if (waitsForFrame) return;
  waitsForFrame = true;
  requestAnimationFrame(() => {
    waitsForFrame = false;
    for (const draw of drawers) draw();
  });
}

/** The part of the address after the #: what differs from the defaults. */
function address() {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value === DEFAULTS[/** @type {keyof State} */ (key)]) continue;
    words.set(key === "klass" ? "class" : key, key === "epoch" ? String(about.epochs[state.epoch]) : String(value));
  }
  return words.toString();
}

function writeAddress() {
  try {
    history.replaceState(null, "", `#${address()}`);
  } catch {
    // in a sandboxed frame the address cannot be changed
  }
}

/** Take the state from the address; what makes no sense there is left at its default. */
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const read = { ...DEFAULTS };
  const epoch = nearestEpoch(Number(words.get("epoch") ?? NaN));
  if (epoch >= 0) read.epoch = epoch;
  const klass = words.get("class") ?? "";
  if (CLASS_KINDS.includes(klass) || about.classes.includes(klass.slice(ONE_CLASS.length))) read.klass = klass;
  const method = words.get("method") ?? "";
  if (method === ALL_METHODS || methods.includes(method)) read.method = method;
  for (const [key, known] of Object.entries(CHOICES)) {
    const value = words.get(key);
    if (value !== null && known.includes(value)) Object.assign(read, { [key]: value });
  }
  for (const key of /** @type {const} */ (["opacity", "threshold"])) read[key] = share(words.get(key), read[key]);
  for (const key of /** @type {const} */ (["box", "mask"])) if (words.has(key)) read[key] = words.get(key) === "true";
  read.run = index(words.get("run"), about.runs.length, 0);
  read.picture = index(words.get("picture"), about.pictures.length, -1);
  read.speed = [2, 4, 8, 20].includes(Number(words.get("speed"))) ? Number(words.get("speed")) : read.speed;
  read.search = words.get("search") ?? "";
  Object.assign(state, read);
}

/**
 * Index of the page's epoch that is nearest to a number of epochs done; -1 for no number.
 * @param {number} done
 */
function nearestEpoch(done) {
  if (!Number.isFinite(done)) return -1;
  let best = 0;
  about.epochs.forEach((epoch, i) => {
    if (Math.abs(epoch - done) < Math.abs(about.epochs[best] - done)) best = i;
  });
  return best;
}

/**
 * A number from 0 to 1.
 * @param {string | null} text
 * @param {number} otherwise
 */
function share(text, otherwise) {
  const value = Number(text ?? NaN);
  return value >= 0 && value <= 1 ? value : otherwise;
}

/**
 * A whole number below `count`.
 * @param {string | null} text
 * @param {number} count
 * @param {number} otherwise
 */
function index(text, count, otherwise) {
  const value = Number(text ?? NaN);
  return Number.isInteger(value) && value >= 0 && value < count ? value : otherwise;
}
