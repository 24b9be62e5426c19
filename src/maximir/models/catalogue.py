"""The models that come with maximir, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

BOX = Path(__file__).parent / "box"
RESULTS = BOX / "results.json"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model in the box, one per task. Its card `box/TASK.md` has the details.

    Attributes:
        summary: damage that it removes.
        data: training data.
        hours: training time and hardware.
        shown: the most informative test sets among its results (scripts/results.py).
        licence: of the weights.
        limits: known failures, in sentences for users.
    """

    task: str
    summary: str
    data: str
    hours: str
    shown: tuple[str, ...]
    licence: str = "Apache-2.0"
    limits: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}-box"

    @property
    def results(self) -> str:
        """Input → output PSNR (dB) on images not used for training."""
        rows = {row["set"]: row for row in json.loads(RESULTS.read_text("utf-8")).get(self.task, [])}
        return "; ".join(
            f"{name}: {rows[name]['input_psnr']:.2f} → {rows[name]['psnr']:.2f}"
            for name in self.shown
            if name in rows
        )

    @property
    def path(self) -> Path:
        return BOX / f"{self.task}.safetensors"

    @property
    def card(self) -> Path:
        return BOX / f"{self.task}.md"


MODELS = (
    EmbeddedModel(
        "denoise",
        "Gaussian noise of unknown strength, and the noise of cameras",
        "545 photographs, synthetic noise; 40 pairs of PolyU",
        "1.8 h, 2 CPU cores; 2.1 h, 1 core",
        ("McMaster, Gaussian 25", "PolyU, held out"),
        limits="Strong noise from phones at night loses its colour, but some grain stays. "
        "Fine regular texture may be smoothed away.",
    ),
    EmbeddedModel(
        "deblur",
        "blur by a camera that moved",
        "GoPro (the authors' first stage), then 545 photographs with synthetic motion",
        "the authors', then 0.7 h on 1 CPU core",
        ("McMaster 1–6, straight motion, synthetic", "McMaster 1–6, motion blur, synthetic"),
        limits="Long or curved motion is only sharpened a little.",
    ),
    EmbeddedModel(
        "derain",
        "streaks of rain and light mist",
        "Rain13k (the authors' first stage), then 545 photographs with synthetic rain and streaks; "
        "7 pairs of RainTrainL",
        "the authors', then 0.6 h on 1 CPU core",
        ("Rain100L 1–20", "McMaster 1–6, rain, synthetic"),
        limits="Drops on a lens or window stay. The result is soft where heavy rain hides the scene.",
    ),
    EmbeddedModel(
        "dehaze",
        "haze, mist and smog, indoors and outdoors",
        "SOTS-Indoor (the authors' first stage), then 454 photographs with synthetic haze; "
        "20 indoor scenes of RESIDE",
        "the authors', then 0.7 h on 1 CPU core",
        ("SOTS indoor, held out", "McMaster 1–6, haze, synthetic"),
        limits="Some of a strong haze remains. Colours may be slightly too strong.",
    ),
    EmbeddedModel(
        "enhance",
        "photographs taken with too little light",
        "LOL (the authors' first stage), then 49 pairs of ELIEI and LOL; 545 photographs, synthetic darkness",
        "the authors', then 0.4 h on 1 CPU core",
        ("ELIEI, held out", "LOL, held out"),
        limits="The brightness of the scene is an estimate. "
        "In very dark pictures, fine detail and colour may be lost or invented.",
    ),
    EmbeddedModel(
        "retouch",
        "dull light and colours",
        "FiveK (the authors' first stage), then 39 photographs as the authors' whole model retouches them",
        "the authors', then 0.2 h on 1 CPU core",
        (),
        limits="Has the style of one retoucher, and only the first of the authors' two stages.",
    ),
)
BY_TASK = {model.task: model for model in MODELS}
TASKS = ("denoise", "deblur", "derain", "dehaze", "enhance", "retouch")
