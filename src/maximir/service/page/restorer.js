// The page's restorer: sends photographs to the service.

import * as api from "./api.js";
import { $, make } from "./elements.js";
import { duration, left, percent } from "./words.js";

export const promise = "Sent to this server only, and not kept.";
export const unshown = "The server may still be able to read it.";
export const blends = true;
export const formats = ["png", "jpeg", "webp", "tiff", "avif"];

const AUTO = { name: "", tasks: ["auto"], origin: "box", default: true };
const TRIES = 4; // attempts when the server is busy
const LONGEST = 300; // seconds to wait before a retry; for longer waits the user decides
const BUSY = [429, 503];
const POLL = 500; // ms between progress requests
const POLL_LATER = 2000; // the same for long jobs

/** Return the server's models, and before them its own choice, which has no model's name. */
export async function models() {
  const found = await askingForToken(api.models);
  if (!found.length) throw new api.ApiError("This server has no models.");
  return [AUTO, ...found];
}

/** Return the server's presets. */
export const presets = () => askingForToken(api.presets);

/** Restore a photograph on the server. */
export function restore(job, signal, report) {
  report.tell("Sending …", null);
  return askingForToken(() => patiently(() => follow(job, signal, report), signal, report));
}

/** Call `request`; if the server is busy, retry after the time that it asks for. */
async function patiently(request, signal, { tell, announce }) {
  for (let tries = 1; ; tries++) {
    try {
      return await request();
    } catch (error) {
      const wait = error.wait ?? 5;
      if (!BUSY.includes(error.status) || tries === TRIES || wait > LONGEST) throw error;
      announce(`${error.message} Trying again in ${duration(wait)}.`);
      for (const end = Date.now() + 1000 * wait; Date.now() < end; await pause(250, signal)) {
        const seconds = Math.ceil((end - Date.now()) / 1000);
        tell(error.message, null, `Trying again in ${duration(seconds)} (${tries} of ${TRIES - 1})`);
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
      if (part < 1) return report.tell(`Sending, ${percent(part)}`, part);
      if (sent) return;
      sent = true;
      report.tell("Sent, waiting for the server …", null);
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
      if (now?.state === "waiting") {
        tell(now.ahead ? `Waiting, ${now.ahead} ahead of you` : "Waiting, you are next", null);
      } else if (now?.state === "working" && now.fraction > 0) {
        tell(`Restoring, ${percent(now.fraction)}`, now.fraction, left(now.seconds_left));
      } else if (now?.state === "working") {
        tell("Restoring …", null, left(now.seconds_left)); // small images report no fraction
      } else continue;
      const milestone = now.state + now.ahead + Math.floor(now.fraction * 4); // announce quarters
      if (milestone !== told) announce(`${$("phase").textContent}. ${$("left").textContent}`);
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

/** Call `request`; ask the user for the token if the server requires it. Throws as `request` does. */
async function askingForToken(request) {
  for (let asked = 0; ; asked++) {
    try {
      return await request();
    } catch (error) {
      if (error.status !== 401) throw error;
      const given = await askForToken(asked ? "That token was not accepted." : "");
      if (!given) throw new api.ApiError("This server requires a token.", 401);
    }
  }
}

/** Ask the user for a token; true if one was given. */
function askForToken(why) {
  const field = make("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: false,
    required: true,
  });
  const cancel = make("button", { type: "button", className: "plain", textContent: "Cancel" });
  const form = make(
    "form",
    {},
    make("h2", { id: "ask-title", textContent: "This server requires a token" }),
    make("p", { id: "ask-why", className: "soft", textContent: why }),
    make("label", { htmlFor: "token", textContent: "Token" }),
    field,
    make("p", {
      className: "soft",
      textContent: "Ask the person who runs the server. The token is kept until this tab closes.",
    }),
    make("div", { className: "buttons" }, make("button", { textContent: "Continue" }), cancel),
  );
  const dialog = make("dialog", { id: "ask" }, form);
  dialog.setAttribute("aria-labelledby", "ask-title");
  document.body.append(dialog);
  form.onsubmit = (event) => (event.preventDefault(), dialog.close("given"));
  cancel.onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.returnValue) api.keepToken(field.value.trim());
      dialog.remove();
      resolve(Boolean(dialog.returnValue));
    };
  });
}
