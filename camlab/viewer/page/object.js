"use strict";
// The object in a picture, where its mask is known: its share of the area, and of the heat that is drawn.

/** @type {Map<number, Uint8Array>} */
const masks = new Map();
/** @type {Map<string, {inside: Float64Array, whole: Float64Array}>} */
const cellWeights = new Map();

/**
 * The pixels of a picture, 1 on the object and 0 beside it; null if its mask is not known.
 * @param {number} picture
 * @returns {Uint8Array | null}
 */
function maskOf(picture) {
  const { width, height, mask } = about.pictures[picture];
  if (mask === null) return null;
  const known = masks.get(picture);
  if (known) return known;
  const bits = bytesOf(mask);
  const made = Uint8Array.from({ length: width * height }, (_, place) => (bits[place >> 3] >> (7 - (place & 7))) & 1);
  masks.set(picture, made);
  return made;
}

/**
 * The share of a picture's pixels that lie on the object; null if its mask is not known.
 * @param {number} picture
 */
function objectArea(picture) {
  const mask = maskOf(picture);
  return mask && mask.reduce((sum, pixel) => sum + pixel, 0) / mask.length;
}

/**
 * The share of a map's heat that lies on the object (Wang et al. 2020, §4.3); null if the mask is not known, if the map
 * has no heat, or for the difference of two maps.
 * @param {Heat | string} heat
 * @param {number} picture
 * @returns {number | null}
 */
function onObject(heat, picture) {
  const mask = maskOf(picture);
  if (mask === null || typeof heat === "string" || heat.isSigned) return null;
  const { inside, whole } = weightsOf(picture, mask, heat.grid);
  const total = heat.values.reduce((sum, value, cell) => sum + value * whole[cell], 0);
  return total > 0 ? heat.values.reduce((sum, value, cell) => sum + value * inside[cell], 0) / total : null;
}

/**
 * What each cell of a map adds to the sum of the enlarged map: over the object's pixels, and over all.
 * @param {number} picture
 * @param {Uint8Array} mask
 * @param {[number, number]} grid
 */
function weightsOf(picture, mask, grid) {
  const key = `${picture}-${grid.join()}`;
  const known = cellWeights.get(key);
  if (known) return known;
  const { width, height } = about.pictures[picture];
  const [down, across] = [axis(grid[0], height), axis(grid[1], width)];
  const made = { inside: new Float64Array(grid[0] * grid[1]), whole: new Float64Array(grid[0] * grid[1]) };
  for (let place = 0; place < mask.length; place++) {
    const [y, x] = [Math.floor(place / width), place % width];
    for (const [row, ofRow] of [
      [down.lower[y], 1 - down.weight[y]],
      [down.upper[y], down.weight[y]],
    ]) {
      for (const [column, ofColumn] of [
        [across.lower[x], 1 - across.weight[x]],
        [across.upper[x], across.weight[x]],
      ]) {
        made.whole[row * grid[1] + column] += ofRow * ofColumn;
        made.inside[row * grid[1] + column] += ofRow * ofColumn * mask[place];
      }
    }
  }
  cellWeights.set(key, made);
  return made;
}
