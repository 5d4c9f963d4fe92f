"use strict";
// One picture by itself: large tiles, the probabilities of the classes, and a strip of all epochs.

const [DETAIL_SIDE, FILM_SIDE, MOST_CLASSES] = [320, 64, 12];

/** @type {Figure[]} */
const detailFigures = [];
/** @type {HTMLButtonElement[]} */
const classButtons = [];
/** @type {{button: HTMLButtonElement, canvas: HTMLCanvasElement}[]} */
const film = [];
let filmShows = "";

function buildDetail() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("detail"));
  dialog.addEventListener("close", () => show({ picture: -1 }));
  for (let i = 0; i < Math.min(about.classes.length, MOST_CLASSES); i++) {
    const button = make("button", "class-row");
    button.type = "button";
    button.append(make("span", "class-name"), make("span", "meter"), make("span", "percent"));
    button.addEventListener("click", () => show({ klass: ONE_CLASS + button.dataset.name }));
    classButtons.push(button);
    byId("detail-classes").append(button);
  }
  about.epochs.forEach((epoch, i) => {
    const [button, canvas] = [make("button", "frame-button"), make("canvas")];
    button.type = "button";
    button.setAttribute("aria-label", `Epoch ${epoch}`);
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, make("span", "", String(epoch)));
    button.addEventListener("click", () => goTo(i));
    film.push({ button, canvas });
    byId("film").append(button);
  });
  drawers.push(drawDetail);
}

function drawDetail() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("detail"));
  if (state.picture < 0) {
    if (dialog.open) dialog.close();
    return;
  }
  if (!dialog.open) dialog.showModal();
  setText(byId("detail-title"), headingOf(state.picture));
  const chosen = slots();
  while (detailFigures.length > chosen.length) detailFigures.pop()?.figure.remove();
  while (detailFigures.length < chosen.length) {
    detailFigures.push(makeFigure());
    byId("detail-tiles").append(detailFigures[detailFigures.length - 1].figure);
  }
  chosen.forEach((slot, i) => drawFigure(detailFigures[i], slot, state.picture, DETAIL_SIDE));
  setText(
    byId("detail-caption"),
    [epochText(), hottestPlace(heatOf(chosen[0], state.picture, state.epoch))].filter(Boolean).join(". "),
  );
  drawClasses(chosen[0].run);
  drawScores(chosen[0].run, state.method);
  drawFilm(chosen[0]);
}

/** @param {number} run */
function drawClasses(run) {
  const own = ownEpoch(run, state.epoch);
  const { classes, labels } = about.runs[run];
  const shares = classes.map((_, classIdx) => (own < 0 ? 0 : probability(run, own, state.picture, classIdx)));
  const order = classes.map((_, classIdx) => classIdx);
  if (order.length > MOST_CLASSES) order.sort((a, b) => shares[b] - shares[a]);
  classButtons.forEach((button, i) => {
    button.hidden = i >= order.length;
    if (button.hidden) return;
    const [name, meter, percent] = /** @type {HTMLElement[]} */ ([...button.children]);
    button.dataset.name = className(run, order[i]);
    button.setAttribute("aria-pressed", String(state.klass === ONE_CLASS + button.dataset.name));
    button.classList.toggle("is-true", labels[state.picture] === classes[order[i]]);
    setText(name, button.dataset.name);
    setText(percent, percentage(shares[order[i]]));
    meter.style.setProperty("--share", String(shares[order[i]]));
  });
}

/** @param {Slot} slot */
function drawFilm(slot) {
  film.forEach(({ button }, i) => button.toggleAttribute("aria-current", i === state.epoch));
  const { picture, klass, method, opacity, threshold, scale, colours } = state;
  const shows = JSON.stringify([picture, klass, method, opacity, threshold, scale, colours, slot]);
  if (shows === filmShows) return;
  filmShows = shows;
  film.forEach(({ canvas }, i) => drawTile(canvas, state.picture, heatOf(slot, state.picture, i), FILM_SIDE, false));
}
