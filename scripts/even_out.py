"""Make a model keep uniform areas uniform, without training.

    python scripts/even_out.py MODEL OUT.safetensors [--rows]

Convolutions see the border's pixels again instead of zeros beyond it (`padding_mode = "replicate"`). `--rows`
also gives the rows of each spatial Dense the same sum, and its biases their mean, so that uniform tokens are
mixed to uniform ones. Costs: docs/experiments.md, 17.
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
    """Set W ← W − (I − P) W P and b ← P b, P = 11ᵀ/n: the smallest change that keeps flat tokens flat."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SpatialDense):
                sums = module.weight.sum(dim=1, keepdim=True)
                module.weight -= (sums - sums.mean()) / len(sums)
                module.bias.fill_(module.bias.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model keep uniform areas uniform.")
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
