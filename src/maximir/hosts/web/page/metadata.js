// Metadata of photographs, which browsers drop: copied from the original's file to the result's.
//
// JPEG to JPEG: EXIF, XMP, IPTC and comments. PNG to PNG: EXIF and texts. JPEG or PNG to the other: EXIF.
// Pixels are upright and in sRGB, so the orientation becomes 1 and colour profiles are left out.

import { words } from "./words.js";

const EXIF = "Exif\0\0";
const AFTER_HEADER = 33; // bytes of a PNG: signature and IHDR

/** Return [blob, notes]: a result with its original's metadata, and what is missing from it. */
export async function keep(file, result, kind) {
  const original = new Uint8Array(await file.arrayBuffer());
  const found = read(original);
  const notes = [...found.notes];
  if (!found.exif && !found.parts.length) return [result, notes];
  const same = found.kind === kind;
  if (kind === "webp") return [result, [...notes, words.noMetadataWebp]];
  if (!same && found.parts.length) notes.push(words.onlyExif);
  const bytes = new Uint8Array(await result.arrayBuffer());
  const parts = (same ? found.parts : []).map(kind === "jpeg" ? segment : chunk);
  if (found.exif) parts.unshift(kind === "jpeg" ? segment([0xe1, join(text(EXIF), found.exif)]) : chunk(["eXIf", found.exif]));
  const start = kind === "jpeg" ? afterJfif(bytes) : AFTER_HEADER;
  return [new Blob([bytes.subarray(0, start), ...parts, bytes.subarray(start)], { type: result.type }), notes];
}

/** Return {kind, exif, parts, notes} of a file: TIFF bytes, and [name, bytes] of segments or chunks. */
export function read(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return readJpeg(bytes);
  if (latin(bytes, 1, 4) === "PNG") return readPng(bytes);
  return { kind: null, exif: null, parts: [], notes: [words.noMetadata] };
}

function readJpeg(bytes) {
  const found = { kind: "jpeg", exif: null, parts: [], notes: [] };
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xda || marker === 0xd9) break; // the picture begins
    const end = at + 2 + 256 * bytes[at + 2] + bytes[at + 3];
    if (end > bytes.length) break; // truncated
    const data = bytes.slice(at + 4, end);
    const name = latin(data, 0, 12);
    if (marker === 0xe1 && name.startsWith(EXIF)) found.exif = upright(data.slice(EXIF.length));
    else if (marker === 0xe1 || marker === 0xed || marker === 0xfe) found.parts.push([marker, data]);
    else if (marker === 0xe2 && name === "ICC_PROFILE\0") noteProfile(found.notes, data);
    at = end;
  }
  return found;
}

function readPng(bytes) {
  const found = { kind: "png", exif: null, parts: [], notes: [] };
  if (bytes[24] === 16) found.notes.push(words.depth);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const end = at + 12 + view.getUint32(at);
    if (end > bytes.length) break; // truncated
    const name = latin(bytes, at + 4, at + 8);
    const data = bytes.slice(at + 8, end - 4);
    if (name === "eXIf") found.exif = upright(data);
    else if (["tEXt", "zTXt", "iTXt", "tIME", "pHYs"].includes(name)) found.parts.push([name, data]);
    else if (name === "iCCP") noteProfile(found.notes, data);
    at = end;
  }
  return found;
}

function noteProfile(notes, data) {
  const note = words.colours;
  if (!/s.?R.?G.?B/s.test(latin(data, 0, 4000)) && !notes.includes(note)) notes.push(note);
}

/** Return EXIF (TIFF) with orientation 1, unchanged where it is damaged. */
export function upright(exif) {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = latin(exif, 0, 2) === "II";
  try {
    const directory = view.getUint32(4, little);
    const count = view.getUint16(directory, little);
    for (let i = 0; i < count; i++) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) === 0x0112) view.setUint16(entry + 8, 1, little);
    }
  } catch {
    // shorter than it says
  }
  return exif;
}

/** Return where segments of metadata belong: after JFIF's. */
function afterJfif(bytes) {
  return bytes[2] === 0xff && bytes[3] === 0xe0 ? 4 + 256 * bytes[4] + bytes[5] : 2;
}

function segment([marker, data]) {
  const length = data.length + 2;
  return join(new Uint8Array([0xff, marker, length >> 8, length & 255]), data);
}

function chunk([name, data]) {
  const body = join(text(name), data);
  const bytes = new Uint8Array(body.length + 8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(body, 4);
  view.setUint32(body.length + 4, crc(body));
  return bytes;
}

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let k = 0; k < 8; k++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}

const latin = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const text = (string) => Uint8Array.from(string, (c) => c.charCodeAt(0));

function join(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
