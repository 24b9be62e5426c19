"""Grow a smaller network to the size of a larger one with equal outputs, as a start for more training.

    python scripts/grow.py MODEL OUT.safetensors [--groups 2] [--bottlenecks 2]

Additional groups end in zero layers, so they pass on their input. A bottleneck adds its input to the output
of its groups, so additional ones halve it first. (Net2Net, Chen et al. 2016: function-preserving.)
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import nn

from maximir import Maxim, load_model
from maximir.models.checkpoint import save_model
from maximir.network.blocks import ConvChannelAttention, MultiAxisGatedMlp
from maximir.network.model import Bottleneck


def last_layer(block: nn.Module) -> nn.Module:
    if isinstance(block, MultiAxisGatedMlp):
        return block.project_out
    return block.conv2 if isinstance(block, ConvChannelAttention) else block.dense2  # type: ignore[return-value]


@torch.no_grad()
def grow(model: Maxim, groups: int, bottlenecks: int) -> Maxim:
    """Return a network with these numbers of groups and bottlenecks, and the same outputs."""
    config = model.config
    grown = Maxim(dataclasses.replace(config, groups=groups, bottlenecks=bottlenecks))
    for name, module in grown.named_modules():
        parts = name.split(".")
        if parts[-2:-1] == ["groups"] and int(parts[-1]) >= config.groups:
            new_group = True
        elif isinstance(module, Bottleneck) and int(parts[-1]) >= config.bottlenecks:
            new_group = False
            module.project.weight.copy_(torch.eye(len(module.project.weight)) / 2)
            module.project.bias.zero_()
        else:
            continue
        layers = module if new_group else [layer for group in module.groups for layer in group]
        for layer in layers:
            for parameter in last_layer(layer).parameters():
                parameter.zero_()
    grown.load_state_dict(grown.state_dict() | model.state_dict())  # strict: a smaller network is refused
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description="Grow a smaller network to the size of a larger one.")
    parser.add_argument("model", help="a name or a file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--bottlenecks", type=int, default=2)
    given = parser.parse_args()
    source = load_model(given.model).eval()
    grown = grow(source, given.groups, given.bottlenecks).eval()
    image = torch.rand(1, 3, 128, 192)
    with torch.inference_mode():
        difference = (source(image)[-1][-1] - grown(image)[-1][-1]).abs().max()
    print(f"parameters: {sum(p.numel() for p in grown.parameters()):,}; largest difference {difference:.1e}")
    save_model(grown, given.out, metadata={"grown_from": Path(given.model).name})


if __name__ == "__main__":
    main()
