"""Compare ways to restore a large photograph with a known original: the study of docs/large-photographs.md.

    python scripts/large_photographs.py PHOTOGRAPH... --task dehaze --sizes 512 1024 2048 [--models NAME...]
        [--pictures FOLDER]

Each photograph is scaled to each size (longer side), degraded (the task's synthetic damage, seeded), and
restored in each way. Prints means over photographs.

PSNR, SSIM: RGB, dB. cells: amplitude of the grid's sixteen cells across or down, in the error's mean over
rows or columns, in levels of 255. seams: how much larger the error's steps are at the borders of tiles of 512
than elsewhere, in levels. colour: the largest mean error of a channel, in levels. detail: PSNR without what a
Gaussian of 4 pixels keeps. s: seconds; compare within a size only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, uniform_filter

from maximir import Restorer
from maximir.degradations import DEGRADATIONS
from maximir.metrics import ssim
from maximir.restoring import views, windows

SPOILED = {
    "denoise": "gaussian",
    "deblur": "motion-blur",
    "derain": "rain",
    "dehaze": "haze",
    "enhance": "low-light",
}
TILE = 512
Way = Callable[..., np.ndarray]  # [H, W, 3] in [0, 1] → the same


def ways(restorer: Restorer, image: np.ndarray) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield each candidate's name, result and seconds; `restorer` takes images whole."""

    def timed(way: Way, *arguments: np.ndarray) -> tuple[np.ndarray, float]:
        clock = time.perf_counter()
        return way(*arguments), time.perf_counter() - clock

    if restorer.task not in views.GLOBAL_TASKS:
        yield "whole, exact", *timed(restorer, image)
        yield "windows", *timed(lambda image: in_windows(image, restorer), image)
        yield "tiles that overlap", *timed(lambda image: overlapping(image, restorer), image)
        return

    view = views.shrink(image, *views.small_size(*image.shape[:2]))
    light, seconds = timed(restorer, view)

    def corrected(result: np.ndarray) -> np.ndarray:
        difference = views.smooth(light - views.shrink(result, *light.shape[:2]))
        return views.correct(result, difference, result.dtype)

    yield "colours of a view", affine(image, view, light), seconds
    whole, whole_seconds = timed(restorer, image)
    yield "whole, exact", whole, whole_seconds
    yield "whole + light of a view", corrected(whole), whole_seconds + seconds
    yield "tiles", *timed(lambda image: tiles(image, restorer), image)
    faded, faded_seconds = timed(lambda image: overlapping(image, restorer), image)
    yield "tiles that overlap", faded, faded_seconds
    yield "tiles that overlap + light of a view", corrected(faded), faded_seconds + seconds


def tiles(image: np.ndarray, restorer: Restorer) -> np.ndarray:
    """Restore in tiles, as hosts do."""
    result = np.empty_like(image)
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            part = np.s_[top : top + TILE, left : left + TILE]
            result[part] = restorer(np.ascontiguousarray(image[part]))
    return result


def overlapping(image: np.ndarray, restorer: Restorer) -> np.ndarray:
    return np.concatenate([band for _, band in views.tiled(image, restorer, lambda done: None)])


def in_windows(image: np.ndarray, restorer: Restorer) -> np.ndarray:
    return windows.restore_in_windows([image], lambda parts, _: [restorer(parts[0])], lambda done: None)[0]


def affine(image: np.ndarray, view: np.ndarray, result: np.ndarray, radius: int = 8) -> np.ndarray:
    """Fit result ≈ a · view + b in windows of the view (He's guided filter); enlarge a and b: no tiles."""
    mean_x, mean_y = (uniform_filter(x, (2 * radius + 1,) * 2 + (0,)) for x in (view, result))
    covariance = uniform_filter(view * result, (2 * radius + 1,) * 2 + (0,)) - mean_x * mean_y
    variance = uniform_filter(view * view, (2 * radius + 1,) * 2 + (0,)) - mean_x * mean_x
    a = covariance / (variance + 1e-4)
    b = mean_y - a * mean_x
    size = image.shape[:2]
    a, b = (
        F.interpolate(torch.from_numpy(x).permute(2, 0, 1)[None], size=size, mode="bilinear")[0].permute(
            1, 2, 0
        )
        for x in (a, b)
    )
    return (a * torch.from_numpy(image) + b).numpy()


