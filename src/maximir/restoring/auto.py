"""`--task auto`: look at each photograph first (`diagnosis`), then do what it needs, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.restoring import diagnosis
from maximir.restoring.base import ImageRestorer, Restored
from maximir.restoring.chain import Chain, load_restorer
from maximir.restoring.links import Link
from maximir.restoring.options import Options, Progress, silent
from maximir.restoring.restorer import Restorer, choose_device, resolve_precision

NOTHING = "no damage was found: left unchanged"
MOST = 2  # links: more damage than that is more often a mistake than a photograph


class AutoRestorer(ImageRestorer):
    """Restores each image by the tasks that it needs, as far as that is sure.

    Args:
        load: returns the restorer of a model; each is loaded when it is first needed.
        options: as of a `Restorer`.

    Raises:
        UsageError: the device cannot be used.
    """

    def __init__(
        self, *, load: Callable[[ModelCard, Options], Restorer] = load_restorer, **options: Any
    ) -> None:
        self.options = Options(**options)
        self.device = choose_device(self.options.device)
        self.precision = resolve_precision(self.options.precision, self.device)
        self.load = load
        self.loaded: dict[str, Restorer] = {}

    @property
    def files(self) -> list[tuple[Path, float]]:
        models = [choice.for_task(task).path for task in diagnosis.TASKS.values()]
        return [(path, 1.0) for path in (diagnosis.WEIGHTS, *models)]

    def restore_visible(
        self,
        rgb: np.ndarray,
        *,
        grey: bool,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
    ) -> Restored:
        found = diagnosis.diagnose(rgb)[:MOST]
        if not found:
            return Restored(rgb, (NOTHING,), unchanged=True)
        found.sort(key=lambda each: diagnosis.DAMAGES.index(each.damage))
        links = [Link(choice.for_task(diagnosis.TASKS[each.damage]), each.strength) for each in found]
        chain = Chain(links, load=self._loaded, **vars(self.options))
        restored = chain.restore_visible(rgb, grey=grey, progress=progress, reserve=reserve, view=view)
        return restored._replace(notes=(sentence(found), *restored.notes))

    def _loaded(self, model: ModelCard, options: Options) -> Restorer:
        if model.name not in self.loaded:
            self.loaded[model.name] = self.load(model, options)
        return self.loaded[model.name]


def sentence(found: list[diagnosis.Finding]) -> str:
    """Return "noise and low light: denoise 0.8, then enhance 0.7"."""
    damages = " and ".join(diagnosis.NAMES[each.damage] for each in found)
    tasks = ", then ".join(f"{diagnosis.TASKS[each.damage]} {each.strength:g}" for each in found)
    return f"{damages}: {tasks}"
