"""The restorer that a text or a chain of links means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.restoring import presets
from maximir.restoring.auto import AutoRestorer
from maximir.restoring.base import ImageRestorer
from maximir.restoring.chain import Chain, load_restorer
from maximir.restoring.links import Link, parse_links
from maximir.restoring.options import Options
from maximir.restoring.restorer import Restorer


def open_restorer(text: str) -> ImageRestorer:
    """Return the restorer of what a `Restorer` takes, of a chain ("denoise,enhance"), or of "auto"."""
    return (
        Restorer(text) if Path(text).is_file() else restorer_of(parse_links(text, choice.choose), Options())
    )


def open_preset(name: str, **options: Any) -> ImageRestorer:
    """Return the restorer of a preset ("night", or one of the user's).

        restorer = maximir.open_preset("night", max_memory="4GB")

    Args:
        name: see docs/presets.md.
        options: as of a `Restorer`; strength and detail replace the preset's.

    Raises:
        UsageError: the preset is unknown, the user's file of presets is invalid, or an option is.
        MaximirError: a model cannot be used.
    """
    preset = presets.find(name)
    settings = Options(**{"strength": preset.strength, "detail": preset.detail} | options)
    if preset.task is None:
        return restorer_of(parse_links(preset.model or "", choice.named), settings)
    return restorer_of(parse_links(preset.task, choice.for_task), settings)


def restorer_of(
    links: Sequence[Link],
    options: Options,
    load: Callable[[ModelCard, Options], Restorer] = load_restorer,
) -> ImageRestorer:
    """Return the restorer of one model, or of a chain; of no links, the one that looks for itself.

    Args:
        load: returns the restorer of a model.
    """
    if not links:
        return AutoRestorer(load=load, **vars(options))
    if len(links) == 1 and links[0].strength == 1:
        return load(links[0].model, options)
    return Chain(links, load=load, **vars(options))
