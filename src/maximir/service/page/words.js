// What the page says: tasks, sizes and times for people.

/** The tasks' names on the page. A task of the server that is missing here gets the server's own words. */
const TASKS = {
  denoise: ["Noise", "Grainy or speckled, as in the dark"],
  deblur: ["Blur", "Smeared by movement"],
  derain: ["Rain", "Streaks of rain and their mist"],
  dehaze: ["Haze", "Milky, from mist or smog"],
  enhance: ["Too dark", "Taken with too little light"],
};

/** What the list of models offers: one choice a task. */
export function choices(models) {
  return models.flatMap((model) =>
    (model.tasks ?? [model.name]).map((task) => {
      const [title, description] = TASKS[task] ?? [task, model.description ?? ""];
      return { task, title, description, limits: model.limits ?? "" };
    }),
  );
}

/** A file's size: "740 bytes", "83 kB", "5.2 MB", with a space that no line breaks at. */
export function size(bytes) {
  if (bytes < 1e3) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A duration: "8 s", "3 min", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** What remains, no more exact than it is known: "about 20 s left". */
export function left(seconds) {
  if (seconds === null || !(seconds >= 0)) return "";
  if (seconds < 3) return "nearly done";
  const step = seconds > 20 ? 5 : 1;
  return `about ${duration(Math.round(seconds / step) * step)} left`;
}

export const percent = (fraction) => `${Math.floor(fraction * 100)}%`;
