"use strict";
// The value of the heat under the pointer.

function buildPointer() {
  document.addEventListener("pointermove", tellValue);
  document.addEventListener("pointerdown", tellValue);
  document.addEventListener("scroll", hideValue, { passive: true });
}

function hideValue() {
  byId("hint").hidden = true;
}

/** @param {PointerEvent} event */
function tellValue(event) {
  const canvas = event.target;
  const shown = canvas instanceof HTMLCanvasElement ? shownOn.get(canvas) : undefined;
  if (!shown || !(canvas instanceof HTMLCanvasElement)) return hideValue();
  const box = canvas.getBoundingClientRect();
  const heat = heatOf(shown.slot, shown.picture, state.epoch);
  if (typeof heat === "string" || box.width === 0) return hideValue();
  const x = Math.min(
    Math.max(Math.floor(((event.clientX - box.left) / box.width) * canvas.width), 0),
    canvas.width - 1,
  );
  const y = Math.min(
    Math.max(Math.floor(((event.clientY - box.top) / box.height) * canvas.height), 0),
    canvas.height - 1,
  );
  const hint = byId("hint");
  setText(hint, valueText(heat, valueAt(heat, x, y, canvas.width, canvas.height)));
  hint.hidden = false;
  // in the dialog, which lies above everything else, if it is open
  const dialog = /** @type {HTMLDialogElement} */ (byId("detail"));
  const place = dialog.open ? dialog : document.body;
  if (hint.parentElement !== place) place.append(hint);
  hint.style.left = `${Math.min(event.clientX + 14, window.innerWidth - hint.offsetWidth - 8)}px`;
  hint.style.top = `${Math.min(event.clientY + 18, window.innerHeight - hint.offsetHeight - 8)}px`;
}

/**
 * The heat at a pixel of the tile.
 * @param {Heat} heat
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
function valueAt(heat, x, y, width, height) {
  const [h, w] = heat.grid;
  const [down, across] = [axis(h, height), axis(w, width)];
  /** @param {number} row */
  const along = (row) => {
    const left = heat.values[row * w + across.lower[x]];
    return left + (heat.values[row * w + across.upper[x]] - left) * across.weight[x];
  };
  const upper = along(down.lower[y]);
  return upper + (along(down.upper[y]) - upper) * down.weight[y];
}

/**
 * @param {Heat} heat
 * @param {number} value
 */
function valueText(heat, value) {
  const isScaledOnly = state.compare === "difference" && about.runs.length > 1 && state.scale !== "raw";
  const shown = `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`;
  return isScaledOnly ? `difference ${shown}` : `heat ${shown}  ·  raw ${minus(value * heat.unit)}`;
}
