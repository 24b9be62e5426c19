// The page: choose photographs, restore them, compare, save. One photograph is open at a time; if there are
// several, a list shows all. The open one is in one of the states of a Photograph, and the panel follows it.
//
// The service and the page without a server share it. Each adds a restorer.js, which exports
//   promise, unshown    sentences: where photographs go; what to do with one that the browser cannot show
//   formats             kinds of files that it can write
//   atOnce              perhaps: how many photographs it takes at once (1)
//   models()            a list of models, as GET /v1/models (docs/service.md); a model's function note()
//                       may return a sentence, such as what its first use downloads
//   presets()           perhaps: a list of presets, as GET /v1/presets
//   opened(kept)        perhaps: files to begin with, as in files.js; `kept`: the list is there again
//   restore(job, signal, report)   {blob, name, notes, seconds} for a job {file, pixels, task, model, format,
//                       size}; report.tell shows progress, report.announce tells screen readers; with
//                       report.patient it waits for a busy server as long as that takes
//   blends              true if jobs may have {strength, detail, mask, restored}: see blending.js; `restored` is
//                       an earlier result, lossless, to be blended instead of computed
// Errors with a sentence for the user are of the class Problem. One with a `size` {width, height} offers to
// restore the photograph in that size; with `status` 0 the restorer cannot be reached.

import { Blending } from "./blending.js";
import { $, ask, fill, make } from "./elements.js";
import { dropped, listed } from "./files.js";
import { kindOf } from "./kinds.js";
import { Photograph, sizeOf } from "./photograph.js";
import { Queue } from "./queue.js";
import * as restorer from "./restorer.js";
import { unique, write, Zip } from "./save.js";
import { Store } from "./store.js";
import { Strip } from "./strip.js";
import * as tasks from "./tasks.js";
import { Viewer } from "./viewer.js";
import { duration, size, words } from "./words.js";

const SLOW = 400; // ms after which "Opening …" is shown
const NOTING = 300; // ms between a change and its keeping

const viewer = new Viewer($("viewer"), showZoom);
const blending = new Blending($("viewer").querySelector(".after"));
const queue = new Queue(changed, (photograph, sentence) => photograph === open && !queue.many && announce(sentence));
const strip = new Strip($("strip"), { choose: show, toggle: leaveOut, remove });
const store = new Store(() => say("queue-message", words.notKept));

let open = null; // the photograph that is shown
let displayed = null; // the result that the viewer shows
let choosing = Promise.resolve(); // settles when the newest photographs are there
let wanted = null; // the photograph or file that was chosen last: a slow one must not replace it
let kept = false; // the list is kept in this browser
let saving = false;
let zipUrl = "";
const unnoted = new Set(); // photographs that are to be kept as they are now

// ---------------------------------------------------------------- states

/** Show the parts of the page that belong to a state: "start", or a photograph's. */
function enter(state) {
  const panel = { start: "form", chosen: "form", queued: "working", working: "working", done: "done" }[state];
  $("start").hidden = state !== "start";
  $("caption").hidden = state === "start";
  $("form").hidden = panel !== "form";
  $("other").hidden = state !== "chosen" || queue.many;
  $("working").hidden = panel !== "working";
  $("done").hidden = panel !== "done";
  if (state === "start") {
    $("viewer").hidden = $("unseeable").hidden = true;
    viewer.clear();
  }
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
    $("viewer").ariaLabel = before && after ? words.beforeAndAfter : after ? words.after : words.photograph;
    viewer.show(before, after);
  }
}

function showZoom({ zoom, fitted }) {
  const text = `${Math.round(zoom * 100)}%`;
  $("zoom-level").textContent = text;
  $("zoom-level").ariaLabel = words.zoomLevel(text, fitted);
}

function facts(pixels, { size: bytes }) {
  return (pixels ? `${pixels.width} × ${pixels.height}, ` : "") + size(bytes);
}

