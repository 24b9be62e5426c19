// Restores photographs with ONNX Runtime, outside the page's own thread.

import { keep } from "./metadata.js";
import { fits, needsView, restore, toBytes } from "./tiles.js";
import { words } from "./words.js";

const PATCH = 64; // pixels: least side of the patch on which graphics processor and processor must agree
const AGREE = 1e-3; // for values in [0, 1]
const THREADS = 8; // more are hardly faster
const QUALITY = 0.95; // of JPEG and WebP
const OPTIONS = { enableCpuMemArena: false, enableMemPattern: false }; // a fraction of the memory

class Refusal extends Error {}

let ort = null;
let ready = { name: null, session: null, where: "" }; // the last model

onmessage = async ({ data: job }) => {
  try {
    postMessage({ done: await run(job) });
  } catch (error) {
    if (error instanceof Refusal) postMessage({ problem: error.message, size: error.size });
    else if (outOfMemory(error)) postMessage(tooLarge(job));
    else postMessage({ failed: error?.message ?? String(error) });
  }
};

const outOfMemory = (error) =>
  error instanceof RangeError || /bad_alloc|allocat|out of memory|Aborted\(/i.test(error?.message ?? error);

function tooLarge({ size, at }) {
  const { width, height } = at ?? size ?? { width: 2000, height: 2000 };
  const half = { width: Math.ceil(width / 2), height: Math.ceil(height / 2) };
  return { problem: words.outOfMemory, size: half };
}

async function run(job) {
  const { file, model, format, formats, task } = job;
  const image = await decode(file, job);
  const { width, height } = image;
  job.at = { width, height };
  const session = await load(job);
  const began = performance.now();
  const progress = (part) => {
    const seconds = (performance.now() - began) / 1000;
    postMessage({ phase: "restoring", part, seconds: (seconds / part) * (1 - part) });
  };
  postMessage({ phase: "restoring", part: null });
  const planes = await restore(image, model.facts, (data, h, w) => compute(session, data, h, w), progress);
  const seconds = (performance.now() - began) / 1000;
  const grey = isGrey(image.data);
  const bytes = toBytes(planes, width, height);
  for (let i = 0; i < bytes.length; i += 4) {
    if (grey) bytes.fill((bytes[i] + bytes[i + 1] + bytes[i + 2]) / 3, i, i + 3);
    bytes[i + 3] = image.data[i + 3];
  }
  const own = { "image/jpeg": "jpeg", "image/webp": "webp" }[await typeOf(file)] ?? "png";
  const kind = format || (formats.includes(own) ? own : "png");
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(bytes, width, height), 0, 0);
  const written = await canvas.convertToBlob({ type: `image/${kind}`, quality: QUALITY });
  const [blob, notes] = await keep(file, written, kind);
  if (needsView(height, width, model.facts)) notes.push(words.fromView);
  else if (!fits(height, width, model.facts)) notes.push(words.inTiles);
  if (ready.where) notes.push(ready.where);
  const stem = file.name.replace(/\.[^.]*$/, "") || "image";
  return { blob, name: `${stem}-${task}.${kind === "jpeg" ? "jpg" : kind}`, notes, seconds };
}

/** Decode to RGBA bytes, upright, in sRGB. */
async function decode(file, { size }) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none" };
  const smaller = size && { resizeWidth: size.width, resizeHeight: size.height, resizeQuality: "high" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { ...options, ...smaller });
  } catch {
    throw new Refusal(words.unreadableHere);
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new RangeError("no canvas of this size");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  fillTransparent(image.data);
  return image;
}

/** Colours of transparent pixels are lost in a canvas: make them neutral instead of black. */
function fillTransparent(data) {
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 0) data.fill(128, i, i + 3);
}

function isGrey(data) {
  for (let i = 0; i < data.length; i += 4)
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  return true;
}

async function typeOf(file) {
  const [a, b, , , , , , , ...rest] = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  if (a === 0xff && b === 0xd8) return "image/jpeg";
  return String.fromCharCode(...rest) === "WEBP" ? "image/webp" : "image/png";
}

/** Return the session of a job's model. */
async function load({ model, runtime, folder, gpu }) {
  if (ready.name === model.name) return ready.session;
  if (!ort) {
    postMessage({ phase: "program", part: null });
    ort = await import(folder + runtime.module);
    const wasm = await fetched(folder + runtime.wasm, "program", runtime.bytes);
    ort.env.wasm.wasmBinary = wasm.buffer;
    ort.env.wasm.wasmPaths = folder + runtime.folder;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, THREADS) : 1;
    ort.env.logLevel = "error";
  }
  await ready.session?.release();
  ready = { name: null, session: null, where: "" };
  const network = await fetched(folder + model.file, "model", model.bytes);
  postMessage({ phase: "preparing", part: null });
  const create = (provider) =>
    ort.InferenceSession.create(network, { ...OPTIONS, executionProviders: [provider] });
  let session = await create("wasm");
  let where = "";
  if (gpu) {
    const faster = await agreeing(create, session, Math.max(PATCH, model.facts.multiple));
    where = faster ? words.onGraphics : "";
    if (faster) {
      await session.release();
      session = faster;
    }
  }
  ready = { name: model.name, session, where };
  return session;
}

/** Return a session on the graphics processor if both restore a patch of `side` pixels alike, else null. */
async function agreeing(create, session, side) {
  let faster = null;
  try {
    faster = await create("webgpu");
    const patch = Float32Array.from({ length: 3 * side * side }, (_, i) => ((i * 7919) % 256) / 255);
    const [one, other] = [
      await compute(session, patch.slice(), side, side),
      await compute(faster, patch.slice(), side, side),
    ];
    if (one.every((value, i) => Math.abs(value - other[i]) <= AGREE)) return faster;
  } catch {
    // it cannot run the network
  }
  await faster?.release();
  return null;
}

async function compute(session, data, h, w) {
  const image = new ort.Tensor("float32", data, [1, 3, h, w]);
  const { restored } = await session.run({ image });
  return restored.data;
}

/** Fetch a file of this folder and show progress. */
async function fetched(address, phase, expected) {
  let reply = null;
  try {
    reply = await fetch(address);
  } catch {
    // offline: the message below
  }
  if (!reply?.ok) throw new Refusal(words.phaseFailed(words.phases[phase]));
  const chunks = [];
  let have = 0;
  for (const reader = reply.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    have += value.length;
    postMessage({ phase, part: Math.min(have / expected, 1) });
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
