"""Sweeps: windows, tiles, and where strips are written."""

import pytest
import torch

from maximir.engine.sweeps import Pass, Rows, Streaming, tiles
from maximir.network.layers import from_windows, windows


@pytest.mark.parametrize("axis", ["block", "grid"])
def test_windows_round_trip(axis):
    x = torch.rand(2, 64, 128, 3)
    assert torch.equal(from_windows(windows(x, 16, axis).reshape(256, -1, 3), x.shape, 16, axis), x)


def test_blocks_are_local_and_grids_are_strided():
    image = torch.arange(64 * 64).reshape(1, 64, 64, 1)
    block = windows(image, 16, "block").reshape(256, -1)
    grid = windows(image, 16, "grid").reshape(256, -1)
    rows, columns = torch.arange(16)[:, None], torch.arange(16)
    assert torch.equal(block[:, 0], (64 * rows + columns).flatten())
    assert torch.equal(grid[:, 0], (64 * 4 * rows + 4 * columns).flatten())


@pytest.mark.parametrize("count", [0, 1, 3, 7, 20, 1000])
def test_tiles_cover_every_window_once(count):
    covered = torch.zeros(2, 5, 7, dtype=torch.int)
    for tile in tiles((2, 5, 7), count):
        covered[tile] += 1
        assert covered[tile].numel() <= max(1, count)
    assert (covered == 1).all()


def test_rows_of_maps_at_every_scale():
    x = torch.arange(32).reshape(1, 32, 1, 1)
    top, middle, bottom = Rows(0, 2, 8), Rows(2, 4, 8), Rows(6, 8, 8)
    assert middle.of(x, 2).flatten().tolist() == list(range(6, 18))
    assert top.of(x, 2).flatten().tolist() == list(range(10))
    assert bottom.of(x, 2).flatten().tolist() == list(range(22, 32))
    for rows in (top, middle, bottom):
        assert torch.equal(rows.trim(rows.of(x, 2), 2), rows.of(x))


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_a_strip_is_written_where_it_belongs(features):
    """By the function's last operation, or copied if that did not; and over one of its maps, if it may."""
    torch.manual_seed(0)
    x, y, places = torch.rand(1, 16, 4, 8), torch.rand(1, 16, 4, 8), []
    run = Pass(Streaming(1, features=features), 4)

    def add(rows):
        part = rows.of(x)
        places.append(rows.out(part.shape, part.device))
        return torch.add(part, rows.of(y), out=places[-1])

    def plain(rows):
        return rows.of(x) + rows.of(y)

    with torch.inference_mode():
        total, copied = (run.rows(each, x.numel(), feature=True) for each in (add, plain))
        over = y.clone()
        y, expected = over, x + y
        result = run.rows(add, x.numel(), into=over)
    assert total.dtype == features
    assert torch.equal(total, expected.to(features)) and torch.equal(copied, total)
    assert torch.equal(result, expected) and result.data_ptr() == over.data_ptr()
    assert [place.data_ptr() for place in places[:4]] == [
        total[:, i : i + 4].data_ptr() for i in (0, 4, 8, 12)
    ]
