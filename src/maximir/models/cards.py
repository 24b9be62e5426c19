"""The card of a model: what is known about it, wherever it comes from. Every list of models holds these."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maximir.errors import MaximirError
from maximir.files import reason
from maximir.models import user_models
from maximir.network.config import MaximConfig

RESULTS = Path(__file__).parent / "box" / "results.json"  # by scripts/results.py
Origin = Literal["box", "authors", "yours"]


class Header(NamedTuple):
    """Facts in the header of a `.safetensors`; None if the file is missing or none of ours.

    Attributes:
        problem: why a file that is there is no model, for people.
    """

    bytes: int | None = None
    parameters: int | None = None
    stages: int | None = None
    trained_on: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ModelCard:
    """What is known about a model.

    Attributes:
        name: what `--model` takes.
        task: what it is for; "": its file does not say.
        file: its weights; None: in the user's folder (`user_models`), once they are there.
        description: what it is for, in words.
        trained_on: the data.
        training: for how long, and where.
        limits: what it cannot do, in sentences for users.
        licence: of the weights.
        published: PSNR (dB) / SSIM that its authors report.
        shown: the sets of its measured results that tell most.
    """

    name: str
    task: str
    origin: Origin
    file: Path | None = None
    description: str = ""
    trained_on: str = ""
    training: str = ""
    limits: str = ""
    licence: str = ""
    published: str = ""
    shown: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.file or user_models.path_of(self.name)

    @property
    def where(self) -> str:
        """For people: "in the box", a path, or how to get it."""
        if self.origin == "box":
            return "in the box"
        return str(self.path) if self.path.exists() else f"maximir get {self.name}"

    @property
    def measured(self) -> str:
        """PSNR (dB) of input → output, by set, on images that it was not trained on."""
        if not self.shown:
            return ""
        rows = {row["set"]: row for row in json.loads(RESULTS.read_text("utf-8")).get(self.task, [])}
        return "; ".join(
            f"{name}: {rows[name]['input_psnr']:.2f} → {rows[name]['psnr']:.2f}"
            for name in self.shown
            if name in rows
        )

    @property
    def header(self) -> Header:
        try:
            return read_header(self.path, self.path.stat().st_mtime_ns)
        except FileNotFoundError:
            return Header()
        except OSError as error:
            return Header(problem=f"cannot be read ({reason(error)})")

    def facts(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        facts = dataclasses.asdict(self) | {"where": self.where, "measured": self.measured}
        del facts["file"], facts["shown"]
        header = self.header
        facts["trained_on"] = self.trained_on or header.trained_on
        facts |= {"bytes": header.bytes, "parameters": header.parameters, "stages": header.stages}
        return facts | {"problem": header.problem}


@functools.lru_cache(maxsize=256)
def read_header(path: Path, changed: int) -> Header:
    try:
        header = user_models.header(path)
        metadata = header.pop(user_models.METADATA, {})
        parameters = sum(math.prod(map(operator.index, entry["shape"])) for entry in header.values())
        stages = MaximConfig.from_dict(json.loads(metadata["config"])).stages
        trained_on = str(json.loads(metadata.get("trained on", '""')))
        return Header(path.stat().st_size, parameters, stages, trained_on)
    except MaximirError as error:
        return Header(problem=str(error))
    except user_models.NONSENSE:
        return Header(problem="a safetensors file, but not one of maximir's")
