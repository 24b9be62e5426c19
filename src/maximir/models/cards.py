"""The card of a model: the facts about it, from any origin. Every list of models contains cards."""

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
    """Facts from the header of a `.safetensors`; None if the file is missing or unreadable.

    Attributes:
        problem: why a file that exists cannot be used.
    """

    bytes: int | None = None
    parameters: int | None = None
    stages: int | None = None
    trained_on: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model.

    Attributes:
        name: accepted by `--model`.
        task: its task; "" if its file does not say.
        file: its weights; None: in the user's folder (`user_models`), once they are fetched or stored.
        description: damage that it removes, in words.
        trained_on: training data.
        training: training time and hardware.
        limits: known failures, in sentences for users; measured in docs/models.md.
        licence: of the weights.
        published: PSNR (dB) / SSIM by dataset, as reported by its authors.
        shown: the most informative test sets among its results (scripts/results.py).
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
    def fast(self) -> bool:
        """True for a smaller, faster model of the box, which only its name selects."""
        return self.origin == "box" and self.name.endswith("-fast")

    @property
    def where(self) -> str:
        """For people: "in the box", a path, or the command that fetches it."""
        if self.origin == "box":
            return "in the box"
        return str(self.path) if self.path.exists() else f"maximir get {self.name}"

    @property
    def measured(self) -> str:
        """Input → output PSNR (dB) by dataset, on images not used for training."""
        if not self.shown:
            return ""
        rows = {row["set"]: row for row in json.loads(RESULTS.read_text("utf-8")).get(self.path.stem, [])}
        return "; ".join(
            f"{name}: {rows[name]['input_psnr']:.2f} → {rows[name]['psnr']:.2f}" for name in self.shown
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
        """Return all facts as values for JSON; bytes, parameters and stages are None if it is not here."""
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
