// One photograph of the page: its file, what is wished for it, its result, and what is loaded of both.

import { Blend } from "./blending.js";
import { make } from "./elements.js";

const THUMB = 96; // CSS pixels: longest side of a thumbnail
let number = 0;

export class Photograph {
  id = `${Date.now()}-${String(++number).padStart(6, "0")}`; // sorts as they came; names what is stored
  state = "chosen"; // "chosen", "queued", "working", "done"
  wish = null; // {task, model, preset, format}; null: what the form says
  size = null; // {width, height} to restore it smaller
  pixels = null; // {width, height} as the browser shows it; null where it cannot
  problem = null; // {sentence, size}: why it was not restored
  phase = ""; // progress in words
  part = null; // 0 … 1, or null
  left = "";
  result = null; // {blob, name, notes, seconds, job}
  blend = new Blend();
  blended = null; // the result as it is blended now, once it has been made: {blob, name}
  out = false; // left out when all are saved
  saved = false;
  thumb = null; // canvas, once it has been drawn; null where the browser cannot show it
  drawn = false;
  shown = null; // while it is open: {before, after}, loaded images or null, and addresses {url, blendedUrl}
  running = null; // AbortController
  #urls = [];
  #opening = Promise.resolve(); // settles when all is loaded

  /** `folder` is the path of its folder within what was dropped, "" or with a slash at its end. */
  constructor(file, kind, folder = "") {
    Object.assign(this, { file, kind, folder });
  }

  get name() {
    return this.file.name;
  }

  get underWay() {
    return this.state === "queued" || this.state === "working";
  }

  /** Load what there is to see. Images stay loaded until `close`. */
  open() {
    return (this.#opening = this.#opening.then(() => this.#load()));
  }

  async #load() {
    if (!this.shown) {
      const url = URL.createObjectURL(this.file);
      this.shown = { before: null, after: null, afterOf: null, url: "", blendedUrl: "" };
      const { shown } = this;
      this.#urls = [url];
      shown.before = await loaded(url);
      this.pixels = sizeOf(shown.before);
      if (!shown.before) URL.revokeObjectURL(url);
    }
    const { shown, result } = this;
    if (!shown || !result || shown.afterOf === result) return; // closed meanwhile, or nothing to load
    Object.assign(shown, { afterOf: result, url: this.#url(result.blob) });
    shown.after = await loaded(shown.url);
  }

  /** Release the images. */
  close() {
    for (const url of this.#urls) URL.revokeObjectURL(url);
    this.#urls = [];
    this.shown = null;
  }

  /** Release the result. */
  forgetResult() {
    this.result = null;
    this.saved = this.out = false;
    this.blend = new Blend();
    this.forgetBlended();
    if (!this.shown) return;
    if (this.shown.url) this.#revoke(this.shown.url);
    Object.assign(this.shown, { after: null, afterOf: null, url: "" });
  }

  /** Release the result as it was blended. */
  forgetBlended() {
    this.blended = null;
    this.saved = false;
    if (!this.shown?.blendedUrl) return;
    this.#revoke(this.shown.blendedUrl);
    this.shown.blendedUrl = "";
  }

  /** Return an address of the blended result, while it is open. */
  blendedUrl() {
    return (this.shown.blendedUrl ||= this.#url(this.blended.blob));
  }

  /** Draw the thumbnail, and find out the size. */
  async drawThumb() {
    const url = URL.createObjectURL(this.file);
    const image = await loaded(url);
    this.pixels = sizeOf(image);
    if (image) {
      const scale = (THUMB * devicePixelRatio) / Math.max(image.naturalWidth, image.naturalHeight);
      const [width, height] = [image.naturalWidth, image.naturalHeight].map((n) => Math.max(1, Math.round(n * scale)));
      this.thumb = make("canvas", { width, height });
      this.thumb.getContext("2d").drawImage(image, 0, 0, width, height);
    }
    URL.revokeObjectURL(url);
  }

  #url(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return url;
  }

  #revoke(url) {
    URL.revokeObjectURL(url);
    this.#urls = this.#urls.filter((each) => each !== url);
  }
}

/** Load the image at `url`; null if the browser cannot show it. */
async function loaded(url) {
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

/** Return {width, height} of a loaded image; null for null. */
export function sizeOf(image) {
  return image && { width: image.naturalWidth, height: image.naturalHeight };
}
