// Files that were dropped or chosen, as [{file, folder, within}]: `folder` is the path of a folder with a slash at
// its end, or ""; `within` is true for what lies in a folder, where not every file was meant. What cannot be read
// is listed as {missing}: its path.

/** Return the files of an input or a clipboard. */
export function listed(files) {
  return [...files].map((file) => {
    const path = file.webkitRelativePath ?? "";
    return { file, folder: path.slice(0, path.lastIndexOf("/") + 1), within: Boolean(path) };
  });
}

/** Return what was dropped, with the files in its folders; null if there were no files. */
export async function dropped(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  if (!items.length) return null;
  // Both are only there during the event.
  const given = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = [];
  for (const { entry, file } of given) {
    if (entry?.isDirectory) await walk(entry, found);
    else found.push({ file, folder: "", within: false });
  }
  return found;
}

/** Add the files of a folder, by name, then those of its folders. */
async function walk(folder, found) {
  const path = folder.fullPath.slice(1);
  const reader = folder.createReader();
  const entries = [];
  try {
    for (let some; (some = await promised(reader, "readEntries")).length; ) entries.push(...some); // comes in parts
  } catch {
    found.push({ missing: path });
  }
  entries.sort((a, b) => a.name.localeCompare(b.name));
  for (const entry of entries.filter(({ isFile }) => isFile)) {
    const file = await promised(entry, "file").catch(() => null);
    found.push(file ? { file, folder: `${path}/`, within: true } : { missing: `${path}/${entry.name}` });
  }
  for (const entry of entries.filter(({ isDirectory }) => isDirectory)) await walk(entry, found);
}

function promised(object, method) {
  return new Promise((resolve, reject) => object[method](resolve, reject));
}
