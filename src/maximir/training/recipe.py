"""Training recipes: one TOML file per run, checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
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

PAIRS = "pairs"  # in a mixture: pairs of photographs instead of a degradation
EVEN = "even"  # in a mixture: synthetic even fields and gradients

AS_IS = "as-is"  # in a mixture: clean photographs for a teacher to restore

RECIPES = resources.files("maximir.training") / "recipes"


def positive(value: float) -> bool:
    return 0 < value < math.inf


def are_scales(values: tuple[Any, ...]) -> bool:
    return bool(values) and all(isinstance(value, NUMBER) and 0 < value <= 1 for value in values)


def between_0_and_1(value: float) -> bool:
    return 0 <= value < 1


NUMBER = (int, float)
WHOLE_TABLES = ("mixture",)  # an override replaces these instead of merging
MIXABLE = (PAIRS, *DEGRADATIONS, EVEN, AS_IS)


def is_mixture(value: dict[str, Any]) -> bool:
    return bool(value) and all(
        name in MIXABLE and isinstance(share, NUMBER) and share > 0 for name, share in value.items()
    )


MIXTURE = f"a table of positive shares of {', '.join(MIXABLE)}"


@dataclass(frozen=True)
class Phase:
    """A part of the run with its own crops and, optionally, its own mixture.

    Larger crops later teach the global grid (progressive training); a mixture per phase allows a curriculum
    from easy to hard samples.

    Attributes:
        until: the phase ends at this fraction of the steps.
        patch: side of the square crops in pixels; a multiple of 64.
        batch: crops per step.
        mixture: replaces the recipe's mixture during this phase.
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


