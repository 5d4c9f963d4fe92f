"use strict";
// Mathematics of maps: enlarging, and the box around the largest hot region. Nothing here knows the page.

/** @typedef {{lower: Uint16Array, upper: Uint16Array, weight: Float32Array}} Axis */

/** @type {Map<string, Axis>} */
const axes = new Map();

/**
 * For each of `to` pixels, the two of `from` cells between which it lies, and the weight of the second one.
 * @param {number} from
 * @param {number} to
 * @returns {Axis}
 */
function axis(from, to) {
  const key = `${from}-${to}`;
  const known = axes.get(key);
  if (known) return known;
  const made = { lower: new Uint16Array(to), upper: new Uint16Array(to), weight: new Float32Array(to) };
  for (let i = 0; i < to; i++) {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    made.lower[i] = Math.floor(place);
    made.upper[i] = Math.min(made.lower[i] + 1, from - 1);
    made.weight[i] = place - made.lower[i];
  }
  axes.set(key, made);
  return made;
}

/**
 * Enlarge a map with bilinear interpolation, as `camlab.drawing.render.resize` does (align_corners=False).
 * @param {ArrayLike<number>} map h·w values
 * @param {[number, number]} grid h and w
 * @param {number} height of the result
 * @param {number} width of the result
 * @param {Float32Array} result height·width values
 */
function enlarge(map, grid, height, width, result) {
  const [h, w] = grid;
  const down = axis(h, height);
  const across = axis(w, width);
  const row = new Float32Array(w);
  for (let y = 0, i = 0; y < height; y++) {
    const upper = down.lower[y] * w;
    const lower = down.upper[y] * w;
    for (let x = 0; x < w; x++) row[x] = map[upper + x] + (map[lower + x] - map[upper + x]) * down.weight[y];
    for (let x = 0; x < width; x++, i++) {
      const left = row[across.lower[x]];
      result[i] = left + (row[across.upper[x]] - left) * across.weight[x];
    }
  }
}

/**
 * The box around the largest connected region that is hotter than a share of the maximum, as `render.largest_box`.
 * @param {Float32Array} heat
 * @param {number} height
 * @param {number} width
 * @param {number} share
 * @returns {[number, number, number, number] | null} left, top, right, bottom; right and bottom are exclusive
 */
function largestBox(heat, height, width, share) {
  let hottest = 0;
  for (let i = 0; i < heat.length; i++) if (heat[i] > hottest) hottest = heat[i];
  if (hottest <= 0) return null;
  const limit = Math.fround(Math.fround(share) * hottest);
  const seen = new Uint8Array(height * width);
  /** @type {[number, number, number, number] | null} */
  let best = null;
  let most = 0;
  for (let start = 0; start < seen.length; start++) {
    if (seen[start] || heat[start] <= limit) continue;
    const region = flood(heat, height, width, limit, start, seen);
    if (region.pixels > most) [best, most] = [region.box, region.pixels];
  }
  return best;
}

/**
 * Follow a region from one of its pixels over all eight neighbours, and mark its pixels as seen.
 * @param {Float32Array} heat
 * @param {number} height
 * @param {number} width
 * @param {number} limit
 * @param {number} start
 * @param {Uint8Array} seen
 */
function flood(heat, height, width, limit, start, seen) {
  const waiting = [start];
  seen[start] = 1;
  let pixels = 0;
  let [left, top, right, bottom] = [width, height, 0, 0];
  while (waiting.length) {
    const place = /** @type {number} */ (waiting.pop());
    const x = place % width;
    const y = (place - x) / width;
    pixels++;
    left = Math.min(left, x);
    right = Math.max(right, x + 1);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y + 1);
    for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
      for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
        const next = v * width + u;
        if (seen[next] || heat[next] <= limit) continue;
        seen[next] = 1;
        waiting.push(next);
      }
    }
  }
  return { pixels, box: /** @type {[number, number, number, number]} */ ([left, top, right, bottom]) };
}
