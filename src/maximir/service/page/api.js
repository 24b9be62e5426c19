// The service's API. Addresses are relative to the page, so that it works below any path of a proxy.

import { Problem, words } from "./words.js";

const TOKEN = "maximir-token";
const MISSES = 4; // failed requests after which the server counts as gone
const BLEND = ["strength", "detail", "mask", "restored"]; // optional fields of a job
let token = remembered(TOKEN);

/** A failed request. */
export class ApiError extends Problem {
  /**
   * @param sentence text for the page
   * @param status the reply's status; 0: there was no reply
   * @param wait seconds of Retry-After, or null
   */
  constructor(sentence, status = 0, wait = null) {
    super(sentence);
    this.status = status;
    this.wait = wait;
  }
}

export function keepToken(given) {
  token = given;
  remember(TOKEN, token);
}

/** Keep a text until the tab closes, unless the browser forbids storage. */
export function remember(name, text) {
  try {
    sessionStorage.setItem(name, text);
  } catch {
    // Storage is forbidden: the text is lost when the page closes.
  }
}

/** Return the text that is kept under this name, or null. */
export function remembered(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Return the server's models. Throws ApiError. */
export const models = () => list("v1/models");

/** Return the server's presets. Throws ApiError. */
export const presets = () => list("v1/presets");

/** Return the photographs that `maximir open` was given, as in files.js, one after the other. */
export async function* opened() {
  for (const [number, { name, folder, within }] of (await list("v1/opened")).entries()) {
    const reply = await get(`v1/opened/${number}`).catch(() => null);
    const blob = reply?.ok && (await reply.blob().catch(() => null));
    yield blob ? { file: new File([blob], name), folder, within } : { missing: folder + name };
  }
}

/** Tell the server that this page is open, until the server is gone. */
export async function stay() {
  for (let misses = 0; misses < MISSES; ) {
    const reply = await get("v1/presence").catch(() => null);
    misses = reply?.ok ? 0 : misses + 1;
    if (misses) await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function list(address) {
  const reply = await get(address);
  const text = await reply.text();
  if (!reply.ok) throw failure(reply.status, reply.headers.get("Retry-After"), text);
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(words.otherServer);
  }
}

/** Return the progress of the job `id`, or null if the server does not report it. */
export async function progress(id, signal) {
  try {
    const reply = await get(`v1/progress/${id}`, signal);
    return reply.ok ? await reply.json() : null;
  } catch {
    return null; // the reply to the job itself reports the error
  }
}

/** Return a random id for a job. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Restore a photograph.
 *
 * Uses XMLHttpRequest, because fetch does not report upload progress.
 *
 * @param job {file, task, model, format, id}; format "": the file's own; and perhaps strength, detail,
 *   mask (a blob), restored (the blob of an earlier result, to be blended instead of computed)
 * @param signal aborts the request and thereby the job
 * @param sending called with the fraction that has been sent, 0 … 1
 * @returns {blob, name, notes, seconds}
 * @throws ApiError, or the signal's AbortError
 */
export function restore(job, signal, sending) {
  const { file, task, model, format, id } = job;
  const body = new FormData();
  if (task) body.append("task", task);
  if (model) body.append("model", model);
  if (format) body.append("format", format);
  body.append("id", id);
  for (const name of BLEND) if (job[name] !== undefined) body.append(name, job[name]);
  body.append("image", file, file.name);
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    signal.addEventListener("abort", abort);
    request.open("POST", "v1/restore");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "blob";
    request.upload.onprogress = (event) => event.lengthComputable && sending(event.loaded / event.total);
    request.upload.onload = () => sending(1);
    request.onabort = () => reject(signal.reason);
    request.onerror = async () => reject(new ApiError(await whyBroken(file)));
    request.onload = async () => {
      const header = (name) => request.getResponseHeader(name);
      if (request.status !== 200)
        return reject(failure(request.status, header("Retry-After"), await request.response.text()));
      resolve({
        blob: request.response,
        name: fileName(header("Content-Disposition")) ?? file.name,
        notes: (header("X-Maximir-Notes") ?? "").split("; ").filter(Boolean),
        seconds: Number(header("X-Maximir-Seconds") ?? NaN),
      });
    };
    request.onloadend = () => signal.removeEventListener("abort", abort);
    request.send(body);
  });
}

async function get(address, signal) {
  try {
    return await fetch(address, { headers: authorization(), signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(words.noServer);
  }
}

function authorization() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Return the error for a reply other than 200; a proxy's reply may not be JSON. */
function failure(status, retryAfter, text) {
  let sentence = null;
  try {
    sentence = JSON.parse(text).error;
  } catch {
    // not JSON: use the sentence below
  }
  if (typeof sentence !== "string") sentence = words.answered(status);
  const wait = retryAfter === null || isNaN(retryAfter) ? null : Number(retryAfter);
  return new ApiError(sentence, status, wait);
}

/** Find out why a request failed: the browser does not tell. */
async function whyBroken(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return words.fileGone;
  }
  try {
    await fetch("healthz", { cache: "no-store" });
  } catch {
    return words.noServerKept;
  }
  return words.interrupted;
}

/** Return the file name in a Content-Disposition header, or null. */
export function fileName(header) {
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(header ?? "");
  if (encoded) {
    try {
      return decodeURIComponent(encoded[1].trim());
    } catch {
      // invalid encoding: use the plain name
    }
  }
  const plain = /filename="((?:[^"\\]|\\.)*)"|filename=([^;\s]+)/i.exec(header ?? "");
  return plain ? (plain[1]?.replace(/\\(.)/g, "$1") ?? plain[2]) : null;
}