# Measures of error = result - truth, which does not depend on the photograph's content.


def cells(error: np.ndarray) -> float:
    """Return the amplitude at the period of the sixteen cells, or at half of it; the larger axis."""
    worst = 0.0
    for axis in (0, 1):
        profile = error.mean(axis=(axis, 2))
        profile = profile - gaussian_filter(profile, len(profile) / 16, mode="nearest")
        spectrum = np.abs(np.fft.rfft(profile * np.hanning(len(profile)))) * 4 / len(profile)
        around = np.median(spectrum[10:60])
        worst = max(worst, spectrum[16] - around, spectrum[32] - around)
    return float(worst * 255)


def seams(error: np.ndarray) -> float:
    steps = []
    for axis in (0, 1):
        step = np.abs(np.diff(error, axis=axis)).mean(axis=(1 - axis, 2))
        at = np.arange(TILE - 1, len(step), TILE)
        if len(at):
            steps.append(step[at].mean() - np.median(step))
    return float(np.mean(steps) * 255) if steps else 0.0


def psnr(error: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(error).mean()))


def measures(result: np.ndarray, truth: np.ndarray) -> list[float]:
    error = result.clip(0, 1) - truth
    fine = error - gaussian_filter(error, (4, 4, 0))
    return [
        psnr(error), ssim(result.clip(0, 1) * 255, truth * 255), cells(error), seams(error),
        float(np.abs(error.mean(axis=(0, 1))).max() * 255), psnr(fine),
    ]  # fmt: skip


def sheet(pictures: dict[str, np.ndarray], path: Path, side: int = 640) -> None:
    """Draw pictures side by side, two per row, with their names."""
    images = []
    for name, picture in pictures.items():
        image = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        ImageDraw.Draw(image).text((9, 9), name, "black", stroke_width=0, font_size=22)
        ImageDraw.Draw(image).text((8, 8), name, "white", font_size=22)
        images.append(image)
    width, height = images[0].size
    rows = -(-len(images) // 2)
    page = Image.new("RGB", (2 * width + 4, rows * (height + 4) - 4), "white")
    for number, image in enumerate(images):
        page.paste(image, (number % 2 * (width + 4), number // 2 * (height + 4)))
    page.save(path, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--task", choices=SPOILED, required=True)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    print("| model | size | way | PSNR | SSIM | cells | seams | colour | detail | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in args.models or [f"{args.task}-box"]:
        restorer = Restorer(model, precision="fp32", view="exact")
        for size in args.sizes:
            found: dict[str, list[list[float]]] = {}
            for number, path in enumerate(args.photographs):
                photograph = Image.open(path).convert("RGB")
                scale = size / max(photograph.size)
                photograph = photograph.resize(
                    (round(photograph.width * scale), round(photograph.height * scale)),
                    Image.Resampling.LANCZOS,
                )
                truth = np.asarray(photograph, np.float32) / 255
                rng = np.random.default_rng(number)
                spoiled = DEGRADATIONS[SPOILED[args.task]](truth, rng).astype(np.float32)
                pictures = {f"{args.task}, {size} pixels: input": spoiled}
                found.setdefault("input", []).append([*measures(spoiled, truth), 0])
                for name, result, seconds in ways(restorer, spoiled):
                    found.setdefault(name, []).append([*measures(result, truth), seconds])
                    pictures[name] = result
                if args.pictures:
                    pictures.pop("tiles that overlap")
                    sheet(pictures, args.pictures / f"large-{model}-{path.stem}-{size}.jpg")
            for name, rows in found.items():
                mean = np.mean(rows, axis=0)
                figures = " | ".join(
                    f"{value:.{digits}f}" for value, digits in zip(mean, (2, 4, 2, 2, 1, 2, 1), strict=True)
                )
                print(f"| {model} | {size} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
