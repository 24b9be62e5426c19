// The page: choose a photograph, restore it, compare. It is always in one of four states:
// "start" (no photograph yet), "chosen", "working" and "done".
//
// The service and the page without a server share it. Each adds a restorer.js, which exports
//   promise, unshown    sentences: where photographs go; what to do with one that the browser cannot show
//   formats             kinds of files that it can write
//   models()            a list of models, as GET /v1/models (docs/service.md); a model's function note()
//                       may return a sentence, such as what its first use downloads
//   presets()           perhaps: a list of presets, as GET /v1/presets
//   restore(job, signal, report)   {blob, name, notes, seconds} for a job {file, image, task, model, format,
//                       size}; report.tell shows progress, report.announce tells screen readers
//   blends              true if jobs may have {strength, detail, mask, restored}: see blending.js; `restored` is
//                       an earlier result, lossless, to be blended instead of computed
// Errors with a sentence for the user are of the class Problem. One with a `size` {width, height} offers to
// restore the photograph in that size.

import { Blending } from "./blending.js";
import { $, make } from "./elements.js";
import { kindOf } from "./kinds.js";
import * as restorer from "./restorer.js";
import { Viewer } from "./viewer.js";
import { choices, duration, Problem, size } from "./words.js";

const TITLE = document.title;
const SLOW = 400; // ms after which "Opening …" is shown
const LOSSLESS = ["image/png", "image/tiff"];

const viewer = new Viewer($("viewer"), showZoom);
const blending = new Blending($("viewer").querySelector(".after"));

let state = "start";
let photo = null; // {file, image, kind, url}: image is null where the browser cannot show it
let result = null; // {blob, name, image, url, job}
let blended = null; // {blob, name, url}: the result as it is blended now, once it has been made
let running = null; // AbortController of the current job
let choosing = Promise.resolve(); // settles when the newest photograph is loaded
let offering = Promise.resolve(); // settles when the tasks are known
let presets = new Map(); // by name
let newest = 0; // counts choices, so that a slow one cannot replace a later one

// ---------------------------------------------------------------- states

function enter(next) {
  state = next;
  $("start").hidden = next !== "start";
  $("caption").hidden = next === "start";
  $("form").hidden = !(next === "start" || next === "chosen");
  $("other").hidden = next !== "chosen";
  $("working").hidden = next !== "working";
  $("done").hidden = next !== "done";
  if (next === "start") {
    $("viewer").hidden = $("unseeable").hidden = true;
    viewer.clear();
  }
  if (next !== "working") document.title = next === "done" ? `Done · ${TITLE}` : TITLE;
}

/** Show a message near the place that it concerns; "" removes it. */
function say(place, sentence) {
  $(place).textContent = sentence;
  if (sentence) $(place).scrollIntoView({ block: "nearest" });
}

/** Announce a sentence to screen readers only. */
function announce(sentence) {
  $("status").textContent = sentence;
}

/** Show the images in the viewer, or the reason why there are none. */
function display(before, after, why) {
  $("viewer").hidden = !before && !after;
  $("unseeable").hidden = !$("viewer").hidden;
  $("zoom").hidden = $("viewer").hidden;
  if ($("viewer").hidden) {
    viewer.clear();
    $("unseeable").firstElementChild.textContent = why;
  } else {
    $("viewer").ariaLabel = before && after ? "Before and after" : after ? "After" : "Photograph";
    viewer.show(before, after);
  }
}

function showZoom({ zoom, fitted }) {
  const text = `${Math.round(zoom * 100)}%`;
  $("zoom-level").textContent = text;
  $("zoom-level").ariaLabel = `Zoom ${text}: show ${fitted ? "actual pixels" : "the whole picture"}`;
}

// ---------------------------------------------------------------- choosing

/** Take the first of the dropped, pasted or chosen files. */
function choose(files) {
  choosing = take(files);
}

async function take(files) {
  if (state === "working") return say("stage-message", "Still working: cancel first.");
  const file = files[0];
  const mine = ++newest;
  say("stage-message", "");
  say("form-message", "");
  const { kind, refused } = await inspect(file);
  if (mine !== newest) return;
  if (refused) return say("stage-message", refused);
  const url = URL.createObjectURL(file);
  const slow = setTimeout(() => say("stage-message", `Opening ${file.name} …`), SLOW);
  const image = await load(url);
  clearTimeout(slow);
  if (mine !== newest || state === "working") return URL.revokeObjectURL(url);
  say("stage-message", "");
  forget();
  photo = { file, image, kind, url };
  enter("chosen");
  $("name").textContent = file.name;
  $("size").textContent = facts(image, file);
  display(image, null, `This browser cannot show ${shownAs(kind)}. ${restorer.unshown}`);
  if (files.length > 1) say("stage-message", `This is the first of ${files.length} files: one at a time.`);
  announce(`${file.name}, ${facts(image, file)}`);
  (document.querySelector("[name=task]:checked") ?? $("restore")).focus({ preventScroll: true });
}

