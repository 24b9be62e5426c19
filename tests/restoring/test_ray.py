"""Ray as it is, where it is installed: a cluster for one run, on this machine. Without it: test_actors."""

import numpy as np
import pytest

from helpers.command import files, maximir
from maximir import images

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own


def test_a_cluster_does_what_one_process_does(tmp_path, gentle_weights, capfd):
    (tmp_path / "in").mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50 + k, 3), np.uint8)
        (tmp_path / "in" / f"{k}.png").write_bytes(images.encode(images.Photo(pixels), "png")[0])
    (tmp_path / "in" / "damaged.png").write_bytes(b"no image")
    how = ("--weights", gentle_weights, "--device", "cpu", "--precision", "fp32")
    maximir("restore", tmp_path / "in", "-o", tmp_path / "one", *how, expect=1)
    maximir("restore", tmp_path / "in", "-o", tmp_path / "ray", *how, "--ray", "local", expect=1)
    assert "damaged.png" in capfd.readouterr().err
    names = [f"{k}.png" for k in range(4)]
    assert files(tmp_path / "one") == names
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