// ---------------------------------------------------------------- the open photograph

/** Open a photograph. */
async function show(photograph) {
  wanted = photograph;
  strip.choose(photograph);
  await photograph.open();
  if (wanted !== photograph) return photograph !== open && photograph.close();
  if (open !== photograph) {
    const focused = $("panel").contains(document.activeElement);
    leave();
    open = photograph;
    if (focused) $("strip").focus({ preventScroll: true });
    say("stage-message", "");
  }
  render();
}

/** Show the open photograph no longer. */
function leave() {
  hideResult();
  if (open && !queue.many) viewer.clear();
  open?.close();
  open = null;
}

function hideResult() {
  paint(false);
  blending.end();
  displayed = null;
  $("download").removeAttribute("href");
}

/** Show the open photograph as it is now. */
function render() {
  const { file, state, kind, pixels, problem, result, shown } = open;
  $("name").textContent = open.folder + file.name;
  $("size").textContent = facts(pixels, file);
  if (displayed && displayed !== result) hideResult();
  enter(state);
  if (state === "done") renderResult();
  else if (!displayed) display(shown.before, null, words.cannotShow(kind, restorer.unshown));
  if (state === "chosen") renderProblem(problem);
  if (open.underWay) renderProgress();
  renderTitle();
}

function renderProblem(problem) {
  say("form-message", problem?.sentence ?? "");
  if (open.wish && queue.many && !$("for-all").checked) tasks.choose(open.wish);
  if (!problem?.size) return;
  const { width, height } = problem.size;
  const textContent = words.restoreAt(width, height);
  const onclick = () => restore(problem.size);
  $("form-message").append(" ", make("button", { type: "button", textContent, onclick }));
}

function renderProgress() {
  const before = queue.photographs.slice(0, queue.photographs.indexOf(open)).filter(({ underWay }) => underWay);
  $("phase").textContent = open.state === "queued" ? words.inLine(before.length) : open.phase;
  $("left").textContent = open.left;
  if (open.part === null) $("progress").removeAttribute("value");
  else $("progress").value = open.part;
}

function renderTitle() {
  let what = open?.state === "done" ? words.doneTitle : "";
  if (queue.many && queue.busy) what = words.counted(queue.done.length, queue.photographs.length);
  else if (open?.underWay) what = $("phase").textContent;
  document.title = what ? words.titled(what) : words.title;
}

/** A photograph has changed, or only its progress. */
function changed(photograph, ticks) {
  strip.refresh(photograph);
  if (ticks) {
    if (photograph === open) renderProgress();
    return renderTitle();
  }
  note(photograph);
  count();
  const { state, problem, name } = photograph;
  if (queue.many && state === "done" && !photograph.blended)
    announce(words.finished(name, queue.done.length, queue.photographs.length));
  else if (problem?.cancelled) announce(words.cancelled);
  else if (queue.many && problem?.sentence) announce(words.failed(name, problem.sentence));
  if (photograph === open) follow();
  else if (open?.state === "queued") renderProgress();
}

/** Follow the open photograph into its new state, and the focus with it if it is in the panel. */
async function follow() {
  const photograph = open;
  if (photograph.state === "done") await photograph.open(); // loads the result
  if (photograph !== open) return;
  const within = document.activeElement === document.body || $("panel").contains(document.activeElement);
  const made = displayed !== null && displayed === photograph.result;
  say("stage-message", "");
  render();
  if (!within) return;
  const target = { chosen: "restore", queued: "phase", working: "phase", done: made ? "download" : "outcome" };
  $(target[photograph.state]).focus({ preventScroll: true });
}

// ---------------------------------------------------------------- choosing

/** Take files that were dropped, pasted or chosen: see files.js. */
function choose(files) {
  const one = files.length === 1 && files[0].file && !queue.many && !queue.busy;
  choosing = one ? takeOne(files[0]) : choosing.then(() => takeAll(files));
}

