"use strict";
// The controls: each changes the state, and shows it.

const ONE_MAP =
  "The map of one class is stored for each picture; a difference needs two." +
  (about.hasEpochs || measures.length > 0 ? "" : " Repeat camlab.explain with top_k=2.");

function buildControls() {
  setText(byId("title"), about.title);
  document.body.classList.toggle("no-epochs", !about.hasEpochs);
  fillSelects();
  bindScrubber();
  for (const id of /** @type {const} */ (["scale", "colours", "sort", "filter", "method"])) {
    selectById(id).addEventListener("change", () => show({ [id]: selectById(id).value }));
  }
  for (const id of /** @type {const} */ (["opacity", "threshold"])) {
    inputById(id).addEventListener("input", () => show({ [id]: Number(inputById(id).value) / 100 }));
  }
  for (const id of /** @type {const} */ (["box", "mask"])) {
    inputById(id).addEventListener("change", () => show({ [id]: inputById(id).checked }));
  }
  inputById("search").addEventListener("input", () => show({ search: inputById("search").value }));
  for (const radio of radios("class-kind")) radio.addEventListener("change", () => show({ klass: radio.value }));
  for (const radio of radios("compare")) radio.addEventListener("change", () => show({ compare: radio.value }));
  selectById("class").addEventListener("change", () => show({ klass: selectById("class").value || "predicted" }));
  byId("flip").addEventListener("click", flip);
  byId("theme").addEventListener("click", changeTheme);
  byId("show-keys").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal());
  byId("copy-link").addEventListener("click", copyLink);
  byId("copy-link").hidden = location.protocol === "about:"; // in a notebook, the page has no address of its own
  byId("compare").hidden = about.runs.length < 2;
  byId("mask-label").hidden = about.pictures.every((picture) => picture.mask === null);
  for (const note of about.notes) byId("notes").append(make("p", "", note));
  drawHeader();
  drawers.push(drawControls);
}

/**
 * The radio buttons of a group.
 * @param {string} name
 * @returns {HTMLInputElement[]}
 */
function radios(name) {
  return [...document.querySelectorAll("input")].filter((input) => input.name === name);
}

function fillSelects() {
  addOption("class", "", "one class for all…");
  classChoices.forEach((name, i) => addOption("class", ONE_CLASS + name, i < 9 ? `${name}   (${i + 1})` : name));
  for (const title of methods) addOption("method", title, title);
  if (methods.length > 1) addOption("method", ALL_METHODS, "all, side by side");
  addScoreSorts();
  const known = hasLabels();
  if (!known) setText(byId("difference-title"), "Predicted − runner-up");
  byId("true-class").hidden = !known;
  for (const radio of radios("class-kind")) {
    radio.disabled = radio.value === "difference" && !hasTwoMaps();
    if (radio.disabled && radio.parentElement) radio.parentElement.title = ONE_MAP;
  }
  if (!about.hasEpochs)
    for (const option of selectById("scale").options) option.textContent = option.dataset.still ?? option.textContent;
  const hasMasks = about.pictures.some((picture) => picture.mask !== null);
  byId("filter").hidden = !known;
  for (const option of selectById("sort").options) {
    option.hidden =
      (option.value === "object" && !hasMasks) ||
      (option.value === "wrong" && !known) ||
      (option.value === "shift" && !about.hasEpochs);
  }
}

/**
 * @param {string} id
 * @param {string} value
 * @param {string} text
 */
function addOption(id, value, text) {
  const option = make("option", "", text);
  option.value = value;
  selectById(id).append(option);
}

function bindScrubber() {
  const slider = inputById("epoch");
  slider.max = String(about.epochs.length - 1);
  slider.disabled = about.epochs.length < 2;
  slider.addEventListener("input", () => goTo(Number(slider.value)));
  byId("play").addEventListener("click", () => (isPlaying() ? pause() : play()));
  selectById("speed").addEventListener("change", () => show({ speed: Number(selectById("speed").value) }));
}

