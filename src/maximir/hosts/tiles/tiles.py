"""Restore photographs of any size with a file of `maximir export --tile`. Needs numpy and onnxruntime.

The network takes sides that are multiples of 64 (or what its facts say), and memory for whole maps. So small
photographs are padded by reflection, and large ones are cut into tiles that fade into each other. Where the
network changes the light of the whole picture, the light comes from a small view of it
(docs/large-photographs.md of maximir):

    network = Network("enhance.onnx")           # reads enhance.json, too
    restored = restore(image, network)          # [H, W, 3], float32 in [0, 1]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CENTRED = 64  # the multiple of networks whose padding is centred; others are padded at the end


class Network:
    """An exported network with its facts. Call it with `[h, w, 3]`, multiples of `facts["multiple"]`."""

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # a fraction of the memory
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts: dict[str, Any] = json.loads(Path(path).with_suffix(".json").read_text("utf-8"))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        restored: np.ndarray = self.session.run(None, {"image": planes})[0]
        return restored[0].transpose(1, 2, 0)


def restore(
    image: np.ndarray, network: Any, report: Callable[[float], None] = lambda done: None
) -> np.ndarray:
    """Restore `[H, W, 3]`, float32 in [0, 1], to the same.

    Args:
        network: a function of `[h, w, 3]` with `facts`, such as `Network`.
        report: called with the part that is done, 0 … 1.
    """
    height, width = image.shape[:2]
    facts = network.facts
    light = facts["light"] if needs_view(height, width, facts) else None
    if light is None and fits(height, width, facts):
        return restore_at_once(image, network).clip(0, 1)
    rows, columns = (tiles(length, facts["tile"], facts["overlap"]) for length in (height, width))
    count = len(rows) * len(columns) + (light is not None)
    result = np.zeros_like(image)
    done = 0
    for top, down in rows:
        for left, across in columns:
            part = np.s_[top : top + len(down), left : left + len(across)]
            result[part] += down[:, None, None] * across[:, None] * restore_at_once(image[part], network)
            done += 1
            report(done / count)
    if light is not None:
        h, w = view_size(height, width, light["view"])
        small = restore_at_once(shrink(image, h, w), network)
        difference = blur(small - shrink(result, h, w), light["smooth"])
        result += on_both(enlarge, difference, height, width)
        report(1.0)
    return result.clip(0, 1)


def fits(height: int, width: int, facts: dict[str, Any]) -> bool:
    """Return True if the photograph is small enough to be restored at once."""
    rows, columns = (padded(length, facts["multiple"])[0] for length in (height, width))
    return len(rows) * len(columns) <= facts["whole"]


def needs_view(height: int, width: int, facts: dict[str, Any]) -> bool:
    """Return True if the light must come from a view: of a large photograph, or of one in tiles."""
    light = facts["light"]
    return light is not None and (max(height, width) >= light["large"] or not fits(height, width, facts))


def restore_at_once(image: np.ndarray, network: Any) -> np.ndarray:
    (rows, top), (columns, left) = (padded(n, network.facts["multiple"]) for n in image.shape[:2])
    restored: np.ndarray = network(image[rows][:, columns])
    return restored[top : top + image.shape[0], left : left + image.shape[1]]


def padded(size: int, multiple: int) -> tuple[np.ndarray, int]:
    """Return the pixels of a side that is padded to a multiple, and where the first pixel is."""
    even = size + size % 2
    more = -even % multiple
    before = more // 2 if multiple == CENTRED else 0
    inner = np.pad(np.arange(size), (0, even - size), "reflect")
    return np.pad(inner, (before, more - before), "reflect"), before


def tiles(length: int, tile: int, overlap: int) -> list[tuple[int, np.ndarray]]:
    """Return the start of each tile of an axis, and its pixels' weights; all weights of a pixel sum to 1.

    Tiles are evenly spaced and overlap by at least `overlap`; in that part, the later one fades in.
    """
    if length <= tile:
        return [(0, np.ones(length, np.float32))]
    count = -(-(length - overlap) // (tile - overlap))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    weights = [np.ones(tile, np.float32) for _ in starts]
    for i in range(1, count):
        faded = starts[i - 1] + tile - starts[i]
        weights[i][:faded] = (np.arange(faded, dtype=np.float32) + 1) / np.float32(faded + 1)
        for j in range(i):  # earlier tiles keep what this one leaves
            shared = starts[j] + tile - starts[i]
            if shared > 0:
                weights[j][tile - shared :] *= 1 - weights[i][:shared]
    return list(zip(starts, weights, strict=True))


def view_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return height and width of the small view."""
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def on_both(function: Callable[..., np.ndarray], x: np.ndarray, *lengths: int) -> np.ndarray:
    """Apply a function of the first axis to rows and columns."""
    for length in lengths:
        x = function(x, length).swapaxes(0, 1)
    return x


def shrink(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """Average areas of `[H, W, 3]` to `[h, w, 3]`."""

    def average(x: np.ndarray, count: int) -> np.ndarray:
        length = len(x)
        areas = (x[i * length // count : -(-(i + 1) * length // count)] for i in range(count))
        return np.stack([area.mean(axis=0) for area in areas])

    return on_both(average, image, h, w)


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian."""
    reach = int(3 * sigma)
    gaussian = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / np.float32(sigma)) ** 2)
    gaussian /= gaussian.sum()

    def along(x: np.ndarray, length: int) -> np.ndarray:
        at = np.arange(length)
        total = np.zeros_like(x)
        for shift, weight in zip(range(-reach, reach + 1), gaussian, strict=True):
            total += weight * x[(at + shift).clip(0, length - 1)]
        return total

    return on_both(along, x, *x.shape[:2])


def enlarge(x: np.ndarray, length: int) -> np.ndarray:
    """Interpolate the first axis linearly."""
    at = ((np.arange(length) + 0.5) * len(x) / length - 0.5).clip(0, len(x) - 1)
    low = at.astype(int)
    part = (at - low).astype(np.float32)[:, None, None]
    mixed: np.ndarray = x[low] * (1 - part) + x[np.minimum(low + 1, len(x) - 1)] * part
    return mixed
