// The page's restorer in a browser: a worker with ONNX Runtime, models from the page's own folder.

import { left, percent, Problem, size as inWords, words } from "./words.js";

export const { promiseHere: promise, unshownHere: unshown } = words;
export const formats = ["png", "jpeg", "webp"].filter(writes);

const MEMORY = 1_500_000_000; // bytes that the network may take
const MOST = 6_000_000; // pixels per gigabyte of memory, as far as browsers tell: a photograph takes 20 bytes each
const TYPICAL = 4; // gigabytes, where they do not tell
const PAGE = 65_536; // bytes of WebAssembly's memory
// A function with one SIMD instruction (i8x16.splat); browsers without SIMD refuse it.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

const reach = (path) => new URL(`../${path}`, import.meta.url).href;
const kept = new Set(); // paths that are in this browser already
let site = null; // models.json
let gpu = false; // a graphics processor may be used
let worker = null; // kept between photographs, with its network

/** True if the browser can write this kind of file. */
function writes(kind) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  return canvas.toDataURL(`image/${kind}`).startsWith(`data:image/${kind}`);
}

/** Return the folder's models. Throws Problem if this browser cannot run them: nothing is downloaded then. */
export async function models() {
  const why = unfit();
  if (why) throw new Problem(why);
  await offline();
  const reply = await fetch(reach("models.json")).catch(() => null);
  if (!reply?.ok) throw new Problem(words.noList);
  site = await reply.json();
  gpu = await hasGraphicsProcessor();
  await look();
  return site.models.map((model) => ({ ...model, note: () => note(model) }));
}

/** True for a real graphics processor: imitations by software are slower than WebAssembly. */
async function hasGraphicsProcessor() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

/** Return why this browser cannot run the networks, or "". */
export function unfit(webAssembly = globalThis.WebAssembly) {
  if (!webAssembly?.validate(new Uint8Array(SIMD)))
    return words.tooOld;
  try {
    new webAssembly.Memory({ initial: Math.ceil(MEMORY / PAGE), maximum: 65_536 });
  } catch {
    return words.tooPoor;
  }
  return "";
}

/** Let the page work offline from now on, where browsers can: at https addresses and on this machine. */
async function offline() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register(reach("sw.js"));
    await Promise.race([navigator.serviceWorker.ready, new Promise((resolve) => setTimeout(resolve, 5000))]);
  } catch {
    // forbidden, as in some private windows: the page then works online only
  }
}

/** Find out what is in this browser already. */
async function look() {
  const paths = [...site.models.map(({ file }) => file), ...runtime().files];
  for (const path of paths)
    if (await globalThis.caches?.match(reach(path)).catch(() => null)) kept.add(path);
}

const runtime = () => site.runtime[gpu ? "gpu" : "wasm"];

/** Say what the first use of a model downloads. */
function note({ file, bytes }) {
  const network = kept.has(file) ? 0 : bytes;
  const program = runtime().files.every((path) => kept.has(path)) ? 0 : runtime().bytes;
  if (!network && !program) return words.hereAlready;
  return words.downloads(network && inWords(network), program && inWords(program));
}

/** Return the size in which a photograph fits into this tab, or null if it fits as it is. */
export function smaller(width, height, gigabytes = navigator.deviceMemory ?? TYPICAL) {
  const most = MOST * gigabytes;
  if (width * height <= most) return null;
  const scale = Math.sqrt(most / (width * height));
  return { width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale)) };
}

/** Restore a photograph. Throws Problem, or the signal's reason. */
export async function restore({ file, pixels, task, model, format, size }, signal, { tell, announce }) {
  const chosen = site.models.find(({ name }) => name === model);
  const offered = pixels && !size && smaller(pixels.width, pixels.height);
  if (offered) throw Object.assign(new Problem(words.tooLarge), { size: offered });
  worker ??= new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const job = { file, task, model: chosen, format, size, formats, gpu, runtime: runtime(), folder: reach("") };
  let quarter = 0;
  const progress = ({ phase, part, seconds }) => {
    const name = words.phases[phase];
    const told = part === null ? words.phase(name) : words.phasePart(name, percent(part));
    tell(told, part, left(seconds ?? null));
    if (phase !== "restoring" || Math.floor(part * 4) === quarter) return;
    quarter = Math.floor(part * 4);
    announce(`${told}. ${left(seconds ?? null)}`);
  };
  try {
    const result = await ask(worker, job, signal, progress);
    [chosen.file, ...runtime().files].forEach((path) => kept.add(path));
    return result;
  } catch (error) {
    worker?.terminate(); // the only way to stop it, and its memory may be full
    worker = null;
    throw error;
  }
}

/** Send a job to the worker; resolves with its result. */
function ask(worker, job, signal, progress) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop, { once: true });
    worker.onmessage = ({ data: { done, problem, failed, size, ...told } }) => {
      if (problem) reject(Object.assign(new Problem(problem), { size }));
      else if (failed) reject(new Error(failed));
      else if (done) resolve(done);
      else progress(told);
      if (problem || failed || done) signal.removeEventListener("abort", stop);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Problem(words.noProgram));
    };
    worker.postMessage(job);
  });
}
