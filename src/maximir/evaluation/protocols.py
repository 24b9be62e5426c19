"""How the field's tables were measured: one protocol for each, as data.

Restored images are floats in [0, 1], not clipped, as a model gives them, or the pixels of a file. A figure
means something only beside its `convention`. That MAXIM's published figures are of truncated values is
verified for LOL and SOTS indoor (PSNR), and follows elsewhere from its writer of files. How its SSIM was
computed is published for no set: ours is what each field's usual script does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from maximir import metrics
from maximir.errors import MaximirError, UsageError
from maximir.pixels import UINT8, from_unit, to_unit

PIXELS = {
    "float": "floats, not clipped",
    "clipped": "floats, clipped to [0, 1]",
    "truncated": "8-bit values, truncated",
    "rounded": "8-bit values, rounded",
}
FLOATS = ("float", "clipped")


@dataclass(frozen=True)
class Protocol:
    """What PSNR and SSIM are taken of, and which SSIM.

    Args:
        summary: for whom or which data.
        pixels: what restored floats become: "float": they stay; "clipped" to [0, 1]; 8-bit values, clipped
            and "truncated", as the official PNG writer does, or "rounded". Files stay as they are.
        colour: all of RGB, or "y": luma, as MATLAB's `rgb2ycbcr` gives it for 8 bits.
        ssim: "wang" or "volume": `metrics.ssim` or `metrics.ssim_volume`.
        align: as RealBlur does (`metrics.align`); only what overlaps counts.
        mean_of_sets: of several sets, the mean of their means is published, not the mean over images.
        source: who measures so.

    Raises:
        UsageError: choices that do not go together.
    """

    name: str
    summary: str
    source: str
    pixels: Literal["float", "clipped", "truncated", "rounded"] = "truncated"
    colour: Literal["rgb", "y"] = "rgb"
    ssim: Literal["wang", "volume"] = "wang"
    align: bool = False
    mean_of_sets: bool = False

    def __post_init__(self) -> None:
        if self.colour == "y" and self.pixels in FLOATS:
            raise UsageError(
                f"{self.name}: luma is of 8-bit values, truncated or rounded, not {PIXELS[self.pixels]}"
            )
        if self.align and (self.colour, self.ssim) != ("rgb", "wang"):
            raise UsageError(f"{self.name}: aligned images are measured in RGB, with Wang's SSIM")

    @property
    def convention(self) -> str:
        """For the heading of a table."""
        colour = {"rgb": "RGB", "y": "Y (BT.601, 8 bits)"}[self.colour]
        index = {"wang": "Wang", "volume": "MATLAB's, of the volume"}[self.ssim]
        if (self.colour, self.ssim) == ("rgb", "wang"):
            index += ", mean over channels"
        text = f"{colour} PSNR / SSIM ({index}) of {PIXELS[self.pixels]}"
        if self.align:
            text += ", aligned to the target (intensity, then ECC homography), where they overlap"
        return text + ("; mean of the sets' means" if self.mean_of_sets else "")

    def measure(self, restored: np.ndarray, target: np.ndarray) -> tuple[float, float | None]:
        """PSNR (dB; inf for equal images) and SSIM (None if its window does not fit in) of one image.

        Args:
            restored: [H, W, 3]: float in [0, 1], not clipped; or the pixels of a file, uint8 or uint16.
            target: uint8 or uint16 [H, W, 3]; uint16 only if the protocol is of floats.

        Raises:
            MaximirError: images that cannot be compared so, or not be aligned.
        """
        self._check(restored, target)
        peak = float(np.iinfo(target.dtype).max)
        if restored.dtype.kind == "f":
            restored = self._pixels(to_unit(restored), peak)
        if self.align:
            restored, target, mask = metrics.align(restored.astype(np.float32) / peak, to_unit(target))
            fits = metrics.has_ssim(target, mask)
            psnr = metrics.psnr(restored, target, 1.0, mask)
            return psnr, metrics.ssim(restored, target, 1.0, mask) if fits else None
        if self.colour == "y":
            restored, target = metrics.luma(restored), metrics.luma(target)
        psnr = metrics.psnr(restored, target, peak)
        if self.ssim == "volume":
            return psnr, metrics.ssim_volume(restored, target, peak)
        return psnr, metrics.ssim(restored, target, peak) if metrics.has_ssim(target) else None

    def _check(self, restored: np.ndarray, target: np.ndarray) -> None:
        if target.dtype not in (np.uint8, np.uint16):
            raise MaximirError(f"targets are uint8 or uint16, not {target.dtype}")
        if restored.shape != target.shape or target.ndim != 3 or target.shape[2] != 3:
            raise MaximirError(
                f"restored image and target must both be [H, W, 3], but are {list(restored.shape)} "
                f"and {list(target.shape)}"
            )
        if restored.dtype.kind != "f" and restored.dtype != target.dtype:
            raise MaximirError(
                f"the restored image's pixels are {restored.dtype}, but the target's {target.dtype}"
            )
        self.check_depth(target)

    def check_depth(self, target: np.ndarray) -> None:
        """Raise MaximirError if the protocol does not fit such a target: asked before restoring."""
        if target.dtype != np.uint8 and self.pixels not in FLOATS:
            raise MaximirError(
                f"{self.name} measures 8-bit values, but the target is {target.dtype}: "
                "choose a protocol of floats"
            )

    def _pixels(self, unit: np.ndarray, peak: float) -> np.ndarray:
        """Floats of full scale 1 → floats on the target's scale or uint8; in float32, as officially."""
        if self.pixels == "rounded":
            return from_unit(unit, UINT8)
        values = unit * peak if self.pixels == "float" else np.clip(unit, 0, 1) * peak
        return values.astype(np.uint8) if self.pixels == "truncated" else values


MAXIM = "google-research/maxim"
TABLE = (
    Protocol(
        "official", "what MAXIM's evaluation script prints (PSNR only)", f"{MAXIM}: run_eval.py", "float"
    ),
    Protocol("truncated", "MAXIM's published figures", f"{MAXIM}: save_img of run_eval.py"),
    Protocol("rounded", "files as maximir writes them", "maximir", "rounded"),
    Protocol(
        "rain",
        "Test100, Rain100H, Rain100L, Test2800, Test1200",
        "swz30/MPRNet: Deraining/evaluate_PSNR_SSIM.m",
        colour="y",
        mean_of_sets=True,
    ),
    *(
        Protocol(name, data, "swz30/Restormer: Motion_Deblurring/evaluate_gopro_hide.m", ssim="volume")
        for name, data in (("gopro", "GoPro, motion blur"), ("hide", "HIDE, motion blur"))
    ),
    Protocol(
        "sidd",
        "SIDD, camera noise: 40×32 validation blocks",
        "swz30/Restormer: Denoising/evaluate_sidd.m",
        "clipped",
        ssim="volume",
    ),
    Protocol("realblur", "RealBlur-R and -J", "rimchang/RealBlur: evaluation_RealBlur_ecc.py", align=True),
    *(
        Protocol(name, data, f"{MAXIM}: save_img of run_eval.py")
        for name, data in (
            ("sots", "RESIDE SOTS, haze: indoor, outdoor"),
            ("raindrop", "Raindrop"),
            ("lol", "LOL, low light"),
            ("fivek", "MIT-Adobe FiveK, retouching"),
            ("reds", "REDS val_300, blur and compression"),
        )
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in TABLE}
