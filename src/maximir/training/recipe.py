"""A training run as data: one TOML file, checked field by field."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from maximir.degradations import DEGRADATIONS
from maximir.errors import UsageError
from maximir.models.catalogue import TASKS
from maximir.network.config import SIZE_MULTIPLE, MaximConfig
from maximir.training.optimizers import OPTIMIZERS

PAIRS = "pairs"  # in a mixture: not a degradation, but pairs of photographs
EVEN = "even"  # nor this: even fields and gradients, made up

AS_IS = "as-is"  # nor this: clean photographs, for a teacher to restore

RECIPES = resources.files("maximir.training") / "recipes"


def positive(value: float) -> bool:
    return 0 < value < math.inf


def are_scales(values: tuple[Any, ...]) -> bool:
    return bool(values) and all(isinstance(value, NUMBER) and 0 < value <= 1 for value in values)


def between_0_and_1(value: float) -> bool:
    return 0 <= value < 1


NUMBER = (int, float)
WHOLE_TABLES = ("mixture",)  # that an override replaces, not merges
MIXABLE = (PAIRS, *DEGRADATIONS, EVEN, AS_IS)


def is_mixture(value: dict[str, Any]) -> bool:
    return bool(value) and all(
        name in MIXABLE and isinstance(share, NUMBER) and share > 0 for name, share in value.items()
    )


MIXTURE = f"a table of positive shares of {', '.join(MIXABLE)}"


@dataclass(frozen=True)
class Phase:
    """A part of the run with its own crops: larger ones later teach the global grid (progressive training).
    And perhaps with its own mixture: what is hard to begin with comes later (a curriculum).

    Attributes:
        until: the phase ends at this fraction of the steps.
        patch: side of the square crops; a multiple of 64.
        batch: crops in a step.
        mixture: instead of the recipe's.
    """

    until: float
    patch: int
    batch: int
    mixture: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.until, float | int) or not 0 < self.until <= 1:
            raise UsageError(f"recipe: a phase's until must be in (0, 1], not {self.until!r}")
        for name, multiple in (("patch", SIZE_MULTIPLE), ("batch", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or value % multiple:
                what = f"a multiple of {multiple}" if multiple > 1 else "a positive integer"
                raise UsageError(f"recipe: a phase's {name} must be {what}, not {value!r}")
        if self.mixture is not None and not (isinstance(self.mixture, dict) and is_mixture(self.mixture)):
            raise UsageError(f"recipe: a phase's mixture must be {MIXTURE}, not {self.mixture!r}")


# field → type, condition, both in words
FIELDS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "task": (str, TASKS.__contains__, f"one of {', '.join(TASKS)}"),
    "mixture": (dict, is_mixture, MIXTURE),
    "validate_with": (
        tuple,
        lambda value: all(name in DEGRADATIONS for name in value),
        f"a list of {', '.join(DEGRADATIONS)}",
    ),
    "hold_out": (
        tuple,
        lambda value: all(isinstance(item, str) for item in value),
        "a list of name patterns",
    ),
    "mixup": (NUMBER, lambda value: 0 <= value <= 1, "a number in [0, 1]"),
    "rotate": (bool, lambda value: True, "true or false"),
    "init": (str, lambda value: True, "weights: a file, or an embedded model's name"),
    "reset_head": (bool, lambda value: True, "true or false"),
    "teacher": (str, lambda value: True, "weights: a file, or a model's name"),
    "taught": (NUMBER, lambda value: 0 <= value <= 1, "a number in [0, 1]"),
    "start_at": (NUMBER, between_0_and_1, "a number in [0, 1)"),
    "steps": (int, positive, "a positive integer"),
    "optimizer": (str, OPTIMIZERS.__contains__, f"one of {', '.join(OPTIMIZERS)}"),
    "learning_rate": (NUMBER, positive, "a positive number"),
    "final_learning_rate": (NUMBER, positive, "a positive number"),
    "muon_learning_rate": (NUMBER, positive, "a positive number"),
    "warmup": (int, lambda value: value >= 0, "an integer of at least 0"),
    "betas": (tuple, lambda value: len(value) == 2 and all(map(between_0_and_1, value)), "two of [0, 1)"),
    "clip_norm": (NUMBER, positive, "a positive number"),
    "ema": (NUMBER, between_0_and_1, "a number in [0, 1)"),
    "start_as_identity": (bool, lambda value: True, "true or false"),
    "scales": (tuple, are_scales, "numbers in (0, 1]"),
    "pair_scales": (tuple, are_scales, "numbers in (0, 1]"),
    "precision": (str, ("fp32", "bf16").__contains__, '"fp32" or "bf16"'),
    "seed": (int, lambda value: 0 <= value < 2**40, "an integer of at least 0, below 2^40"),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The defaults are the paper's where it states them.

    Attributes:
        task: what the model is for: denoise, deblur, derain, dehaze, enhance or retouch.
        mixture: where samples come from, with their shares: "pairs" (folders of pairs), "even" (fields and
            gradients, made up, to be returned as they are), and names in
            `maximir.degradations.DEGRADATIONS` (clean photographs, degraded on the fly).
        model: fields of `MaximConfig`.
        steps: optimiser steps.
        phases: crops, and perhaps mixtures, by fraction of the steps.
        optimizer: "adam" (the paper's) or "muon" (see `maximir.training.optimizers`).
        learning_rate, final_learning_rate: the ends of Adam's cosine decay.
        muon_learning_rate: the start of Muon's, which decays by the same factor.
        warmup: steps of linear increase before it.
        betas: of Adam.
        clip_norm: gradients are clipped to this norm.
        ema: decay of the moving average of the weights, which is what is validated and shipped.
        start_as_identity: the last convolutions start at zero, so that the untrained network returns its
            input instead of something far from an image (not in the paper; see docs/experiments.md).
        scales: each photograph is also seen shrunk by these factors.
        pair_scales: each pair is.
        rotate: augment by quarter turns too, not by flips alone (up and down matter to rain and haze).
        mixup: probability that a sample is blended with another one (the paper: 0.5).
        hold_out: patterns of names of scenes that are not trained on, but validated with.
        validate_with: degradations of the clean validation images; none: those of the mixture.
        init: weights to start from, a file or a model's name; "": random ones. Of a model with more
            stages than `model`, the first ones.
        reset_head: of those weights, the last convolutions start anew.
        teacher: a model, a file or its name; what it makes of a sample is to be learned, instead of the clean
            image: so that nothing is forgotten that it does well. Computed on the fly. "": none.
        taught: probability of that. "as-is" samples always are taught; and "even" ones, what is smooth in
            the teacher's result.
        start_at: the learning rates start where the schedule is after this part of a run; to go on gently
            from weights that were trained before.
        precision: "fp32", or "bf16" for autocast.
        seed: of everything random.
    """

    task: str
    mixture: dict[str, float]
    steps: int
    phases: tuple[Phase, ...]
    model: MaximConfig = field(default_factory=MaximConfig)
    optimizer: str = "adam"
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-7
    muon_learning_rate: float = 3e-3
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    ema: float = 0.999
    start_as_identity: bool = False
    scales: tuple[float, ...] = (1.0,)
    pair_scales: tuple[float, ...] = (1.0,)
    rotate: bool = True
    mixup: float = 0.0
    hold_out: tuple[str, ...] = ()
    validate_with: tuple[str, ...] = ()
    init: str = ""
    reset_head: bool = False
    teacher: str = ""
    taught: float = 0.5
    start_at: float = 0.0
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (kinds, allowed, words) in FIELDS.items():
            value = getattr(self, name)
            right = isinstance(value, kinds) and isinstance(value, bool) == (kinds is bool)
            if not right or not allowed(value):
                raise UsageError(f"recipe: {name} must be {words}, not {value!r}")
        if AS_IS in self.mixed and not self.teacher:
            raise UsageError(f"recipe: {AS_IS!r} in a mixture needs a teacher: who else would restore them?")
        if not self.phases or self.phases[-1].until != 1:
            raise UsageError("recipe: the last of the phases must have until = 1.0")
        if [phase.until for phase in self.phases] != sorted({phase.until for phase in self.phases}):
            raise UsageError("recipe: until must grow from phase to phase")

    def phase(self, step: int) -> Phase:
        return next(phase for phase in self.phases if step < phase.until * self.steps)

    def batch_of(self, step: int) -> tuple[int, int, int]:
        """Crops in the step, their side, and the number of its phase."""
        phase = self.phase(step)
        return phase.batch, phase.patch, self.phases.index(phase)

    @property
    def mixtures(self) -> list[dict[str, float]]:
        """Of each phase."""
        return [phase.mixture or self.mixture for phase in self.phases]

    @property
    def mixed(self) -> list[str]:
        """The names in the mixtures of all phases."""
        return list(dict.fromkeys(name for mixture in self.mixtures for name in mixture))

    def pixels(self, step: int) -> int:
        """What a step sees, of all processes."""
        phase = self.phase(step)
        return phase.batch * phase.patch**2

    def pixels_left(self, step: int) -> int:
        """What the steps from `step` on will see: a measure of the work left."""
        total, begin = 0, 0
        for phase in self.phases:
            end = math.ceil(phase.until * self.steps)
            total += max(0, end - max(begin, step)) * phase.batch * phase.patch**2
            begin = end
        return total

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe with these fields.

        Raises:
            UsageError: naming the key that is unknown, missing or of the wrong type.
        """
        values = dict(values)
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise UsageError(f"recipe: unknown key {unknown[0]!r}")
        required = [
            f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING
        ]
        if missing := [name for name in required if name not in values]:
            raise UsageError(f"recipe: the key {missing[0]!r} is missing")
        try:
            values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
            values["model"] = MaximConfig.from_dict(values.get("model", {}))
            for name in ("betas", "scales", "pair_scales", "hold_out", "validate_with"):
                if isinstance(values.get(name), list):  # as of TOML and JSON
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"recipe: {error}") from error


def available() -> list[str]:
    """Names of the recipes that come with maximir. A file with a table of sets holds one for each."""
    names = []
    for entry in RECIPES.iterdir():
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            sets = tomllib.loads(entry.read_text("utf-8")).get("sets")
            names += [name] if sets is None else [f"{name}/{item}" for item in sets]
    return sorted(names)


def load_recipe(name_or_path: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe that comes with maximir, by name, or a TOML file.

    Args:
        overrides: keys that replace the file's; in a table, such as `model`, only those that are given.

    Raises:
        UsageError: unknown name, a file that cannot be read, or what `Recipe.from_dict` says.
    """
    path = Path(name_or_path)
    chosen = ""
    if path.suffix == ".toml":
        try:
            text = path.read_text("utf-8-sig")  # editors of Windows write the mark
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: the recipe cannot be read ({error})") from error
    elif name_or_path in available():
        file, _, chosen = name_or_path.partition("/")
        text = (RECIPES / f"{file}.toml").read_text("utf-8")
    else:
        raise UsageError(
            f"unknown recipe {name_or_path!r}: give a .toml file or one of {', '.join(available())}"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name_or_path}: not valid TOML ({error})") from error
    if chosen:
        values |= values.pop("sets")[chosen]
    for key, value in (overrides or {}).items():
        old = values.get(key)
        merge = isinstance(old, dict) and isinstance(value, dict) and key not in WHOLE_TABLES
        values[key] = old | value if merge else value
    return Recipe.from_dict(values)
