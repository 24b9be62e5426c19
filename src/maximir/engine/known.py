"""Modules that the engine has plans for. It calls others plainly, on whole maps, and says so once."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from maximir.network import blocks, layers, model

log = logging.getLogger("maximir")

# Each class with the forward that the plans were written for.
FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward
    for module in (layers, blocks, model)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, nn.Module)
} | {nn.Dropout: nn.Dropout.forward, nn.Sequential: nn.Sequential.forward}


def knows(*modules: nn.Module) -> bool:
    """Return True if a plan may stand for these modules; else log the first obstacle, once.

    Subclasses, modules with hooks or a forward of their own, and active dropout are called plainly.
    """
    for module in modules:
        if not is_known(module):
            say_plain(type(module).__qualname__)
            return False
    return True


def knows_all(module: nn.Module) -> bool:
    """Return True if a plan may stand for this module and everything in it."""
    return knows(*module.modules())


def is_known(module: nn.Module) -> bool:
    kind = type(module)
    return (
        FORWARDS.get(kind) is kind.forward
        and "forward" not in module.__dict__
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and not (isinstance(module, nn.Dropout) and module.training and module.p > 0)
    )


@functools.cache
def say_plain(name: str) -> None:
    log.warning(
        "maximir: %s was modified or has hooks or dropout, so the engine runs it on whole maps: "
        "the result is the same, but memory and time are not",
        name,
    )
