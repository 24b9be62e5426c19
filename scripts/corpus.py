"""Put foreign files through `maximir restore` without the network, and report what is refused and why.

    python scripts/corpus.py libpng/contrib/pngsuite Pillow/Tests/images --list refused.txt

Each file goes through `batch.restore_files` with a restorer that returns the image unchanged, in a child
process with limits of time and memory. The result is read again, and must hold the same pixels if its format
is lossless. Prints a table of folders and one of reasons. Exits with 1 after a crash, a hang, an error of a
type other than MaximirError, or a result that differs from what was written. With --pillow the pixels are
also compared with Pillow's, which is partly a different decoder.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from maximir import images
from maximir.batch.journal import Journal
from maximir.batch.plan import Job, result_name
from maximir.batch.restore import restore_jobs
from maximir.files import printable
from maximir.images import Photo
from maximir.storage import Address, Folder

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.watched import Verdict, watch

LOSSLESS = (".png", ".webp", ".tif", ".tiff")


class Unchanged:
    """A restorer for `restore_jobs` that returns images unchanged."""

    def __init__(self) -> None:
        self.seen: list[Photo] = []

    def precision_for(self, dtype: np.dtype) -> str:
        return "none"

    def restore_photo(self, photo: Photo, **call: object) -> Photo:
        self.seen.append(photo)
        return photo


def attempt(path: Path, pillow: bool) -> str:
    """Return a file's outcome: "done …", "refused: …", or "wrong: …"."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / result_name(path.name)
        restorer = Unchanged()
        job = Job(Address(Folder(path.parent), path.name), Address(Folder(folder), target.name))
        [outcome] = restore_jobs([job], restorer, Journal("none"))
        if outcome.error is not None:
            assert not any(Path(folder).iterdir()), "something was left behind"
            return f"refused: {outcome.error.replace(folder, '')}"
        [photo], back = restorer.seen, images.read(target)
        same = target.suffix.lower() not in LOSSLESS or (
            np.array_equal(photo.rgb if target.suffix != ".webp" else eight(photo.rgb), back.rgb)
            and np.array_equal(alpha(photo), alpha(back))
        )
        if photo.rgb.shape != back.rgb.shape or not same:
            return (
                f"wrong: {photo.rgb.shape} {photo.rgb.dtype} came back as {back.rgb.shape} {back.rgb.dtype}"
            )
        notes = "".join(f"; {note}" for note in outcome.notes)
        return f"done{f' {difference(photo, path)}' if pillow else ''}{notes}"


def alpha(photo: Photo) -> np.ndarray:
    """Return alpha, opaque if there is none: WebP drops an alpha that hides nothing."""
    opaque = np.full(photo.rgb.shape[:2], 255, np.uint8)
    return opaque if photo.alpha is None else eight(photo.alpha)


def eight(pixels: np.ndarray) -> np.ndarray:
    wide = pixels.dtype == np.uint16
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8) if wide else pixels


def difference(photo: Photo, path: Path) -> str:
    """Return the largest and the mean difference from Pillow's pixels, 0 … 255."""
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            if turned.mode == "P":
                turned = turned.convert("RGBA")
            if turned.mode.startswith("I"):  # 16 bits, only for grey
                theirs = eight(np.repeat(np.asarray(turned).astype(np.uint16)[..., None], 3, 2)).astype(int)
            else:
                theirs = np.asarray(turned.convert("RGB")).astype(int)
    except Exception as error:
        return f"(Pillow: {type(error).__name__})"
    if theirs.shape != photo.rgb.shape:
        return f"(Pillow: {theirs.shape})"
    apart = np.abs(eight(photo.rgb) - theirs)
    if photo.alpha is not None:
        apart = apart[photo.alpha > 0]
    return f"({apart.max(initial=0)} {apart.mean() if apart.size else 0:.3f})"


def kind_of(outcome: str) -> str:
    """Return the outcome without the parts that differ from file to file."""
    outcome = re.sub(r" \(\S*( .*?)?\)(?=;|$)", "", outcome) if outcome.startswith("done") else outcome
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'…'", outcome))


def tell(place: Path, v: Verdict[Path]) -> None:
    with place.open("a") as file:
        print(v.case, f"{v.seconds:.2f} s", f"{v.peak >> 20} MiB", printable(v.outcome), sep="\t", file=file)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--list", type=Path, help="file to write every file's outcome to")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--memory", type=int, default=8, help="limit of address space in GiB")
    parser.add_argument("--pillow", action="store_true")
    args = parser.parse_args()

    if args.list:
        args.list.unlink(missing_ok=True)
    verdicts: list[Verdict[Path]] = []
    counts: dict[Path, Counter[str]] = defaultdict(Counter)
    for folder in args.folders:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        work = functools.partial(attempt, pillow=args.pillow)
        for verdict in watch(work, files, seconds=args.seconds, memory=args.memory << 30):
            verdicts.append(verdict)
            if args.list:
                tell(args.list, verdict)
            counts[folder][verdict.outcome.split(":")[0].split(" ")[0].split(";")[0]] += 1
    kinds = ("done", "refused", "wrong", "crash", "hang", "untyped")
    print("| folder | files |", " | ".join(kinds), "|")
    for folder, count in counts.items():
        print(f"| {folder.name} | {count.total()} |", " | ".join(str(count[kind]) for kind in kinds), "|")
    reasons = Counter(kind_of(v.outcome) for v in verdicts)
    print(f"\n{len(verdicts)} files;", "slowest", f"{max(v.seconds for v in verdicts):.1f} s,", end=" ")
    print(f"peak {max(v.peak for v in verdicts) >> 20} MiB\n")
    for reason, count in reasons.most_common():
        print(f"{count:6} {printable(reason)}")
    return int(any(v.bad or v.outcome.startswith("wrong") for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
