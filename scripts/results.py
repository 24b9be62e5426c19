"""Measure the embedded models, and write the figures into the pages that show them.

    python scripts/results.py DATA              # all models
    python scripts/results.py DATA --model derain --model denoise-fast
    python scripts/results.py --render          # only write the pages again

DATA holds `validation/mcmaster` (clean photographs), `pairs/real-noise`, `pairs/rain`, `pairs/haze-indoor`,
`pairs/low-light`, `pairs/fivek`, `blur-kernels`, `published/Rain100L`, `Classic5`, `LIVE1_grey` and
`LIVE1_color` (never trained on; grey is MATLAB's Y of the colour images), and LOL's `our485`. Of pairs, only
the scenes that the recipe holds out are used. The figures go to `src/maximir/models/box/results.json`, and
from there to docs/results.md, the models' cards and `maximir info`; none is copied by hand.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.progress import track

from maximir.errors import MaximirError
from maximir.evaluation import report
from maximir.evaluation.evaluate import Request, prepare, run
from maximir.models.cards import RESULTS
from maximir.models.catalogue import BOX, MODELS
from maximir.training.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
TEMPLATE = Path(__file__).with_name("results.md.jinja")
Results = dict[str, list[dict[str, Any]]]  # one row per set, by the stem of the model's file
NAMES = {model.path.stem: model.name for model in MODELS}
MARKS = ("<!-- results: scripts/results.py -->\n", "<!-- end -->\n")


@dataclass(frozen=True)
class Row:
    """One line of a table: some images and their degradation.

    Attributes:
        task: of the models that it is for.
        data: folder below DATA.
        degrade: for clean images; DATA stands for that folder.
        held_out: for pairs: start of the names of scenes that the recipe holds out.
        only: for pairs: patterns of names, instead of `held_out`.
    """

    task: str
    label: str
    data: str
    degrade: str | None = None
    held_out: str | None = None
    only: tuple[str, ...] = ()
    protocol: str | None = None
    images: int | None = None

    def request(self, model: str, data: Path) -> Request:
        only = self.only
        if self.held_out is not None:
            patterns = load_recipe(f"{self.task}-small").hold_out
            only = tuple(pattern for pattern in patterns if pattern.startswith(self.held_out))
        degrade = None if self.degrade is None else self.degrade.replace("DATA", str(data))
        return Request(
            data / self.data,
            model,
            protocol=self.protocol,
            degrade=degrade,
            only=only,
            images=self.images,
            colour=self.task in COLOURED,
        )

    def command(self, model: str) -> str:
        request = self.request(model, Path("DATA"))
        words = ["maximir", "evaluate", "--model", model, "--data", str(request.data)]
        words += ["--degrade", request.degrade] if request.degrade else []
        for pattern in request.only:
            words += ["--only", pattern]
        words += ["--images", str(request.images)] if request.images else []
        words += ["--protocol", request.protocol] if request.protocol else []
        words += ["--colour"] if request.colour else []
        return shlex.join(words)


COLOURED = ("dehaze", "enhance", "retouch")  # tasks whose errors of colour matter most
CLEAN = "validation/mcmaster"
# Pairs whose scenes our training never saw at any exposure; the authors trained the start on them.
LOL = ("9", "35", "61", "97", "115", "203", "233", "258", "525", "560", "645", "659", "670", "679", "687")
FEW = 6  # of 18 images: enough to tell models apart, and saves an hour


def synthetic(task: str, words: str, degrade: str) -> Row:
    return Row(task, f"McMaster 1–{FEW}, {words}", CLEAN, degrade, images=FEW)


ROWS = (
    *(
        Row("denoise", f"McMaster, Gaussian {sigma}{words}", CLEAN, f"gaussian:{sigma}{form}")
        for sigma in (15, 25, 50)
        for words, form in (("", ""), (" as a file", ":file"))
    ),
    Row("denoise", "McMaster, camera noise, synthetic", CLEAN, "camera-noise"),
    Row("denoise", "PolyU, held out", "pairs/real-noise", held_out=""),
    *(
        synthetic("deblur", f"Levin's kernel {k}", f"kernel:DATA/blur-kernels/kernel{k}.png")
        for k in (1, 2, 3, 4)
    ),
    synthetic("deblur", "straight motion, synthetic", "straight-motion"),
    synthetic("deblur", "motion blur, synthetic", "motion-blur"),
    synthetic("deblur", "averaged frames, synthetic", "averaged-frames"),
    Row("derain", "Rain100L 1–20", "published/Rain100L", protocol="rain"),
    Row("derain", "RainTrainL, held out", "pairs/rain", held_out=""),
    synthetic("derain", "rain, synthetic", "rain"),
    Row("dehaze", "SOTS indoor, held out", "pairs/haze-indoor", held_out=""),
    Row("dehaze", "McMaster, haze, synthetic", CLEAN, "haze"),
    Row("enhance", "LOL, held out by us", "our485", only=LOL, protocol="rounded"),
    Row(  # 266 shows different scenes
        "enhance", "ELIEI, held out", "pairs/low-light", only=("eliei_258", "eliei_26[!6]", "eliei_5*")
    ),
    Row("enhance", "McMaster, low light, synthetic", CLEAN, "low-light"),
    Row("retouch", "FiveK, 5 of the authors' training set", "pairs/fivek"),
    *(
        Row("dejpeg", f"{name}, JPEG {quality}", data, f"jpeg:{quality}")
        for name, data in (("Classic5", "Classic5"), ("LIVE1, grey", "LIVE1_grey"))
        for quality in (10, 20, 30, 40)
    ),
    Row("dejpeg", "LIVE1, colour, JPEG 10", "LIVE1_color", "jpeg:10"),
    Row("dejpeg", "McMaster, compression, synthetic", CLEAN, "compression"),
    Row("dejpeg", "McMaster, JPEG 95", CLEAN, "jpeg:95"),
)


# Checkpoint, data, published PSNR and SSIM, and the data's name and protocol in `maximir evaluate`.
OFFICIAL = (
    ("Denoising/SIDD", "SIDD", "39.96 / 0.960", "sidd"),
    ("Denoising/SIDD", "DND", "39.84 / 0.954", None),
    ("Deblurring/GoPro", "GoPro", "32.86 / 0.961", "gopro"),
    ("Deblurring/GoPro", "HIDE", "32.83 / 0.956", "hide"),
    ("Deblurring/REDS", "REDS, val_300", "28.93 / 0.865", "reds"),
    ("Deblurring/RealBlur_R", "RealBlur-R", "39.45 / 0.962", "realblur"),
    ("Deblurring/RealBlur_J", "RealBlur-J", "32.84 / 0.935", "realblur"),
    ("Deraining/Rain13k", "Rain13k, mean of five sets", "33.24 / 0.933", "rain"),
    ("Deraining/Raindrop", "Raindrop, test_a", "31.87 / 0.935", "raindrop"),
    ("Dehazing/SOTS-Indoor", "SOTS indoor", "38.11 / 0.991", "sots"),
    ("Dehazing/SOTS-Outdoor", "SOTS outdoor", "34.19 / 0.985", "sots"),
    ("Enhancement/LOL", "LOL, eval15", "23.43 / 0.863", "lol"),
    ("Enhancement/FiveK", "FiveK", "26.15 / 0.945", "fivek"),
)
NAFNET = "README of megvii-research/NAFNet"
PEERS = (  # network, data, PSNR, convention, source
    ("NAFNet, width 64", "SIDD", "40.30", "`sidd`", NAFNET),
    ("NAFNet, width 64", "GoPro", "33.71", "`gopro`", NAFNET),
    ("FFTformer", "GoPro", "34.21", "`gopro`", "its README"),
    ("MixDehazeNet", "SOTS indoor", "42.62", "RGB", "its README"),
    ("Retinexformer", "LOL", "25.16", "RGB", "its README; users of it report about 23"),
)
JPEG = (  # network; PSNR / SSIM on Classic5 and on LIVE1, grey, at quality 10, 20, 30, 40; source
    (
        "ARCNN, a network for each quality",
        "29.03 / .7929", "31.15 / .8517", "32.51 / .8806", "33.34 / .8953",
        "28.96 / .8076", "31.29 / .8733", "32.67 / .9043", "33.63 / .9198", "README of cszn/DnCNN",
    ),
    (
        "DnCNN-3",
        "29.40 / .8026", "31.63 / .8610", "32.91 / .8861", "33.77 / .9003",
        "29.19 / .8123", "31.59 / .8802", "32.98 / .9090", "33.96 / .9247", "README of cszn/DnCNN",
    ),
    (
        "FBCNN",
        "30.12 / .8223", "32.31 / .8724", "33.54 / .8943", "34.35 / .9070",
        "29.75 / .8268", "32.13 / .8893", "33.54 / .9161", "34.53 / .9307", "its paper, not checked",
    ),
    (
        "SwinIR, a network for each quality",
        "30.27 / .8249", "32.52 / .8748", "33.73 / .8961", "34.52 / .9082",
        "29.86 / .8287", "32.25 / .8909", "33.69 / .9174", "34.67 / .9317", "its paper, not checked",
    ),
)  # fmt: skip
GAUSSIAN = (
    ("FFDNet", 34.66, 32.35, 29.18, 33.87, 31.21, 27.96),
    ("DRUNet", 35.40, 33.14, 30.08, 34.30, 31.69, 28.51),
    ("Restormer", 35.61, 33.34, 30.30, 34.40, 31.79, 28.60),
)


def measure(row: Row, model: str, data: Path, console: Console) -> dict[str, Any]:
    evaluation = prepare(row.request(model, data))
    cases = len(evaluation.cases)
    for _ in track(run(evaluation), f"{model}: {row.label}", cases, console=console, transient=True):
        pass
    if evaluation.left_out:
        raise MaximirError(f"{row.label}: {evaluation.left_out[0][0]}: {evaluation.left_out[0][1]}")
    summary = report.summarise(evaluation)
    console.print(f"{model}: {row.label}: {' | '.join(report.rows_of(summary)[-1][1:])}", highlight=False)
    return {
        "set": row.label,
        "images": summary["scored"],
        **summary["all"],
        "convention": summary["convention"],
        "sha256": summary["sha256"],
        "command": row.command(model),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    head = report.head(rows[0])
    lines = [head, ["---"] * len(head)]
    lines += [report.cells(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page(results: Results) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    ours = {row["set"]: f"{row['psnr']:.2f}" for row in results.get("denoise", [])}
    gaussian = [(name, *(f"{value:.2f}" for value in values)) for name, *values in GAUSSIAN]
    if ours:
        here = (ours[f"McMaster, Gaussian {sigma}"] for sigma in (15, 25, 50))
        gaussian.insert(0, ("**maximir denoise**, 3.7 M", *here, "–", "–", "–"))
    found = {row["set"]: row for row in results.get("dejpeg", [])}
    jpeg = [list(row) for row in JPEG]
    if found:
        sets = (f"{name}, JPEG {q}" for name in ("Classic5", "LIVE1, grey") for q in (10, 20, 30, 40))
        rows = (found[name] for name in sets)
        here = [f"{row['psnr']:.2f} / {row['ssim']:.4f}".replace("/ 0", "/ ") for row in rows]
        jpeg.insert(0, ["**maximir dejpeg**, 2.8 M", *here, "above"])
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        results={stem: results[stem] for stem in NAMES if stem in results},
        table=table,
        conventions=lambda rows: "; ".join(sorted({row["convention"] for row in rows})),
        gaussian=gaussian,
        jpeg=jpeg,
        official=[
            (name, data, figures, official_command(name, kind)) for name, data, figures, kind in OFFICIAL
        ],
        peers=PEERS,
    )


def official_command(checkpoint: str, kind: str | None) -> str:
    if kind is None:
        return "none: only the benchmark's server can score it"
    return (
        f"`maximir evaluate --weights {checkpoint}/checkpoint.npz --data {kind.upper()}/ --protocol {kind}`"
    )


def render(results: Results) -> None:
    PAGE.write_text(page(results), "utf-8")
    begin, end = MARKS
    for stem, rows in results.items():
        card = BOX / f"{stem}.md"
        before, found, rest = card.read_text("utf-8").partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise SystemExit(f"{card}: must have a part between {begin.strip()} and {end.strip()}")
        card.write_text(before + begin + table(rows) + end + after, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", choices=NAMES, action="append", help="default: all")
    parser.add_argument("--render", action="store_true", help="only write the pages again")
    args = parser.parse_args()
    if (args.data is None) != args.render:
        parser.error("give DATA, or --render")
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    console = Console(stderr=True)
    for stem in [] if args.render else args.model or NAMES:
        rows = [row for row in ROWS if row.task == stem.partition("-")[0]]
        try:
            results[stem] = [measure(row, NAMES[stem], args.data, console) for row in rows]
        except MaximirError as error:
            sys.exit(str(error))
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    render(results)


if __name__ == "__main__":
    main()