/** Return a file's kind, and why it is certainly not a photograph; otherwise the restorer decides. */
async function inspect(file) {
  if (file.size === 0) return { refused: `${file.name} is empty.` };
  try {
    const { kind, image } = await kindOf(file);
    return { kind, refused: image === false && `${file.name} is not a photograph: it is a ${kind}.` };
  } catch {
    return { refused: `${file.name} cannot be read. Is it a folder?` };
  }
}

/** Return "this TIFF file" or "this file". */
function shownAs(kind) {
  return kind ? `this ${kind} file` : "this file";
}

function facts(image, { size: bytes }) {
  return (image ? `${image.naturalWidth} × ${image.naturalHeight}, ` : "") + size(bytes);
}

/** Load the image at `url`; null if the browser cannot show it. */
async function load(url) {
  const image = new Image();
  image.alt = "";
  image.src = url;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return image.naturalWidth ? image : null;
}

/** Release the photograph and its result. */
function forget() {
  viewer.clear();
  if (photo) URL.revokeObjectURL(photo.url);
  photo = null;
  forgetResult();
}

function forgetResult() {
  paint(false);
  blending.end();
  forgetBlended();
  if (result) URL.revokeObjectURL(result.url);
  result = null;
  $("download").removeAttribute("href");
}

// ---------------------------------------------------------------- the tasks

/** Show the tasks. */
function offer() {
  offering = fillTasks();
}

async function fillTasks() {
  let found = null;
  try {
    found = choices(await restorer.models());
    presets = new Map((await restorer.presets?.() ?? []).map((preset) => [preset.name, preset]));
  } catch (error) {
    const again = make("button", { type: "button", textContent: "Try again", onclick: offer });
    return $("tasks").replaceChildren(make("p", { textContent: error.message, className: "soft" }), again);
  }
  $("tasks").replaceChildren(...found.map(choice));
  document.querySelector("[name=task]").checked = true;
  offerModels(found[0].models);
  for (const { name, title } of presets.values())
    $("preset").append(make("option", { value: name, textContent: title }));
}

/** A preset takes the place of a task. */
function choosePreset() {
  const radios = [...document.querySelectorAll("[name=task]")];
  for (const radio of radios) radio.checked = radio === radios[0] && !$("preset").value;
  $("ways").hidden = true;
  if ($("preset").value) $("limits").textContent = "";
  else radios[0].onchange();
}

/** Return what is chosen as {task, model, preset}, or null if nothing is known yet. */
function wish() {
  const preset = presets.get($("preset").value);
  if (preset) return { task: preset.task, model: preset.model, preset };
  const task = document.querySelector("[name=task]:checked")?.value;
  return task ? { task, model: $("model").value } : null;
}

/** Show the models of the chosen task, if there is more than one. */
function offerModels(models) {
  const options = models.map(({ name, label }) => make("option", { value: name, textContent: label }));
  $("model").replaceChildren(...options);
  $("model").onchange = () => showLimits(models[$("model").selectedIndex]);
  $("ways").hidden = models.length < 2;
  showLimits(models[0]);
}

function showLimits({ limits, note }) {
  $("limits").textContent = [note?.(), limits && `Limits: ${limits}`].filter(Boolean).join(" ");
}

function choice({ task, title, description, models }) {
  const radio = make("input", { type: "radio", name: "task", value: task });
  radio.onchange = () => (offerModels(models), ($("preset").value = ""));
  const name = make("strong", { id: `${task}-name`, textContent: title });
  const text = make("span", { id: `${task}-text`, textContent: description });
  radio.setAttribute("aria-labelledby", name.id);
  radio.setAttribute("aria-describedby", text.id);
  const label = make("label");
  label.append(radio, name, text);
  return label;
}

// ---------------------------------------------------------------- restoring

