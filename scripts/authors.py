"""Evaluate the authors' models on the data at hand, by stages, as a table for docs/models.md.

    python scripts/authors.py DATA              # needs `maximir get derain dehaze-indoor enhance denoise`

DATA as for scripts/results.py. The table goes between the marks in docs/models.md.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maximir import Restorer
from maximir.evaluation import report
from maximir.evaluation.evaluate import WHOLE, Request, prepare, run
from maximir.models.authors import BY_NAME
from maximir.models.choice import named

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
MARKS = ("<!-- authors: scripts/authors.py -->\n", "<!-- end -->\n")


class Row(NamedTuple):
    model: str
    data: str
    protocol: str
    images: int | None = None
    only: tuple[str, ...] = ()


ROWS = (
    Row("derain-rain13k", "published/Rain100L", "rain"),
    Row("dehaze-indoor", "pairs/haze-indoor", "sots", images=6),
    Row("enhance-lol", "pairs/low-light", "lol", only=("lol_*",)),
    Row("denoise-sidd", "pairs/real-noise", "rounded", images=6),
)


def measure(row: Row, data: Path, stages: int) -> str:
    request = Request(
        data / row.data,
        row.model,
        protocol=row.protocol,
        only=row.only,
        images=row.images,
        options=replace(WHOLE, stages=stages),
    )
    evaluation = prepare(request)
    for _ in run(evaluation):
        pass
    found = report.summarise(evaluation)["all"]
    command = ["maximir", "evaluate", "--model", row.model, "--data", f"DATA/{row.data}"]
    command += ["--protocol", row.protocol, "--stages", str(stages)]
    command += ["--images", str(row.images)] if row.images else []
    for pattern in row.only:
        command += ["--only", pattern]
    return (
        f"| {row.model} | {BY_NAME[row.model].published} "
        f"| {len(evaluation.scores)} of {row.data.split('/')[-1]} | "
        f"{found['input_psnr']:.2f} → {found['psnr']:.2f} / {found['ssim']:.4f} | {stages} | "
        f"`{shlex.join(command)}` |"
    )


def agreement(data: Path) -> str:
    """Compare the authors' own results (8 bits, truncated) with ours."""
    restorer = Restorer("derain-rain13k", precision="fp32", view="exact")
    equal, apart = [], 0
    for theirs in sorted((data / "published/Deraining").glob("*.png")):  # the fourth is a JPEG
        image = Image.open(data / "samples/deraining" / theirs.name).convert("RGB")
        ours = np.floor(restorer(np.asarray(image, np.float32) / 255).clip(0, 1) * 255)
        difference = np.abs(ours - np.asarray(Image.open(theirs).convert("RGB"), np.float32))
        equal.append((difference == 0).mean())
        apart = max(apart, int(difference.max()))
    return (
        "The authors published what their model makes of three samples of rain, as 8-bit PNGs, truncated. "
        f"Ours, truncated: {np.mean(equal):.2%} of all values are equal; none is more than {apart} apart.\n"
    )


def main() -> None:
    data = Path(sys.argv[1])
    lines = [
        "| model | published | measured here | PSNR (dB), PSNR / SSIM | stages | command |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        whole = named(row.model).header.stages or 1
        for stages in range(1, whole + 1):
            lines.append(measure(row, data, stages))
            print(lines[-1], flush=True)
    told = agreement(data)
    print(told)
    before, found, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (found and end):
        raise SystemExit(f"{PAGE}: must have a part between {MARKS[0].strip()} and {MARKS[1].strip()}")
    PAGE.write_text(before + MARKS[0] + "\n".join(lines) + "\n\n" + told + MARKS[1] + after, "utf-8")


if __name__ == "__main__":
    main()
