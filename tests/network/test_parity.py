"""The network computes what the official code computes, and the test would notice if it did not."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.reference import GOLDEN, reference_image, reference_weights
from maximir.engine import network as engine
from maximir.engine.sweeps import Streaming
from maximir.models.checkpoint import build
from maximir.models.official import state_from_official, table
from maximir.network import blocks, layers
from maximir.network import model as network
from maximir.network.config import VARIANTS
from maximir.network.model import Maxim

TOLERANCE = 2e-5

# SHA-256 of the sorted lines "key shape" of the official parameter trees.
OFFICIAL_TREES = {
    "S-1": "dc033ef76b0de6488da3d87a6af404c43be7c1cf22ab1c88277482b38652197a",
    "S-2": "332f28f4deb6f1a5bd1ed4a2ce7cb3e72f6003c7978524b5ec4f9c22657c6faf",
    "S-3": "8d671ee0043fc9c3d68b32c080553621741634b876d7a1981d17ebd949c0fded",
    "M-1": "997e5461cccc1b5f1496a0f718408fcee85084a06af36ca50547cbec980f0330",
    "M-2": "94c2c4c1a82befd1ad0b8a874c4a649ef343faeb302831ab81c28f1b63f14ce7",
    "M-3": "28081a8d27a9b9225d07cdfad24621506345dfe446750b4ced74a936b188e1e4",
}
PARAMETERS = {
    "S-1": 6_139_561,
    "S-2": 14_176_178,
    "S-3": 22_212_795,
    "M-1": 19_464_265,
    "M-2": 43_227_986,
    "M-3": 66_991_707,
}


STREAMINGS = {
    "network": None,  # the modules, without the engine
    "strips": Streaming(strip_bytes=1 << 16, kernels=False),
    "kernels": Streaming(strip_bytes=1 << 16),
}


def worst_error(golden: np.lib.npyio.NpzFile, model: Maxim, chosen: Streaming | None = None) -> float:
    """Largest absolute difference over all stages and scales."""
    image = reference_image(int(golden["height"]), int(golden["width"]), int(golden["salt"]))
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        outputs = model(batch) if chosen is None else engine.run(model, batch, chosen)
    errors = [
        np.abs(outputs[stage][scale][0].permute(1, 2, 0).numpy() - golden[f"stage{stage}_scale{scale}"]).max()
        for stage in range(model.config.stages)
        for scale in range(3)
    ]
    assert len(errors) == sum(name.startswith("stage") for name in golden.files)
    return float(max(errors))


def golden_model(golden: np.lib.npyio.NpzFile) -> Maxim:
    return build(*state_from_official(reference_weights(str(golden["variant"]), int(golden["salt"]))))


@pytest.mark.parametrize("how", STREAMINGS)
@pytest.mark.parametrize("name", ["golden_S-1_128x192", "golden_S-2_64x128", "golden_S-3_128x64"])
def test_golden(name, how):
    golden = np.load(GOLDEN / f"{name}.npz")
    assert worst_error(golden, golden_model(golden), STREAMINGS[how]) < TOLERANCE


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "golden_S-2_64x128.npz")


def test_negative_control_unflipped_transposed_convolution(golden):
    model = golden_model(golden)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, layers.ConvTranspose):
                module.weight.copy_(module.weight.flip(2, 3))
    assert worst_error(golden, model) > 100 * TOLERANCE


def test_negative_control_nearest_instead_of_nearest_exact(golden, monkeypatch):
    model = golden_model(golden)
    monkeypatch.setattr(network, "subsample", lambda image, step: image[..., ::step, ::step])
    assert worst_error(golden, model) > 100 * TOLERANCE


def test_negative_control_erf_gelu(golden, monkeypatch):
    model = golden_model(golden)
    monkeypatch.setattr(blocks, "gelu", F.gelu)
    assert worst_error(golden, model) > 2 * TOLERANCE


def test_negative_control_swapped_axes(golden):
    model = golden_model(golden)
    for module in model.modules():
        if isinstance(module, blocks.MultiAxisGatedMlp):
            module.grid, module.block = module.block, module.grid
    assert worst_error(golden, model) > 100 * TOLERANCE


def test_negative_control_no_antialiasing(golden, monkeypatch):
    def bilinear(x, factor):
        planes = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=1 / factor, mode="bilinear")
        return planes.permute(0, 2, 3, 1)

    model = golden_model(golden)
    monkeypatch.setattr(layers.ops, "shrink", bilinear)
    assert worst_error(golden, model) > 100 * TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_tree(variant):
    entries = table(VARIANTS[variant])
    assert sum(int(np.prod(entry.shape)) for entry in entries.values()) == PARAMETERS[variant]
    lines = sorted(f"{entry.key} {list(entry.shape)}" for entry in entries.values())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == OFFICIAL_TREES[variant]
