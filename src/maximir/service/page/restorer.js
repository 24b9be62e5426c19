// The page's restorer: sends photographs to the service.

import * as api from "./api.js";
import { ask, make } from "./elements.js";
import { duration, left, percent, words } from "./words.js";

export const { promise, unshown } = words;
export const blends = true;
export const atOnce = 2; // while the server computes one, the next is sent and decoded
export const formats = ["png", "jpeg", "webp", "tiff", "avif"];

const AUTO = { name: "", tasks: ["auto"], origin: "box", default: true };
const OPENED = "#opened"; // the address of the page that `maximir open` shows
const TRIES = 4; // attempts when the server is busy
const LONGEST = 300; // seconds to wait before a retry; for longer waits the user decides
const FULL = 429;
const BUSY = [FULL, 503];
const POLL = 500; // ms between progress requests
const POLL_LATER = 2000; // the same for long jobs

/** Return the server's models, and before them its own choice, which has no model's name. */
export async function models() {
  const found = await askingForToken(api.models);
  if (!found.length) throw new api.ApiError(words.noModels);
  return [AUTO, ...found];
}

/** Return the server's presets. */
export const presets = () => askingForToken(api.presets);

/** Return the photographs that `maximir open` was given: in a tab once, and again if they are not `kept`. */
export async function opened(kept) {
  if (location.hash !== OPENED) return [];
  api.stay();
  const files = [];
  if (!kept || !api.remembered(OPENED)) for await (const file of api.opened()) files.push(file);
  api.remember(OPENED, "taken");
  return files;
}

/** Restore a photograph on the server. */
export function restore(job, signal, report) {
  report.tell(words.sending, null);
  return askingForToken(() => patiently(() => follow(job, signal, report), signal, report));
}

/** Call `request`; if the server is busy, retry after the time that it asks for, `patient` ones without end. */
async function patiently(request, signal, { tell, announce, patient }) {
  for (let tries = 1; ; tries++) {
    try {
      return await request();
    } catch (error) {
      const wait = error.wait ?? 5;
      if (patient && error.status === FULL) {
        tell(words.waitingForPlace, null);
        await pause(1000 * Math.min(wait, LONGEST), signal);
        tries = 0;
        continue;
      }
      if (!BUSY.includes(error.status) || tries === TRIES || wait > LONGEST) throw error;
      announce(words.later(error.message, duration(wait)));
      for (const end = Date.now() + 1000 * wait; Date.now() < end; await pause(250, signal)) {
        const seconds = Math.ceil((end - Date.now()) / 1000);
        tell(error.message, null, words.laterOf(duration(seconds), tries, TRIES - 1));
      }
    }
  }
}

/** Send a job and show its progress. */
async function follow(job, signal, report) {
  const id = api.newId();
  const over = new AbortController(); // ends polling with the job
  let sent = false;
  try {
    return await api.restore({ ...job, id }, signal, (part) => {
      if (part < 1) return report.tell(words.sendingPart(percent(part)), part);
      if (sent) return;
      sent = true;
      report.tell(words.sent, null);
      poll(id, AbortSignal.any([signal, over.signal]), report);
    });
  } finally {
    over.abort();
  }
}

async function poll(id, signal, { tell, announce }) {
  const began = Date.now();
  let told = "";
  try {
    for (;;) {
      await pause(Date.now() - began < 20_000 ? POLL : POLL_LATER, signal);
      const now = await api.progress(id, signal);
      signal.throwIfAborted();
      let phase = "";
      let remaining = "";
      if (now?.state === "waiting") phase = words.ahead(now.ahead);
      else if (now?.state === "working") {
        phase = now.fraction > 0 ? words.restoringPart(percent(now.fraction)) : words.restoring; // of small images
        remaining = left(now.seconds_left);
      } else continue;
      tell(phase, now.fraction > 0 && now.state === "working" ? now.fraction : null, remaining);
      const milestone = now.state + now.ahead + Math.floor(now.fraction * 4); // announce quarters
      if (milestone !== told) announce(`${phase}. ${remaining}`);
      told = milestone;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal.removeEventListener("abort", stop), resolve()), milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

let asking = null; // the dialog, which is one for all requests

/** Call `request`; ask the user for the token if the server requires it. Throws as `request` does. */
async function askingForToken(request) {
  for (let asked = 0; ; asked++) {
    try {
      return await request();
    } catch (error) {
      if (error.status !== 401) throw error;
      asking ??= askForToken(asked ? words.tokenWrong : "").finally(() => (asking = null));
      if (!(await asking)) throw new api.ApiError(words.tokenNeeded, 401);
    }
  }
}

/** Ask the user for a token; true if one was given. */
async function askForToken(why) {
  const field = make("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: false,
    required: true,
  });
  const parts = [
    make("p", { id: "ask-why", className: "soft", textContent: why }),
    make("label", { htmlFor: field.id, textContent: words.token }),
    field,
    make("p", { className: "soft", textContent: words.tokenNote }),
  ];
  const given = await ask(words.tokenTitle, parts, words.continue, words.cancel);
  if (given) api.keepToken(field.value.trim());
  return given;
}
