"""Score by a stated protocol: restore degraded images with known originals, or take restored ones.

With a folder for the results (`scores.Book`), the same command continues where it was stopped. A score is
reused only if pixels and settings are the same.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maximir import __version__, images
from maximir.batch import pipeline
from maximir.batch.pipeline import Work
from maximir.errors import MaximirError, UsageError
from maximir.evaluation.colour import check_colour_metrics, colour_error
from maximir.evaluation.datasets import Case, find_cases, match_restored
from maximir.evaluation.layouts import CLEAN
from maximir.evaluation.pictures import strip
from maximir.evaluation.protocols import PIXELS, PROTOCOLS, Protocol
from maximir.evaluation.scores import PICTURES, RESTORED, Book, Score
from maximir.evaluation.testsets import Degrade, degradation
from maximir.files import file_digest, reason, write_atomically
from maximir.images import Photo
from maximir.models import choice
from maximir.pixels import UINT8, from_unit, in_8_bits, to_unit
from maximir.restoring.options import Options, Progress, silent

if TYPE_CHECKING:
    from maximir.restoring.restorer import Restorer

WHOLE = Options(view="exact")  # as the published figures were measured


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case: a score, or the reason why there is none."""

    case: Case
    score: Score | None
    error: str | None = None
    known: bool = False  # from an earlier run


@dataclass(frozen=True)
class Request:
    """The options of `maximir evaluate`.

    Attributes:
        data: folder of pairs, or of clean images to `degrade`.
        weights: a model's name or file; None: score the images in `restored`.
        protocol: a name in `protocols.PROTOCOLS`; None: the one suggested by the data's layout.
        pixels: overrides the protocol's.
        layout: a name in `datasets.LAYOUTS`; None: detect it.
        degrade: as for `testsets.degradation`.
        only: shell patterns of names; (): all.
        images: use only the first so many.
        options: of the restorer.
        colour: also measure errors of colour (`maximir.evaluation.colour`).
    """

    data: Path
    weights: str | None = None
    restored: Path | None = None
    protocol: str | None = None
    pixels: str | None = None
    layout: str | None = None
    degrade: str | None = None
    only: tuple[str, ...] = ()
    images: int | None = None
    options: Options = WHOLE
    colour: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A prepared evaluation and its results so far.

    Attributes:
        settings: JSON-able facts that determine the scores.
        facts: other facts for readers: names, versions, command.
        scores: so far.
        left_out: images without a score, and the reason.
        beside: files that belong to no image of the data, and the reason.
    """

    cases: tuple[Case, ...]
    protocol: Protocol
    restorer: Restorer | None
    degrade: Degrade | None
    restored: dict[str, Path] | None
    settings: dict[str, Any]
    facts: dict[str, Any]
    scores: list[Score] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    beside: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of all images that should have a score."""
        return len(self.scores) + len(self.left_out)


