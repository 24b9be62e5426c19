// The list of photographs as thumbnails: shows each one's state, and chooses the one that is open.

import { make } from "./elements.js";
import { words } from "./words.js";

const NEXT = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -5, PageDown: 5, Home: -Infinity, End: Infinity };
const MARKS = { chosen: "", queued: "…", working: "", done: "✓" };

export class Strip {
  #root;
  #items = new Map(); // photograph -> element
  #chosen = null;
  #choose;

  /** Its functions are called with a photograph: to open it, to leave it out or take it in again, to remove it. */
  constructor(root, { choose, toggle, remove }) {
    this.#root = root;
    this.#choose = choose;
    root.onclick = (event) => {
      const item = event.target.closest("li");
      if (item) choose(this.#of(item));
    };
    root.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.#chosen) return;
      if (event.key in NEXT) this.step(NEXT[event.key]);
      else if (event.key === " ") toggle(this.#chosen);
      else if (event.key === "Delete") remove(this.#chosen);
      else return;
      event.preventDefault();
    };
  }

  /** Show these photographs. */
  list(photographs) {
    for (const [photograph, item] of this.#items)
      if (!photographs.includes(photograph)) {
        item.remove();
        this.#items.delete(photograph);
      }
    for (const photograph of photographs) {
      if (!this.#items.has(photograph)) this.#items.set(photograph, item(photograph));
      this.#root.append(this.#items.get(photograph));
      this.refresh(photograph);
    }
  }

  /** Mark the photograph that is open. */
  choose(photograph) {
    this.#items.get(this.#chosen)?.setAttribute("aria-selected", false);
    this.#chosen = photograph;
    const item = this.#items.get(photograph);
    item?.setAttribute("aria-selected", true);
    if (item) this.#root.setAttribute("aria-activedescendant", item.id);
    else this.#root.removeAttribute("aria-activedescendant");
    item?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Open the photograph `steps` after the present one. */
  step(steps) {
    const all = [...this.#items.keys()];
    const at = Math.min(Math.max(all.indexOf(this.#chosen) + steps, 0), all.length - 1);
    if (all[at] && all[at] !== this.#chosen) this.#choose(all[at]);
  }

  /** Show a photograph's state as it is now. */
  refresh(photograph) {
    const element = this.#items.get(photograph);
    if (!element) return;
    const { name, state, problem, out, thumb, kind, phase, part } = photograph;
    const failed = state === "chosen" && problem?.sentence;
    const [picture, mark, bar] = element.children;
    if (thumb && picture.firstChild !== thumb) picture.replaceChildren(thumb);
    if (!thumb) picture.textContent = kind ?? "";
    element.className = failed ? "failed" : state;
    element.classList.toggle("out", out);
    mark.textContent = failed ? "!" : MARKS[state];
    bar.style.setProperty("--part", part ?? 0);
    const told = failed ? words.optionFailed(problem.sentence) : (state === "working" && phase) || words.states[state];
    element.ariaLabel = words.option(name, told, out);
    element.title = name;
  }

  #of(element) {
    return [...this.#items].find(([, item]) => item === element)[0];
  }
}

function item({ id }) {
  const element = make(
    "li",
    { id: `photograph-${id}` },
    make("span", { className: "picture" }),
    make("span", { className: "mark" }),
    make("span", { className: "bar" }),
  );
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", false);
  return element;
}
