"""Select a model on this machine by name or task."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from maximir.errors import UsageError
from maximir.models import authors, catalogue, hub, user_models
from maximir.models.cards import ModelCard

# Models of the authors that precede the box if they were fetched, because they are also better on ordinary
# photographs (docs/models.md). All others need --model.
BEFORE_THE_BOX = ("deblur-gopro", "retouch-fivek")


def known() -> dict[str, ModelCard]:
    """Return all models by name: the box, the authors' (also if not on this machine), then the user's own."""
    cards: dict[str, ModelCard] = {model.name: model for model in (*catalogue.MODELS, *authors.MODELS)}
    for name in user_models.stored():
        task = name.partition("-")[0]
        task = task if task in catalogue.TASKS else ""
        cards.setdefault(name, ModelCard(name, task, "yours", None, "a model of yours", licence="yours"))
    return cards


def available() -> dict[str, ModelCard]:
    """Return the models on this machine by name."""
    return {name: card for name, card in known().items() if os.path.isfile(card.path)}


def for_task(task: str) -> ModelCard:
    """Return a task's default model, never a fast one: from `BEFORE_THE_BOX`, the box, then any other.

    Raises:
        UsageError: unknown task, or no model for it on this machine.
    """
    if task not in catalogue.TASKS:
        raise UsageError(f"unknown task {task!r}: choose one of {', '.join(catalogue.TASKS)}")
    order = ("box", "authors", "yours")
    cards = [card for card in available().values() if card.task == task and not card.fast]
    if not cards:
        way = f"`maximir get {authors.OF_TASK[task]}` fetches one" if task in authors.OF_TASK else "train one"
        raise UsageError(f"no model for {task} is on this machine: {way}")
    return min(cards, key=lambda card: (card.name not in BEFORE_THE_BOX, order.index(card.origin), card.name))


def named(name: str) -> ModelCard:
    """Return the model of this name.

    Raises:
        UsageError: it is not on this machine; the message says how to get it.
    """
    here = available()
    if name in here:
        return here[name]
    if name in authors.BY_NAME:
        raise UsageError(f"the model {name} is not on this machine: `maximir get {name}` fetches it")
    if name == "auto" or "," in name:
        raise UsageError(
            f"{name}: one model is needed here, not a chain or auto (in Python: Chain, AutoRestorer)"
        )
    near = difflib.get_close_matches(name, [*here, *authors.BY_NAME], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown model {name!r}: {meant}`maximir models` lists all")


def choose(path_or_name: str | os.PathLike[str]) -> ModelCard:
    """Return the model for a path, a model's name, a task or an address on the Hub (`hf://owner/repo/file`).

    Raises:
        UsageError: none of these matches.
        MaximirError: the file cannot be fetched from the Hub.
    """
    text = os.fspath(path_or_name)
    if isinstance(path_or_name, str):
        if text.startswith(hub.SCHEME):
            return ModelCard(text, "", "yours", hub.fetch(text))
        if text in catalogue.TASKS:
            return for_task(text)
        if text in available() or text in authors.BY_NAME:
            return named(text)
    path = Path(text)
    if text and (path.suffix or path.exists()):
        return ModelCard(text, "", "yours", path)
    if (task := text.strip().lower()) in catalogue.TASKS:
        raise UsageError(f"unknown model {text!r}: did you mean {task}?")
    return named(text)


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the weights for a path, a model's name or a task. Raises as `choose`."""
    return choose(path_or_name).path
