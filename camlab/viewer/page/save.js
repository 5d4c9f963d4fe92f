"use strict";
// Saving: the pictures that are shown as a PNG file, and all epochs of one picture as an animated one.

const [SAVED_GAP, SAVED_LINE, SAVED_COLUMNS] = [16, 18, 1100];

function buildSave() {
  byId("save-png").addEventListener("click", savePng);
  byId("save-animation").addEventListener("click", saveAnimation);
}

async function savePng() {
  const canvas = sheet();
  offer(await pngOf(canvas), about.hasEpochs ? `heatmaps-epoch-${about.epochs[state.epoch]}.png` : "heatmaps.png");
}

/** All pictures that are shown, with their captions, on one canvas. */
function sheet() {
  const chosen = slots();
  const rows = arranged.map((picture) => composed(picture, chosen, TILE_SIDE));
  const cell = rows.reduce(
    (size, one) => ({ width: Math.max(size.width, one.width), height: Math.max(size.height, one.height) }),
    { width: 1, height: 1 },
  );
  const columns = Math.max(1, Math.floor(SAVED_COLUMNS / (cell.width + SAVED_GAP)));
  const canvas = blank(
    columns * (cell.width + SAVED_GAP) + SAVED_GAP,
    Math.ceil(rows.length / columns) * (cell.height + SAVED_GAP) + SAVED_GAP + SAVED_LINE,
  );
  const context = contextOf(canvas);
  write(
    context,
    [about.title, epochText(), state.method === ALL_METHODS ? "all methods" : state.method, classText()]
      .filter(Boolean)
      .join(" · "),
    SAVED_GAP,
    SAVED_LINE,
    true,
  );
  rows.forEach((one, i) =>
    context.drawImage(
      one,
      SAVED_GAP + (i % columns) * (cell.width + SAVED_GAP),
      SAVED_LINE + SAVED_GAP + Math.floor(i / columns) * (cell.height + SAVED_GAP),
    ),
  );
  return canvas;
}

function classText() {
  return (
    { predicted: "predicted class", true: "true class", difference: "difference from the runner-up" }[state.klass] ??
    state.klass.slice(ONE_CLASS.length)
  );
}

/**
 * The tiles of a picture side by side, under its name and above what is predicted.
 * @param {number} picture
 * @param {Slot[]} chosen
 * @param {number} side
 */
function composed(picture, chosen, side) {
  const base = enlargedPicture(picture, side);
  const canvas = blank(chosen.length * (base.width + 4) - 4, base.height + 2 * SAVED_LINE);
  const context = contextOf(canvas);
  const tile = document.createElement("canvas");
  write(context, headingOf(picture), 0, SAVED_LINE - 5, true);
  chosen.forEach((slot, i) => {
    drawTile(tile, picture, heatOf(slot, picture, state.epoch), side);
    context.drawImage(tile, i * (base.width + 4), SAVED_LINE);
    const told = prediction(slot.run, picture, state.epoch);
    write(
      context,
      [labelOf(slot), told ? `${told.isWrong ? "✗ " : ""}${told.name} ${percentage(told.share)}` : ""]
        .filter(Boolean)
        .join(" "),
      i * (base.width + 4),
      base.height + 2 * SAVED_LINE - 4,
      false,
    );
  });
  return canvas;
}

/**
 * A white canvas.
 * @param {number} width
 * @param {number} height
 */
function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = contextOf(canvas);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  return canvas;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} x
 * @param {number} y
 * @param {boolean} isBold
 */
function write(context, text, x, y, isBold) {
  context.fillStyle = "#111";
  context.font = `${isBold ? "600 " : ""}12px system-ui, sans-serif`;
  context.fillText(text, x, y);
}

/** Save all epochs of a picture as they are shown now, whatever is chosen while the frames are encoded. */
async function saveAnimation() {
  const chosen = { ...state };
  const frames = [];
  for (let epoch = 0; epoch < about.epochs.length; epoch++) {
    const canvas = drawnIn({ ...chosen, epoch }, frameOfEpoch);
    frames.push(new Uint8Array(await (await pngOf(canvas)).arrayBuffer()));
  }
  const parts = /** @type {BlobPart[]} */ (animatedPng(frames, Math.round(1000 / chosen.speed)));
  offer(new Blob(parts, { type: "image/png" }), `heatmaps-picture-${chosen.picture + 1}.png`);
}

/**
 * What a function draws in another state than the present one, which stays as it is.
 * @param {State} other
 * @param {() => HTMLCanvasElement} draw
 */
function drawnIn(other, draw) {
  const present = { ...state };
  Object.assign(state, other);
  try {
    return draw();
  } finally {
    Object.assign(state, present);
  }
}

/** The picture that is shown large, with the name of the epoch above it. */
function frameOfEpoch() {
  const one = composed(state.picture, slots(), 2 * TILE_SIDE);
  const canvas = blank(one.width, one.height + SAVED_LINE);
  contextOf(canvas).drawImage(one, 0, SAVED_LINE);
  write(contextOf(canvas), epochText(), 0, SAVED_LINE - 5, false);
  return canvas;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {Promise<Blob>}
 */
function pngOf(canvas) {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large")))),
  );
}

/**
 * Let the browser save a file.
 * @param {Blob} blob
 * @param {string} name
 */
function offer(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
