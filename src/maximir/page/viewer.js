// A photograph before and after, one over the other, with a movable line between them.
//
// The same custom properties (--x, --y, --width, --height, in CSS pixels of the viewer) place both images, so
// they always coincide. Zoom is in screen pixels per image pixel: at 1, each pixel of the file is one pixel
// of the screen, whatever its density.

import { make } from "./elements.js";
import { words } from "./words.js";

const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STEPS = [0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 0.67, 1, 1.5, 2, 3, 4, 6, 8];
const MOST = 8;
const ENLARGED = 2; // maximum CSS pixels per image pixel at which a small photograph fills the viewer
const SHARP = 3; // zoom from which pixels are shown as squares
const SLACK = 4; // CSS pixels that a pointer may move during a click

export class Viewer {
  #root;
  #halves;
  #line;
  #changed;
  #images = []; // before and after, or one of them
  #width = 0; // of the photograph in pixels
  #height = 0;
  #zoom = 1;
  #x = 0; // of its top left corner, in CSS pixels of the viewer
  #y = 0;
  #fitted = true;
  #split = 0.5; // position of the line as a fraction of the visible photograph
  #pointers = new Map();
  #drag = null; // "line", "photograph" or "brush", once known
  #brush = null; // {radius, stroke, element} while the photograph is painted on
  #tip = { x: 0, y: 0 }; // of the brush, in pixels of the photograph

