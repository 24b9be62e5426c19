"""How well a model restores degraded images of known original, set by set, as a Markdown table.

    python benchmarks/restoration.py denoise DATA
    python benchmarks/restoration.py denoise DATA --only 'McMaster, Gaussian*' --sigmas 25 --precision bf16
    python benchmarks/restoration.py derain DATA --weights runs/derain/model.safetensors --save look

DATA holds `validation/mcmaster`, `validation/set14` (clean photographs), `pairs/real-noise`, `pairs/rain`,
`pairs/haze-indoor`, `pairs/low-light` and `blur-kernels`, as the task needs them. Of the pairs, only scenes
that the recipe holds out are looked at. "Synthetic" is damage of `maximir.degradations`, seeded as in
validation while training. A set that is not there or is empty is named on stderr and left out.
Needs scikit-image (pip install '.[dev]').

Conventions: means over images. PSNR over RGB (dB). SSIM of Wang et al. 2004 (Gaussian window, sigma 1.5, no
sample covariance), mean over R, G and B. The input is measured as it goes in: Gaussian noise is float and
not clipped, as in the field's tables, or, "as a file", clipped and rounded to 8 bits; the noise of image k
(by name) is seeded with (sigma, k). The restored image is rounded to 8 bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from skimage.metrics import structural_similarity

from maximir import MaximirError, Restorer
from maximir.catalogue import TASKS
from maximir.data import find_pairs, find_scenes, load_rgb, split
from maximir.degradations import degrade_photograph
from maximir.degradations.blur import convolve
from maximir.degradations.files import quantise
from maximir.degradations.noise import gaussian_noise
from maximir.metrics import psnr
from maximir.pixels import UINT8, from_unit, to_unit
from maximir.recipe import Recipe, load_recipe
from maximir.validation import SEED

Pair = tuple[np.ndarray, np.ndarray]  # degraded float32 and clean uint8, [H, W, 3] each
BLUR_NOISE = 2.55  # sigma on the scale of 0-255: 1 %
STRIPS = 3  # saved of each set
CONVENTION = (
    "RGB PSNR (dB) / SSIM (Gaussian window, sigma 1.5, mean over channels), means over images; "
    "the restored image is rounded to 8 bits."
)


@dataclass(frozen=True)
class Set:
    """Degraded images of one kind. Those that are `part_of` something count in a row of that name, too."""

    name: str
    pairs: Iterator[Pair]
    part_of: str = ""


def photographs(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Clean ones, uint8, numbered by name."""
    return ((number, scene.target.load()) for number, scene in enumerate(find_scenes([folder])))


def gaussian(folder: Path, sigma: float, *, as_file: bool = False) -> Iterator[Pair]:
    for number, clean in photographs(folder):
        noisy = gaussian_noise(to_unit(clean), sigma, np.random.default_rng([int(sigma), number]))
        yield (quantise(noisy) if as_file else noisy), clean


def load_kernel(path: Path) -> np.ndarray:
    """A grey picture of a kernel as float32 [h, w] of sum 1."""
    kernel = load_rgb(path)[..., 0].astype(np.float32)
    return kernel / kernel.sum()


