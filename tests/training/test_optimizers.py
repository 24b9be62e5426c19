from dataclasses import replace

import pytest
import torch

from maximir import Maxim
from maximir.network import layers
from maximir.training.optimizers import make_optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 32, 8), (2, 8, 72)])
def test_orthogonalised_singular_values_are_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.4
    # the directions are kept: it is U V^T of the SVD, roughly
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert (orthogonalise(matrices) * (u @ vh)).sum() / (u @ vh).square().sum() > 0.7


def test_every_parameter_has_one_optimizer(tiny_model):
    model = Maxim(tiny_model.config)
    adam, muon = make_optimizers(model, "muon", 1e-3, (0.9, 0.999), 1e-2)
    owned = [[p for group in o.param_groups for p in group["params"]] for o in (adam, muon)]
    assert len(owned[0]) + len(owned[1]) == len(list(model.parameters()))
    assert {id(p) for both in owned for p in both} == {id(p) for p in model.parameters()}
    by_muon = {id(p) for p in owned[1]}
    block = model.stages[0].encoders[0].block.groups[0]
    assert id(block[0].project_in.weight) in by_muon
    assert id(block[1].conv1.weight) in by_muon
    assert id(block[0].grid.mix.weight) not in by_muon
    assert id(model.stages[0].input_convs[0].weight) not in by_muon
    assert id(model.stages[0].outputs[0].weight) not in by_muon
    assert all(p.ndim >= 2 for p in owned[1])


def test_convolutions_of_unshuffled_images_are_not_muons(tiny_model):
    model = Maxim(replace(tiny_model.config, unshuffle=2))
    _, muon = make_optimizers(model, "muon", 1e-3, (0.9, 0.999), 1e-2)
    by_muon = {id(p) for p in muon.param_groups[0]["params"]}
    image_convs = [m for m in model.modules() if isinstance(m, layers.ImageConv)]
    assert image_convs and not by_muon & {id(m.weight) for m in image_convs}


def test_muon_makes_a_problem_smaller():
    torch.manual_seed(0)
    dense = layers.Conv1x1(16, 16)
    inputs, target = torch.randn(64, 16), torch.randn(64, 16)
    from maximir.training.optimizers import Muon

    muon = Muon([dense.weight], lr=0.02)
    losses = []
    for _ in range(60):
        loss = (dense(inputs) - target).square().mean()
        muon.zero_grad()
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
