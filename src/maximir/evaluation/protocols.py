"""Protocols: how the field's tables were measured, one per table, as data.

Restored images are a model's unclipped floats, or the pixels of a file. A figure is meaningful only with its
`convention`. MAXIM's published figures use truncated values: this is verified for LOL and SOTS indoor (PSNR),
and follows elsewhere from its PNG writer. Its computation of SSIM is not published for any set; ours is that
of each field's usual script.
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
    """The definition of PSNR and SSIM in one table.

    Args:
        summary: the data or tool that it is for.
        pixels: conversion of restored floats: "float": unchanged; "clipped" to [0, 1]; 8-bit values, clipped
            and "truncated", as by the official PNG writer, or "rounded". Pixels of files stay unchanged.
        colour: "rgb", or "y": luma, as MATLAB's `rgb2ycbcr` computes it for 8 bits.
        ssim: "wang" or "volume": `metrics.ssim` or `metrics.ssim_volume`.
        align: align as RealBlur does (`metrics.align`); only the overlap counts.
        mean_of_sets: average the means of several sets, not all images.
        source: origin of the protocol.

    Raises:
        UsageError: the choices do not fit together.
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
                f"{self.name}: luma needs 8-bit values, truncated or rounded, not {PIXELS[self.pixels]}"
            )
        if self.align and (self.colour, self.ssim) != ("rgb", "wang"):
            raise UsageError(f"{self.name}: aligned images are measured in RGB with Wang's SSIM")

    @property
    def convention(self) -> str:
        """Description for the heading of a table."""
        colour = {"rgb": "RGB", "y": "Y (BT.601, 8 bits)"}[self.colour]
        index = {"wang": "Wang", "volume": "MATLAB's, of the volume"}[self.ssim]
        if (self.colour, self.ssim) == ("rgb", "wang"):
            index += ", mean over channels"
        text = f"{colour} PSNR / SSIM ({index}) of {PIXELS[self.pixels]}"
        if self.align:
            text += ", aligned to the target (intensity, then ECC homography), where they overlap"
        return text + ("; mean of the sets' means" if self.mean_of_sets else "")

    def measure(self, restored: np.ndarray, target: np.ndarray) -> tuple[float, float | None]:
        """Return PSNR (dB; inf for equal images) and SSIM (None if smaller than its window) of one image.

        Args:
            restored: [H, W, 3]: unclipped floats in [0, 1], or the pixels of a file, uint8 or uint16.
            target: uint8 or uint16 [H, W, 3]; uint16 only for protocols of floats.

        Raises:
            MaximirError: the images cannot be compared or aligned.
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
            raise MaximirError(f"targets must be uint8 or uint16, not {target.dtype}")
        if restored.shape != target.shape or target.ndim != 3 or target.shape[2] != 3:
            raise MaximirError(
                f"restored image and target must both be [H, W, 3], but are {list(restored.shape)} "
                f"and {list(target.shape)}"
            )
        if restored.dtype.kind != "f" and restored.dtype != target.dtype:
            raise MaximirError(
                f"the restored image's pixels are {restored.dtype}, but the target's are {target.dtype}"
            )
        self.check_depth(target)

    def check_depth(self, target: np.ndarray) -> None:
        """Raise MaximirError if the protocol does not support the target's depth; called before restoring."""
        if target.dtype != np.uint8 and self.pixels not in FLOATS:
            raise MaximirError(
                f"{self.name} measures 8-bit values, but the target is {target.dtype}: "
                "choose a protocol of floats"
            )

    def _pixels(self, unit: np.ndarray, peak: float) -> np.ndarray:
        """Convert floats in [0, 1] to floats on the target's scale or to uint8, in float32 as officially."""
        if self.pixels == "rounded":
            return from_unit(unit, UINT8)
        values = unit * peak if self.pixels == "float" else np.clip(unit, 0, 1) * peak
        return values.astype(np.uint8) if self.pixels == "truncated" else values


MAXIM = "google-research/maxim"
TABLE = (
    Protocol(
        "official", "as printed by MAXIM's evaluation script (PSNR only)", f"{MAXIM}: run_eval.py", "float"
    ),
    Protocol("truncated", "MAXIM's published figures", f"{MAXIM}: save_img of run_eval.py"),
    Protocol("rounded", "files as written by maximir", "maximir", "rounded"),
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