def prepare(request: Request, command: str = "") -> Evaluation:
    """Check everything before the work starts: data, protocol, model.

    Raises:
        UsageError, MaximirError: a check failed.
    """
    degrade = None if request.degrade is None else degradation(request.degrade)
    found = find_cases(request.data, request.layout, request.only)
    if found.layout is CLEAN and degrade is None and request.restored is None:
        raise UsageError(
            f"{request.data}: holds clean images without degraded ones; choose how to --degrade them"
        )
    if degrade is not None:  # use only the originals of pairs
        originals = {str(case.target): replace(case, input=None, crop=False) for case in found.cases}
        found = replace(found, cases=tuple(originals.values()))
    name = request.protocol or (found.layout.protocol if degrade is None else "rounded")
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}: choose from {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if request.pixels is not None:
        if request.pixels not in PIXELS:
            raise UsageError(f"unknown pixels {request.pixels!r}: choose from {', '.join(PIXELS)}")
        protocol = replace(protocol, pixels=cast("Any", request.pixels))
    cases, restored, restorer = found.cases[: request.images], None, None
    left_out, beside = list(found.left_out), list(found.beside)
    if request.restored is not None:
        whole = find_cases(request.data, request.layout) if request.only else found
        restored, missing, strays = match_restored(whole, request.restored)
        wanted = {case.name for case in cases}
        left_out += [(what, why) for what, why in missing if what in wanted]
        beside += strays
        cases = tuple(case for case in cases if case.name in restored)
    sha256 = None
    if request.weights is not None:
        path = choice.resolve(request.weights)

        from maximir.restoring.restorer import Restorer

        restorer = Restorer.with_options(path, request.options)
        sha256 = file_digest(path)
    settings = {
        "protocol": protocol.name,
        "convention": protocol.convention,
        "sha256": sha256,
        "degrade": request.degrade,
        "stages": request.options.stages,
        "view": request.options.view,
        "ensemble": restorer is not None and request.options.ensemble,
        "precision": None if restorer is None else restorer.precision_for(np.float32),
    }
    if request.colour:
        check_colour_metrics()
        settings["colour"] = True
    facts = {
        "title": f"{request.weights or request.restored} on {request.data.resolve().name}",
        "source": protocol.source,
        "weights": request.weights or f"none: images in {request.restored}",
        "data": str(request.data),
        "layout": found.layout.name,
        "ignored": found.ignored,
        "notes": list(found.notes),
        "device": None if restorer is None else str(restorer.device),
        "versions": versions(),
        "date": date.today().isoformat(),
        "command": command,
    }
    return Evaluation(
        cases, protocol, restorer, degrade, restored, settings, facts, left_out=left_out, beside=beside
    )


@dataclass(eq=False)
class Trial(Work[Case]):
    """A case on its way through the pipeline."""

    degraded: np.ndarray | None = None  # [H, W, 3]
    target: np.ndarray | None = None
    digest: str = ""
    score: Score | None = None  # known from an earlier run

    @property
    def bytes(self) -> int:
        arrays = (self.degraded, self.target)
        return super().bytes + sum(array.nbytes for array in arrays if array is not None)


def run(
    evaluation: Evaluation,
    book: Book | None = None,
    *,
    save: bool = False,
    started: Callable[[Case], None] = lambda case: None,
    progress: Progress = silent,
) -> Generator[Outcome, None, None]:
    """Score the cases in order; yield each outcome as soon as it and those before it are done.

    Outcomes are also added to `evaluation`.

    Args:
        book: stores scores and a picture of each image (with `save`, also the restored images as PNGs).
        started: called with each case when its computation starts.
        progress: called with the part that is computed of the case that began last.

    Raises:
        Exception: any error that is not limited to one image.
    """
    known = {} if book is None else book.known
    if book is not None and save:  # an earlier run may not have saved the images
        known = {
            name: each for name, each in known.items() if (book.out / RESTORED / f"{name}.png").is_file()
        }
    read = functools.partial(
        read_case,
        protocol=evaluation.protocol,
        degrade=evaluation.degrade,
        restored=evaluation.restored,
        known=known,
    )
    finish = functools.partial(
        score,
        protocol=evaluation.protocol,
        colour=evaluation.settings.get("colour", False),
        out=None if book is None else book.out,
        save=save,
    )
    reserve = pipeline.reserve(evaluation.cases)
    outcomes = pipeline.run(
        evaluation.cases,
        read,
        functools.partial(restore_floats, evaluation.restorer, progress=progress, reserve=reserve),
        finish,
        finishers=max(1, min(4, os.cpu_count() or 1)),
        started=started,
    )
    with closing(outcomes):
        for outcome in outcomes:
            if outcome.score is None:
                evaluation.left_out.append((outcome.case.name, outcome.error or ""))
            else:
                evaluation.scores.append(outcome.score)
                if book is not None and book.known.get(outcome.score.name) != outcome.score:
                    book.add(outcome.score)
            yield outcome


def restore_floats(restorer: Restorer | None, photo: Photo, *, progress: Progress, reserve: int) -> Photo:
    """Restore as the official script does: the result stays float, unclipped, and in colour.

    Without a restorer, return the photo unchanged: it is restored already.
    """
    if restorer is None:
        return photo
    (rgb,) = restorer.restore_arrays([photo.rgb], progress=progress, reserve=reserve)
    return replace(photo, rgb=rgb)


def read_case(
    case: Case,
    *,
    protocol: Protocol,
    degrade: Degrade | None,
    restored: dict[str, Path] | None,
    known: dict[str, Score],
) -> Trial:
    """Decode or create the images of a case.

    Raises:
        MaximirError: a file cannot be read, or the images do not match.
    """
    target = load(case.target)
    protocol.check_depth(target)
    if degrade is not None:
        if target.dtype != UINT8:
            raise MaximirError(f"{case.target}: has 16 bits; only 8-bit images can be degraded")
        degraded = degrade(target, case.name)
    elif case.input is not None:
        degraded = load(case.input)
        if case.crop:
            target = middle(target, degraded.shape)
        check_alike(degraded, case.input, target, case.target)
    else:
        degraded = None
    if restored is not None:
        path = restored[case.name]
        try:
            photo = images.read(path)
        except MaximirError as error:
            raise MaximirError(f"{path}: {error}") from error
        check_alike(photo.rgb, path, target, case.target)
    else:
        assert degraded is not None  # see `prepare`
        photo = Photo(to_unit(degraded))
    digest = digest_of(target, degraded, photo.rgb if restored is not None else None)
    if (before := known.get(case.name)) is not None and before.digest == digest:
        # Its path, and the other sets beside it, may have changed.
        return Trial(case, score=replace(before, set=case.set, target=str(case.target)))
    return Trial(case, photo, degraded=degraded, target=target, digest=digest)


def load(source: Any) -> np.ndarray:
    try:
        pixels: np.ndarray = source.load()
    except MaximirError as error:
        raise MaximirError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
    return pixels


def middle(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Crop a larger image to its centre; return any other unchanged."""
    (h, w), (height, width) = image.shape[:2], shape[:2]
    if h < height or w < width:
        return image
    top, left = (h - height) // 2, (w - width) // 2
    return image[top : top + height, left : left + width]


def check_alike(image: np.ndarray, source: object, target: np.ndarray, target_source: object) -> None:
    """Raise MaximirError if the two images cannot be compared."""
    if image.shape != target.shape:
        (h, w), (height, width) = image.shape[:2], target.shape[:2]
        raise MaximirError(
            f"{source}: is {w} x {h} pixels, but its target {target_source} is {width} x {height}"
        )
    if image.dtype != target.dtype:
        bits, wanted = (8 * array.dtype.itemsize for array in (image, target))
        raise MaximirError(f"{source}: has {bits} bits, but its target {target_source} has {wanted}")


def digest_of(*arrays: np.ndarray | None) -> str:
    """Return a digest of shapes, types and pixels."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(b"-" if array is None else f"{array.shape} {array.dtype}".encode())
        if array is not None:
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:32]


def score(
    work: Work[Case], *, protocol: Protocol, out: Path | None, save: bool, colour: bool = False
) -> Outcome:
    """Measure the restored image and store pictures of it."""
    assert isinstance(work, Trial) or work.error is not None
    if work.error is not None or not isinstance(work, Trial):
        return Outcome(work.job, None, work.error)
    if work.score is not None:
        return Outcome(work.job, work.score, known=True)
    case, photo, degraded, target = work.job, work.photo, work.degraded, work.target
    assert photo is not None and target is not None
    try:
        psnr, ssim = protocol.measure(photo.rgb, target)
        before: tuple[float | None, float | None] = (None, None)
        if degraded is not None:
            before = protocol.measure(degraded, target)
        colours = measure_colours(photo.rgb, degraded, target) if colour else {}
    except MaximirError as error:
        work.photo = work.degraded = work.target = None
        return Outcome(case, None, str(error))
    if out is not None:  # a write error stops the run: the next write would fail as well
        keep(out, case.name, degraded, photo.rgb, target, protocol, save=save)
    work.photo = work.degraded = work.target = None
    height, width = target.shape[:2]
    seconds = round(work.seconds, 3)
    return Outcome(
        case,
        Score(
            case.name,
            case.set,
            psnr,
            ssim,
            *before,
            width,
            height,
            seconds,
            work.digest,
            str(case.target),
            **colours,
        ),
    )


def measure_colours(
    restored: np.ndarray, degraded: np.ndarray | None, target: np.ndarray
) -> dict[str, float | None]:
    """Return the errors of colour as fields of a `Score`."""
    colours: dict[str, float | None] = dict(colour_error(restored, target)._asdict())
    if degraded is not None:
        before = colour_error(degraded, target)._asdict()
        colours |= {f"input_{name}": value for name, value in before.items()}
    return colours


def keep(
    out: Path,
    name: str,
    degraded: np.ndarray | None,
    restored: np.ndarray,
    target: np.ndarray,
    protocol: Protocol,
    *,
    save: bool,
) -> None:
    """Store a picture for the report and, with `save`, the restored image in the protocol's 8 bits.

    Raises:
        MaximirError: the files cannot be written.
    """
    try:
        pixels = as_file(restored, protocol, target.dtype)
        picture = out / PICTURES / f"{name}.webp"
        picture.parent.mkdir(parents=True, exist_ok=True)
        before = None if degraded is None else in_8_bits(degraded)
        write_atomically(picture, strip(before, in_8_bits(pixels), in_8_bits(target)))
        if save:
            path = out / RESTORED / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(Photo(pixels), path)
    except (OSError, MaximirError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise MaximirError(f"{out}: cannot be written to ({why})") from error


def as_file(restored: np.ndarray, protocol: Protocol, dtype: np.dtype) -> np.ndarray:
    """Return the restored pixels as integers: in the protocol's rounding, or rounded if it uses floats."""
    if restored.dtype.kind == "u":
        return restored
    if protocol.pixels == "truncated":
        return (np.clip(restored, 0, 1) * 255).astype(np.uint8)
    return from_unit(restored, dtype)


def versions() -> dict[str, str]:
    return {
        "maximir": __version__,
        "torch": metadata.version("torch"),  # without importing it, which takes seconds
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
