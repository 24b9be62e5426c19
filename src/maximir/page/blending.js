// How much of the result is taken: strength, fine texture of the original, and a painted mask.
//
//   blended = before + strength * mask * (after + detail * fine - before)
//
// The browser blends layers: `before` below, and over it, with the strength as opacity and the painted mask,
// `after` and a copy with the original's fine texture. So every change shows at once. The restorer makes the
// file to download by the same formula (docs/strength.md).

import { make } from "./elements.js";

const FINE = 2; // pixels: sigma of the blur that separates fine texture from the rest
const LUMA = [0.299, 0.587, 0.114];
const STRIP = 512; // rows
const LARGEST_MASK = 2048; // pixels of its longer side
const EVERY = 120; // ms between updates of the shown mask during a stroke
const SOFT = 0.5; // part of the brush's radius from which it fades

/** How much of a result is taken. */
export class Blend {
  strength = 1;
  detail = 0;
  mask = null; // canvas: white where it is painted
  painted = false;

  /** Return the blend that `stored` returned. */
  static async from({ strength, detail, mask }) {
    const blend = Object.assign(new Blend(), { strength, detail });
    if (!mask) return blend;
    const image = await createImageBitmap(mask);
    blend.mask = make("canvas", { width: image.width, height: image.height });
    blend.mask.getContext("2d").drawImage(image, 0, 0);
    return Object.assign(blend, { painted: true });
  }

  /** Return what can be stored: numbers, and the mask as a PNG or null. */
  async stored() {
    const { strength, detail } = this;
    return { strength, detail, mask: this.painted ? await encoded(this.mask) : null };
  }

  /** True if the result is taken as it is. */
  get whole() {
    return this.strength === 1 && this.detail === 0 && !this.painted;
  }

  /** Return the fields of a job: numbers, and the mask as a PNG, white on black. */
  async fields() {
    const fields = { strength: this.strength, detail: this.detail };
    if (this.painted) {
      const { width, height } = this.mask;
      const flat = make("canvas", { width, height });
      const context = flat.getContext("2d");
      context.fillRect(0, 0, width, height);
      context.drawImage(this.mask, 0, 0);
      fields.mask = await encoded(flat);
    }
    return fields;
  }

  /** Paint a line between two points of a photograph of this width and height, or erase it. */
  paint(from, to, radius, erase, photoWidth, photoHeight) {
    if (!this.mask) {
      const [width, height] = maskSize(photoWidth, photoHeight);
      this.mask = make("canvas", { width, height });
    }
    const scale = this.mask.width / photoWidth;
    const context = this.mask.getContext("2d");
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const steps = Math.max(1, Math.ceil((length / radius) * 4));
    for (let step = 0; step <= steps; step++) {
      const x = (from.x + ((to.x - from.x) * step) / steps) * scale;
      const y = (from.y + ((to.y - from.y) * step) / steps) * scale;
      const fade = context.createRadialGradient(x, y, SOFT * radius * scale, x, y, radius * scale);
      fade.addColorStop(0, "rgb(255 255 255 / 100%)");
      fade.addColorStop(1, "rgb(255 255 255 / 0%)");
      context.fillStyle = fade;
      context.fillRect(x - radius * scale, y - radius * scale, 2 * radius * scale, 2 * radius * scale);
    }
    this.painted ||= !erase;
  }
}

/** The layers in which a blend is shown. */
export class Blending {
  #half;
  #blend = null;
  #images = null; // {before, after}
  #under = null; // the copy of `before` below
  #top = null;
  #fine = null; // canvas: `after` with the original's fine texture
  #url = "";
  #timer = 0;

  /** `half` is the element that shows what is after. */
  constructor(half) {
    this.#half = half;
  }

  /** Show two loaded images of the same size as layers; `after` is in the half already. */
  begin(before, after, blend) {
    this.#images = { before, after };
    this.#blend = blend;
    this.#under = make("img", { src: before.src, alt: "", className: "under", draggable: false });
    this.#top = make("div", { className: "top" }, after);
    this.#half.prepend(this.#under, this.#top);
    this.show();
    this.#showMask();
  }

  /** Show the images no longer. */
  end() {
    this.#under?.remove();
    this.#top?.remove();
    clearTimeout(this.#timer);
    this.#images = this.#blend = this.#under = this.#top = this.#fine = null;
    this.#timer = 0;
    this.#setUrl("");
  }

  /** Show the blend's numbers as they are now. */
  show() {
    if (!this.#top) return;
    const { strength, detail } = this.#blend;
    if (detail && !this.#fine) {
      this.#fine = withFineTexture(this.#images.before, this.#images.after);
      this.#top.append(this.#fine);
    }
    this.#top.style.opacity = strength;
    if (this.#fine) this.#fine.style.opacity = detail;
  }

  /** Paint a line between two points of the photograph, or erase it. */
  paint(from, to, radius, erase) {
    const { naturalWidth, naturalHeight } = this.#images.after;
    this.#blend.paint(from, to, radius, erase, naturalWidth, naturalHeight);
    this.#timer ||= setTimeout(() => this.#showMask(), EVERY);
  }

  /** Remove the mask: the whole photograph is restored again. */
  clear() {
    Object.assign(this.#blend, { mask: null, painted: false });
    this.#showMask();
  }

  async #showMask() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const blend = this.#blend;
    const mask = blend.mask;
    if (!mask) return this.#setUrl("");
    const blob = await encoded(mask);
    if (blend === this.#blend && mask === blend.mask) this.#setUrl(URL.createObjectURL(blob));
  }

  #setUrl(url) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = url;
    if (this.#top) this.#top.style.maskImage = url && `url(${url})`;
  }
}

function encoded(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Return the largest size of a mask that scales exactly to the photograph's, up to LARGEST_MASK if possible. */
function maskSize(width, height) {
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  const most = divisor(width, height);
  for (let parts = most; parts > 0; parts--) {
    const size = [(width / most) * parts, (height / most) * parts];
    if (Math.max(...size) <= LARGEST_MASK) return size;
  }
  return [width, height];
}

/** Return a canvas with `after` plus the fine luma of before - after. */
function withFineTexture(before, after) {
  const { naturalWidth: width, naturalHeight: height } = after;
  const result = make("canvas", { width, height });
  const margin = 3 * FINE;
  for (let top = 0; top < height; top += STRIP) {
    const first = Math.max(0, top - margin);
    const rows = Math.min(height, top + STRIP + margin) - first;
    const pixels = (image, filter) => {
      const context = make("canvas", { width, height: rows }).getContext("2d", { willReadFrequently: true });
      context.filter = filter;
      context.drawImage(image, 0, -first);
      return context.getImageData(0, 0, width, rows);
    };
    const layers = [pixels(before, "none"), pixels(before, `blur(${FINE}px)`), pixels(after, `blur(${FINE}px)`)];
    const out = pixels(after, "none");
    const [sharp, blurred, blurredAfter] = layers.map((layer) => layer.data);
    for (let i = 0; i < out.data.length; i += 4) {
      let fine = 0;
      for (let c = 0; c < 3; c++)
        fine += LUMA[c] * (sharp[i + c] - blurred[i + c] - out.data[i + c] + blurredAfter[i + c]);
      for (let c = 0; c < 3; c++) out.data[i + c] += fine;
    }
    const skipped = top - first;
    result.getContext("2d").putImageData(out, 0, first, 0, skipped, width, Math.min(STRIP, height - top));
  }
  return result;
}
