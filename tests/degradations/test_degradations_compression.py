"""Compression artefacts as training makes them."""

import numpy as np
from test_degradations import photograph

from maximir.degradations import compression
from maximir.degradations.compression import FORMATS, compressed


def test_all_formats_are_used_in_their_shares_and_some_images_twice(monkeypatch):
    seen = []

    def compress(image, kind, quality, *, subsample, corner):
        seen.append((kind, quality, subsample, corner))
        return image

    monkeypatch.setattr(compression, "compress", compress)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        compressed(photograph(8, 8), rng)
    assert 1.2 < len(seen) / 2000 < 1.4
    for kind, (share, (least, most)) in FORMATS.items():
        qualities = [quality for name, quality, *_ in seen if name == kind]
        assert abs(len(qualities) / len(seen) - share) < 0.03
        assert least == min(qualities) and most - 1 <= max(qualities) <= most
        assert np.median(qualities) < (least + most) / 2, "low ones more often"
    assert 0.6 < np.mean([subsample for *_, subsample, _ in seen]) < 0.8
    assert {corner[0] for *_, corner in seen} == set(range(16))
    assert 0.57 < np.mean([corner == (0, 0) for *_, corner in seen]) < 0.63


def test_a_flat_area_stays_and_an_edge_rings():
    image = np.full((64, 64, 3), 0.25, np.float32)
    flat = [compressed(image, np.random.default_rng(seed)) for seed in range(20)]
    assert max(np.abs(each - image).max() for each in flat) < 6 / 255
    image[:, 30:] = 0.75
    edges = [compressed(image, np.random.default_rng(seed)) for seed in range(20)]
    assert max(np.abs(each - image).max() for each in edges) > 20 / 255
