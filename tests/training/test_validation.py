"""How a network in training is measured."""

import numpy as np
import pytest
import torch

from maximir.metrics import psnr
from maximir.pixels import to_unit
from maximir.training import validation
from maximir.training.validation import Trial, validate


def test_perfect_results_do_not_spoil_the_mean(monkeypatch):
    monkeypatch.setattr(validation, "restore_batch", lambda model, batch, streaming: batch)
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (8, 9, 3), np.uint8)
    other = rng.integers(0, 256, (8, 9, 3), np.uint8)
    trials = [
        Trial("noise", to_unit(clean), clean),
        Trial("noise", to_unit(other), clean),
        Trial("flat", to_unit(clean), clean),
    ]
    scores, _ = validate(None, trials, torch.float32, torch.device("cpu"))
    assert scores["psnr_noise"] == pytest.approx(psnr(other, clean))
    assert scores["psnr_flat"] == float("inf")  # there is nothing else
