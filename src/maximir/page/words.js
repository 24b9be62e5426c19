// All texts of the page, of the service's and of the one without a server. Add a language here.
//
// Two texts stand elsewhere, because they are shown where this module cannot run: in <noscript>, and in opened.js.

/** An error whose message is a sentence for the user. */
export class Problem extends Error {}

const photographs = (n) => (n === 1 ? "1 photograph" : `${n} photographs`);
const isAre = (n) => (n === 1 ? "is" : "are");

export const words = {
  language: "en",
  title: "Restore a photograph",
  titled: (what) => `${what} · Restore a photograph`,
  doneTitle: "Done",

  // choosing
  photograph: "Photograph",
  drop: "Drop photographs or a folder here, or paste one",
  dropAnywhere: "Drop it anywhere",
  choose: "Choose a photograph",
  chooseFolder: "Choose a folder",
  take: "Take one",
  other: "Choose another photograph",
  opening: (name) => `Opening ${name} …`,
  empty: (name) => `${name} is empty.`,
  noPhotograph: (name, kind) => `${name} is not a photograph: it is a ${kind}.`,
  unreadable: (name) => `${name} cannot be read. Is it a folder?`,
  leftOut: (n) => (n === 1 ? "1 file is not a photograph: left out." : `${n} files are not photographs: left out.`),
  missing: (names) =>
    `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""} cannot be read.`,
  noneInFolder: "There are no photographs in this folder.",
  onlyFiles: "Only files can be dropped here: save the picture first.",
  nothingPasted: "There is no picture in the clipboard.",
  kinds: { video: "video", zip: "ZIP or office file" },

  // the viewer
  before: "Before",
  after: "After",
  beforeAndAfter: "Before and after",
  border: "Border between before and after",
  onlyBefore: "only before",
  onlyAfter: "only after",
  split: (before) => `${before}% before, ${100 - before}% after`,
  keys: "Plus and minus zoom. Arrow keys move. 0 shows the whole picture, 1 its actual pixels.",
  brushKeys: "Arrow keys move the brush, Space paints. Shift and arrow keys move the photograph.",
  zoom: "Zoom",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
  zoomLevel: (text, fitted) => `Zoom ${text}: show ${fitted ? "actual pixels" : "the whole picture"}`,
  cannotShow: (kind, advice) => `This browser cannot show ${thisFile(kind)}. ${advice}`,
  resultUnseen: "This browser cannot show the result, but you can download it. Save as PNG or JPEG to compare it here.",
  originalUnseen: (kind) => `This browser cannot show the original, ${thisFile(kind)}: only the result is shown.`,
  otherSize: "This browser shows the original in another size or orientation: only the result is shown.",

  // the form
  what: "What to do",
  wrong: "What is wrong with it?",
  loadingTasks: "Loading the tasks …",
  tasksUnknown: "The tasks are not known yet.",
  tryAgain: "Try again",
  model: "Model",
  limits: (text) => `Limits: ${text}`,
  preset: "Or a preset",
  noPreset: "none",
  format: "Save as",
  sameFormat: "the same format",
  formats: { png: "PNG", jpeg: "JPEG", webp: "WebP", tiff: "TIFF", avif: "AVIF" },
  forAll: (n) => `For all ${photographs(n)}`,
  restore: "Restore",
  restoreAll: "Restore all",
  restoreAt: (width, height) => `Restore it at ${width} × ${height}`,
  chooseFirst: "Choose a photograph first.",
  alreadyDone: "All of them are restored in this way already.",
  box: "Best, for all kinds",
  fast: "Fast, for all kinds: a fifth of the time",
  authors: (data, stages) => `Thorough, for photographs like ${data} (${stages} times as slow)`,
  /** Titles and descriptions of the tasks. A task missing here gets its model's own words. */
  tasks: {
    auto: ["What it needs", "Looks first, then decides"],
    denoise: ["Noise", "Grainy or speckled, as in the dark"],
    deblur: ["Blur", "Smeared by movement"],
    derain: ["Rain", "Streaks of rain and their mist"],
    dehaze: ["Haze", "Milky, from mist or smog"],
    enhance: ["Too dark", "Taken with too little light"],
    retouch: ["Flat", "Dull light and colours"],
    dejpeg: ["Compressed", "Blocks and rings of small JPEGs"],
  },

  // work
  cancel: "Cancel",
  cancelled: "Cancelled.",
  inLine: (n) => (n ? `Waiting: ${photographs(n)} of yours first` : "Waiting: this one is next"),
  broken: (message) => `Something went wrong in this page: ${message}`,

  // the result
  restored: "Restored",
  restoredIn: (time) => `Restored in ${time}`,
  download: "Download",
  howMuch: "How much of the result?",
  strength: "Strength",
  detail: "Fine texture",
  paint: "Paint where to restore",
  brush: "Brush",
  erase: "Erase",
  clearPaint: "Clear",
  paintedAt: (left, top) => `Painted at ${left} from the left, ${top} from the top`,
  erasedAt: (left, top) => `Erased at ${left} from the left, ${top} from the top`,
  unpainted: "Nothing is painted: restored everywhere",
  useForAll: "Use this strength for all",
  usedForAll: (n) => `Used for ${photographs(n)}`,
  another: "Try another task",
  goOn: "Continue with this result",
  again: "Restore another photograph",

  // many photographs
  queue: "Photographs",
  queueKeys:
    "Arrow keys show another photograph, also while the whole picture is shown above. " +
    "Space leaves its result out, or takes it in again. Delete removes the photograph.",
  queueNote: "Kept in this browser until you clear it.",
  notKept: "This browser has no room to keep this: reloading the page would lose it.",
  counted: (done, all) => `${done} of ${all} restored`,
  queued: (n) => `${photographs(n)} added to the list`,
  told: (done, all, failed, out) =>
    [`${done} of ${all} restored`, failed && `${failed} failed`, out && `${out} left out`].filter(Boolean).join(", "),
  states: { chosen: "not restored", queued: "waiting", working: "working", done: "restored" },
  option: (name, state, left) => `${name}: ${state}${left ? ", left out" : ""}`,
  optionFailed: (sentence) => `failed. ${sentence}`,
  finished: (name, done, all) => `${name} is restored, ${done} of ${all}.`,
  failed: (name, sentence) => `${name}: ${sentence}`,
  back: (n) => `Your ${photographs(n)} are back.`,
  add: "Add more",
  stop: "Stop",
  stopped: "Stopped.",
  saveAll: "Save all",
  leaveOut: "Leave this result out",
  remove: "Remove from the list",
  clear: "Clear",
  clearTitle: "Clear the list?",
  clearWhy: (n) => `${photographs(n)} ${isAre(n)} restored, but not saved.`,
  saving: (n, all) => `Saving, ${n} of ${all}`,
  saved: (n, place) => `${photographs(n)} saved in ${place}.`,
  zipName: "restored.zip",
  nothingToSave: "Nothing is restored yet, or everything is left out.",
  unsaved: (sentences) => `Not saved: ${sentences.join(" ")}`,

  // the service
  promise: "Sent to this server only, and not kept.",
  unshown: "The server may still be able to read it.",
  sending: "Sending …",
  sendingPart: (part) => `Sending, ${part}`,
  sent: "Sent, waiting for the server …",
  ahead: (n) => (n ? `Waiting, ${n} ahead of you` : "Waiting, you are next"),
  restoring: "Restoring …",
  restoringPart: (part) => `Restoring, ${part}`,
  sentences: (...texts) => texts.map((text) => text.replace(/\.?$/, ".")).join(" "),
  later: (sentence, time) => `${sentence} Trying again in ${time}.`,
  laterOf: (time, n, most) => `Trying again in ${time} (${n} of ${most})`,
  waitingForPlace: "Waiting for a place at the server",
  noModels: "This server has no models.",
  noServer: "The server cannot be reached. Is it still running?",
  noServerKept: "The server cannot be reached. Is it still running? Your photograph is still here: try again.",
  otherServer: "This server is not maximir.",
  interrupted:
    "The connection was interrupted. Try again; if that fails, the file may be too large for this server.",
  fileGone: "The file cannot be read any more. Choose it again.",
  answered: (status) => `The server answered with error ${status}.`,
  token: "Token",
  tokenTitle: "This server requires a token",
  tokenNeeded: "This server requires a token.",
  tokenWrong: "That token was not accepted.",
  tokenNote: "Ask the person who runs the server. The token is kept until this tab closes.",
  continue: "Continue",

  // the page without a server
  promiseHere: "Restored in this browser. The photograph never leaves your machine.",
  unshownHere: "Save it as JPEG or PNG in another program first.",
  noList: "The list of models cannot be loaded. Is this folder complete?",
  tooOld: "This browser is too old for this page: it lacks WebAssembly SIMD. Use a version of 2023 or later.",
  tooPoor:
    "This browser has too little memory: the page needs 1.5 GB. Close other tabs, or use another device.",
  hereAlready: "In this browser already.",
  downloads: (model, program) =>
    `Downloads ${[model && `${model} for the model`, program && `${program} for the program`].filter(Boolean).join(" and ")} once.`,
  tooLarge: "This photograph is too large for this browser's memory.",
  noProgram: "The program cannot be loaded. Are you offline, or is this folder incomplete?",
  outOfMemory: "This browser ran out of memory. Close other tabs, or restore it smaller.",
  unreadableHere: "This browser cannot read this file. Save it as JPEG or PNG in another program first.",
  phases: { restoring: "Restoring", program: "Loading the program", model: "Loading the model", preparing: "Preparing" },
  phase: (name) => `${name} …`,
  phasePart: (name, part) => `${name}, ${part}`,
  phaseFailed: (name) => `${name} failed. Are you offline, or is this folder incomplete?`,
  fromView: "Light from a small view, detail in tiles.",
  inTiles: "Restored in tiles.",
  onGraphics: "Computed on the graphics processor.",
  noMetadataWebp: "Metadata is not kept in WebP files.",
  onlyExif: "Metadata other than EXIF is kept only in files of the same kind.",
  noMetadata: "Metadata of this kind of file is not kept.",
  depth: "16 bits per channel became 8.",
  colours: "The colours were converted to sRGB.",
};

