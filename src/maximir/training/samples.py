"""Training samples: crops of photographs, degraded on the fly or in pairs, augmented.

All random numbers of sample i come from a generator seeded with (seed, i). The samples therefore do not
depend on the number of loader processes or training processes, and a resumed run gets the same samples as
an uninterrupted one, without any state to store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from maximir.degradations import DEGRADATIONS
from maximir.errors import MaximirError
from maximir.pixels import to_unit
from maximir.storage import Unreachable
from maximir.training import teacher
from maximir.training.data import ImageFile, Scene, fit_depth
from maximir.training.recipe import AS_IS, EVEN, PAIRS, Recipe

CLEAN, DEPTH = "clean", "depth"  # with PAIRS, the kinds of sources that samples are drawn from
MIXUP_BETA = 1.2
DECODED_AT_ONCE = 16  # images kept decoded from a set that is too large for memory
TRIES = 20  # images to try in a row before giving up


class Sample(NamedTuple):
    """One training sample, or a batch of them.

    Attributes:
        degraded, clean: float32 `[3, patch, patch]`, the clean one in [0, 1]; `[N, …]` in a batch.
        origins: the images they were made from, for messages.
        skipped: images that could not be read, one message each.
        lessons: the kind of target of each, int64 `[N]`; see `maximir.training.teacher`.
    """

    degraded: Tensor
    clean: Tensor
    origins: list[str]
    skipped: list[str]
    lessons: Tensor


@dataclass(frozen=True)
class View:
    """Images of one scene with the same size, and the scale at which they are used.

    Attributes:
        files: the clean image, or the clean and the degraded one.
        depth: the scene's depth map.
        height, width: in pixels, after scaling.
    """

    files: tuple[ImageFile, ...]
    depth: ImageFile | None
    height: int
    width: int
    scale: float = 1.0

    def load(self) -> list[np.ndarray]:
        """Load the clean and degraded images (uint8 or uint16 [H, W, 3]) and the depth (float32 [H, W])."""
        images = [file.load() for file in self.files]
        for file, image in zip(self.files, images, strict=True):
            if self.scale == 1 and image.shape[:2] != (self.height, self.width):
                raise MaximirError(f"{file}: its pixels do not have the size in its header")
        if self.scale != 1:
            size = (self.width, self.height)
            images = [shrink(image, size) for image in images]
        if self.depth is not None:
            images.append(fit_depth(self.depth.load_depth(), self.height, self.width))
        return images


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 or uint16 [H, W, 3] to (width, height)."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    channels = [
        np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize(size, Image.Resampling.LANCZOS))
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1).round().clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def views(
    scenes: Sequence[Scene],
    scales: Sequence[float],
    smallest: int,
    report: Callable[[str], None],
    kind: str,
) -> list[View]:
    """Return the views of scenes at each of `scales`: shrinking makes detail sharper and cleaner.

    Views with a side below `smallest` pixels are left out. Unreadable files are reported and left out.

    Args:
        kind: "clean" for photographs alone, "depth" for photographs with a depth map, or "pairs".

    Raises:
        MaximirError: no view is left.
    """
    found = []
    too_small = 0
    for scene in scenes:
        try:
            height, width = scene.target.size()
        except Unreachable:
            raise
        except MaximirError as error:
            report(f"skipped {error}")
            continue
        for scale in scales:
            h, w = round(height * scale), round(width * scale)
            if min(h, w) < smallest:
                too_small += scale == 1
                continue
            groups = [(scene.target, image) for image in scene.inputs] if kind == PAIRS else [(scene.target,)]
            depth = scene.depth if kind == DEPTH else None
            found += [View(files, depth, h, w, scale) for files in groups]
    if too_small:
        report(f"left out {too_small} images ({kind}): smaller than {smallest} x {smallest} pixels")
    if not found:
        raise MaximirError(
            f"none of the {len(scenes)} training images (the first is {scenes[0].target}) is readable "
            f"with both sides at least {smallest} pixels, the recipe's largest crop"
        )
    return found


@lru_cache(DECODED_AT_ONCE)
def load_again(view: View) -> list[np.ndarray]:
    return view.load()


class Views:
    """Views to draw from, each in proportion to its area; decoded once where memory allows.

    Args:
        in_memory: bytes that decoded images may take; other images are decoded at each use.

    Attributes:
        bytes: size of the decoded images in memory.
    """

    def __init__(self, views: Sequence[View], in_memory: int, report: Callable[[str], None]) -> None:
        damaged = 0  # still drawn, so that samples do not depend on how much fits into memory
        self.bytes = 0
        self.decoded: list[list[np.ndarray] | None] = []
        for view in views:
            size = view.height * view.width * (3 * len(view.files) + 4 * (view.depth is not None))
            images = None
            if self.bytes + size <= in_memory:
                try:
                    images = view.load()
                    self.bytes += sum(image.nbytes for image in images)  # 16-bit images take twice as much
                except Unreachable:  # not the image's fault: replacing it would change the run
                    raise
                except MaximirError as error:
                    damaged += 1
                    report(f"skipped {error}")
            self.decoded.append(images)
        if damaged == len(views):
            raise MaximirError("no training image can be read")
        self.views = views
        areas = np.array([view.height * view.width for view in views], dtype=np.float64)
        self.cumulative = np.cumsum(areas / areas.sum())

    def __len__(self) -> int:
        return len(self.views)

    def count(self) -> int:
        """Return the number of images: one at several scales counts once."""
        return len({view.files for view in self.views})

    def digest(self) -> str:
        """Hash the names, sizes and order of the images: samples depend on these besides seed and number."""
        text = "\n".join(f"{[f.name for f in view.files]} {view.height} {view.width}" for view in self.views)
        return hashlib.sha256(text.encode()).hexdigest()

    def draw(self, rng: np.random.Generator, skipped: list[str]) -> tuple[View, list[np.ndarray]]:
        """Draw a view and load its images; if they are damaged, add a message to `skipped` and draw again."""
        for _ in range(TRIES):
            index = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.views) - 1)
            try:
                return self.views[index], self.decoded[index] or load_again(self.views[index])
            except Unreachable:
                raise
            except MaximirError as error:
                skipped.append(str(error))
        raise MaximirError(f"{TRIES} training images in a row cannot be read; the last: {skipped[-1]}")


def kind_of(name: str) -> str:
    """Return the kind of source for samples called `name` in a mixture."""
    if name in (PAIRS, EVEN):
        return name
    return DEPTH if name != AS_IS and DEGRADATIONS[name].needs_depth else CLEAN


def even_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Make a field of one colour, a linear or a curved gradient: float32 `[size, size, 3]`."""
    colour = rng.uniform(0, 1) + rng.normal(0, 0.04, 3) * (rng.random() < 0.5)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    kind, slope, angle = rng.random(), rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
    plane = np.zeros((size, size))
    if kind > 0.4:
        plane = slope * (np.cos(angle) * x + np.sin(angle) * y)
    if kind > 0.8:
        plane = plane - rng.uniform(0, 0.3) * (x**2 + y**2)
    return np.clip(colour + plane[..., None], 0, 1).astype(np.float32)


