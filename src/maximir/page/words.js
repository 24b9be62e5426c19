// Texts of the page: tasks, sizes and times.

/** An error whose message is a sentence for the user. */
export class Problem extends Error {}

/** Titles and descriptions of the tasks. A task missing here gets its model's own words. */
const TASKS = {
  auto: ["What it needs", "Looks first, then decides"],
  denoise: ["Noise", "Grainy or speckled, as in the dark"],
  deblur: ["Blur", "Smeared by movement"],
  derain: ["Rain", "Streaks of rain and their mist"],
  dehaze: ["Haze", "Milky, from mist or smog"],
  enhance: ["Too dark", "Taken with too little light"],
  retouch: ["Flat", "Dull light and colours"],
};

/** Group the list of models by task: one choice per task, its default model first. */
export function choices(models) {
  const tasks = new Map();
  for (const model of models)
    for (const task of model.tasks ?? [model.name]) {
      const [title, description] = TASKS[task] ?? [task, model.description ?? ""];
      if (!tasks.has(task)) tasks.set(task, { task, title, description, models: [] });
      const of = tasks.get(task).models;
      of[model.default ? "unshift" : "push"]({ ...model, limits: model.limits ?? "", label: label(model) });
    }
  const known = Object.keys(TASKS);
  const place = ({ task }) => (known.indexOf(task) + 1 || known.length + 1);
  return [...tasks.values()].sort((a, b) => place(a) - place(b));
}

/** Describe a model. The authors' models have two or three stages and take as many times as long. */
function label({ name, origin, data, stages }) {
  if (origin === "box") return "Fast, for all kinds";
  if (origin === "authors") return `Thorough, for photographs like ${data} (${stages ?? 2} times as slow)`;
  return name;
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
