// The form's choice: a task and one of its models, or a preset.

import { $, make } from "./elements.js";
import * as restorer from "./restorer.js";
import { choices, words } from "./words.js";

let presets = new Map(); // by name

/** Settles when the tasks are known, or cannot be. */
export let offering = Promise.resolve();

/** Show the tasks. */
export function offer() {
  offering = fillTasks();
}

async function fillTasks() {
  let found = null;
  try {
    found = choices(await restorer.models());
    presets = new Map(((await restorer.presets?.()) ?? []).map((preset) => [preset.name, preset]));
  } catch (error) {
    const again = make("button", { type: "button", textContent: words.tryAgain, onclick: offer });
    return $("tasks").replaceChildren(make("p", { textContent: error.message, className: "soft" }), again);
  }
  $("tasks").replaceChildren(...found.map(choice));
  document.querySelector("[name=task]").checked = true;
  offerModels(found[0].models);
  const options = [...presets.values()].map(({ name, title }) => make("option", { value: name, textContent: title }));
  $("preset").replaceChildren($("preset").options[0], ...options);
}

/** Show the models of the chosen task, if there is more than one. Their place is kept: nothing below moves. */
function offerModels(models) {
  const options = models.map(({ name, label }) => make("option", { value: name, textContent: label }));
  $("model").replaceChildren(...options);
  $("model").onchange = () => showLimits(models[$("model").selectedIndex]);
  $("ways").classList.toggle("blank", models.length < 2);
  showLimits(models[0]);
}

function showLimits({ limits, note }) {
  $("limits").textContent = [note?.(), limits && words.limits(limits)].filter(Boolean).join(" ");
}

function choice({ task, title, description, models }) {
  const radio = make("input", { type: "radio", name: "task", value: task });
  radio.onchange = () => (offerModels(models), ($("preset").value = ""));
  const name = make("strong", { id: `${task}-name`, textContent: title });
  const text = make("span", { id: `${task}-text`, textContent: description });
  radio.setAttribute("aria-labelledby", name.id);
  radio.setAttribute("aria-describedby", text.id);
  const label = make("label");
  label.append(radio, name, text);
  return label;
}

/** A preset takes the place of a task. */
function choosePreset() {
  const radios = [...document.querySelectorAll("[name=task]")];
  for (const radio of radios) radio.checked = radio === radios[0] && !$("preset").value;
  $("ways").classList.add("blank");
  if ($("preset").value) $("limits").textContent = "";
  else radios[0].onchange();
}

/** Return what is chosen as {task, model, preset, format}, or null if nothing is known yet. */
export function wish() {
  const format = $("format").value;
  const preset = presets.get($("preset").value);
  if (preset) return { task: preset.task, model: preset.model, preset, format };
  const task = document.querySelector("[name=task]:checked")?.value;
  return task ? { task, model: $("model").value, preset: null, format } : null;
}

/** Choose what a photograph was restored with, as far as it is offered. */
export function choose({ task, model, preset, format }) {
  $("format").value = format;
  if (preset && presets.has(preset.name)) {
    $("preset").value = preset.name;
    return choosePreset();
  }
  const radio = [...document.querySelectorAll("[name=task]")].find(({ value }) => value === task);
  if (!radio) return;
  radio.checked = true;
  radio.onchange();
  $("model").value = model;
  $("model").onchange();
}

/** True if two wishes have the same result. */
export function same(one, other) {
  const parts = ({ task, model, preset, format }) => [task, model ?? "", preset?.name ?? "", format].join("\n");
  return Boolean(one && other) && parts(one) === parts(other);
}

/** Give the focus to what is chosen. */
export function focus() {
  const chosen = document.querySelector("[name=task]:checked") ?? ($("preset").value ? $("preset") : $("restore"));
  chosen.focus({ preventScroll: true });
}

$("preset").onchange = choosePreset;
$("presets").hidden = !restorer.presets;
for (const option of [...$("format").options])
  if (option.value && !restorer.formats.includes(option.value)) option.remove();