def augment(image: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    """Rotate by quarter turns, then flip horizontally if asked to."""
    image = np.rot90(image, turns)
    return image[:, ::-1] if flip else image


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute the channels of [H, W, 3] in [0, 1] and scale its saturation by 0 to 2."""
    grey = image.mean(axis=-1, keepdims=True)
    saturation = np.float32(rng.uniform(0, 2))
    return np.clip(grey + saturation * (image[..., rng.permutation(3)] - grey), 0, 1)


def crop(image: np.ndarray, top: int, left: int, size: int, margin: int) -> np.ndarray:
    """Cut out a square of `size` with `margin` more pixels on each side, mirrored at the image's edges."""
    h, w = image.shape[:2]
    rows = slice(max(0, top - margin), min(h, top + size + margin))
    columns = slice(max(0, left - margin), min(w, left + size + margin))
    pads = [
        (max(0, margin - top), max(0, top + size + margin - h)),
        (max(0, margin - left), max(0, left + size + margin - w)),
    ]
    inside = image[rows, columns]
    if not np.any(pads):
        return inside
    return np.pad(inside, pads + [(0, 0)] * (image.ndim - 2), mode="reflect")


class Samples(Dataset[Sample]):
    """Map (number, patch) to a `Sample`.

    Args:
        mixture: names as in `Recipe.mixture`, and their shares.
        sources: the views to draw from, by kind; see `kind_of`.
        mixup: probability that a sample is blended with another one.
        rotate: augment by quarter turns as well as flips (rain and haze depend on which way is up).
        recolour: probability that a photograph gets other colours before it is degraded.
        taught: probability that a sample learns the teacher's result; None if there is no teacher.
    """

    def __init__(
        self,
        mixture: Mapping[str, float],
        sources: Mapping[str, Views],
        seed: int,
        *,
        mixup: float = 0.0,
        rotate: bool = True,
        recolour: float = 0.0,
        taught: float | None = None,
    ) -> None:
        self.names = sorted(mixture)  # equal recipes may differ in the order of names
        shares = np.array([mixture[name] for name in self.names], dtype=np.float64)
        self.cumulative = np.cumsum(shares / shares.sum())
        self.sources, self.seed, self.mixup, self.rotate = sources, seed, mixup, rotate
        self.recolour, self.taught = recolour, taught

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        number, patch = index
        rng = np.random.default_rng([self.seed, number])
        origins: list[str] = []
        skipped: list[str] = []
        degraded, clean, lesson = self.draw(rng, patch, origins, skipped)
        if self.mixup and rng.random() < self.mixup:
            share = np.float32(rng.beta(MIXUP_BETA, MIXUP_BETA))
            other_degraded, other_clean, other_lesson = self.draw(rng, patch, origins, skipped)
            degraded = share * degraded + (1 - share) * other_degraded
            clean = share * clean + (1 - share) * other_clean
            lesson = lesson if lesson == other_lesson else max(min(lesson, other_lesson), teacher.TAUGHT)
        return Sample(to_tensor(degraded), to_tensor(clean), origins, skipped, torch.tensor([lesson]))

    def draw(
        self, rng: np.random.Generator, patch: int, origins: list[str], skipped: list[str]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Draw degraded, clean (float32 [patch, patch, 3]) and lesson; extend `origins` and `skipped`."""
        chosen = int(np.searchsorted(self.cumulative, rng.random()))
        name = self.names[min(chosen, len(self.names) - 1)]
        lesson = teacher.CLEAN
        if self.taught is not None:
            always = {AS_IS: teacher.TAUGHT, EVEN: teacher.SMOOTHED}
            lesson = always.get(name, teacher.TAUGHT if rng.random() < self.taught else teacher.CLEAN)
        if name == EVEN:
            origins.append(f"({name})")
            field = even_field(rng, patch)
            return field, field, lesson
        view, images = self.sources[kind_of(name)].draw(rng, skipped)
        origins.append(f"{view.files[-1]} ({name})")
        margin = 0 if name in (PAIRS, AS_IS) else DEGRADATIONS[name].margin
        top = int(rng.integers(view.height - patch + 1))
        left = int(rng.integers(view.width - patch + 1))
        turns, flip = (int(rng.integers(4)) if self.rotate else 0), bool(rng.integers(2))
        parts = [augment(crop(image, top, left, patch, margin), turns, flip) for image in images]
        clean = to_unit(parts[0])
        if name in (PAIRS, AS_IS):  # no degradation to apply; AS_IS has only one image
            return to_unit(parts[-1]), clean, lesson
        if self.recolour and rng.random() < self.recolour:
            clean = recolour(clean, rng)
        depth = None if view.depth is None else parts[1]
        degraded = DEGRADATIONS[name](clean, rng, depth)
        inner = slice(margin, margin + patch)
        return degraded[inner, inner], clean[inner, inner], lesson


class PhasedSamples(Dataset[Sample]):
    """Map (number, patch, phase) to a `Sample`: each phase of a run has its own mixture."""

    def __init__(self, recipe: Recipe, sources: Mapping[str, Views]) -> None:
        self.phases = [
            Samples(
                mixture,
                sources,
                recipe.seed,
                mixup=recipe.mixup,
                rotate=recipe.rotate,
                recolour=recipe.recolour,
                taught=recipe.taught if recipe.teacher else None,
            )
            for mixture in recipe.mixtures
        ]

    def __getitem__(self, index: tuple[int, int, int]) -> Sample:
        number, patch, phase = index
        return self.phases[phase][number, patch]


def to_tensor(image: np.ndarray) -> Tensor:
    """Convert [H, W, 3] to [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def collate(samples: Sequence[Sample]) -> Sample:
    return Sample(
        torch.stack([sample.degraded for sample in samples]),
        torch.stack([sample.clean for sample in samples]),
        [origin for sample in samples for origin in sample.origins],
        [message for sample in samples for message in sample.skipped],
        torch.cat([sample.lessons for sample in samples]),
    )


class RunSampler(Sampler[list[tuple[int, int, int]]]):
    """Batches of (sample number, patch, phase) from step `start` on.

    Args:
        batch_of: returns a step's number of samples, patch and phase.
        rank, processes: each process gets every `processes`-th sample of the global batch, from `rank` on.
    """

    def __init__(
        self,
        start: int,
        steps: int,
        batch_of: Callable[[int], tuple[int, int, int]],
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.start, self.steps, self.batch_of = start, steps, batch_of
        self.rank, self.processes = rank, processes

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for step in range(self.start, self.steps):
            batch, patch, phase = self.batch_of(step)
            # Numbers are spaced by a fixed stride, so they never repeat when the batch size changes.
            yield [(step * 2**16 + k, patch, phase) for k in range(self.rank, batch, self.processes)]

    def __len__(self) -> int:
        return self.steps - self.start
