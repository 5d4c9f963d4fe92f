"use strict";
// Start: read the address, build the parts of the page, and draw.

async function start() {
  readAddress();
  window.addEventListener("hashchange", () => {
    readAddress();
    redraw();
  });
  if (window.innerWidth < 720) byId("panel").removeAttribute("open");
  buildControls();
  buildColourBar();
  buildCurves();
  buildGrid();
  buildDetail();
  buildPointer();
  buildKeyboard();
  buildSave();
  await loadPictures();
  redraw();
  requestAnimationFrame(() => document.body.classList.add("is-ready"));
}

start();
