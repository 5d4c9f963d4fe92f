"use strict";
// Keyboard shortcuts. They are listed in the dialog "keys".

/** @type {Object<string, () => void>} */
const SHORTCUTS = {
  ArrowLeft: () => goTo(state.epoch - 1),
  ArrowRight: () => goTo(state.epoch + 1),
  Home: () => goTo(0),
  End: () => goTo(about.epochs.length - 1),
  " ": () => (isPlaying() ? pause() : play()),
  p: () => show({ klass: "predicted" }),
  t: () => show({ klass: "true" }),
  d: () => show({ klass: "difference" }),
  h: hideHeat,
  b: () => show({ box: !state.box }),
  o: () => show({ mask: !state.mask }),
  f: flip,
  "/": () => inputById("search").focus(),
  "?": () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal(),
};

let opacityBefore = DEFAULTS.opacity || 0.5;

function buildKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isForElement(event)) return;
    const action = SHORTCUTS[event.key] ?? classShortcut(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/**
 * Whether a key is meant for the element that has the focus: text, a list, a slider, or space on a button.
 * @param {KeyboardEvent} event
 */
function isForElement(event) {
  const element = document.activeElement;
  if (element instanceof HTMLSelectElement) return true;
  if (element instanceof HTMLInputElement) {
    if (element.type === "search") {
      if (event.key === "Escape") element.blur();
      return true;
    }
    return /^(Arrow|Home|End| )/.test(event.key);
  }
  return event.key === " " && element instanceof HTMLElement && /^(BUTTON|SUMMARY)$/.test(element.tagName);
}

/**
 * @param {string} key
 * @returns {(() => void) | null}
 */
function classShortcut(key) {
  const name = /^[1-9]$/.test(key) ? classChoices[Number(key) - 1] : undefined;
  return name === undefined ? null : () => show({ klass: ONE_CLASS + name });
}

function hideHeat() {
  if (state.opacity > 0) opacityBefore = state.opacity;
  show({ opacity: state.opacity > 0 ? 0 : opacityBefore });
}