# field → type, condition, description of both
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
    "recolour": (NUMBER, lambda value: 0 <= value <= 1, "a number in [0, 1]"),
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
    "betas": (
        tuple,
        lambda value: len(value) == 2 and all(map(between_0_and_1, value)),
        "two numbers in [0, 1)",
    ),
    "clip_norm": (NUMBER, positive, "a positive number"),
    "colour": (NUMBER, lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "ema": (NUMBER, between_0_and_1, "a number in [0, 1)"),
    "start_as_identity": (bool, lambda value: True, "true or false"),
    "scales": (tuple, are_scales, "numbers in (0, 1]"),
    "pair_scales": (tuple, are_scales, "numbers in (0, 1]"),
    "precision": (str, ("fp32", "bf16").__contains__, '"fp32" or "bf16"'),
    "seed": (int, lambda value: 0 <= value < 2**40, "an integer of at least 0, below 2^40"),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run. The defaults are the paper's where it states them.

    Attributes:
        task: the model's task: denoise, deblur, derain, dehaze, enhance, retouch or dejpeg.
        mixture: sources of samples and their shares: "pairs" (folders of pairs), "even" (synthetic fields
            and gradients, to be returned unchanged), "as-is" (clean photographs for the teacher), and names
            in `maximir.degradations.DEGRADATIONS` (clean photographs, degraded on the fly).
        model: fields of `MaximConfig`.
        steps: optimiser steps.
        phases: parts of the run, each with its crops and optionally its mixture.
        optimizer: "adam" (the paper's) or "muon" (see `maximir.training.optimizers`).
        learning_rate, final_learning_rate: start and end of Adam's cosine decay.
        muon_learning_rate: Muon's initial learning rate, which decays by the same factor.
        warmup: steps of linear increase before the decay.
        betas: Adam's betas.
        clip_norm: gradients are clipped to this norm.
        colour: weight of the loss's colour term (not in the paper): for darkness and haze, whose casts cost
            little in the rest of the loss.
        ema: decay of the weights' moving average, which is validated and saved as the model.
        start_as_identity: initialise the last convolutions with zeros, so that the untrained network
            returns its input (not in the paper; see docs/experiments.md).
        scales: factors by which each photograph is shrunk; 1.0 keeps its size.
        pair_scales: the same for pairs.
        rotate: augment by quarter turns as well as flips (rain and haze depend on which way is up).
        recolour: probability that a clean photograph gets permuted channels and another saturation before
            it is degraded (for noise: photographs of saturated colours are rare).
        mixup: probability that a sample is blended with another one (0.5 in the paper).
        hold_out: name patterns of scenes that are used for validation instead of training.
        validate_with: degradations of the clean validation images; if empty, those of the mixture.
        init: initial weights: a file or a model's name; "" for random ones. From a model with more stages
            than `model`, the first stages are taken.
        reset_head: initialise the last convolutions anew instead of taking them from `init`.
        teacher: a model's file or name; "" for none. Samples learn its result, computed on the fly, instead
            of the clean image, so that the network keeps the teacher's abilities.
        taught: probability that a sample learns the teacher's result. "as-is" samples always do, and "even"
            samples always learn the smooth part of it.
        start_at: skip this fraction of the learning-rate schedule, to fine-tune trained weights gently.
        precision: "fp32", or "bf16" for autocast.
        seed: seed of all random numbers.
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
    colour: float = 0.0
    ema: float = 0.999
    start_as_identity: bool = False
    scales: tuple[float, ...] = (1.0,)
    pair_scales: tuple[float, ...] = (1.0,)
    rotate: bool = True
    recolour: float = 0.0
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
            raise UsageError(f"recipe: {AS_IS!r} in a mixture needs a teacher to restore them")
        if not self.phases or self.phases[-1].until != 1:
            raise UsageError("recipe: the last of the phases must have until = 1.0")
        if [phase.until for phase in self.phases] != sorted({phase.until for phase in self.phases}):
            raise UsageError("recipe: until must grow from phase to phase")
        for phase in self.phases:
            if phase.patch % self.model.size_multiple:
                raise UsageError(
                    f"recipe: a phase's patch must be a multiple of {self.model.size_multiple} with "
                    f"unshuffle = {self.model.unshuffle}, not {phase.patch}"
                )

    def phase(self, step: int) -> Phase:
        return next(phase for phase in self.phases if step < phase.until * self.steps)

    def batch_of(self, step: int) -> tuple[int, int, int]:
        """Return the step's number of crops, their side in pixels, and the number of its phase."""
        phase = self.phase(step)
        return phase.batch, phase.patch, self.phases.index(phase)

    @property
    def mixtures(self) -> list[dict[str, float]]:
        """The mixture of each phase."""
        return [phase.mixture or self.mixture for phase in self.phases]

    @property
    def mixed(self) -> list[str]:
        """The names in the mixtures of all phases."""
        return list(dict.fromkeys(name for mixture in self.mixtures for name in mixture))

    def pixels(self, step: int) -> int:
        """Return the number of pixels in a step, over all processes."""
        phase = self.phase(step)
        return phase.batch * phase.patch**2

    def pixels_left(self, step: int) -> int:
        """Return the number of pixels in the steps from `step` on: a measure of the work left."""
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
        """Make the recipe with these fields.

        Raises:
            UsageError: a key is unknown, missing or of the wrong type; the message names it.
        """
        values = dict(values)
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            near = difflib.get_close_matches(unknown[0], known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(sorted(known))}"
            raise UsageError(f"recipe: unknown key {unknown[0]!r}{meant}")
        required = [
            f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING
        ]
        if missing := [name for name in required if name not in values]:
            raise UsageError(f"recipe: the key {missing[0]!r} is missing")
        try:
            values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        except TypeError:
            form = "a list of tables with until, patch, batch and, if wanted, mixture"
            raise UsageError(f"recipe: phases must be {form}, not {values['phases']!r}") from None
        if not isinstance(values.get("model", {}), dict):
            raise UsageError(f"recipe: model must be a table, not {values['model']!r}")
        try:
            values["model"] = MaximConfig.from_dict(values.get("model", {}))
            for name in ("betas", "scales", "pair_scales", "hold_out", "validate_with"):
                if isinstance(values.get(name), list):  # TOML and JSON have lists only
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"recipe: {error}") from error


def available() -> list[str]:
    """Return the names of the built-in recipes. A file with a table `sets` holds one recipe per set."""
    names = []
    for entry in RECIPES.iterdir():
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            sets = tomllib.loads(entry.read_text("utf-8")).get("sets")
            names += [name] if sets is None else [f"{name}/{item}" for item in sets]
    return sorted(names)


def load_recipe(name_or_path: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Load a built-in recipe by name, or a TOML file.

    Args:
        overrides: keys that replace the file's. Tables such as `model` are merged.

    Raises:
        UsageError: the name is unknown, the file cannot be read, or a key is wrong (`Recipe.from_dict`).
    """
    path = Path(name_or_path)
    chosen = ""
    if path.suffix == ".toml":
        try:
            text = path.read_text("utf-8-sig")  # Windows editors write a byte order mark
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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{name_or_path}: not valid TOML ({error})") from error
    if chosen:
        values |= values.pop("sets")[chosen]
    for key, value in (overrides or {}).items():
        old = values.get(key)
        merge = isinstance(old, dict) and isinstance(value, dict) and key not in WHOLE_TABLES
        values[key] = old | value if merge else value
    return Recipe.from_dict(values)
