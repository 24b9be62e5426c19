// Keeps a list of several photographs in this browser (IndexedDB), so that it survives a reload.
//
// Nothing is kept of a single photograph, and nothing after the list is cleared. Of several open pages, one keeps.

import { Blend } from "./blending.js";
import { Photograph } from "./photograph.js";

const NAME = "maximir";
const STORES = ["facts", "files", "results"]; // apart, so that progress does not write the files again
const PATIENCE = 1000; // ms to wait for the page that keeps: it may be the one that is being reloaded

export class Store {
  #database = null;
  #owner = null; // promise of true if this page is the one that keeps
  #kept = new WeakMap(); // photograph -> its result on the disk; the file is there, too
  #last = Promise.resolve(); // settles when all writes are over
  #failed;

  /** `failed` is called once if the browser stores no more. */
  constructor(failed) {
    this.#failed = failed;
  }

  /** Return the photographs that are kept, with their results; [] if there are none. */
  async load() {
    try {
      if (indexedDB.databases && !(await indexedDB.databases()).some(({ name }) => name === NAME)) return [];
      if (!(await this.#open())) return [];
      const [facts, files, results] = await Promise.all(
        STORES.map((name) => this.#run("readonly", [name], (store) => store.getAll(), (store) => store.getAllKeys())),
      );
      const by = ([values, keys]) => new Map(keys.map((key, i) => [key, values[i]]));
      const [file, result] = [by(files), by(results)];
      const found = [];
      for (const { id, kind, folder, blend, ...others } of facts[0]) {
        if (!file.has(id)) continue;
        const photograph = Object.assign(new Photograph(file.get(id), kind, folder), { id, ...others });
        photograph.blend = await Blend.from(blend);
        photograph.result = result.get(id) ?? null;
        if (photograph.state === "done" && !photograph.result) photograph.state = "chosen";
        if (photograph.state === "working") photograph.state = photograph.result ? "done" : "queued";
        this.#kept.set(photograph, photograph.result);
        found.push(photograph);
      }
      return found;
    } catch {
      return []; // as if there were none: what is kept is of no use
    }
  }

  /** Keep a photograph as it is now, except for its progress. */
  note(photograph) {
    return this.#inTurn(async () => {
      const blend = await photograph.blend.stored();
      const { id, file, kind, folder, state, wish, size, problem, out, saved, result } = photograph;
      const facts = { id, kind, folder, state, wish, size, problem, out, saved, blend };
      const [fresh, changed] = [!this.#kept.has(photograph), result !== this.#kept.get(photograph)];
      this.#kept.set(photograph, result);
      await this.#run("readwrite", STORES, (known, files, results) => { // all or none, whenever the page is closed
        if (fresh) files.put(file, id);
        if (changed) result ? results.put(result, id) : results.delete(id);
        return known.put(facts, id);
      });
    });
  }

  remove({ id }) {
    return this.#inTurn(() =>
      this.#run("readwrite", STORES, (...stores) => stores.map((store) => store.delete(id)).pop()),
    );
  }

  /** Keep nothing any more. */
  clear() {
    return this.#inTurn(async () => {
      const database = await this.#database;
      if (!database) return; // nothing is kept, or another page keeps it
      database.close();
      this.#database = null;
      this.#kept = new WeakMap();
      indexedDB.deleteDatabase(NAME);
    });
  }

  #open() {
    this.#owner ??= owns();
    this.#database ??= this.#owner.then((owner) => (owner ? database() : null));
    return this.#database;
  }

  /** Write in the order of the calls, so that nothing comes back after it was removed. */
  #inTurn(write) {
    this.#last = this.#last.then(write).catch(() => {
      this.#failed(); // no space, a private window, or a file that cannot be read any more
      this.#failed = () => {};
    });
    return this.#last;
  }

  /** Ask the stores of these names, if this page keeps; resolves with the answers, when they are on the disk. */
  async #run(mode, names, ...asks) {
    const database = await this.#open();
    if (!database) return;
    const transaction = database.transaction(names, mode);
    const stores = names.map((name) => transaction.objectStore(name));
    const requests = asks.map((ask) => ask(...stores));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
    return requests.map((request) => request.result);
  }
}

function database() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Return true if this page is the one that keeps; where browsers have no locks, each one does. */
function owns() {
  return new Promise((resolve) => {
    if (!navigator.locks) return resolve(true);
    const hold = () => (resolve(true), new Promise(() => {})); // until the page is closed
    navigator.locks.request(NAME, { signal: AbortSignal.timeout(PATIENCE) }, hold).catch(() => resolve(false));
  });
}
