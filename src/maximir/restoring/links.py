"""Chains as text: "denoise:0.8,enhance". Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from maximir.errors import UsageError
from maximir.models.cards import ModelCard
from maximir.restoring.options import check_fraction

AUTO = "auto"  # no chain, but what each photograph needs
MOST_LINKS = 6
STRENGTH = re.compile(r"(.+):(\d*\.?\d+(?:e-\d+)?)")  # a name, and the strength of its link


class Link(NamedTuple):
    """A model of a chain, and how much of its result is taken."""

    model: ModelCard
    strength: float = 1.0


def parse_links(text: str, choose: Callable[[str], ModelCard]) -> tuple[Link, ...]:
    """Parse "denoise:0.8,enhance"; `choose` returns the model of a name. Of "auto", there are none.

    Raises:
        UsageError: an empty or unknown link, too many, or a strength above 1.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [AUTO]:
        return ()
    if any(name.partition(":")[0] == AUTO for name in names):
        raise UsageError("auto cannot be part of a chain: give it alone")
    if len(names) > MOST_LINKS:
        raise UsageError(f"a chain has at most {MOST_LINKS} links, not {len(names)}")
    if len(names) > 1 and not all(names):
        raise UsageError(f"the chain {text!r} has an empty link: write it as denoise,enhance")
    return tuple(parse_link(name, choose) for name in names)


def parse_link(text: str, choose: Callable[[str], ModelCard]) -> Link:
    if (found := STRENGTH.fullmatch(text)) is None:
        return Link(choose(text))
    strength = float(found[2])
    check_fraction(f"the strength of {found[1]}", strength)
    return Link(choose(found[1]), strength)


def steps_in_text(steps: Sequence[dict[str, Any]]) -> list[str]:
    """Return "denoise-box 1.2 s, changed by 2.1%" for each step of `Photo.steps`."""
    return [f"{step['model']} {step['seconds']:.1f} s, changed by {step['change']:.1%}" for step in steps]


def in_text(links: Sequence[Link]) -> str:
    """Format a chain: "denoise-box:0.8,enhance-box"."""
    return (
        AUTO
        if not links
        else ",".join(
            link.model.name + ("" if link.strength == 1 else f":{float(link.strength)!r}") for link in links
        )
    )
