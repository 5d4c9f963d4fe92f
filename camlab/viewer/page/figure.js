"use strict";
// One tile as an element: a label, the canvas, and what the run predicts.

/**
 * @typedef {{figure: HTMLElement, label: HTMLElement, canvas: HTMLCanvasElement, note: HTMLElement,
 *   caption: HTMLElement}} Figure
 */

const LETTERS = "ABCDEF";

/** @type {WeakMap<HTMLCanvasElement, {slot: Slot, picture: number}>} What each canvas shows. */
const shownOn = new WeakMap();

/**
 * Make an element with a class and a text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** @returns {Figure} */
function makeFigure() {
  const [figure, label, caption] = [make("span", "tile"), make("span", "tile-label"), make("span", "caption")];
  const [frame, canvas, note] = [make("span", "frame"), make("canvas"), make("span", "tile-note")];
  canvas.setAttribute("role", "img");
  frame.append(canvas, note);
  figure.append(label, frame, caption);
  return { figure, label, canvas, note, caption };
}

/**
 * Draw the content of a tile.
 * @param {Figure} figure
 * @param {Slot} slot
 * @param {number} picture
 * @param {number} side
 */
function drawFigure(figure, slot, picture, side) {
  const heat = heatOf(slot, picture, state.epoch);
  shownOn.set(figure.canvas, { slot, picture });
  drawTile(figure.canvas, picture, heat, side);
  const empty = typeof heat !== "string" && heat.unit === 0 ? "no evidence" : "";
  setText(figure.note, typeof heat === "string" ? heat : empty);
  const words = hottestPlace(heat);
  if (figure.canvas.getAttribute("aria-label") !== words) figure.canvas.setAttribute("aria-label", words);
  const title = labelOf(slot);
  setText(figure.label, title);
  figure.label.dataset.run = about.runs.length > 1 ? String(slot.run) : "";
  figure.label.hidden = title === "";
  drawCaption(figure.caption, slot, picture, heat);
}

/**
 * The text alternative of a map: where the heat is highest.
 * @param {Heat | string} heat
 */
function hottestPlace(heat) {
  if (typeof heat === "string" || heat.unit === 0) return "No heat.";
  const cell = heat.values.indexOf(heat.values.reduce((most, value) => Math.max(most, value), -1));
  const [row, column] = [Math.floor(cell / heat.grid[1]), cell % heat.grid[1]];
  const [down, across] = [
    ["at the top", "in the middle", "at the bottom"],
    ["left", "centre", "right"],
  ];
  const place = `${third(row, heat.grid[0], down)}, ${third(column, heat.grid[1], across)}`;
  return `Hottest ${place === "in the middle, centre" ? "in the centre" : place}.`;
}

/**
 * @param {number} place
 * @param {number} count
 * @param {string[]} words
 */
function third(place, count, words) {
  return words[Math.floor(((place + 0.5) / count) * 3)];
}

/**
 * What tells a tile from the others of its picture.
 * @param {Slot} slot
 */
function labelOf(slot) {
  const several = about.runs.length > 1;
  const run = slot.isDifference ? `${LETTERS[slot.run]} − A` : LETTERS[slot.run];
  return [several ? run : "", state.method === ALL_METHODS ? slot.title : "", several ? earlier(slot.run) : ""]
    .filter(Boolean)
    .join(" · ");
}

/**
 * Tells which epoch is shown if the run has none of this number.
 * @param {number} run
 */
function earlier(run) {
  const own = ownEpoch(run, state.epoch);
  const shown = about.runs[run].epochs[own];
  return own < 0 || shown === about.epochs[state.epoch] ? "" : `nearest earlier: ${shown}`;
}

/**
 * Whether the prediction is right, the predicted class and its probability, and what is told of the map that is drawn.
 * @param {HTMLElement} caption
 * @param {Slot} slot
 * @param {number} picture
 * @param {Heat | string} heat
 */
function drawCaption(caption, slot, picture, heat) {
  const told = prediction(slot.run, picture, state.epoch);
  if (caption.childElementCount === 0)
    caption.append(make("span", "mark"), make("span", "guess"), make("span", "percent"), make("span", "of-map"));
  const [mark, guess, percent, ofMap] = /** @type {HTMLElement[]} */ ([...caption.children]);
  setText(mark, !told?.isKnown ? "" : told.isWrong ? "✗" : "✓");
  caption.classList.toggle("wrong", Boolean(told?.isWrong));
  setText(guess, told ? told.name : "");
  setText(percent, told ? percentage(told.share) : "");
  setText(ofMap, [textOfMap(slot.run, heat, picture), scoreText(slot, picture)].filter(Boolean).join("\n"));
  ofMap.hidden = ofMap.textContent === "";
}

/**
 * The two classes whose maps are subtracted, or the share of the heat that is drawn on the object; empty for neither.
 * @param {number} run
 * @param {Heat | string} heat
 * @param {number} picture
 */
function textOfMap(run, heat, picture) {
  if (typeof heat === "string") return "";
  if (heat.otherIdx !== null) return `${className(run, heat.classIdx)} − ${className(run, heat.otherIdx)}`;
  const inside = onObject(heat, picture);
  if (inside === null) return "";
  const area = `(${percentage(objectArea(picture) ?? 0)} of the area)`.replaceAll(" ", "\u00a0"); // on one line
  return `${percentage(inside)} on object ${area}`;
}

/** @param {number} value */
function percentage(value) {
  return value > 0 && value < 0.005 ? "<1 %" : `${Math.round(100 * value)} %`;
}

/**
 * Set a text only if it changes, which spares the browser its layout.
 * @param {HTMLElement} place
 * @param {string} text
 */
function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
