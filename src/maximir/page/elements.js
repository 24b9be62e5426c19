// Elements of the page.

export const $ = (id) => document.getElementById(id);

/** Create an element with these properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Write the texts into the elements that name them: data-text, and data-label for screen readers. */
export function fill(words) {
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) element.ariaLabel = words[element.dataset.label];
}

/**
 * Ask the user in a dialog.
 *
 * @param parts elements between the title and the buttons
 * @returns a promise of true if the action was chosen
 */
export function ask(title, parts, action, cancel) {
  const no = make("button", { type: "button", className: "plain", textContent: cancel });
  const yes = make("button", { textContent: action });
  const heading = make("h2", { id: "ask-title", textContent: title });
  const form = make("form", {}, heading, ...parts, make("div", { className: "buttons" }, yes, no));
  const dialog = make("dialog", { id: "ask" }, form);
  dialog.setAttribute("aria-labelledby", heading.id);
  document.body.append(dialog);
  form.onsubmit = (event) => (event.preventDefault(), dialog.close("given"));
  no.onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(Boolean(dialog.returnValue));
    };
  });
}
