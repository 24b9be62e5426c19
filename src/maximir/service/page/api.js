// The service's API. Addresses are relative to the page: it also works below a path of another server.

const TOKEN = "maximir-token";
let token = null;
try {
  token = sessionStorage.getItem(TOKEN); // gone with the tab
} catch {
  // storage is forbidden: gone with the page
}

/** What went wrong, in a sentence for people. */
export class ApiError extends Error {
  /**
   * @param sentence what the page says
   * @param status the reply's status; 0: there was no reply
   * @param wait seconds after which the server wants to be asked again, or null
   */
  constructor(sentence, status = 0, wait = null) {
    super(sentence);
    this.status = status;
    this.wait = wait;
  }
}

export function keepToken(given) {
  token = given;
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // as above
  }
}

/** The models that the server has. Throws ApiError. */
export async function models() {
  const reply = await get("v1/models");
  const text = await reply.text();
  if (!reply.ok) throw failure(reply.status, reply.headers.get("Retry-After"), text);
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError("What answers here is not maximir.");
  }
}

/** How far the job `id` is, or null where the server does not say. */
export async function progress(id, signal) {
  try {
    const reply = await get(`v1/progress/${id}`, signal);
    return reply.ok ? await reply.json() : null;
  } catch {
    return null; // the answer to the job itself tells what is wrong
  }
}

/** A name for a job that nobody guesses. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Have a photograph restored.
 *
 * XMLHttpRequest, because fetch does not tell how much has been sent.
 *
 * @param job {file, task, model, format, id}; format "": the file's own
 * @param signal aborts the request, and with it the job
 * @param sending called with the part that has been sent, 0 … 1
 * @returns {blob, name, notes, seconds}
 * @throws ApiError, or the signal's AbortError
 */
export function restore({ file, task, model, format, id }, signal, sending) {
  const body = new FormData();
  body.append("task", task);
  if (model) body.append("model", model);
  if (format) body.append("format", format);
  body.append("id", id);
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
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
}

function authorization() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The error that a reply other than 200 means; what stands before the service may not speak JSON. */
function failure(status, retryAfter, text) {
  let sentence = null;
  try {
    sentence = JSON.parse(text).error;
  } catch {
    // the sentence below
  }
  if (typeof sentence !== "string") sentence = `The server answered with error ${status}.`;
  const wait = retryAfter === null || isNaN(retryAfter) ? null : Number(retryAfter);
  return new ApiError(sentence, status, wait);
}

/** Why a request broke off: the browser does not say. */
async function whyBroken(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return "The file cannot be read any more. Choose it again.";
  }
  try {
    await fetch("healthz", { cache: "no-store" });
  } catch {
    return "The server cannot be reached. Is it still running? Your photograph is still here: try again.";
  }
  return "The connection broke off. Try again; if that fails too, the file may be too large for this server.";
}

/** The file name in a Content-Disposition header, or null. */
export function fileName(header) {
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(header ?? "");
  if (encoded) {
    try {
      return decodeURIComponent(encoded[1].trim());
    } catch {
      // the plain name, then
    }
  }
  const plain = /filename="((?:[^"\\]|\\.)*)"|filename=([^;\s]+)/i.exec(header ?? "");
  return plain ? (plain[1]?.replace(/\\(.)/g, "$1") ?? plain[2]) : null;
}