/** The runs and the settings that were given for them: of several runs, those in which they differ. */
function drawHeader() {
  about.runs.forEach((run, i) => {
    const line = make("span", "run");
    if (about.runs.length > 1) {
      const letter = make("b", "letter", LETTERS[i]);
      letter.dataset.run = String(i);
      line.append(letter);
    }
    const settings = run.overrides
      .filter((text) => !/^(out|hydra|paths)\b/.test(text) && !isInAllRuns(text))
      .join("   ");
    line.append(about.runs.length > 1 ? `${run.name}   ${settings}` : settings);
    byId("settings").append(line);
  });
}

/** @param {string} setting */
function isInAllRuns(setting) {
  return about.runs.length > 1 && about.runs.every((run) => run.overrides.includes(setting));
}

function drawControls() {
  const slider = inputById("epoch");
  slider.value = String(state.epoch);
  slider.setAttribute("aria-valuetext", epochText());
  slider.style.setProperty("--done", String(state.epoch / Math.max(about.epochs.length - 1, 1)));
  setText(byId("epoch-label"), epochText());
  byId("play").setAttribute("aria-label", isPlaying() ? "Pause" : "Play");
  byId("play").classList.toggle("is-playing", isPlaying());
  for (const radio of radios("class-kind")) radio.checked = radio.value === state.klass;
  for (const radio of radios("compare")) radio.checked = radio.value === state.compare;
  selectById("class").value = CLASS_KINDS.includes(state.klass) ? "" : state.klass;
  selectById("class").classList.toggle("is-chosen", !CLASS_KINDS.includes(state.klass));
  for (const id of /** @type {const} */ (["scale", "colours", "sort", "filter", "method"]))
    selectById(id).value = state[id];
  selectById("colours").disabled = isSignedView();
  selectById("colours").title = isSignedView() ? "Differences have colours of their own." : "";
  drawSorts();
  selectById("speed").value = String(state.speed);
  for (const id of /** @type {const} */ (["opacity", "threshold"]))
    inputById(id).value = String(Math.round(100 * state[id]));
  for (const id of /** @type {const} */ (["box", "mask"])) inputById(id).checked = state[id];
  if (inputById("search").value !== state.search) inputById("search").value = state.search;
  byId("flip").hidden = state.compare !== "flip";
  setText(byId("flip"), `Shown: ${LETTERS[state.run]} ${about.runs[state.run].name} (f flips)`);
  document.documentElement.dataset.theme = state.theme;
}

/** Name the maps by which pictures are sorted; differences have no share on the object. */
function drawSorts() {
  const run = about.runs.length > 1 ? `${LETTERS[state.run]}, ` : "";
  if (measures.length > 0) byId("sort-scores").setAttribute("label", `Scores of ${run}${sortedMethod()}`);
  const option = [...selectById("sort").options].find(({ value }) => value === "object");
  if (!option) return;
  option.disabled = state.klass === "difference";
  setText(
    option,
    `least heat on the object first (${option.disabled ? "not of differences" : `${run}${sortedMethod()}, ${classText()}`})`,
  );
}

function epochText() {
  const epoch = about.epochs[state.epoch];
  const last = about.epochs[about.epochs.length - 1];
  if (!about.hasEpochs) return "";
  return epoch === 0 ? "Before training" : `Epoch ${epoch} of ${last}`;
}

/** Show the next run instead of the present one. */
function flip() {
  if (about.runs.length > 1)
    show({ compare: "flip", run: state.compare === "flip" ? (state.run + 1) % about.runs.length : state.run });
}

function changeTheme() {
  const isDark =
    state.theme === "dark" || (state.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  show({ theme: isDark ? "light" : "dark" });
}

async function copyLink() {
  writeAddress();
  const link = `${location.href.split("#")[0]}#${address()}`;
  try {
    await navigator.clipboard.writeText(link);
    setText(byId("copy-link"), "Copied");
  } catch {
    prompt("Link to this view:", link);
  }
  setTimeout(() => setText(byId("copy-link"), "Copy link"), 1500);
}
