"use strict";
// The colour bar: what colours mean at the present scale.

function buildColourBar() {
  byId("colour-ticks").append(make("span"), make("span"), make("span"));
  drawers.push(drawColourBar);
}

function drawColourBar() {
  const canvas = /** @type {HTMLCanvasElement} */ (byId("colour-bar"));
  const betweenRuns = about.runs.length > 1 && state.compare === "difference";
  const isSigned = isSignedView();
  const table = colourTables[isSigned ? "signed" : state.colours];
  const context = contextOf(canvas);
  const image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    const heat = isSigned ? Math.abs(i / 127.5 - 1) : i / 255;
    image.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], heat < state.threshold ? 40 : 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  const [left, middle, right] = /** @type {HTMLElement[]} */ ([...byId("colour-ticks").children]);
  const [low, zero, high] = betweenRuns ? ["A has more", "0", "the other has more"] : tickTexts(isSigned);
  setText(left, low);
  setText(middle, zero);
  setText(right, high);
}

/**
 * The texts at the left, in the middle and at the right of the bar.
 * @param {boolean} isSigned
 */
function tickTexts(isSigned) {
  const top = topOfScale(isSigned ? "signedPeaks" : "peaks");
  const low = isSigned ? (top === "maximum" ? "runner-up" : `−${top}`) : "0";
  const [one, all] = about.hasEpochs ? ["of this epoch", "of all epochs"] : ["of all pictures", "of all pictures"];
  const unit = { per_image: "of each picture", shared: one, raw: all }[state.scale];
  if (isSigned) return [low, "0", top === "maximum" ? referenceTitle() : top];
  return [low, "", top === "maximum" ? `maximum ${unit}` : `${top}, the maximum ${unit}`];
}

/** Name of the class from which the runner-up is subtracted. */
function referenceTitle() {
  return !hasLabels() ? "predicted class" : "true class";
}

/**
 * The value of the last colour in the map's own units, as text.
 * @param {"peaks" | "signedPeaks"} key
 */
function topOfScale(key) {
  if (state.scale === "per_image" || state.method === ALL_METHODS) return "maximum";
  if (state.scale === "raw") return significant(rawPeak(state.method, key));
  const run = slots()[0].run;
  const series = about.runs[run].series.find((one) => one.title === state.method);
  const own = ownEpoch(run, state.epoch);
  if (about.runs.length > 1 && state.compare === "side") return "maximum";
  return series && own >= 0 ? significant(series[key][own]) : "maximum";
}