  /** `changed` is called with this viewer whenever its zoom changes. */
  constructor(root, changed) {
    this.#root = root;
    this.#halves = [root.querySelector(".before"), root.querySelector(".after")];
    this.#line = root.querySelector(".line");
    this.#changed = changed;
    new ResizeObserver(() => this.#resized()).observe(root);
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("dblclick", (event) => this.#closer(this.#point(event)));
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, (event) => this.#up(event));
  }

  get zoom() {
    return this.#zoom;
  }

  /** True while the whole photograph is shown, as large as it fits. */
  get fitted() {
    return this.#fitted;
  }

  /** Show two loaded images of the same size, or one (the other null). */
  show(before, after) {
    const one = after ?? before;
    this.#halves.forEach((half, index) => {
      const image = [before, after][index];
      half.querySelector("img")?.remove();
      half.hidden = !image;
      if (image) half.prepend(image);
    });
    this.#images = [before, after].filter(Boolean);
    for (const image of this.#images) image.draggable = false;
    const pair = this.#images.length === 2;
    this.#line.hidden = !pair;
    this.#root.classList.toggle("pair", pair);
    // Keep the view when the pair replaces a photograph of the same size.
    const same = one.naturalWidth === this.#width && one.naturalHeight === this.#height;
    [this.#width, this.#height] = [one.naturalWidth, one.naturalHeight];
    this.#split = 0.5;
    if (same && !this.#fitted) this.#lay();
    else this.fit();
  }

  /** Release the images. */
  clear() {
    for (const image of this.#images) image.remove();
    this.#images = [];
    this.#width = this.#height = 0;
    this.#fitted = true;
  }

  /**
   * Paint on the photograph, or (null) do no longer.
   *
   * @param brush {radius, stroke(from, to)}: in pixels of the photograph
   */
  paintWith(brush) {
    this.#brush?.element.remove();
    this.#brush = brush && { ...brush, element: make("div", { className: "brush" }) };
    this.#root.classList.toggle("painting", Boolean(brush));
    if (!brush) return;
    this.#root.append(this.#brush.element);
    this.#tip = this.#onPhotograph(this.#middle());
    this.#lay();
  }

  set radius(radius) {
    if (this.#brush) this.#brush.radius = radius;
    this.#lay();
  }

  fit() {
    this.#fitted = true;
    this.#zoom = this.#fitting();
    this.#lay();
  }

  /** Zoom one step in (1) or out (-1). */
  step(direction) {
    const larger = STEPS.find((step) => step > this.#zoom * 1.01) ?? MOST;
    const smaller = STEPS.findLast((step) => step < this.#zoom * 0.99) ?? 0;
    this.zoomTo(direction > 0 ? larger : smaller);
  }

  /** Switch between the whole photograph and its actual pixels. */
  toggle() {
    if (this.#fitted) this.zoomTo(1);
    else this.fit();
  }

  /** Switch between the whole photograph and its actual pixels, or twice the size if those are not larger. */
  #closer(point) {
    const fitting = this.#fitting();
    if (this.#fitted) this.zoomTo(fitting < 0.9 ? 1 : fitting * 2, point);
    else this.fit();
  }

  /** Zoom so that the point `from` of the viewer (default: its middle) moves to `to`. */
  zoomTo(zoom, from = this.#middle(), to = from) {
    const before = this.#scale();
    const fitting = this.#fitting();
    this.#zoom = Math.min(Math.max(zoom, Math.min(1, fitting)), Math.max(MOST, fitting * 2));
    this.#fitted = this.#zoom === fitting;
    const ratio = this.#scale() / before;
    this.#x = to.x - (from.x - this.#x) * ratio;
    this.#y = to.y - (from.y - this.#y) * ratio;
    this.#lay();
  }

  /** Return CSS pixels per image pixel. */
  #scale() {
    return this.#zoom / devicePixelRatio;
  }

  #fitting() {
    const { clientWidth, clientHeight } = this.#root;
    const scale = Math.min(clientWidth / this.#width, clientHeight / this.#height, ENLARGED);
    return (scale || 1) * devicePixelRatio; // 0: the viewer is hidden
  }

  #middle() {
    return { x: this.#root.clientWidth / 2, y: this.#root.clientHeight / 2 };
  }

  #resized() {
    if (!this.#width || !this.#root.clientWidth) return;
    if (this.#fitted) this.fit();
    else this.zoomTo(this.#zoom);
  }

  #moved(x, y) {
    this.#x += x;
    this.#y += y;
    this.#lay();
  }

  /** Place the photographs, without gaps at the edges. */
  #lay() {
    const { clientWidth, clientHeight } = this.#root;
    const [width, height] = [this.#width * this.#scale(), this.#height * this.#scale()];
    this.#x = placed(this.#x, width, clientWidth);
    this.#y = placed(this.#y, height, clientHeight);
    const [left, right] = [Math.max(0, this.#x), Math.min(clientWidth, this.#x + width)];
    const [top, bottom] = [Math.max(0, this.#y), Math.min(clientHeight, this.#y + height)];
    const lengths = { x: this.#x, y: this.#y, width, height, top, left, right: clientWidth - right };
    lengths.bottom = clientHeight - bottom;
    lengths.line = left + this.#split * (right - left);
    if (this.#brush) {
      lengths["tip-x"] = this.#x + this.#tip.x * this.#scale();
      lengths["tip-y"] = this.#y + this.#tip.y * this.#scale();
      lengths.radius = this.#brush.radius * this.#scale();
    }
    for (const [name, value] of Object.entries(lengths)) {
      this.#root.style.setProperty(`--${name}`, `${value}px`);
    }
    this.#root.classList.toggle("larger", width > clientWidth + 1 || height > clientHeight + 1);
    this.#root.classList.toggle("sharp", this.#zoom >= SHARP);
    this.#line.setAttribute("aria-valuenow", Math.round(this.#split * 100));
    this.#line.setAttribute("aria-valuetext", this.#told());
    this.#changed(this);
  }

  #told() {
    const before = Math.round(this.#split * 100);
    if (before === 0) return words.onlyAfter;
    return before === 100 ? words.onlyBefore : words.split(before);
  }

  #splitAt(x) {
    const { clientWidth } = this.#root;
    const width = this.#width * this.#scale();
    const [left, right] = [Math.max(0, this.#x), Math.min(clientWidth, this.#x + width)];
    this.#setSplit((x - left) / (right - left));
  }

  #setSplit(split) {
    this.#split = Math.min(Math.max(split, 0), 1);
    this.#lay();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    let moved;
    if (event.target === this.#line) moved = this.#lineKey(event);
    else if (this.#brush && !event.shiftKey) moved = this.#brushKey(event);
    else moved = this.#panKey(event); // with Shift also while painting
    if (moved || this.#zoomKey(event)) event.preventDefault();
  }

  #lineKey({ key, shiftKey }) {
    const step = shiftKey ? 0.1 : 0.02;
    const splits = {
      ArrowLeft: this.#split - step,
      ArrowDown: this.#split - step,
      ArrowRight: this.#split + step,
      ArrowUp: this.#split + step,
      PageDown: this.#split - 0.1,
      PageUp: this.#split + 0.1,
      Home: 0,
      End: 1,
    };
    if (!(key in splits)) return false;
    this.#setSplit(splits[key]);
    return true;
  }

  #zoomKey({ key }) {
    if (key === "+" || key === "=") this.step(1);
    else if (key === "-") this.step(-1);
    else if (key === "0") this.fit();
    else if (key === "1") this.zoomTo(1);
    else return false;
    return true;
  }

  /** Move the brush by half its radius, or paint with it. */
  #brushKey({ key }) {
    const { radius, stroke } = this.#brush;
    if (key === " ") stroke(this.#tip, this.#tip);
    else if (key in ARROWS) {
      const [x, y] = ARROWS[key].map((direction) => -direction * Math.max(1, radius / 2));
      this.#moveTip({ x: this.#tip.x + x, y: this.#tip.y + y });
    } else return false;
    return true;
  }

  #moveTip({ x, y }) {
    this.#tip = {
      x: Math.min(Math.max(x, 0), this.#width),
      y: Math.min(Math.max(y, 0), this.#height),
    };
    this.#lay();
  }

  /** Return a point of the viewer in pixels of the photograph. */
  #onPhotograph({ x, y }) {
    return { x: (x - this.#x) / this.#scale(), y: (y - this.#y) / this.#scale() };
  }

  #panKey({ key }) {
    if (!(key in ARROWS) || !this.#root.classList.contains("larger")) return false;
    const [x, y] = ARROWS[key];
    this.#moved((x * this.#root.clientWidth) / 5, (y * this.#root.clientHeight) / 5);
    return true;
  }

  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    const speed = event.ctrlKey ? 0.01 : 0.002; // a touchpad reports a pinch as a wheel with Ctrl
    this.zoomTo(this.#zoom * Math.exp(-pixels * speed), this.#point(event));
  }

  #point(event) {
    const box = this.#root.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    if (event.button !== 0 || !this.#images.length) return;
    this.#root.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#point(event));
    this.#drag = this.#line.contains(event.target) ? "line" : null;
    if (this.#brush && !this.#drag && this.#pointers.size === 1) {
      this.#drag = "brush";
      this.#moveTip(this.#onPhotograph(this.#point(event)));
      this.#brush.stroke(this.#tip, this.#tip);
    }
  }

  #move(event) {
    const last = this.#pointers.get(event.pointerId);
    const point = this.#point(event);
    if (this.#brush && !this.#pointers.size) this.#moveTip(this.#onPhotograph(point));
    if (!last) return;
    if (!this.#drag && this.#pointers.size === 1) {
      if (Math.hypot(point.x - last.x, point.y - last.y) < SLACK) return;
      const pans = this.#root.classList.contains("larger") || this.#images.length < 2;
      this.#drag = pans ? "photograph" : "line";
    }
    const before = this.#grip();
    this.#pointers.set(event.pointerId, point);
    const now = this.#grip();
    if (this.#pointers.size > 1) this.zoomTo((this.#zoom * now.spread) / before.spread, before, now);
    else if (this.#drag === "line") this.#splitAt(point.x);
    else if (this.#drag === "brush") {
      const from = this.#tip;
      this.#moveTip(this.#onPhotograph(point));
      this.#brush.stroke(from, this.#tip);
    }
    else this.#moved(now.x - before.x, now.y - before.y);
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    this.#drag = this.#pointers.size ? "photograph" : null; // one of two fingers was lifted
  }

  /** Return the centre of the pointers and their mean distance from it. */
  #grip() {
    const points = [...this.#pointers.values()];
    const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / points.length;
    const [x, y] = [mean(points.map((point) => point.x)), mean(points.map((point) => point.y))];
    return { x, y, spread: mean(points.map((point) => Math.hypot(point.x - x, point.y - y))) || 1 };
  }
}

/** Return an edge's position: the photograph is centred if smaller than the viewer, else it covers it. */
function placed(start, length, room) {
  const best = length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, start));
  return Math.round(best * devicePixelRatio) / devicePixelRatio;
}
