"""Weights for tests of what a network computes."""

from typing import TypeVar

import torch
from torch import nn

# The file that a clone without git-lfs has instead.
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4665" * 16 + b"\nsize 12000000\n"

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def randomise(module: M) -> M:
    """Set random weights of ordinary size: those of a new network are near zero, and would hide mistakes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()
