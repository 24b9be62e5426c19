"""Reports of an evaluation: a table, JSON, CSV, Markdown, and a self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from rich.table import Table

from maximir.errors import MaximirError
from maximir.evaluation.compare import LEVEL, Comparison, Difference, difference
from maximir.evaluation.evaluate import Evaluation
from maximir.evaluation.protocols import PROTOCOLS
from maximir.evaluation.scores import PICTURES, REPORTS, Score, average
from maximir.files import printable, reason, write_atomically

WORST = 40  # images shown on the page
MEANS = ("input_psnr", "input_ssim", "psnr", "ssim")
NAMES = {"psnr": "PSNR", "ssim": "SSIM", "delta_e": "ΔE", "hue": "hue", "cast": "cast"}
DIGITS = {"ssim": 5}  # of a difference; of the others: 3
COLOURS = ("input_delta_e", "input_hue", "input_cast", "delta_e", "hue", "cast")


def means(scores: Sequence[Score], colour: bool = False) -> dict[str, float | None]:
    """Return the mean of each figure over the images that have it.

    Images equal to their originals, too small for SSIM, or without saturated or grey pixels are excluded.
    """
    large = [score for score in scores if score.ssim is not None]
    result = {
        name: average([getattr(score, name) for score in (large if name.endswith("ssim") else scores)])
        for name in MEANS
    }
    if colour:
        for name in COLOURS:
            values = [getattr(score, name) for score in scores]
            result[name] = average([value for value in values if value is not None])
    return result


def exceptions(scores: Sequence[Score]) -> dict[str, int]:
    """Count the images that are excluded from a mean."""
    return {
        "identical": sum(score.psnr == math.inf for score in scores),
        "identical_inputs": sum(score.input_psnr == math.inf for score in scores),
        "without_ssim": sum(score.ssim is None for score in scores),
    }


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return the contents of `summary.json`: means over the images of each set, and of all.

    The mean of all is over images, or over the sets' means if the protocol requires it.
    """
    sets = sorted({score.set for score in evaluation.scores})
    colour = bool(evaluation.settings.get("colour"))
    by_set = {name: [score for score in evaluation.scores if score.set == name] for name in sets}
    rows: list[dict[str, Any]] = [
        {"set": name, "images": len(scores), **means(scores, colour), **exceptions(scores)}
        for name, scores in by_set.items()
    ]
    whole = means(evaluation.scores, colour)
    if PROTOCOLS[evaluation.settings["protocol"]].mean_of_sets and len(rows) > 1:
        for each in whole:
            whole[each] = average([row[each] for row in rows])
    return {
        **evaluation.settings,
        **evaluation.facts,
        "scored": len(evaluation.scores),
        "of": evaluation.count,
        "all": {**whole, **exceptions(evaluation.scores)},
        "sets": rows if len(rows) > 1 else [],
        "left_out": [{"what": what, "why": why} for what, why in evaluation.left_out],
        "beside": [{"what": what, "why": why} for what, why in evaluation.beside],
    }


def decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def gain(score: Score) -> str:
    if score.input_psnr is None or score.psnr == score.input_psnr == math.inf:
        return "–"
    return f"{score.psnr - score.input_psnr:+.2f}"


