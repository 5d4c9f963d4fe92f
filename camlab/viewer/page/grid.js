"use strict";
// The pictures: which of them are shown, in which order, and their tiles. Only those in view are drawn.

/** @typedef {{item: HTMLElement, button: HTMLButtonElement, heading: HTMLElement, figures: Figure[], isInView: boolean}} Card */

/** @type {Card[]} */
const cards = [];
/** @type {number[]} Indices of the pictures that are shown, in order. */
let arranged = [];
let arrangedBy = "";
let waitsToArrange = 0;

function buildGrid() {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries)
        cards[Number(/** @type {HTMLElement} */ (entry.target).dataset.picture)].isInView = entry.isIntersecting;
      redraw();
    },
    { rootMargin: "160px" },
  );
  about.pictures.forEach((_, picture) => {
    const [item, button, heading] = [make("li", "card"), make("button", "tiles"), make("p", "heading")];
    const whole = headingOf(picture);
    const label = labelOfPicture(picture);
    if (whole.endsWith(`: ${label}`)) {
      heading.append(make("span", "", whole.slice(0, -label.length - 2)), make("span", "label", `: ${label}`));
    } else heading.append(make("span", "", whole));
    heading.title = whole;
    button.type = "button";
    button.append(make("span", "hidden", `${whole}, show larger.`));
    button.addEventListener("click", () => show({ picture }));
    item.dataset.picture = String(picture);
    item.append(heading, button);
    cards.push({ item, button, heading, figures: [], isInView: false });
    watcher.observe(item);
  });
  drawers.push(drawGrid);
}

/**
 * The true class of a picture, or the classes where runs differ; empty if it is not known.
 * @param {number} picture
 */
function labelOfPicture(picture) {
  const labels = about.runs.map((run) => run.labels[picture]);
  const names = labels.map((label) => (label === null ? "" : about.classes[label]));
  const known = [...new Set(names.filter(Boolean))];
  const several = names.flatMap((name, run) => (name ? [`${name} (${LETTERS[run]})`] : []));
  return known.length > 1 ? several.join(", ") : (known[0] ?? "");
}

/**
 * Name of a picture: its file, its true class, or both.
 * @param {number} picture
 */
function headingOf(picture) {
  const label = labelOfPicture(picture);
  return [about.pictures[picture].name, label].filter(Boolean).join(": ") || `picture ${picture + 1}`;
}

function drawGrid() {
  const by = [state.sort, sortedMeasure() && sortedMethod(), state.filter, state.search, state.run].join("\n");
  if (by !== arrangedBy) {
    arrangedBy = by;
    arrange();
  } else {
    clearTimeout(waitsToArrange);
    waitsToArrange = window.setTimeout(() => isPlaying() || arrange(), 250); // pictures stay where they are while one scrubs
  }
  const chosen = slots();
  document.body.classList.toggle("wide-cards", chosen.length > 1);
  byId("grid").style.setProperty("--tiles", String(Math.min(chosen.length, 4)));
  for (const picture of arranged) if (cards[picture].isInView) drawCard(picture, chosen);
  const wrong = arranged.filter((picture) => prediction(state.run, picture, state.epoch)?.isWrong).length;
  setText(
    byId("count"),
    `${arranged.length} ${arranged.length === 1 ? "picture" : "pictures"}${hasLabels() ? `, ${wrong} wrong` : ""}`,
  );
}

/**
 * Draw the tiles of a picture.
 * @param {number} picture
 * @param {Slot[]} chosen
 */
function drawCard(picture, chosen) {
  const card = cards[picture];
  while (card.figures.length > chosen.length) card.figures.pop()?.figure.remove();
  while (card.figures.length < chosen.length) {
    card.figures.push(makeFigure());
    card.button.append(card.figures[card.figures.length - 1].figure);
  }
  chosen.forEach((slot, i) => drawFigure(card.figures[i], slot, picture, TILE_SIDE));
}

/** Put the pictures that pass the filter into the grid, in the chosen order. */
function arrange() {
  const keys = about.pictures.map((_, picture) => sortKey(picture));
  const chosen = about.pictures
    .map((_, picture) => picture)
    .filter(passes)
    .sort((a, b) => keys[a] - keys[b] || a - b);
  if (chosen.join() === arranged.join() && byId("grid").childElementCount === chosen.length) return;
  arranged = chosen;
  byId("grid").replaceChildren(...chosen.map((picture) => cards[picture].item));
  redraw();
}

/** @param {number} picture */
function passes(picture) {
  const told = prediction(state.run, picture, state.epoch);
  if (state.filter !== "all" && Boolean(told?.isWrong) !== (state.filter === "wrong")) return false;
  const words = `${headingOf(picture)} ${told ? told.name : ""}`.toLowerCase();
  return words.includes(state.search.trim().toLowerCase());
}

/**
 * Pictures are sorted by this number, the smallest first.
 * @param {number} picture
 */
function sortKey(picture) {
  const told = prediction(state.run, picture, state.epoch);
  if (state.sort === "wrong") return told?.isWrong ? 0 : 1;
  if (state.sort === "unsure") return told ? told.share : 2;
  if (state.sort === "object")
    return onObject(heatOfRun(state.run, sortedMethod(), picture, state.epoch), picture) ?? 2;
  const measure = sortedMeasure();
  if (measure) return scoreKey(measure, picture);
  if (state.sort === "shift") return -about.runs[state.run].shift[picture];
  return picture;
}
