// Kinds of files by their first bytes: file names and types are often wrong.

/** [kind, is an image, offset, signature]; words.js names those that are no images */
const SIGNATURES = [
  ["PNG", true, 0, "\x89PNG"],
  ["JPEG", true, 0, "\xff\xd8\xff"],
  ["GIF", true, 0, "GIF8"],
  ["WebP", true, 8, "WEBP"],
  ["TIFF", true, 0, "II*\0"],
  ["TIFF", true, 0, "MM\0*"],
  ["JPEG XL", true, 0, "\xff\x0a"],
  ["JPEG XL", true, 4, "JXL "],
  ["AVIF", true, 4, "ftypavi"],
  ["HEIC", true, 4, "ftyphe"],
  ["HEIC", true, 4, "ftypmif1"],
  ["HEIC", true, 4, "ftypmsf1"],
  ["video", false, 4, "ftypisom"],
  ["video", false, 4, "ftypmp4"],
  ["video", false, 4, "ftypqt"],
  ["video", false, 0, "\x1aE\xdf\xa3"],
  ["PDF", false, 0, "%PDF"],
  ["zip", false, 0, "PK\x03\x04"],
];

/** Return {kind, image} of a file; null where the signature is unknown. */
export async function kindOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const text = String.fromCharCode(...bytes);
  const found = SIGNATURES.find(([, , at, signature]) => text.startsWith(signature, at));
  return found ? { kind: found[0], image: found[1] } : { kind: null, image: null };
}
