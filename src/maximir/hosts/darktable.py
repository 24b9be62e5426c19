"""Packages for darktable 5.6 (`.dtmodel`): a zip with the network for one tile, its description and its card.

The format is darktable's (src/ai/README.md and darktable-org/darktable-ai with its wiki): sRGB in [0, 1],
NCHW, float32, one input and one output; tiles of the size in `input_sizes`, which overlap by 64 pixels.
darktable shows the `model_card` in config.json; its catalogue reads the same facts in README.md.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from maximir import __version__
from maximir.errors import UsageError
from maximir.hosts import export
from maximir.models import catalogue
from maximir.models.cards import ModelCard
from maximir.network.model import Maxim

SUFFIX = ".dtmodel"
TILE = 512
LEAST = 256  # darktable steps by size − 128, and with a step of a few pixels or none it can crash
NAMES = ("input", "output")
TASK = "denoise"  # darktable's other tasks are masks, upscaling and raw files
EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed, so that equal packages have equal bytes
AUTHORS = "Zhengzhong Tu and others, google-research/maxim"
SOURCES = {
    "box": "https://github.com/maximir/maximir",
    "authors": "https://github.com/google-research/maxim",
}
PAPER = "https://arxiv.org/abs/2201.02973"
UNKNOWN = "not stated: a model trained by the author of this package"
# Classes of the Open Source AI Definition 1.0 and of the Model Openness Framework, by a model's origin.
CLASSES = {
    "box": "OSAID: Open Weights, because part of the training data is for non-commercial research only. "
    "MOF: Class III (Open Model), by its makers' own reading",
    "authors": "OSAID: Open Weights. MOF: Class III (Open Model), by our own reading",
    "yours": "OSAID: not classified. MOF: not classified",
}
DATA_LICENCES = {
    "box": "their own terms; BSDS500 and PolyU: non-commercial research",
    "authors": "its own terms, which maximir has not checked",
    "yours": UNKNOWN,
}


def identifier(name: str) -> str:
    """Return darktable's name for a model of ours: task, architecture, variant."""
    which = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-").removeprefix(TASK).strip("-")
    return f"{TASK}-maxim" + (f"-{which}" if which and which != "box" else "")


def check_request(output: Path, size: int) -> None:
    if output.suffix != SUFFIX:
        raise UsageError(f"{output}: a darktable package must be named {SUFFIX}")
    export.check_folder(output)
    export.check_size(size)
    if size < LEAST:
        raise UsageError(
            f"--size must be at least {LEAST} for darktable, not {size}: smaller tiles can crash it"
        )
    export.check_installed()


def card_of(chosen: ModelCard) -> dict[str, str]:
    """Return the `model_card` of config.json: origin, licence and training data of the weights."""
    own = chosen.origin == "yours"
    return {
        "long_description": f"MAXIM, a multi-axis MLP, for {chosen.description or 'denoising'}",
        "scope": "single-image denoising",
        "author": {"box": "The maximir authors", "authors": AUTHORS, "yours": UNKNOWN}[chosen.origin],
        "source": SOURCES.get(chosen.origin, UNKNOWN),
        "paper": PAPER,
        "license": UNKNOWN if own else chosen.licence,
        "training_data": training_data(chosen),
        "training_data_license": DATA_LICENCES[chosen.origin],
        "notes": f"{chosen.limits} {CLASSES[chosen.origin]}. Packed by maximir {__version__}.".strip(),
    }


def training_data(chosen: ModelCard) -> str:
    """Return the data that a model was trained with; for the box, the paragraph of its page."""
    if chosen.path.parent == catalogue.BOX:
        page = chosen.path.with_suffix(".md").read_text("utf-8")
        _, _, after = page.partition("**Training data.** ")
        return " ".join(after.partition("\n\n")[0].split())
    return chosen.trained_on or chosen.header.trained_on or UNKNOWN


def readme(name: str, card: Mapping[str, str]) -> str:
    """Return the card as a page of Markdown."""
    rows = "".join(f"| {key.replace('_', ' ')} | {value} |\n" for key, value in card.items())
    return f"# {name}\n\n| property | value |\n| --- | --- |\n{rows}"


def package(
    model: Maxim, task: str, output: Path, *, name: str, card: Mapping[str, str], size: int = TILE
) -> float:
    """Write the package, atomically.

    Args:
        task: the model's task; darktable supports "denoise" (or "" if unknown).
        name: darktable's name, see `identifier`.
        card: see `card_of`.
        size: of a tile; at least `LEAST`.

    Returns:
        The largest difference between the packaged network's output and ours, for a random tile.

    Raises:
        UsageError: another task, a suffix other than `.dtmodel`, a wrong size, or a missing package.
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
        "model_card": dict(card),
    }
    files = {
        "config.json": (json.dumps(facts, indent=2) + "\n").encode(),
        "model.onnx": network,
        "README.md": readme(name, card).encode(),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{file}", EPOCH), content, zipfile.ZIP_DEFLATED)
    export.write(output, data.getvalue())
    return difference
