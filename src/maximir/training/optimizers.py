"""The optimisers of a run: the paper's Adam, or Muon for the weight matrices and Adam for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from maximir.engine.precision import bf16_is_emulated
from maximir.network.layers import ImageConv, SpatialDense
from maximir.network.model import Maxim

# Coefficients of the quintic iteration by Muon's authors (K. Jordan et al., 2024): fast, not exact.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
OPTIMIZERS = ("adam", "muon")


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrices to `[B, M, N]` by Newton-Schulz iteration.

    Computes in bfloat16, as Muon's authors do, unless it is emulated: a step of an S-1 then took 3.9 s
    instead of 0.3 s.
    """
    a, b, c = QUINTIC
    x = matrices if bf16_is_emulated(matrices.device) else matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum: every direction of a matrix moves by the same amount.

    torch.optim.Muon updates 2-D matrices one by one. This one also takes convolution kernels (one row per
    output channel) and batches matrices of the same shape, because MAXIM has many small ones.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.flatten(1).shape].append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group["lr"], group["momentum"])

    def _step_together(self, parameters: list[Tensor], lr: float, momentum: float) -> None:
        updates = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            buffer = state["momentum"]
            buffer.lerp_(parameter.grad, 1 - momentum)
            updates.append(parameter.grad.lerp(buffer, momentum).flatten(1))  # Nesterov
        stacked = orthogonalise(torch.stack(updates))
        scale = max(1, stacked.shape[1] / stacked.shape[2]) ** 0.5
        for parameter, update in zip(parameters, stacked, strict=True):
            parameter.add_(update.view_as(parameter), alpha=-lr * scale)


def make_optimizers(
    model: Maxim, name: str, learning_rate: float, betas: tuple[float, float], muon_learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Make Adam for all parameters ("adam"), or Muon for the matrices inside the network ("muon").

    With Muon, Adam still updates all parameters that do not map features to features: gains, biases, the
    spatial Dense (its tokens are positions), and the convolutions from and to images.
    """
    if name == "adam":
        return [torch.optim.Adam(model.parameters(), lr=learning_rate, betas=betas, fused=True)]
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in model.modules():
        inner = isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not isinstance(
            module, ImageConv | SpatialDense
        )
        for kind, parameter in module.named_parameters(recurse=False):
            (matrices if inner and kind == "weight" else rest).append(parameter)
    return [
        torch.optim.Adam(rest, lr=learning_rate, betas=betas, fused=True),
        Muon(matrices, lr=muon_learning_rate),
    ]
