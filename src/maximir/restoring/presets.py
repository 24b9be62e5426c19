"""Presets: named sets of task or model, strength and detail. The user's file extends those that come along.

This is the only place where a preset becomes options. Nothing here imports torch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from maximir import places
from maximir.errors import UsageError
from maximir.files import reason
from maximir.models import catalogue
from maximir.models.cards import ModelCard
from maximir.restoring.links import parse_links
from maximir.restoring.options import Options, check_fraction

SHIPPED = Path(__file__).with_suffix(".toml")
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Preset:
    """Options under a name. A preset without a name holds the defaults.

    Attributes:
        title: text for people, "Phone at night".
        task, model: as of `maximir restore`; a named preset has one of them.
        strength, detail: see `Options`.
    """

    name: str = ""
    title: str = ""
    task: str | None = None
    model: str | None = None
    strength: float = Options.strength
    detail: float = Options.detail

    def override(
        self,
        task: str | None = None,
        model: str | None = None,
        strength: float | None = None,
        detail: float | None = None,
    ) -> Preset:
        """Return this preset with what is given instead of its own; a task or model replaces both."""
        own = task is None and model is None
        return replace(
            self,
            task=self.task if own else task,
            model=self.model if own else model,
            strength=self.strength if strength is None else strength,
            detail=self.detail if detail is None else detail,
        )


def user_file() -> Path:
    """Return the file for the user's presets, which may not exist."""
    return places.config_folder() / "presets.toml"


def known() -> dict[str, Preset]:
    """Return all presets by name. The user's replace those of the same name that come along.

    Raises:
        UsageError: the user's file is invalid; the message names the file and the line or the preset.
    """
    found = dict(read(SHIPPED))
    if user_file().exists():
        found |= read(user_file())
    return found


def find(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        UsageError: there is none, or the user's file is invalid.
    """
    presets = known()
    if name not in presets:
        raise UsageError(
            f"unknown preset {name!r}: choose one of {', '.join(presets)}, or add it to {user_file()}"
        )
    return presets[name]


def read(path: Path) -> Iterator[tuple[str, Preset]]:
    """Yield the presets of a file by name. Raises UsageError if it is invalid."""
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))  # Windows editors write a byte order mark
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({reason(error)})") from error
    except ValueError as error:  # also what is not UTF-8
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    for name, table in tables.items():
        try:
            yield name, parse(name, table)
        except UsageError as error:
            raise UsageError(f"{path}, preset {name}: {error}") from error


def parse(name: str, table: object) -> Preset:
    """Return the preset of a table. Raises UsageError if a key or a value is wrong."""
    if not NAME.fullmatch(name):
        raise UsageError("a name has up to 40 letters, digits, - or _")
    if not isinstance(table, dict):
        raise UsageError(f"write its keys below a line [{name}]")
    kinds = {
        field.name: str if field.name in ("title", "task", "model") else float for field in fields(Preset)
    }
    del kinds["name"]
    for key, value in table.items():
        if key not in kinds:
            raise UsageError(f"unknown key {key!r}: choose from {', '.join(kinds)}")
        if type(value) not in ((str,) if kinds[key] is str else (int, float)):
            raise UsageError(f"{key} must be {'a text' if kinds[key] is str else 'a number'}, not {value!r}")
    if ("task" in table) == ("model" in table):
        raise UsageError("give either a task or a model")
    for key in ("strength", "detail"):
        check_fraction(key, table.get(key, 0))
    parse_links(table.get("task") or table.get("model", ""), check_task if "task" in table else check_model)
    return Preset(name, **{"title": name, **table})


def check_task(task: str) -> ModelCard:
    """Return a card that stands for any model of a task. Raises UsageError for an unknown task."""
    if task not in catalogue.TASKS:
        tasks = ", ".join(catalogue.TASKS)
        raise UsageError(f"unknown task {task[:40]!r}: choose one of {tasks}, or auto alone")
    return ModelCard("", task, "box")


def check_model(name: str) -> ModelCard:
    """Return a card of this name. The model may be fetched later."""
    if not name:
        raise UsageError("the model has no name")
    return ModelCard(name, "", "yours")
