"""Select a model on this machine by name or task."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from maximir.errors import UsageError
from maximir.models import authors, catalogue, hub, store

# Models of the authors that precede the box if they were fetched, because they are also better on ordinary
# photographs (docs/models.md). All others need --model.
BEFORE_THE_BOX = ("deblur-gopro", "retouch-fivek")


@dataclass(frozen=True)
class Choice:
    """A model on this machine.

    Attributes:
        name: accepted by `--model`.
        task: its task; "" if its file does not say.
        origin: "box", "authors" or "yours".
    """

    name: str
    task: str
    origin: str
    path: Path


def available() -> dict[str, Choice]:
    """Return all models on this machine by name: the box, then the user's."""
    found = {model.name: Choice(model.name, model.task, "box", model.path) for model in catalogue.MODELS}
    for name, path in store.stored().items():
        known = authors.BY_NAME.get(name)
        task = known.task if known else name.partition("-")[0]
        found.setdefault(
            name,
            Choice(name, task if task in catalogue.TASKS else "", "authors" if known else "yours", path),
        )
    return found


def for_task(task: str) -> Choice:
    """Return a task's default model: from `BEFORE_THE_BOX`, then from the box, then any other.

    Raises:
        UsageError: unknown task, or no model for it on this machine.
    """
    if task not in catalogue.TASKS:
        raise UsageError(f"unknown task {task!r}: choose one of {', '.join(catalogue.TASKS)}")
    order = {"authors": 2, "yours": 3}
    ranked = sorted(
        (choice for choice in available().values() if choice.task == task),
        key=lambda c: (
            0 if c.name in BEFORE_THE_BOX else 1 if c.origin == "box" else order[c.origin],
            c.name,
        ),
    )
    if not ranked:
        raise UsageError(
            f"no model for {task} is on this machine: `maximir get {authors.OF_TASK[task]}` fetches one"
        )
    return ranked[0]


def named(name: str) -> Choice:
    """Return the model of this name.

    Raises:
        UsageError: it is not on this machine; the message says how to get it.
    """
    here = available()
    if name in here:
        return here[name]
    if name in authors.BY_NAME:
        raise UsageError(f"the model {name} is not on this machine: `maximir get {name}` fetches it")
    near = difflib.get_close_matches(name, [*here, *authors.BY_NAME], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown model {name!r}: {meant}`maximir models` lists all")


def choose(path_or_name: str | os.PathLike[str]) -> Choice:
    """Return the model for a path, a model's name, a task or an address on the Hub (`hf://owner/repo/file`).

    Raises:
        UsageError: none of these matches.
        MaximirError: the file cannot be fetched from the Hub.
    """
    text = os.fspath(path_or_name)
    if isinstance(path_or_name, str):
        if text.startswith(hub.SCHEME):
            return Choice(text, "", "yours", hub.fetch(text))
        if text in catalogue.TASKS:
            return for_task(text)
        if text in available() or text in authors.BY_NAME:
            return named(text)
    path = Path(text)
    if path.suffix or path.exists():
        return Choice(text, "", "yours", path)
    return named(text)


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the weights for a path, a model's name or a task. Raises as `choose`."""
    return choose(path_or_name).path
