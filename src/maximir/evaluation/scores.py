"""Scores and the folder that stores them, so that a stopped evaluation can continue."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maximir.errors import MaximirError, UsageError
from maximir.files import JsonLines, line_of, reason, write_atomically

RUN = "run.json"
SCORES = "scores.jsonl"
PICTURES = "pictures"
RESTORED = "restored"
REPORTS = ("summary.json", "summary.md", "scores.csv", "report.html")


@dataclass(frozen=True)
class Score:
    """The score of one image.

    Attributes:
        name, set: of the case.
        psnr, ssim: by the protocol; PSNR in dB, inf for equal images; SSIM None for images smaller than its
            window.
        input_psnr, input_ssim: of the degraded image, by the same protocol; None: there was none.
        width, height: in pixels.
        seconds: computing time.
        digest: of the pixels involved.
        target: the original's path; images of the same original are not independent.
        delta_e, hue, cast: as in `colour.ColourError`; None: not measured, or not meaningful.
        input_delta_e, input_hue, input_cast: of the degraded image.
    """

    name: str
    set: str
    psnr: float
    ssim: float | None
    input_psnr: float | None
    input_ssim: float | None
    width: int
    height: int
    seconds: float
    digest: str
    target: str = ""
    delta_e: float | None = None
    hue: float | None = None
    cast: float | None = None
    input_delta_e: float | None = None
    input_hue: float | None = None
    input_cast: float | None = None

    def values(self) -> dict[str, Any]:
        """As JSON has them, which knows no infinity."""
        return {key: "inf" if v == float("inf") else v for key, v in asdict(self).items()}

    @staticmethod
    def from_json(line: str) -> Score:
        values: dict[str, Any] = json.loads(line)
        for key in ("psnr", "input_psnr"):
            if values[key] == "inf":
                values[key] = float("inf")
        return Score(**values)


def average(values: Sequence[float | None]) -> float | None:
    """Return the mean of the finite values; inf if all are infinite; None if any is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    finite = [value for value in known if value != math.inf]
    return math.fsum(finite) / len(finite) if finite else math.inf


class Book:
    """The results folder of a running evaluation: its settings, and the scores so far.

    Args:
        out: the folder; created if missing.
        settings: determine the scores.
        overwrite: remove another evaluation in the folder.

    Raises:
        UsageError: the folder holds an evaluation with other settings, or something else.
        MaximirError: the folder cannot be written to.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not (out / RUN).exists():
                if any(not path.name.startswith(".") for path in out.iterdir()):
                    raise UsageError(f"{out}: is not empty and holds no evaluation; choose another folder")
            elif overwrite:
                forget(out)
            else:
                before = json.loads((out / RUN).read_text("utf-8"))["settings"]
                if changed := [key for key in settings if before.get(key) != settings[key]]:
                    names = " and ".join("weights" if key == "sha256" else key for key in changed)
                    raise UsageError(
                        f"{out}: holds an evaluation with another {names}; "
                        "choose another folder, or --overwrite"
                    )
            text = json.dumps({"settings": settings}, indent=2)
            write_atomically(out / RUN, text.encode())
            self.known = {score.name: score for score in read_scores(out)}
            lines = [line_of(score.values()) for score in self.known.values()]  # without a truncated line
            write_atomically(out / SCORES, b"".join(lines))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{out / RUN}: is damaged; choose another folder, or --overwrite") from error
        except OSError as error:
            raise MaximirError(f"{out}: cannot be written to ({reason(error)})") from error

    def add(self, score: Score) -> None:
        """Store a score.

        Raises:
            MaximirError: it cannot be written.
        """
        try:
            with closing(JsonLines(self.out / SCORES)) as lines:
                lines.add(score.values())
        except OSError as error:
            raise MaximirError(f"{self.out / SCORES}: cannot be written ({reason(error)})") from error


def forget(out: Path) -> None:
    """Remove an evaluation, so that none of its files is mistaken for the next one's."""
    for name in (PICTURES, RESTORED):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for name in (SCORES, *REPORTS):
        (out / name).unlink(missing_ok=True)


def read_scores(folder: Path) -> list[Score]:
    """Read the scores in a results folder, the newest of each image; skip truncated lines."""
    scores: dict[str, Score] = {}
    try:
        lines = (folder / SCORES).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise MaximirError(f"{folder / SCORES}: cannot be read ({error})") from error
    for line in lines:
        try:
            each = Score.from_json(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        scores[each.name] = each
    return list(scores.values())


def kept(folder: Path) -> tuple[dict[str, Any], list[Score]]:
    """Return settings and scores of a stored evaluation.

    Raises:
        MaximirError: there is none, or it is damaged.
    """
    try:
        settings = json.loads((folder / RUN).read_text("utf-8"))["settings"]
        settings["convention"]  # otherwise it is not complete
        return settings, read_scores(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MaximirError(f"{folder}: holds no complete evaluation ({error})") from error
