// Photographs and the work on them: so many at once as the restorer allows, in the order of the list.

import * as restorer from "./restorer.js";
import { Problem, words } from "./words.js";

const AT_ONCE = restorer.atOnce ?? 1;
const LOSSLESS = ["image/png", "image/tiff"];

export class Queue {
  photographs = [];
  #changed;
  #announce;
  #working = 0;
  #lock = null; // keeps the screen on

  /**
   * @param changed called with a photograph whenever it changes; `ticks` is true if only its progress does
   * @param announce tells screen readers a sentence about a photograph
   */
  constructor(changed, announce) {
    this.#changed = changed;
    this.#announce = announce;
  }

  get many() {
    return this.photographs.length > 1;
  }

  get busy() {
    return this.photographs.some((photograph) => photograph.underWay);
  }

  get done() {
    return this.photographs.filter((photograph) => photograph.state === "done");
  }

  /** Restore these, when it is their turn. */
  start(photographs) {
    for (const photograph of photographs) {
      photograph.forgetResult();
      this.#enter(photograph, "queued", null);
    }
    this.#next();
  }

  /** Go on with what was waiting when the page was closed. */
  resume() {
    this.#next();
  }

  /** Cancel the work on a photograph. */
  cancel(photograph) {
    if (photograph.state === "queued") this.#enter(photograph, "chosen", null);
    else photograph.running?.abort();
  }

  stop() {
    for (const photograph of this.photographs) if (photograph.underWay) this.cancel(photograph);
  }

  remove(photograph) {
    this.cancel(photograph);
    this.photographs = this.photographs.filter((each) => each !== photograph);
  }

  clear() {
    this.stop();
    this.photographs = [];
  }

  /**
   * Return the result as it is blended now, {blob, name}.
   *
   * @throws what the restorer throws, if it has to be made and cannot be
   */
  async current(photograph) {
    const { result, blend } = photograph;
    if (blend.whole) return result;
    if (photograph.blended) return photograph.blended;
    const problem = await this.#work(photograph, async (signal, report) => {
      const lossless = LOSSLESS.includes(result.blob.type) ? { restored: result.blob } : {};
      const job = { ...result.job, file: photograph.file, ...(await blend.fields()), ...lossless };
      photograph.blended = await restorer.restore(job, signal, report);
    });
    this.#enter(photograph, "done", null);
    this.#next();
    if (problem) throw Object.assign(new Problem(problem.sentence), problem);
    return photograph.blended;
  }

  #next() {
    while (this.#working < AT_ONCE) {
      const next = this.photographs.find(({ state }) => state === "queued");
      if (!next) return;
      this.#restore(next);
    }
  }

  async #restore(photograph) {
    const { file, size, wish } = photograph;
    const problem = await this.#work(photograph, async (signal, report) => {
      if (this.many && !photograph.pixels) await photograph.drawThumb();
      const job = { pixels: photograph.pixels, ...wish, size }; // stored with the result, so without the file
      const answer = await restorer.restore({ file, ...job }, signal, report);
      signal.throwIfAborted();
      photograph.result = { ...answer, job };
      const { strength = 1, detail = 0 } = wish.preset ?? {};
      Object.assign(photograph.blend, { strength, detail });
    });
    this.#enter(photograph, photograph.result ? "done" : "chosen", problem);
    if (problem?.gone) this.stop(); // the others would fail, too
    this.#next();
  }

  /** Run `work(signal, report)` on a photograph; return the problem, or null. A cancelled one has no sentence. */
  async #work(photograph, work) {
    const running = (photograph.running = new AbortController());
    this.#working++;
    Object.assign(photograph, { phase: "", part: null, left: "" });
    this.#enter(photograph, "working", null);
    this.#lock ??= stayAwake();
    const tell = (phase, part, left = "") => {
      Object.assign(photograph, { phase, part, left });
      this.#changed(photograph, true);
    };
    const announce = (sentence) => this.#announce(photograph, sentence);
    try {
      await work(running.signal, { tell, announce, patient: this.many });
      return null;
    } catch (error) {
      if (running.signal.aborted) return { sentence: "", cancelled: true };
      if (error instanceof Problem) return { sentence: error.message, size: error.size, gone: error.status === 0 };
      return { sentence: words.broken(error.message) };
    } finally {
      photograph.running = null;
      if (--this.#working === 0) {
        this.#lock.then((lock) => lock?.release());
        this.#lock = null;
      }
    }
  }

  #enter(photograph, state, problem) {
    Object.assign(photograph, { state, problem });
    if (this.photographs.includes(photograph)) this.#changed(photograph, false);
  }
}

/** Keep a phone's screen on where possible: when it sleeps, the connection is lost. */
async function stayAwake() {
  try {
    return await navigator.wakeLock.request("screen");
  } catch {
    return null;
  }
}