/** Open one photograph in place of the present one. */
async function takeOne({ file }) {
  wanted = file;
  say("stage-message", "");
  say("form-message", "");
  const { kind, refused } = await inspect(file);
  if (wanted !== file) return;
  if (refused) return say("stage-message", refused);
  const photograph = new Photograph(file, kind);
  const slow = setTimeout(() => say("stage-message", words.opening(file.name)), SLOW);
  await photograph.open();
  clearTimeout(slow);
  if (wanted !== file || queue.busy) return photograph.close();
  say("stage-message", "");
  leave();
  queue.photographs = [photograph];
  await show(photograph);
  announce(`${file.name}, ${facts(photograph.pixels, file)}`);
  tasks.focus();
}

/** Add photographs to the list; to begin one, they take the place of a single photograph. */
async function takeAll(files) {
  const adding = queue.many || queue.busy;
  say("stage-message", "");
  say("form-message", "");
  const found = [];
  const refusals = [];
  for (const { file, folder, within } of files.filter(({ file }) => file)) {
    const { kind, image, refused } = await inspect(file);
    if (refused || (within && !image)) refusals.push(refused);
    else found.push(new Photograph(file, kind, folder));
  }
  const missing = files.flatMap(({ missing }) => missing ?? []);
  const reasons = refusals.length === 1 && refusals[0] ? refusals : [refusals.length && words.leftOut(refusals.length)];
  const why = [...reasons, missing.length && words.missing(missing)].filter(Boolean).join(" ");
  if (!found.length) return say("stage-message", why || words.noneInFolder);
  if (!adding) {
    leave();
    queue.photographs = [];
  }
  queue.photographs.push(...found);
  list();
  await show(found[0]);
  say("stage-message", why);
  announce(words.queued(found.length));
  if (!adding) tasks.focus();
  keep(found);
  drawThumbs();
}

/** Return a file's kind, and why it is certainly not a photograph; otherwise the restorer decides. */
async function inspect(file) {
  if (file.size === 0) return { refused: words.empty(file.name) };
  try {
    const { kind, image } = await kindOf(file);
    const refused = image === false && words.noPhotograph(file.name, words.kinds[kind] ?? kind);
    return { kind, refused, image: image || file.type.startsWith("image/") };
  } catch {
    return { refused: words.unreadable(file.name) };
  }
}

// ---------------------------------------------------------------- restoring

/** Restore the open photograph, or all; in their own size unless `size` is given. */
async function restore(size = null) {
  say("form-message", "");
  say("stage-message", "");
  await Promise.all([choosing, tasks.offering]); // a large photograph or a busy server may take a moment
  const wish = tasks.wish();
  if (!open || !wish) {
    say("form-message", open ? words.tasksUnknown : words.chooseFirst);
    if (!open) $("file").focus();
    return;
  }
  const all = queue.many && $("for-all").checked && !size;
  const done = (photograph) => all && photograph.state === "done" && tasks.same(photograph.wish, wish);
  const these = (all ? queue.photographs : [open]).filter((each) => !each.underWay && !done(each));
  if (!these.length) return say("form-message", words.alreadyDone);
  for (const photograph of these) Object.assign(photograph, { wish, size });
  say("queue-message", "");
  queue.start(these);
}

// ---------------------------------------------------------------- the result

