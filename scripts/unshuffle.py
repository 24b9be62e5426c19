"""A start for a fast network (`unshuffle = 2`) from one that works on pixels (docs/training.md).

    python scripts/unshuffle.py MODEL OUT.safetensors

At first it does to the means of 2 x 2 pixels what MODEL does to pixels, and adds that to each of the four: a
denoiser of the coarse part of a photograph, which has the fine part to learn. The first and last convolutions
share their weights out among the four pixels. Blocks and grids have a quarter of the tokens: a matrix mixes
them as MODEL's would mix tokens that repeat after half a window.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from maximir import Maxim, load_model
from maximir.models.checkpoint import save_model

SIDE = 2


def fold_tokens(value: Tensor) -> Tensor:
    """Average the tokens that lie half a window apart: `[p², …]` → `[(p/2)², …]`."""
    half = round(len(value) ** 0.5) // SIDE
    return value.view(SIDE, half, SIDE, half, *value.shape[1:]).mean(dim=(0, 2)).flatten(0, 1)


@torch.no_grad()
def unshuffled(model: Maxim) -> Maxim:
    """Return the fast network. Its image channels are ordered as in `pixel_unshuffle`: colour, then pixel."""
    fast = Maxim(dataclasses.replace(model.config, unshuffle=SIDE))
    old, state = model.state_dict(), {}
    for name, wanted in fast.state_dict().items():
        value = old[name]
        if value.shape == wanted.shape:
            pass
        elif value.ndim == 4 and value.shape[1] != wanted.shape[1]:  # from an image: the mean of four
            value = value.repeat_interleave(SIDE**2, dim=1) / SIDE**2
        elif value.ndim == 4 or ".outputs." in name:  # to an image: the same for all four
            value = value.repeat_interleave(SIDE**2, dim=0)
        elif value.ndim == 2:
            value = SIDE**2 * fold_tokens(fold_tokens(value).T.contiguous()).T
        else:
            value = fold_tokens(value)
        state[name] = value.contiguous()
    fast.load_state_dict(state)
    return fast


def main() -> None:
    parser = argparse.ArgumentParser(description="A start for a fast network from one that works on pixels.")
    parser.add_argument("model", help="a name or a file")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    source = load_model(given.model).eval()
    fast = unshuffled(source).eval()
    print(f"parameters: {sum(p.numel() for p in fast.parameters()):,}")
    save_model(fast, given.out, metadata={"unshuffled_from": Path(given.model).name})


if __name__ == "__main__":
    main()