/** Return "this TIFF file" or "this file". */
function thisFile(kind) {
  return kind ? `this ${kind} file` : "this file";
}

/** Group the list of models by task: one choice per task, its default model first. */
export function choices(models) {
  const tasks = new Map();
  for (const model of models)
    for (const task of model.tasks ?? [model.name]) {
      const [title, description] = words.tasks[task] ?? [task, model.description ?? ""];
      if (!tasks.has(task)) tasks.set(task, { task, title, description, models: [] });
      const of = tasks.get(task).models;
      of[model.default ? "unshift" : "push"]({ ...model, limits: model.limits ?? "", label: label(model) });
    }
  const known = Object.keys(words.tasks);
  const place = ({ task }) => known.indexOf(task) + 1 || known.length + 1;
  return [...tasks.values()].sort((a, b) => place(a) - place(b));
}

/** Describe a model. The authors' models have two or three stages and take as many times as long. */
function label({ name, origin, data, stages }) {
  if (origin === "box") return name.endsWith("-fast") ? words.fast : words.box;
  return origin === "authors" ? words.authors(data, stages ?? 2) : name;
}

/** Format a file's size: "740 bytes", "83 kB", "5.2 MB", with a no-break space. */
export function size(bytes) {
  if (bytes < 1e3) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Format a duration: "8 s", "3 min", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Format the time left, rounded to what the estimate supports: "about 20 s left". */
export function left(seconds) {
  if (seconds === null || !(seconds >= 0)) return "";
  if (seconds < 3) return "nearly done";
  const step = seconds > 20 ? 5 : 1;
  return `about ${duration(Math.round(seconds / step) * step)} left`;
}

export const percent = (fraction) => `${Math.floor(fraction * 100)}%`;
