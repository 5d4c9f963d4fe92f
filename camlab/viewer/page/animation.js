"use strict";
// Animated PNG (APNG): frames that the browser has encoded as PNG are put into one file.
// https://www.w3.org/TR/png-3/#apng-frame-based-animation

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? 0xedb88320 ^ (rest >>> 1) : rest >>> 1;
  return rest >>> 0;
});

/**
 * Join PNG files of the same size to an animated one, which is repeated for ever.
 * @param {Uint8Array[]} frames PNG files
 * @param {number} delay milliseconds from one frame to the next
 * @returns {Uint8Array[]} the parts of the file
 */
function animatedPng(frames, delay) {
  const parts = [frames[0].subarray(0, 8)];
  let sequence = 0;
  frames.forEach((file, i) => {
    const chunks = chunksOf(file);
    const header = chunks[0].data;
    if (i === 0) parts.push(chunk("IHDR", header), chunk("acTL", numbersOf([frames.length, 0])));
    parts.push(chunk("fcTL", frameControl(sequence++, header, delay)));
    for (const { type, data } of chunks) {
      if (type !== "IDAT") continue;
      parts.push(i === 0 ? chunk("IDAT", data) : chunk("fdAT", joined([numbersOf([sequence++]), data])));
    }
  });
  parts.push(chunk("IEND", new Uint8Array(0)));
  return parts;
}

/**
 * @param {number} sequence
 * @param {Uint8Array} header content of IHDR, which begins with width and height
 * @param {number} delay
 */
function frameControl(sequence, header, delay) {
  return joined([
    numbersOf([sequence]),
    header.subarray(0, 8),
    numbersOf([0, 0]),
    new Uint8Array([delay >> 8, delay & 255, 1000 >> 8, 1000 & 255, 0, 0]),
  ]);
}

/**
 * @param {Uint8Array} file
 * @returns {{type: string, data: Uint8Array}[]}
 */
function chunksOf(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const found = [];
  for (let place = 8; place < file.length;) {
    const length = view.getUint32(place);
    found.push({
      type: String.fromCharCode(...file.subarray(place + 4, place + 8)),
      data: file.subarray(place + 8, place + 8 + length),
    });
    place += length + 12;
  }
  return found;
}

/**
 * @param {string} type
 * @param {Uint8Array} data
 */
function chunk(type, data) {
  const content = joined([Uint8Array.from(type, (letter) => letter.charCodeAt(0)), data]);
  let crc = 0xffffffff;
  for (const byte of content) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return joined([numbersOf([data.length]), content, numbersOf([~crc >>> 0])]);
}

/**
 * Numbers of 32 bits, the most significant byte first.
 * @param {number[]} values
 */
function numbersOf(values) {
  const bytes = new Uint8Array(4 * values.length);
  values.forEach((value, i) => new DataView(bytes.buffer).setUint32(4 * i, value));
  return bytes;
}

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}
