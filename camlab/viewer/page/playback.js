"use strict";
// Playing the epochs one after another.

let playing = 0; // the timer; 0 while paused

function isPlaying() {
  return playing !== 0;
}

function pause() {
  clearTimeout(playing);
  playing = 0;
  redraw();
}

/** Play from the present epoch, or from the first one if the last is shown. */
function play() {
  if (state.epoch === about.epochs.length - 1) show({ epoch: 0 });
  playing = window.setTimeout(step, 1000 / state.speed);
  redraw();
}

function step() {
  show({ epoch: Math.min(state.epoch + 1, about.epochs.length - 1) });
  if (state.epoch === about.epochs.length - 1) pause();
  else playing = window.setTimeout(step, 1000 / state.speed);
}

/**
 * Go to an epoch, and stop playing.
 * @param {number} epoch index in about.epochs; it is brought into their range
 */
function goTo(epoch) {
  if (isPlaying()) pause();
  show({ epoch: Math.min(Math.max(epoch, 0), about.epochs.length - 1) });
}
