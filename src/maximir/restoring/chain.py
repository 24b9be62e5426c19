"""Several restorers in order, as one: denoise, then enhance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maximir.errors import UsageError
from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.pixels import to_unit
from maximir.restoring.base import ImageRestorer, Restored
from maximir.restoring.blending import Blend
from maximir.restoring.links import Link, in_text, parse_link, parse_links
from maximir.restoring.options import Options, Progress, share_progress, silent
from maximir.restoring.restorer import Restorer, bands


def load_restorer(model: ModelCard, options: Options) -> Restorer:
    restorer = Restorer.with_options(model.path, options)
    restorer.task = restorer.task or model.task  # which not every file says
    return restorer


class Chain(ImageRestorer):
    """Restores images with several models in order; decoded once, written once.

        chain = maximir.Chain("denoise:0.8,enhance", max_memory="4GB")

    Args:
        links: tasks or models' names, each perhaps with the strength of its link: in one text, or a sequence.
        load: returns the restorer of a model.
        options: as of a `Restorer`, for every link; except `strength` and `detail`, which blend the result of
            the whole chain with the original.

    Attributes:
        links: the models and their strengths.
        restorers: one per link.

    Raises:
        UsageError: an empty or unknown link, or a strength outside 0 … 1.
        MaximirError: a model or the device cannot be used.
    """

    def __init__(
        self,
        links: str | Sequence[str | Link],
        *,
        load: Callable[[ModelCard, Options], Restorer] = load_restorer,
        **options: Any,
    ) -> None:
        if isinstance(links, str):
            links = [links]
        texts = [link for link in links if isinstance(link, str)]
        if texts and len(texts) == len(links):
            links = parse_links(",".join(texts), choice.choose)
        self.links = tuple(
            parse_link(link, choice.choose) if isinstance(link, str) else link for link in links
        )
        if not self.links:
            raise UsageError("a chain needs a link, such as denoise; for auto, use AutoRestorer")
        self.options = Options(**options)
        own = dataclasses.replace(self.options, strength=1.0, detail=0.0)
        self.restorers = [load(link.model, own) for link in self.links]
        self.device, self.precision = self.restorers[0].device, self.restorers[0].precision

    def __repr__(self) -> str:
        return f"<Chain {in_text(self.links)}, {self.device}, {self.precision}>"

    @property
    def files(self) -> list[tuple[Path, float]]:
        return [(link.model.path, link.strength) for link in self.links]

    def restore_visible(
        self,
        rgb: np.ndarray,
        *,
        grey: bool,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
    ) -> Restored:
        image = rgb
        notes: list[str] = []
        steps: list[dict[str, Any]] = []
        for number, (link, restorer) in enumerate(zip(self.links, self.restorers, strict=True)):
            clock = time.perf_counter()
            restored = restorer.restore_visible(
                image,
                grey=grey,
                progress=share_progress(progress, number, [1] * len(self.links)),
                reserve=reserve + (0 if image is rgb else rgb.nbytes),
                view=view,
            )
            after = Blend(link.strength).apply(image, restored.rgb)
            step = {"model": link.model.name, "strength": link.strength, "change": change(image, after)}
            steps.append(step | {"seconds": round(time.perf_counter() - clock, 3)})
            image, notes = after, [*notes, *restored.notes]
        return Restored(image, tuple(dict.fromkeys(notes)), tuple(steps))


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean absolute difference of two images `[H, W, 3]`, 0 … 1."""
    rows = [
        np.abs(to_unit(after[band]) - to_unit(before[band])).mean(axis=(1, 2)) for band in bands(len(before))
    ]
    return round(float(np.concatenate(rows).mean()), 5)