function renderResult() {
  const { result, blended, shown, blend, out } = open;
  const [before, why] = compared();
  if (displayed !== result) {
    displayed = result;
    display(before, shown.after, why);
    $("blending").hidden = !restorer.blends || !before;
    if (!$("blending").hidden) blending.begin(before, shown.after, blend);
    [$("strength").value, $("detail").value] = [100 * blend.strength, 100 * blend.detail];
    showNumbers();
    const notes = shown.after && why ? [...result.notes, why] : result.notes;
    const { seconds } = result;
    $("outcome").textContent = isNaN(seconds) ? words.restored : words.restoredIn(duration(Math.max(1, seconds)));
    $("notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
    $("result-name").textContent = result.name;
    if (!queue.many) announce(words.sentences($("outcome").textContent, ...(shown.after ? notes : [why])));
  }
  say("done-message", "");
  $("out").setAttribute("aria-pressed", out);
  const current = blend.whole ? result : blended;
  $("download").href = current && current === blended ? open.blendedUrl() : shown.url;
  $("download").download = (current ?? result).name;
  $("result-size").textContent = current ? facts(sizeOf(shown.after), current.blob) : "";
}

/** Return the original as shown beside its result, or null and the reason why there is no comparison. */
function compared() {
  const { before, after } = open.shown;
  if (!after) return [null, words.resultUnseen];
  if (!before) return [null, words.originalUnseen(open.kind)];
  if (before.naturalWidth !== after.naturalWidth || before.naturalHeight !== after.naturalHeight)
    return [null, words.otherSize];
  return [before, ""];
}

// ---------------------------------------------------------------- how much of the result is taken

function showNumbers() {
  for (const name of ["strength", "detail"]) {
    $(`${name}-told`).textContent = `${$(name).value}%`;
    $(name).setAttribute("aria-valuetext", `${$(name).value}%`);
  }
}

/** Show the result as the sliders say. */
function slide() {
  Object.assign(open.blend, { strength: $("strength").value / 100, detail: $("detail").value / 100 });
  showNumbers();
  blending.show();
  blendChanged();
}

function blendChanged() {
  open.forgetBlended();
  note(open);
  renderResult();
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
  if (open.state !== "done") return; // the file is being made: it would lack this stroke
  const erases = $("erase").getAttribute("aria-pressed") === "true";
  blending.paint(from, to, radius(), erases);
  const { width, height } = sizeOf(open.shown.after);
  const place = [to.x / width, to.y / height].map((part) => `${Math.round(part * 100)}%`);
  if (from === to) announce((erases ? words.erasedAt : words.paintedAt)(...place));
  blendChanged();
}

/** Return the radius of the brush in pixels of the photograph. */
function radius() {
  const { width, height } = sizeOf(open.shown.after);
  return (Math.max(width, height) * $("radius").value) / 400;
}

function useForAll() {
  const { strength, detail } = open.blend;
  for (const photograph of queue.done) {
    Object.assign(photograph.blend, { strength, detail });
    if (photograph !== open) photograph.forgetBlended();
    note(photograph);
  }
  announce(words.usedForAll(queue.done.length));
}

// ---------------------------------------------------------------- what to do with the result

/** Make the file as it is blended now, then call `use` with it. */
async function withCurrent(use) {
  const photograph = open;
  try {
    // The page shows the file before `use` or a message follows.
    const file = await queue.current(photograph).finally(() => photograph === open && photograph.open());
    if (photograph === open) use(file);
  } catch (error) {
    if (photograph === open) say("done-message", error.message);
  }
}

function download(event) {
  if (open.blend.whole || open.blended) {
    open.saved = true;
    return note(open);
  }
  event.preventDefault();
  withCurrent(() => $("download").click());
}

function goOn() {
  withCurrent(async ({ blob, name }) => {
    const file = new File([blob], name, { type: blob.type });
    if (!queue.many) return choose([{ file, folder: "", within: false }]);
    const next = new Photograph(file, (await kindOf(file)).kind, open.folder);
    next.id = open.id; // takes its place, also in the store
    queue.photographs = queue.photographs.map((each) => (each === open ? next : each));
    list();
    await show(next);
    keep([next]);
    drawThumbs();
  });
}

function startAgain() {
  wanted = null;
  leave();
  queue.clear();
  list();
  forgetKept();
  say("stage-message", "");
  enter("start");
  renderTitle();
  $("file").value = $("camera").value = "";
  $("file").focus();
}

function anotherTask() {
  open.state = "chosen";
  hideResult();
  open.forgetResult();
  say("stage-message", "");
  if (queue.many) $("for-all").checked = false;
  labelRestore();
  changed(open, false);
  tasks.focus();
}

// ---------------------------------------------------------------- many photographs

/** Show the list, if there are several. */
function list() {
  const { many, photographs } = queue;
  $("queue").hidden = !many;
  document.body.classList.toggle("many", many);
  for (const id of ["all", "use-for-all", "out", "remove"]) $(id).hidden = !many;
  $("new").hidden = many;
  $("all").querySelector("span").textContent = words.forAll(photographs.length);
  labelRestore();
  strip.list(many ? photographs : []);
  count();
}

function labelRestore() {
  $("restore").textContent = queue.many && $("for-all").checked ? words.restoreAll : words.restore;
}

/** Show how many are restored. */
function count() {
  const { photographs, done, busy } = queue;
  const failed = photographs.filter(({ state, problem }) => state === "chosen" && problem?.sentence);
  const out = done.filter((photograph) => photograph.out);
  if (!saving) $("queue-told").textContent = words.told(done.length, photographs.length, failed.length, out.length);
  $("queue-progress").value = photographs.length ? done.length / photographs.length : 0;
  if ($("stop").hidden === busy) {
    if (!busy && document.activeElement === $("stop")) $("strip").focus({ preventScroll: true });
    $("stop").hidden = !busy;
  }
  $("save").disabled = saving;
}

let drawing = false;

/** Draw missing thumbnails, one after the other: each needs the memory of a whole photograph. */
async function drawThumbs() {
  if (drawing) return;
  drawing = true;
  const missing = () => queue.many && queue.photographs.find(({ drawn }) => !drawn);
  for (let next; (next = missing()); ) {
    next.drawn = true;
    await next.drawThumb();
    strip.refresh(next);
  }
  drawing = false;
}

/** Leave a result out when all are saved, or take it in again. */
function leaveOut(photograph) {
  if (photograph.state !== "done") return;
  photograph.out = !photograph.out;
  strip.refresh(photograph);
  note(photograph);
  count();
  if (photograph === open) $("out").setAttribute("aria-pressed", photograph.out);
}

async function remove(photograph) {
  const at = queue.photographs.indexOf(photograph);
  queue.remove(photograph);
  unnoted.delete(photograph);
  if (kept) store.remove(photograph);
  if (!queue.many) forgetKept();
  list();
  await show(queue.photographs[Math.min(at, queue.photographs.length - 1)]);
  if (queue.many) $("strip").focus();
  else $("viewer").focus();
}

async function clear() {
  const unsaved = queue.done.filter(({ out, saved }) => !out && !saved);
  const why = make("p", { className: "soft", textContent: words.clearWhy(unsaved.length) });
  if (unsaved.length && !(await ask(words.clearTitle, [why], words.clear, words.cancel))) return;
  startAgain();
}

async function saveAll() {
  const these = queue.done.filter(({ out }) => !out);
  if (!these.length) return say("queue-message", words.nothingToSave);
  let folder = null;
  try {
    folder = (await globalThis.showDirectoryPicker?.({ id: "maximir", mode: "readwrite" })) ?? null;
  } catch (error) {
    if (error.name === "AbortError") return; // the user has closed the dialog
  }
  saving = true;
  say("queue-message", "");
  const zip = new Zip();
  const once = unique();
  const wrong = [];
  let saved = 0;
  for (const [number, photograph] of these.entries()) {
    if (!photograph.result) continue; // another task was chosen meanwhile
    count();
    $("queue-told").textContent = words.saving(number + 1, these.length);
    try {
      const { blob, name } = await queue.current(photograph);
      if (folder) await write(folder, photograph.folder + name, blob);
      else await zip.add(once(photograph.folder + name), blob);
      saved++;
      photograph.saved = true;
      note(photograph);
    } catch (error) {
      wrong.push(words.failed(photograph.name, error.message));
    }
  }
  saving = false;
  count();
  if (!folder && saved) {
    URL.revokeObjectURL(zipUrl);
    zipUrl = URL.createObjectURL(zip.finish());
    make("a", { href: zipUrl, download: words.zipName }).click();
  }
  announce(words.saved(saved, folder?.name ?? words.zipName));
  if (wrong.length) say("queue-message", words.unsaved(wrong));
}

// ---------------------------------------------------------------- what is kept in this browser

/** Keep new photographs, from the second one on. */
function keep(photographs) {
  if (!queue.many) return;
  const these = kept ? photographs : queue.photographs;
  kept = true;
  these.forEach(note);
}

function forgetKept() {
  kept = false;
  unnoted.clear();
  store.clear();
}

/** Keep a photograph as it is, soon. */
function note(photograph) {
  if (!kept || !queue.photographs.includes(photograph)) return;
  if (!unnoted.size) setTimeout(noteAll, NOTING);
  unnoted.add(photograph);
}

async function noteAll() {
  for (const photograph of unnoted) { // also those that are added or removed meanwhile
    unnoted.delete(photograph);
    await store.note(photograph);
  }
}

/** Take up the list that was kept when the page was closed, and the photographs that it is opened with. */
async function takeUp() {
  const found = await store.load();
  if (found.length) {
    kept = true;
    queue.photographs = found;
    list();
    await show(found[0]);
    announce(words.back(found.length));
    drawThumbs();
    await tasks.offering; // the server may ask for its token first
    queue.resume();
  }
  const files = (await restorer.opened?.(kept)) ?? [];
  if (files.length) choose(files);
}

// ---------------------------------------------------------------- wiring

fill(words);
document.documentElement.lang = words.language;
document.title = words.title;
document.body.dataset.drop = words.dropAnywhere;
$("promise").textContent = restorer.promise;
for (const option of $("format").options) option.textContent = words.formats[option.value] ?? words.sameFormat;
for (const input of [$("file"), $("folder"), $("camera"), $("more")]) {
  input.onchange = () => {
    if (input.files.length) choose(listed(input.files));
    input.value = ""; // allows choosing the same file again
  };
}
$("form").onsubmit = (event) => (event.preventDefault(), restore());
$("for-all").onchange = labelRestore;
$("cancel").onclick = () => queue.cancel(open);
$("other").onclick = () => $("file").click();
$("again").onclick = anotherTask;
$("on").onclick = goOn;
$("download").onclick = download;
$("strength").oninput = $("detail").oninput = slide;
$("paint").onclick = () => paint($("paint").getAttribute("aria-pressed") === "false");
$("erase").onclick = () =>
  $("erase").setAttribute("aria-pressed", $("erase").getAttribute("aria-pressed") === "false");
$("unpaint").onclick = () => (blending.clear(), blendChanged(), announce(words.unpainted));
$("radius").oninput = () => (viewer.radius = radius());
$("use-for-all").onclick = useForAll;
$("out").onclick = () => leaveOut(open);
$("new").onclick = startAgain;
$("remove").onclick = () => remove(open);
$("stop").onclick = () => (queue.stop(), announce(words.stopped));
$("clear").onclick = clear;
$("save").onclick = saveAll;
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
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const files = await dropped(event.dataTransfer);
  if (files === null) say("stage-message", words.onlyFiles);
  else if (files.length) choose(files);
  else say("stage-message", words.noneInFolder);
});
addEventListener("paste", (event) => {
  if (event.target.closest?.("dialog")) return;
  if (event.clipboardData.files.length) choose(listed(event.clipboardData.files));
  else say("stage-message", words.nothingPasted);
});
addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !queue.many) return;
  if (event.target.closest("input, select, dialog") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  strip.step(event.key === "ArrowLeft" ? -1 : 1);
  event.preventDefault();
});

tasks.offer();
takeUp();
