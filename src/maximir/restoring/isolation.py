"""Protection from what a caller has set in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def unaffected(*, gradients: bool = False) -> Iterator[None]:
    """Ignore what the caller has set in torch for its thread: device, autocast, gradients.

    The default dtype belongs to the whole process, so it is not changed here: code that makes tensors names
    their dtype. Autocast inside keeps no copies of weights (`cache_enabled`): torch drops them only at the
    end of the outermost context, which is this one, so every training step would compute with the first
    step's weights.
    """
    with (
        torch.device("cpu"),
        torch.autocast("cpu", enabled=False, cache_enabled=False),
        torch.autocast("cuda", enabled=False, cache_enabled=False),
        torch.inference_mode(not gradients),
        torch.set_grad_enabled(gradients),
    ):
        yield