/** Restore the photograph, in its own size unless `size` is given. */
async function restore(size = null) {
  say("form-message", "");
  say("stage-message", "");
  await Promise.all([choosing, offering]); // a large photograph or a busy server may take a moment
  const wished = wish();
  if (state === "working") return;
  if (!photo || !wished) {
    say("form-message", photo ? "The tasks are not known yet." : "Choose a photograph first.");
    if (!photo) $("file").focus();
    return;
  }
  const { file, image } = photo;
  const job = { file, image, ...wished, format: $("format").value, size };
  await working(
    async (signal) => {
      const answer = await restorer.restore(job, signal, { tell, announce });
      const url = URL.createObjectURL(answer.blob);
      result = { ...answer, url, job, image: await load(url) };
      signal.throwIfAborted();
      finish();
    },
    (sentence, error) => {
      forgetResult();
      enter("chosen");
      say("form-message", sentence);
      if (error.size) offerSize(error.size);
      $("restore").focus({ preventScroll: true });
    },
  );
}

/** Run `work` in the state "working"; `failed` gets a sentence, "" if it was cancelled, and the error. */
async function working(work, failed) {
  running = new AbortController();
  const { signal } = running;
  enter("working");
  $("phase").focus({ preventScroll: true });
  const awake = await stayAwake();
  try {
    await work(signal);
  } catch (error) {
    say("stage-message", "");
    if (signal.aborted) failed("", error);
    else if (error instanceof Problem) failed(error.message, error);
    else failed(`Something went wrong in this page: ${error.message}`, error);
    if (signal.aborted) announce("Cancelled.");
  } finally {
    running = null;
    awake?.release();
  }
}

/** Offer to restore the photograph in a smaller size. */
function offerSize(size) {
  const textContent = `Restore it at ${size.width} × ${size.height}`;
  $("form-message").append(" ", make("button", { type: "button", textContent, onclick: () => restore(size) }));
}

/** Keep a phone's screen on where possible: when it sleeps, the connection is lost. */
async function stayAwake() {
  try {
    return await navigator.wakeLock.request("screen");
  } catch {
    return null;
  }
}

function tell(phase, part, remaining = "") {
  $("phase").textContent = phase;
  $("left").textContent = remaining;
  if (part === null) $("progress").removeAttribute("value");
  else $("progress").value = part;
  document.title = `${phase} · ${TITLE}`;
}

// ---------------------------------------------------------------- the result

