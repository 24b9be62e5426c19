// Restore photographs of any size with a file of `maximir export --tile`. The same as tiles.py; see there.
//
//   const facts = await (await fetch("enhance.json")).json();
//   const session = await ort.InferenceSession.create("enhance.onnx");
//   const run = async (planes, h, w) =>
//     (await session.run({ image: new ort.Tensor("float32", planes, [1, 3, h, w]) })).restored.data;
//   const planes = await restore(context.getImageData(0, 0, width, height), facts, run);
//   context.putImageData(toImageData(planes, width, height), 0, 0);
//
// Images are planes {data: Float32Array [3, height, width] in [0, 1], width, height}.

const CENTRED = 64; // the multiple of networks whose padding is centred; others are padded at the end

/**
 * Restore a photograph.
 *
 * @param image ImageData: RGBA bytes
 * @param facts of the network
 * @param run (planes [3, h, w], h, w) → a promise of the same, restored; sides are multiples of facts.multiple
 * @param report called with the part that is done, 0 … 1
 * @returns Float32Array [3, height, width], not clipped
 */
export async function restore(image, facts, run, report = () => {}) {
  const { width, height } = image;
  const { tile, overlap, light } = facts;
  const viewed = needsView(height, width, facts);
  if (!viewed && fits(height, width, facts)) return (await atOnce(cut(image, 0, 0, height, width), facts, run)).data;
  const [rows, columns] = [tiles(height, tile, overlap), tiles(width, tile, overlap)];
  const count = rows.length * columns.length + viewed;
  const result = { data: new Float32Array(3 * height * width), width, height };
  let done = 0;
  for (const [top, down] of rows)
    for (const [left, across] of columns) {
      const part = await atOnce(cut(image, top, left, down.length, across.length), facts, run);
      add(result, part, top, left, down, across);
      report(++done / count);
    }
  if (viewed) {
    const [h, w] = viewSize(height, width, light.view);
    const small = await atOnce(shrink(image, h, w), facts, run);
    const tiled = shrink(result, h, w);
    const difference = small.data.map((value, i) => value - tiled.data[i]);
    addLight(result, blur({ data: difference, width: w, height: h }, light.smooth));
    report(1);
  }
  return result.data;
}

/** True if the photograph is small enough to be restored at once. */
export function fits(height, width, { whole, multiple }) {
  return side(height, multiple) * side(width, multiple) <= whole;
}

/** True if the light must come from a view: of a large photograph, or of one in tiles. */
export function needsView(height, width, facts) {
  const { light } = facts;
  return Boolean(light) && (Math.max(height, width) >= light.large || !fits(height, width, facts));
}

/** Return the number of pixels that the network computes. */
export function work(height, width, facts) {
  const viewed = needsView(height, width, facts);
  const padded = (length) => side(length, facts.multiple);
  if (!viewed && fits(height, width, facts)) return padded(height) * padded(width);
  const [rows, columns] = [height, width].map((length) => tiles(length, facts.tile, facts.overlap));
  const tiled = rows.length * padded(rows[0][1].length) * columns.length * padded(columns[0][1].length);
  const [h, w] = viewed ? viewSize(height, width, facts.light.view) : [0, 0];
  return tiled + padded(h) * padded(w);
}

/** Convert planes [3, height, width] to RGBA bytes, opaque. */
export function toBytes(planes, width, height) {
  const area = width * height;
  const bytes = new Uint8ClampedArray(4 * area).fill(255); // it rounds and clips
  for (let c = 0; c < 3; c++) for (let i = 0; i < area; i++) bytes[4 * i + c] = 255 * planes[c * area + i];
  return bytes;
}

export function toImageData(planes, width, height) {
  return new ImageData(toBytes(planes, width, height), width, height);
}

// Position k of a padded side holds the image's pixel source(k, size, multiple); the image begins at before(…).
export const even = (size) => size + (size % 2);
const more = (size, multiple) => (multiple - (even(size) % multiple)) % multiple;
export const before = (size, multiple) => (multiple === CENTRED ? more(size, multiple) / 2 : 0);
export const side = (size, multiple) => even(size) + more(size, multiple);
export const source = (k, size, multiple) => fold(fold(k - before(size, multiple), even(size)), size);

function fold(i, n) {
  const period = n > 1 ? 2 * (n - 1) : 1;
  i = ((i % period) + period) % period;
  return i < n ? i : period - i;
}

/** Restore planes of any size, padded by reflection. */
async function atOnce({ data, width, height }, { multiple }, run) {
  const [h, w] = [side(height, multiple), side(width, multiple)];
  const [top, left] = [before(height, multiple), before(width, multiple)];
  const padded = new Float32Array(3 * h * w);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < h; y++) {
      const from = (c * height + source(y, height, multiple)) * width;
      for (let x = 0; x < w; x++) padded[(c * h + y) * w + x] = data[from + source(x, width, multiple)];
    }
  const restored = await run(padded, h, w);
  const result = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < height; y++) {
      const from = (c * h + y + top) * w + left;
      result.set(restored.subarray(from, from + width), (c * height + y) * width);
    }
  return { data: result, width, height };
}

