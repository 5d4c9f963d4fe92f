"use strict";
// Drawing a picture with its heat on a canvas, as `camlab.drawing.render` does.

const TILE_SIDE = 160; // pixels at least; small pictures are enlarged by repeating pixels

/** @typedef {{width: number, height: number, factor: number, pixels: Uint8ClampedArray}} Enlarged */

/** @type {HTMLImageElement[]} */
const images = [];
/** @type {Map<string, Enlarged>} */
const enlarged = new Map();
/** @type {Map<string, Path2D>} */
const outlines = new Map();
/** @type {Object<string, Uint8Array>} */
const colourTables = Object.fromEntries(Object.entries(about.colours).map(([name, table]) => [name, bytesOf(table)]));
let scratch = new Float32Array(0);
const level = new Uint8ClampedArray(1); // rounds and stays within 0 to 255

/** Decode all pictures; resolves when they can be drawn. */
async function loadPictures() {
  for (const picture of about.pictures) {
    const image = new Image();
    image.src = picture.image;
    images.push(image);
  }
  await Promise.all(images.map((image) => image.decode()));
}

/**
 * The pixels of a picture, RGBA, enlarged by a whole number so that its shorter side is at least `side`.
 * @param {number} picture
 * @param {number} side
 * @returns {Enlarged}
 */
function enlargedPicture(picture, side) {
  const key = `${picture}-${side}`;
  const known = enlarged.get(key);
  if (known) return known;
  const { width, height } = about.pictures[picture];
  const factor = Math.max(1, Math.ceil(side / Math.min(width, height)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * factor, height * factor];
  const context = contextOf(canvas);
  context.imageSmoothingEnabled = false;
  context.drawImage(images[picture], 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const made = { width: canvas.width, height: canvas.height, factor, pixels: data };
  enlarged.set(key, made);
  return made;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
function contextOf(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser draws no canvas");
  return context;
}

/**
 * Draw a tile.
 * @param {HTMLCanvasElement} canvas
 * @param {number} picture
 * @param {Heat | string} heat
 * @param {number} side
 * @param {boolean} [hasLines] whether the box and the object's outline are drawn, if they are chosen
 */
function drawTile(canvas, picture, heat, side, hasLines = true) {
  const base = enlargedPicture(picture, side);
  if (canvas.width !== base.width) canvas.width = base.width;
  if (canvas.height !== base.height) canvas.height = base.height;
  const context = contextOf(canvas);
  const image = context.createImageData(base.width, base.height);
  image.data.set(base.pixels);
  if (typeof heat !== "string") {
    if (scratch.length !== base.width * base.height) scratch = new Float32Array(base.width * base.height);
    enlarge(heat.values, heat.grid, base.height, base.width, scratch);
    if (heat.isSigned) blendSigned(image.data, scratch);
    else blend(image.data, scratch);
  }
  context.putImageData(image, 0, 0);
  if (!hasLines) return;
  if (state.mask && about.pictures[picture].mask !== null) drawOutline(context, picture, base.factor);
  if (state.box && typeof heat !== "string" && !heat.isSigned) {
    const box = largestBox(scratch, base.height, base.width, heat.boxShare);
    const isWhole = box && box[0] === 0 && box[1] === 0 && box[2] === base.width && box[3] === base.height;
    if (box && !isWhole) drawBox(context, box, base); // as on the contact sheets
  }
}

/**
 * Blend pixels with the colours of heat from 0 to 1: (1 - opacity) · picture + opacity · colour, rounded half to even.
 * @param {Uint8ClampedArray} pixels RGBA, changed in place
 * @param {Float32Array} heat
 */
function blend(pixels, heat) {
  const table = colourTables[state.colours];
  const { opacity, threshold } = state;
  const rest = 1 - opacity;
  for (let i = 0, p = 0; i < heat.length; i++, p += 4) {
    if (heat[i] < threshold) continue;
    level[0] = heat[i] * 255;
    const colour = 3 * level[0];
    pixels[p] = rest * pixels[p] + opacity * table[colour];
    pixels[p + 1] = rest * pixels[p + 1] + opacity * table[colour + 1];
    pixels[p + 2] = rest * pixels[p + 2] + opacity * table[colour + 2];
  }
}

/**
 * Blend pixels with the colours of heat from -1 to 1; where it is near 0, the picture shows through.
 * @param {Uint8ClampedArray} pixels RGBA, changed in place
 * @param {Float32Array} heat
 */
function blendSigned(pixels, heat) {
  const table = colourTables.signed;
  for (let i = 0, p = 0; i < heat.length; i++, p += 4) {
    const strength = Math.min(Math.abs(heat[i]), 1);
    if (strength < state.threshold) continue;
    const opacity = Math.min(1, 1.6 * state.opacity * strength);
    level[0] = (heat[i] + 1) * 127.5;
    const colour = 3 * level[0];
    for (let c = 0; c < 3; c++) pixels[p + c] = (1 - opacity) * pixels[p + c] + opacity * table[colour + c];
  }
}

/**
 * Draw a white box with a black edge, within the picture.
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number, number, number]} box
 * @param {Enlarged} base
 */
function drawBox(context, box, base) {
  const [left, top, right, bottom] = box;
  const line = Math.max(1, Math.round(Math.min(base.width, base.height) / 150));
  for (const [colour, width] of /** @type {[string, number][]} */ ([
    ["#000", 3 * line],
    ["#fff", line],
  ])) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(left + 1.5 * line, top + 1.5 * line, right - left - 3 * line, bottom - top - 3 * line);
  }
}

/**
 * Draw the outline of the object's mask.
 * @param {CanvasRenderingContext2D} context
 * @param {number} picture
 * @param {number} factor
 */
function drawOutline(context, picture, factor) {
  const path = outline(picture, factor);
  context.lineCap = "square";
  for (const [colour, width] of /** @type {[string, number][]} */ ([
    ["rgba(0,0,0,.75)", 3],
    ["#fff", 1.25],
  ])) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(path);
  }
}

/**
 * The border between the object's pixels and others.
 * @param {number} picture
 * @param {number} factor
 * @returns {Path2D}
 */
function outline(picture, factor) {
  const key = `${picture}-${factor}`;
  const known = outlines.get(key);
  if (known) return known;
  const { width, height } = about.pictures[picture];
  const mask = maskOf(picture);
  /** @type {(x: number, y: number) => boolean} */
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask?.[y * width + x] === 1;
  const path = new Path2D();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (inside(x, y) !== inside(x, y - 1)) segment(path, x, y, x + 1, y, factor);
      if (inside(x, y) !== inside(x - 1, y)) segment(path, x, y, x, y + 1, factor);
    }
  }
  outlines.set(key, path);
  return path;
}

/**
 * @param {Path2D} path
 * @param {number} x
 * @param {number} y
 * @param {number} u
 * @param {number} v
 * @param {number} factor
 */
function segment(path, x, y, u, v, factor) {
  path.moveTo(x * factor, y * factor);
  path.lineTo(u * factor, v * factor);
}
