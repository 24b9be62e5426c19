"""Packages for darktable 5.6 (`.dtmodel`): a zip with the network for one tile, its description and its card.

The format is darktable's (src/ai/README.md and darktable-org/darktable-ai with its wiki): sRGB in [0, 1],
NCHW, float32, one input and one output; tiles of the size in `input_sizes`, which overlap by 64 pixels.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

from maximir import __version__
from maximir.errors import UsageError
from maximir.hosts import export
from maximir.models import authors, catalogue
from maximir.models.cards import ModelCard
from maximir.network.model import Maxim

SUFFIX = ".dtmodel"
TILE = 512
NAMES = ("input", "output")
TASK = "denoise"  # darktable's other tasks are masks, upscaling and raw files
EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed, so that equal packages have equal bytes


def identifier(name: str) -> str:
    """Return darktable's name for a model of ours: task, architecture, variant."""
    which = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-").removeprefix(TASK).strip("-")
    return f"{TASK}-maxim" + (f"-{which}" if which and which != "box" else "")


def check_request(output: Path, size: int) -> None:
    if output.suffix != SUFFIX:
        raise UsageError(f"{output}: a darktable package must be named {SUFFIX}")
    export.check_folder(output)
    export.check_size(size)
    export.check_installed()


def card_of(chosen: ModelCard) -> str:
    """Return origin and training data of the weights, as darktable's catalogue requires."""
    if chosen.path.parent == catalogue.BOX:
        return chosen.path.with_suffix(".md").read_text("utf-8")
    if isinstance(chosen, authors.AuthorsModel):
        return (
            f"# {chosen.name}\n\nMAXIM {chosen.variant} of its authors, google-research/maxim.\n\n"
            f"**Training data.** {chosen.trained_on}.\n\n**Limits.** {chosen.limits}\n\n"
            f"**Licence.** {chosen.licence}.\n"
        )
    return f"# {Path(chosen.name).name}\n\nMAXIM, trained by the author of this package.\n"


def package(model: Maxim, task: str, output: Path, *, name: str, card: str, size: int = TILE) -> float:
    """Write the package, atomically.

    Args:
        task: the model's task; darktable supports "denoise" (or "" if unknown).
        name: darktable's name, see `identifier`.

    Returns:
        The largest difference between the packaged network's output and ours, for a random tile.

    Raises:
        UsageError: another task, a suffix other than `.dtmodel`, no multiple of 64, or a missing package.
        MaximirError: the packaged network's output differs, or the file cannot be written.
    """
    check_request(output, size)
    if task not in (TASK, ""):
        raise UsageError(f"darktable only supports denoising models; this one is for {task}")
    network, difference = export.proved(model, ".onnx", size, {"model": name}, NAMES)
    facts = {
        "id": name,
        "name": name.replace("-", " "),
        "description": f"MAXIM, multi-axis MLP; made by maximir {__version__}",
        "task": TASK,
        "arch": "maxim",
        "backend": "onnx",
        "version": "1.0",
        "tiling": True,
        "num_inputs": 1,
        "attributes": {"input_sizes": [size]},
    }
    files = {
        "config.json": (json.dumps(facts, indent=2) + "\n").encode(),
        "model.onnx": network,
        "README.md": card.encode(),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{file}", EPOCH), content, zipfile.ZIP_DEFLATED)
    export.write(output, data.getvalue())
    return difference