/** Return one value of an image: of RGBA bytes, or of planes. */
function reader({ data, width, height }) {
  if (data instanceof Float32Array) return (c, i) => data[c * width * height + i];
  return (c, i) => data[4 * i + c] / 255;
}

function cut(image, top, left, height, width) {
  const read = reader(image);
  const data = new Float32Array(3 * height * width);
  for (let c = 0, k = 0; c < 3; c++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) data[k++] = read(c, (top + y) * image.width + left + x);
  return { data, width, height };
}

/** Return [start, weights of its pixels] of each tile of an axis. All weights of a pixel sum to 1. */
export function tiles(length, tile, overlap) {
  if (length <= tile) return [[0, new Float32Array(length).fill(1)]];
  const count = Math.ceil((length - overlap) / (tile - overlap));
  const starts = Array.from({ length: count }, (_, i) => rounded((i * (length - tile)) / (count - 1)));
  const weights = starts.map(() => new Float32Array(tile).fill(1));
  for (let i = 1; i < count; i++) {
    const faded = starts[i - 1] + tile - starts[i];
    for (let k = 0; k < faded; k++) weights[i][k] = (k + 1) / (faded + 1);
    for (let j = 0; j < i; j++) {
      const shared = starts[j] + tile - starts[i]; // earlier tiles keep what this one leaves
      for (let k = 0; k < shared; k++) weights[j][tile - shared + k] *= 1 - weights[i][k];
    }
  }
  return starts.map((start, i) => [start, weights[i]]);
}

/** Round halves to even, as Python does. */
function rounded(x) {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}

function add(result, part, top, left, down, across) {
  for (let c = 0, k = 0; c < 3; c++)
    for (let y = 0; y < part.height; y++) {
      const to = (c * result.height + top + y) * result.width + left;
      for (let x = 0; x < part.width; x++) result.data[to + x] += down[y] * across[x] * part.data[k++];
    }
}

export function viewSize(height, width, longest) {
  const scale = longest / Math.max(height, width);
  return [Math.max(1, rounded(height * scale)), Math.max(1, rounded(width * scale))];
}

/** Average areas of an image: planes of h x w. */
export function shrink(image, h, w) {
  const { width, height } = image;
  const read = reader(image);
  const data = new Float32Array(3 * h * w);
  const area = (i, length, count) => [Math.floor((i * length) / count), Math.ceil(((i + 1) * length) / count)];
  for (let c = 0, k = 0; c < 3; c++)
    for (let i = 0; i < h; i++) {
      const [top, bottom] = area(i, height, h);
      const means = new Float64Array(width);
      for (let y = top; y < bottom; y++)
        for (let x = 0; x < width; x++) means[x] += read(c, y * width + x) / (bottom - top);
      for (let j = 0; j < w; j++) {
        const [left, right] = area(j, width, w);
        let sum = 0;
        for (let x = left; x < right; x++) sum += means[x];
        data[k++] = sum / (right - left);
      }
    }
  return { data, width: w, height: h };
}

/** Blur planes by a Gaussian. */
function blur({ data, width, height }, sigma) {
  const reach = Math.floor(3 * sigma);
  const gaussian = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / sigma) ** 2));
  const total = gaussian.reduce((sum, weight) => sum + weight, 0);
  const along = (from, stride, length, starts) => {
    const to = new Float32Array(from.length);
    for (const start of starts)
      for (let i = 0; i < length; i++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++)
          sum += gaussian[k + reach] * from[start + stride * Math.min(Math.max(i + k, 0), length - 1)];
        to[start + stride * i] = sum / total;
      }
    return to;
  };
  const range = (length) => Array.from({ length }, (_, i) => i);
  const columns = range(3 * width).map((i) => Math.floor(i / width) * width * height + (i % width));
  const rows = range(3 * height).map((i) => i * width);
  return { data: along(along(data, width, height, columns), 1, width, rows), width, height };
}

/** Add a small difference, enlarged linearly. */
function addLight({ data, width, height }, light) {
  const at = (i, length, count) => Math.min(Math.max(((i + 0.5) * count) / length - 0.5, 0), count - 1);
  for (let c = 0, k = 0; c < 3; c++)
    for (let y = 0; y < height; y++) {
      const v = at(y, height, light.height);
      const [top, down] = [Math.floor(v), v % 1];
      const upper = (c * light.height + top) * light.width;
      const lower = (c * light.height + Math.min(top + 1, light.height - 1)) * light.width;
      for (let x = 0; x < width; x++) {
        const u = at(x, width, light.width);
        const [left, across] = [Math.floor(u), u % 1];
        const right = Math.min(left + 1, light.width - 1);
        const mix = (row) => light.data[row + left] * (1 - across) + light.data[row + right] * across;
        data[k++] += mix(upper) * (1 - down) + mix(lower) * down;
      }
    }
}
