"""Contact sheets of degradations, and test sets made with them: `maximir degrade`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maximir.degradations import DEGRADATIONS, degrade_photograph
from maximir.errors import MaximirError
from maximir.files import reason, write_atomically
from maximir.pixels import UINT8, from_unit, in_8_bits
from maximir.training.data import Scene, fit_depth

GAP = 4  # pixels between pictures
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # suffixes and formats


def contact_sheet(
    scenes: Sequence[Scene], names: Sequence[str], count: int, side: int, seed: int
) -> np.ndarray:
    """Make a row for each photograph: its central square, clean and then degraded `count` times.

    Args:
        names: degradations, used in turn.
        side: of the squares, in pixels.

    Returns:
        uint8 [rows * side, (1 + count) * side, 3], plus gaps.
    """
    rows = []
    for number, scene in enumerate(scenes):
        whole = scene.target.load()
        clean, depth = middle(whole, side), None
        if scene.depth is not None:
            depth = middle(fit_depth(scene.depth.load_depth(), *whole.shape[:2]), side)
        usable = [name for name in names if depth is not None or not DEGRADATIONS[name].needs_depth]
        pictures = [in_8_bits(clean)] + [
            from_unit(degrade_photograph(clean, usable[k % len(usable)], [seed, number, k], depth), UINT8)
            for k in range(count if usable else 0)
        ]
        canvas = np.full((side + GAP, (1 + count) * (side + GAP), 3), 255, np.uint8)
        for column, picture in enumerate(pictures):
            left = column * (side + GAP)
            canvas[: picture.shape[0], left : left + picture.shape[1]] = picture
        rows.append(canvas)
    return np.concatenate(rows)


def middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def write_pairs(
    scenes: Sequence[Scene], names: Sequence[str], folder: Path, seed: int
) -> tuple[int, list[str]]:
    """Write pairs as `input/NAME.png` and `target/NAME.png`.

    Returns:
        The number of pairs, and a message about each photograph that cannot be read.
    """
    files: dict[str, Scene] = {}
    for scene in scenes:
        if files.setdefault(scene.name.replace("/", "_"), scene) is not scene:
            raise MaximirError(f"{scene.target}: another photograph has the same name; rename one of them")
    written = 0
    problems: list[str] = []
    for number, (file, scene) in enumerate(files.items()):
        try:
            clean = scene.target.load()
            depth = None if scene.depth is None else fit_depth(scene.depth.load_depth(), *clean.shape[:2])
        except MaximirError as error:
            problems.append(str(error))
            continue
        for name in names:
            if DEGRADATIONS[name].needs_depth and depth is None:
                continue
            degraded = from_unit(degrade_photograph(clean, name, [seed, number], depth), UINT8)
            suffix = f"_{name}.png" if len(names) > 1 else ".png"
            for part, image in (("input", degraded), ("target", in_8_bits(clean))):
                save_picture(image, folder / part / f"{file}{suffix}")
            written += 1
    if not written and not problems:
        raise MaximirError(f"{', '.join(names)}: no photograph has the depth map that is needed")
    return written, problems


def save_picture(image: np.ndarray, path: Path) -> None:
    """Write uint8 [H, W, 3] atomically, in the format of the suffix; make the folder if needed.

    Raises:
        MaximirError: it cannot be written.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, PICTURES[path.suffix.lower()], quality=90)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())
    except OSError as error:
        raise MaximirError(f"{path}: cannot be written ({reason(error)})") from error
