"""Make a model leave even areas even, without training: nothing is learned here, two things are taken away.

    python scripts/even_out.py MODEL OUT.safetensors [--rows]

The convolutions see the border's pixels again instead of zeros beyond it (`padding_mode = "replicate"`).
With `--rows` the rows of each spatial Dense are also given the same sum, and its biases their mean: then what
is the same everywhere is mixed to something that is the same everywhere. Costs: docs/experiments.md, 17.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from maximir import Maxim, load_model
from maximir.models import choice
from maximir.models.checkpoint import read, save_model
from maximir.network.layers import SpatialDense


def even_rows(model: Maxim) -> None:
    """W ← W − (I − P) W P, b ← P b with P = 11ᵀ/n: the smallest change by which flat tokens stay flat."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SpatialDense):
                sums = module.weight.sum(dim=1, keepdim=True)
                module.weight -= (sums - sums.mean()) / len(sums)
                module.bias.fill_(module.bias.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model leave even areas even.")
    parser.add_argument("model", help="a name or a file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", action="store_true")
    given = parser.parse_args()
    source = load_model(given.model)
    model = Maxim(dataclasses.replace(source.config, padding_mode="replicate"))
    model.load_state_dict(source.state_dict())
    if given.rows:
        even_rows(model)
    facts = read(choice.resolve(given.model)).facts
    save_model(
        model, given.out, form="float16", metadata=facts | {"evened": ["padding", *["rows"] * given.rows]}
    )


if __name__ == "__main__":
    main()