def blurred(folder: Path, kernel_file: Path, seed: int) -> Iterator[Pair]:
    """Whole photographs, mirrored at their borders and convolved; 1 % of noise; 8 bits.

    The kernel is taken as it is: if its centre of mass is off its centre, the picture moves, too, which no
    blind model can know. Levin's third and fourth are 1.2 and 2.7 pixels off.
    """
    kernel = load_kernel(kernel_file)
    y, x = (side // 2 for side in kernel.shape)
    for number, clean in photographs(folder):
        h, w = clean.shape[:2]
        padded = np.pad(to_unit(clean), [(y, y), (x, x), (0, 0)], mode="reflect")
        blurry = convolve(padded, kernel)[y : y + h, x : x + w]
        yield quantise(gaussian_noise(blurry, BLUR_NOISE, np.random.default_rng([seed, number]))), clean


def synthetic(folder: Path, degradation: str) -> Iterator[Pair]:
    for number, clean in photographs(folder):
        yield degrade_photograph(clean, degradation, [SEED, number]), clean


def held_out(folder: Path, recipe: Recipe, inputs: str = "*") -> Iterator[Pair]:
    """Pairs of scenes that the recipe never trains on; of their inputs, those with names like `inputs`."""
    for scene in split(find_pairs([folder]), recipe.hold_out)[1]:
        for image in scene.inputs:
            if fnmatch(Path(str(image)).stem, inputs):
                yield to_unit(image.load()), scene.target.load()


def sets_of(task: str, data: Path, recipe: Recipe, sigmas: Sequence[float] = (15, 25, 50)) -> list[Set]:
    """What a task is measured on. Nothing is read before a set's pairs are."""
    pairs, mcmaster = data / "pairs", data / "validation" / "mcmaster"
    both = {"McMaster": mcmaster, "Set14": data / "validation" / "set14"}
    match task:
        case "denoise":
            return [
                *(
                    Set(f"{name}, Gaussian {sigma:g}{words}", gaussian(folder, sigma, as_file=bool(words)))
                    for name, folder in both.items()
                    for sigma in sigmas
                    for words in ("", " as a file")
                ),
                *(
                    Set(f"{name}, camera noise, synthetic", synthetic(folder, "camera-noise"))
                    for name, folder in both.items()
                ),
                Set("PolyU, held out", held_out(pairs / "real-noise", recipe)),
            ]
        case "deblur":
            kernels = sorted((data / "blur-kernels").glob("*.png"))
            whole = "McMaster, all kernels"
            return [
                *(
                    Set(f"McMaster, {path.stem}", blurred(mcmaster, path, seed), whole)
                    for seed, path in enumerate(kernels)
                ),
                Set("McMaster, motion blur, synthetic", synthetic(mcmaster, "motion-blur")),
            ]
        case "derain":
            return [
                Set("RainTrainL, held out", held_out(pairs / "rain", recipe)),
                *(
                    Set(f"{name}, rain, synthetic", synthetic(folder, "rain"))
                    for name, folder in both.items()
                ),
            ]
        case "dehaze":
            folder, whole = pairs / "haze-indoor", "SOTS indoor, held out"
            return [
                *(
                    Set(f"{whole}, {haze}", held_out(folder, recipe, f"*_{haze}_input"), whole)
                    for haze in ("light", "strong")
                ),
                Set("McMaster, haze, synthetic", synthetic(mcmaster, "haze")),
            ]
        case "enhance":
            return [
                Set("LOL, held out", held_out(pairs / "low-light", recipe, "lol_*")),
                Set("ELIEI, held out", held_out(pairs / "low-light", recipe, "eliei_*")),
                Set("McMaster, low light, synthetic", synthetic(mcmaster, "low-light")),
            ]
    raise ValueError(task)


def ssim(image: np.ndarray, clean: np.ndarray) -> float:
    """Of [H, W, 3] on the scale of 0-255; both sides at least 11."""
    return structural_similarity(
        image.astype(np.float64),
        clean.astype(np.float64),
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def score(degraded: np.ndarray, restored: np.ndarray, clean: np.ndarray) -> list[float]:
    """PSNR and SSIM before, PSNR and SSIM after; `degraded` in [0, 1], the others uint8."""
    return [measure(image, clean) for image in (degraded * 255.0, restored) for measure in (psnr, ssim)]


def evaluate(
    restore: Callable[[np.ndarray], np.ndarray], name: str, pairs: Sequence[Pair], save: Path | None = None
) -> list[list[float]]:
    """The scores of each image. Into the folder `save` go strips of the first: before, after, target."""
    scores = []
    console = Console(stderr=True)
    for number, (degraded, clean) in enumerate(track(pairs, name, console=console, transient=True)):
        restored = from_unit(restore(degraded), UINT8)
        scores.append(score(degraded, restored, clean))
        if save and number < STRIPS:
            strip = np.concatenate([from_unit(degraded, UINT8), restored, clean], axis=1)
            slug = "-".join(name.replace(",", "").lower().split())
            save.mkdir(parents=True, exist_ok=True)
            Image.fromarray(strip).save(save / f"{slug}-{number + 1}.png")
    return scores


def cells(scores: Sequence[Sequence[float]]) -> list[str]:
    """How many, before and after, as text."""
    psnr0, ssim0, psnr1, ssim1 = np.mean(scores, axis=0)
    return [str(len(scores)), f"{psnr0:.2f} / {ssim0:.4f}", f"{psnr1:.2f} / {ssim1:.4f}"]


def markdown(rows: dict[str, list[list[float]]]) -> str:
    head = ["set", "images", "input PSNR / SSIM", "restored PSNR / SSIM"]
    lines = [head, ["---"] * len(head), *([name, *cells(scores)] for name, scores in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="a file or a model's name; default: the task's model")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--hold-out", metavar="RECIPE", help="whose held-out scenes; default: TASK-small")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[15, 25, 50], help="of Gaussian noise")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="sets with names like this")
    parser.add_argument("--images", type=int, metavar="N", help="the first N of each set")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help=f"{STRIPS} strips of each set, to look at"
    )
    args = parser.parse_args()

    try:
        recipe = load_recipe(args.hold_out or f"{args.task}-small")
        restorer = Restorer(args.weights or args.task, precision=args.precision)
    except MaximirError as error:
        parser.error(str(error))
    rows: dict[str, list[list[float]]] = {}
    for each in sets_of(args.task, args.data, recipe, args.sigmas):
        if not fnmatch(each.name, args.only):
            continue
        try:
            pairs = list(islice(each.pairs, args.images))
        except MaximirError as error:
            print(f"{each.name}: left out ({error})", file=sys.stderr)
            continue
        if not pairs:
            print(f"{each.name}: left out (no images)", file=sys.stderr)
            continue
        scores = evaluate(restorer, each.name, pairs, args.save)
        print(f"{each.name}: {', '.join(cells(scores))}", file=sys.stderr)
        for name in filter(None, (each.part_of, each.name)):
            rows.setdefault(name, []).extend(scores)
    print(f"{CONVENTION}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