def index(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def cells(row: dict[str, Any]) -> list[str]:
    """Format a row: set, images, input, restored."""
    return [
        row["set"] or "all",
        str(row["images"]),
        f"{decibels(row['input_psnr'])} / {index(row['input_ssim'])}",
        f"{decibels(row['psnr'])} / {index(row['ssim'])}",
        *([colour_cell(row, "input_"), colour_cell(row)] if "delta_e" in row else []),
    ]


def colour_cell(row: dict[str, Any], prefix: str = "") -> str:
    """Format the errors of colour: CIEDE2000 / hue in degrees / chroma of greys."""
    values = [row[prefix + name] for name in ("delta_e", "hue", "cast")]
    return " / ".join("–" if value is None else f"{value:.1f}" for value in values)


def rows_of(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the sets and of all images."""
    whole = {"set": "all", "images": summary["scored"], **summary["all"]}
    return [cells(row) for row in [*summary["sets"], whole]]


HEAD = ("set", "images", "input PSNR / SSIM", "restored PSNR / SSIM")
COLOUR_HEAD = ("input ΔE / hue / cast", "restored ΔE / hue / cast")


def head(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns of `cells`."""
    return (*HEAD, *COLOUR_HEAD) if "delta_e" in row else HEAD


def tables(summary: dict[str, Any]) -> list[Table]:
    """Return the tables for the terminal: one, or a second one for the errors of colour."""
    result = [Table(*HEAD), *([Table("set", *COLOUR_HEAD)] if "delta_e" in summary["all"] else [])]
    for row in rows_of(summary):
        cells = [printable(cell) for cell in row]
        result[0].add_row(*cells[: len(HEAD)])
        if colours := cells[len(HEAD) :]:
            result[1].add_row(cells[0], *colours)
    return result


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables for the terminal: one, or a second one for the errors of colour.

    Each figure has a column: wide tables would lose digits.
    """
    halves = (comparison.differences[:2], comparison.differences[2:])
    return [differences_table(half) for half in halves if half]


def differences_table(differences: Sequence[Difference]) -> Table:
    names = ["A", "B", "B - A", f"{LEVEL:.0%} interval", "images better", "images worse", "originals", ""]
    if uncounted := any(each.uncounted for each in differences):
        names.insert(-1, "in no mean")  # equal to their originals, or without the figure
    columns = []
    for each in differences:
        digits = DIGITS.get(each.figure, 3)
        within = "–"
        if each.low is not None and each.high is not None:
            within = f"{each.low:+.{digits}f} … {each.high:+.{digits}f}"
        columns.append(
            [
                *("–" if mean is None else f"{mean:.{digits}f}" for mean in (each.a, each.b)),
                "–" if each.mean is None else f"{each.mean:+.{digits}f}",
                within,
                str(each.better),
                str(each.worse),
                str(each.originals),
                *([str(each.uncounted)] if uncounted else []),
                each.verdict,
            ]
        )
    result = Table("", *(NAMES[each.figure] for each in differences))
    for row in zip(names, *columns, strict=True):
        result.add_row(*row)
    return result


def extremes(comparison: Comparison, count: int) -> list[str]:
    """List B's largest losses and gains."""
    pairs = comparison.pairs
    ends = [*pairs[:count], *pairs[max(count, len(pairs) - count) :]]
    return [f"{difference((a, b), 'psnr'):+.3f} dB  {a.psnr:.2f} → {b.psnr:.2f}  {a.name}" for a, b in ends]


def coverage(summary: dict[str, Any]) -> str:
    """Describe the number of images in the score, and the exceptions."""
    missing = summary["of"] - summary["scored"]
    text = f"{summary['scored']} of {summary['of']} images" + (f", {missing} left out" if missing else "")
    if summary["ignored"]:
        text += f"; {summary['ignored']} other images are not part of layout {summary['layout']}"
    if summary["beside"]:
        text += f"; files that belong to no image: {len(summary['beside'])}"
    return "; ".join([text, *exceptions_in_words(summary["all"]), *summary["notes"]])


def exceptions_in_words(counts: dict[str, Any]) -> list[str]:
    words = []
    equal = {"restored": counts["identical"], "inputs": counts["identical_inputs"]}
    if any(equal.values()):
        listed = ", ".join(f"{what} {count}" for what, count in equal.items() if count)
        words.append(f"equal to their originals, so with infinite PSNR that is in no mean: {listed}")
    if counts["without_ssim"]:
        words.append(f"smaller than SSIM's window, so in no mean of it: {counts['without_ssim']}")
    return words


def finite(value: Any) -> Any:
    """Replace infinity, which JSON lacks, by "inf" as in the scores."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return "inf" if value == math.inf else value


def markdown(summary: dict[str, Any]) -> str:
    names = head(summary["all"])
    lines = [names, ["---"] * len(names), *rows_of(summary)]
    bar = r"\|"  # inside a cell
    text = "\n".join(
        f"| {' | '.join(printable(cell).replace('|', bar) for cell in line)} |" for line in lines
    )
    notes = [f"{summary['convention']}; {coverage(summary)}.", f"`{printable(summary['command'])}`"]
    for kind, words in (("left_out", "left out"), ("beside", "no image")):
        notes += [f"- {words}: {printable(each['what'])}: {printable(each['why'])}" for each in summary[kind]]
    return "\n\n".join([text, *notes]) + "\n"


def as_csv(scores: Sequence[Score]) -> str:
    file = io.StringIO()
    names = (
        "name",
        "set",
        "input_psnr",
        "input_ssim",
        "psnr",
        "ssim",
        "width",
        "height",
        "seconds",
        "target",
        *(COLOURS if any(score.delta_e is not None for score in scores) else ()),
    )
    writer = csv.writer(file)
    writer.writerow(names)
    writer.writerows([getattr(score, name) for name in names] for score in scores)
    return file.getvalue()


def html(evaluation: Evaluation, summary: dict[str, Any], out: Path) -> str:
    """Render the page, which needs no other file and no network.

    Args:
        out: folder with the pictures of the images.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"decibels": decibels, "index": index, "gain": gain}
    template = environment.from_string(
        (resources.files("maximir.evaluation") / "templates" / "report.html").read_text("utf-8")
    )
    scores = sorted(evaluation.scores, key=lambda score: score.psnr)
    worst = [(score, picture(out, score)) for score in scores[:WORST]]
    return template.render(
        summary=summary,
        coverage=coverage(summary),
        head=head(summary["all"]),
        rows=rows_of(summary),
        scores=scores,
        worst=[(score, data) for score, data in worst if data],
    )


def picture(out: Path, score: Score) -> str:
    """Return the picture of an image in base64, or "" if there is none."""
    try:
        return base64.b64encode((out / PICTURES / f"{score.name}.webp").read_bytes()).decode()
    except OSError:
        return ""


def write(evaluation: Evaluation, out: Path) -> Path:
    """Write all reports into the folder; return the page's path.

    Raises:
        MaximirError: a file cannot be written.
    """
    summary = summarise(evaluation)
    texts = {
        "summary.json": json.dumps(finite(summary), indent=2, ensure_ascii=False) + "\n",
        "summary.md": markdown(summary),
        "scores.csv": as_csv(evaluation.scores),
        "report.html": html(evaluation, summary, out),
    }
    assert texts.keys() == set(REPORTS)
    try:
        for name, text in texts.items():
            write_atomically(out / name, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise MaximirError(f"{out}: cannot be written to ({reason(error)})") from error
    return out / "report.html"
