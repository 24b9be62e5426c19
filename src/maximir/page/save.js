// Saves many results: into a folder where the browser can write one, otherwise as a ZIP file.
//
// The ZIP file is put together from the results where they are, so it needs no memory of its size.

const DIRECTORY = 0xffffffff; // what does not fit into 32 bits stands in an extra field (ZIP64)
const UTF8 = 0x0800; // names are UTF-8
const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

/** Return a function that returns each name once: a.png, then a (2).png. */
export function unique() {
  const used = new Set();
  return (name) => {
    const [, stem, suffix] = /^(.*?)(\.[^./]*)?$/s.exec(name);
    let other = name;
    for (let n = 2; used.has(other.toLowerCase()); n++) other = `${stem} (${n})${suffix ?? ""}`;
    used.add(other.toLowerCase());
    return other;
  };
}

/** Write a file into a folder, below the folders in its name. Files that are there stay: it gets another name. */
export async function write(folder, path, blob) {
  const names = path.split("/");
  for (const name of names.slice(0, -1)) folder = await folder.getDirectoryHandle(name, { create: true });
  const next = unique();
  for (;;) {
    const name = next(names.at(-1));
    if (await exists(folder, name)) continue;
    const file = await folder.getFileHandle(name, { create: true });
    try {
      return await blob.stream().pipeTo(await file.createWritable());
    } catch (error) {
      await folder.removeEntry(name).catch(() => {}); // it would stay as an empty file
      throw error;
    }
  }
}

async function exists(folder, name) {
  try {
    await folder.getFileHandle(name);
    return true;
  } catch (error) {
    if (error.name === "NotFoundError") return false;
    if (error.name === "TypeMismatchError") return true; // a folder
    throw error; // the folder refuses the name or all access
  }
}

/** A ZIP file in the making. Files are stored as they are: images are compressed already. */
export class Zip {
  #parts = [];
  #entries = [];
  #at; // bytes before the next file

  /** `before` bytes will precede the file. */
  constructor(before = 0) {
    this.#at = before;
  }

  /** Add a file of less than 4 GB. */
  async add(name, blob, date = new Date()) {
    const entry = { name: new TextEncoder().encode(name), size: blob.size, crc: await crc(blob), at: this.#at, date };
    const head = [0x04034b50, ...local(entry)];
    this.#put(fields(head, [4, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2]), entry.name, blob);
    this.#entries.push(entry);
  }

  /** Return the whole as a blob. */
  finish() {
    const start = this.#at;
    for (const entry of this.#entries) {
      const far = entry.at >= DIRECTORY;
      const extra = far ? fields([1, 8, entry.at], [2, 2, 8]) : new Uint8Array();
      const [version, flags, ...others] = local(entry);
      others[others.length - 1] = extra.length;
      const values = [0x02014b50, version, version, flags, ...others, 0, 0, 0, 0, far ? DIRECTORY : entry.at];
      this.#put(fields(values, [4, 2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4]), entry.name, extra);
    }
    const [count, size, end] = [this.#entries.length, this.#at - start, this.#at];
    const large = start >= DIRECTORY || count >= 0xffff;
    if (large) {
      const values = [0x06064b50, 44, 45, 45, 0, 0, count, count, size, start];
      this.#put(fields(values, [4, 8, 2, 2, 4, 4, 8, 8, 8, 8]), fields([0x07064b50, 0, end, 1], [4, 4, 8, 4]));
    }
    const few = large ? 0xffff : count;
    const values = [0x06054b50, 0, 0, few, few, size, large ? DIRECTORY : start, 0];
    this.#put(fields(values, [4, 2, 2, 2, 2, 4, 4, 2]));
    return new Blob(this.#parts, { type: "application/zip" });
  }

  #put(...parts) {
    this.#parts.push(...parts);
    for (const part of parts) this.#at += part.size ?? part.length;
  }
}

/** Return the fields that a file's head and the directory share: version to length of the extra field. */
function local({ name, size, crc, date }) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day = (Math.max(0, date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return [45, UTF8, 0, time, day, crc, size, size, name.length, 0];
}

/** Return numbers as little-endian bytes of these widths. */
function fields(values, widths) {
  const bytes = new Uint8Array(widths.reduce((sum, width) => sum + width));
  const view = new DataView(bytes.buffer);
  let at = 0;
  values.forEach((value, i) => {
    if (widths[i] === 8) view.setBigUint64(at, BigInt(value), true);
    else if (widths[i] === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += widths[i];
  });
  return bytes;
}

/** Return the CRC-32 of a blob, which is read in pieces. */
async function crc(blob) {
  let value = ~0;
  for (const reader = blob.stream().getReader(); ; ) {
    const { done, value: bytes } = await reader.read();
    if (done) return ~value >>> 0;
    for (let i = 0; i < bytes.length; i++) value = (value >>> 8) ^ TABLE[(value ^ bytes[i]) & 255];
  }
}