function finish() {
  const { blob, name, seconds, image, url } = result;
  enter("done");
  const [shown, why] = compared();
  display(shown, image, why);
  $("blending").hidden = !restorer.blends || !shown;
  if (!$("blending").hidden) blending.begin(shown, image);
  const { strength = 1, detail = 0 } = result.job.preset ?? {};
  [$("strength").value, $("detail").value] = [100 * strength, 100 * detail];
  blend();
  say("stage-message", "");
  const notes = image && why ? [...result.notes, why] : result.notes;
  $("outcome").textContent = isNaN(seconds) ? "Restored" : `Restored in ${duration(Math.max(1, seconds))}`;
  $("notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
  $("download").href = url;
  $("download").download = name;
  $("result-name").textContent = name;
  $("result-size").textContent = facts(image, blob);
  announce(`${$("outcome").textContent}. ${image ? notes.join(". ") : why}`);
  $("outcome").focus({ preventScroll: true });
}

/** Return the original as shown beside its result, or null and the reason why there is no comparison. */
function compared() {
  const [before, after] = [photo.image, result.image];
  const alone = "only the result is shown.";
  if (!after) {
    const other = "Save as PNG or JPEG to compare it here.";
    return [null, `This browser cannot show the result, but you can download it. ${other}`];
  }
  if (!before) return [null, `This browser cannot show the original, ${shownAs(photo.kind)}: ${alone}`];
  if (before.naturalWidth !== after.naturalWidth || before.naturalHeight !== after.naturalHeight)
    return [null, `This browser shows the original in another size or orientation: ${alone}`];
  return [before, ""];
}

// ---------------------------------------------------------------- how much of the result is taken

/** Show the result as the sliders say. */
function blend() {
  for (const name of ["strength", "detail"]) {
    $(`${name}-told`).textContent = `${$(name).value}%`;
    $(name).setAttribute("aria-valuetext", `${$(name).value}%`);
  }
  blending.set($("strength").value / 100, $("detail").value / 100);
  forgetBlended();
}

function forgetBlended() {
  if (blended) URL.revokeObjectURL(blended.url);
  blended = null;
  say("done-message", "");
  if (result) $("download").href = result.url;
  if (result) $("result-size").textContent = blending.whole ? facts(result.image, result.blob) : "";
}

/** Start or end painting. */
function paint(on) {
  $("brush").hidden = !on;
  $("paint").setAttribute("aria-pressed", on);
  $("erase").setAttribute("aria-pressed", false);
  $("viewer").setAttribute("aria-describedby", on ? "brush-keys" : "keys");
  viewer.paintWith(on ? { radius: radius(), stroke } : null);
  if (on) $("viewer").focus();
}

function stroke(from, to) {
  const erases = $("erase").getAttribute("aria-pressed") === "true";
  blending.paint(from, to, radius(), erases);
  const { naturalWidth, naturalHeight } = result.image;
  const place = [to.x / naturalWidth, to.y / naturalHeight].map((part) => `${Math.round(part * 100)}%`);
  if (from === to) announce(`${erases ? "Erased" : "Painted"} at ${place[0]} from the left, ${place[1]} from the top`);
  forgetBlended();
}

/** Return the radius of the brush in pixels of the photograph. */
function radius() {
  const { naturalWidth, naturalHeight } = result.image;
  return (Math.max(naturalWidth, naturalHeight) * $("radius").value) / 400;
}

/** Return the result as it is blended now. Throws if it has to be made and cannot be. */
async function current(signal) {
  if (blending.whole) return result;
  if (blended) return blended;
  const { blob, job } = result;
  const lossless = LOSSLESS.includes(blob.type) ? { restored: blob } : {};
  const fields = await blending.fields();
  const answer = await restorer.restore({ ...job, ...fields, ...lossless }, signal, { tell, announce });
  signal.throwIfAborted();
  return (blended = { ...answer, url: URL.createObjectURL(answer.blob) });
}

/** Make the file as it is blended now, then call `use` with it. */
async function withCurrent(use) {
  const back = (sentence) => {
    enter("done");
    say("done-message", sentence);
    $("download").focus({ preventScroll: true });
  };
  await working(async (signal) => {
    const file = await current(signal);
    back("");
    use(file);
  }, back);
}

function download(event) {
  if (blending.whole || blended) return;
  event.preventDefault();
  withCurrent(({ blob, name, url }) => {
    $("download").href = url;
    $("download").download = name;
    $("result-size").textContent = facts(result.image, blob);
    $("download").click();
  });
}

function goOn() {
  const on = ({ blob, name }) => choose([new File([blob], name, { type: blob.type })]);
  if (blending.whole || blended) on(blended ?? result);
  else withCurrent(on);
}

function startAgain() {
  forget();
  say("stage-message", "");
  enter("start");
  $("file").value = $("camera").value = "";
  $("file").focus();
}

function anotherTask() {
  forgetResult();
  say("stage-message", "");
  enter("chosen");
  display(photo.image, null, $("unseeable").textContent);
  (document.querySelector("[name=task]:checked") ?? $("preset")).focus({ preventScroll: true });
}

// ---------------------------------------------------------------- wiring

$("presets").hidden = !restorer.presets;
$("preset").onchange = choosePreset;
$("promise").textContent = restorer.promise;
for (const option of [...$("format").options])
  if (option.value && !restorer.formats.includes(option.value)) option.remove();
for (const input of [$("file"), $("camera")]) {
  input.onchange = () => {
    if (input.files.length) choose([...input.files]);
    input.value = ""; // allows choosing the same file again
  };
}
$("form").onsubmit = (event) => (event.preventDefault(), restore());
$("cancel").onclick = () => running?.abort();
$("other").onclick = () => $("file").click();
$("again").onclick = anotherTask;
$("on").onclick = goOn;
$("download").onclick = download;
$("strength").oninput = $("detail").oninput = blend;
$("paint").onclick = () => paint($("paint").getAttribute("aria-pressed") === "false");
$("erase").onclick = () =>
  $("erase").setAttribute("aria-pressed", $("erase").getAttribute("aria-pressed") === "false");
$("unpaint").onclick = () => (blending.clear(), forgetBlended(), announce("Nothing is painted: restored everywhere"));
$("radius").oninput = () => (viewer.radius = radius());
$("new").onclick = startAgain;
$("zoom-in").onclick = () => viewer.step(1);
$("zoom-out").onclick = () => viewer.step(-1);
$("zoom-level").onclick = () => viewer.toggle();

addEventListener("dragenter", (event) => {
  if (event.dataTransfer.types.includes("Files")) document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // the pointer left the window
});
addEventListener("dragover", (event) => event.preventDefault()); // or the browser opens the file
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) choose([...event.dataTransfer.files]);
  else say("stage-message", "Only files can be dropped here: save the picture first.");
});
addEventListener("paste", (event) => {
  if (event.target.closest?.("dialog")) return;
  if (event.clipboardData.files.length) choose([...event.clipboardData.files]);
  else say("stage-message", "There is no picture in the clipboard.");
});

offer();
