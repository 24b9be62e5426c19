"""List models: the box, the authors' checkpoints, and the user's."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Literal, NamedTuple

from maximir.errors import MaximirError
from maximir.models import authors, catalogue, choice, store


class Entry(NamedTuple):
    """A line of `maximir models`.

    Attributes:
        where: "in the box", a path, or the command that fetches it.
        measured, published: PSNR (dB) by dataset.
        bytes, parameters: None if the model is not on this machine.
    """

    name: str
    task: str
    origin: Literal["box", "authors", "yours"]
    description: str
    trained_on: str
    training: str
    limits: str
    licence: str
    where: str
    measured: str
    published: str
    bytes: int | None
    parameters: int | None
    stages: int | None


def entries() -> list[Entry]:
    """Return all models: the box, the authors', then the user's own."""
    found = choice.available()
    lines = [of_box(model) for model in catalogue.MODELS]
    lines += [of_authors(model, found.get(model.name)) for model in authors.MODELS]
    lines += [of_user(mine) for mine in found.values() if mine.origin == "yours"]
    return lines


def here() -> list[Entry]:
    """Return the models on this machine."""
    return [entry for entry in entries() if entry.bytes is not None]


def of_box(model: catalogue.EmbeddedModel) -> Entry:
    return Entry(
        model.name, model.task, "box", model.summary, model.data, model.hours, model.limits, model.licence,
        "in the box", model.results, "", *facts_of(model.path)[:3],
    )  # fmt: skip


def of_authors(model: authors.AuthorsModel, here: choice.Choice | None) -> Entry:
    where = f"maximir get {model.name}" if here is None else str(here.path)
    size = (None, None, None) if here is None else facts_of(here.path)[:3]
    return Entry(
        model.name, model.task, "authors", f"the authors' {model.variant} for {model.trained_on}",
        model.trained_on, "by the authors, on their clusters", model.limits, authors.LICENCE,
        where, "", model.published, *size,
    )  # fmt: skip


def of_user(mine: choice.Choice) -> Entry:
    size, parameters, stages, trained_on = facts_of(mine.path)
    return Entry(
        mine.name, mine.task, "yours", "a model of yours", trained_on, "", "", "yours", str(mine.path),
        "", "",
        size, parameters, stages,
    )  # fmt: skip


def facts_of(path: Path) -> tuple[int | None, int | None, int | None, str]:
    """Read bytes, parameters, stages and dataset from the header of a `.safetensors`; None if unreadable."""
    with contextlib.suppress(OSError):
        return read_facts(path, path.stat().st_mtime_ns)
    return None, None, None, ""


@functools.lru_cache(maxsize=256)
def read_facts(path: Path, changed: int) -> tuple[int | None, int | None, int | None, str]:
    try:
        header = store.header(path)
        metadata = header.pop("__metadata__", {})
        shapes = [entry["shape"] for entry in header.values()]
        parameters = sum(functools.reduce(int.__mul__, shape, 1) for shape in shapes)
        stages = json.loads(metadata["config"])["stages"]
        return path.stat().st_size, parameters, stages, str(json.loads(metadata.get("trained on", '""')))
    except (MaximirError, KeyError, TypeError, ValueError):
        return None, None, None, ""
