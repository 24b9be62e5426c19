"""Draw what --detail brings back: crops of fur, fabric, stone and film grain (docs/strength.md).

    python scripts/draw_detail.py docs/images/detail.webp

Needs scikit-image, whose pictures these are. Noise is added to the first three, and grain to the last one.
Prints the PSNR of each crop from the picture before that.
"""

import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFilter

from maximir import Restorer
from maximir.metrics import psnr
from maximir.pixels import UINT8, from_unit, to_unit
from maximir.restoring.blending import Blend

SIDE, SCALE, GAP = 144, 2, 4  # pixels
SIGMA = 12  # of 255
DETAILS = (0.0, 0.3, 0.6)
# what → name in scikit-image, top, left
CROPS = {
    "fur": ("chelsea", 0, 130),
    "fabric": ("astronaut", 330, 70),
    "stone": ("gravel", 150, 150),
    "film grain": ("coffee", 20, 250),
}


def add_noise(clean: np.ndarray, *, grain: bool) -> np.ndarray:
    """Add coloured noise, or the grain of a film: in luma alone, and larger than a pixel."""
    random = np.random.default_rng(0)
    noise = random.normal(size=clean.shape).astype(np.float32)
    if grain:
        image = Image.fromarray(np.round(noise[..., 0] * 32 + 128).clip(0, 255).astype(np.uint8))
        noise = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float32)[..., None] - 128
        noise = noise / noise.std()
    return from_unit(to_unit(clean) + noise * np.float32(SIGMA / 255), UINT8)


def main() -> None:
    restorer = Restorer("denoise", "cpu", "fp32")
    step = SIDE * SCALE + GAP
    sheet = Image.new("RGB", (step * (len(DETAILS) + 1) - GAP, step * len(CROPS) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (what, (name, top, left)) in enumerate(CROPS.items()):
        clean = getattr(skimage.data, name)()[top : top + SIDE, left : left + SIDE]
        if clean.ndim == 2:
            clean = np.repeat(clean[..., None], 3, axis=-1)
        noisy = add_noise(clean, grain=what == "film grain")
        pictures = [("as it is", noisy)]
        restored = restorer(noisy)
        for detail in DETAILS:
            pictures.append((f"detail {detail:g}", Blend(detail=detail).apply(noisy, restored.copy())))
        for column, (label, picture) in enumerate(pictures):
            place = column * step, row * step
            shown = Image.fromarray(picture).resize((SIDE * SCALE,) * 2, Image.Resampling.NEAREST)
            sheet.paste(shown, place)
            style = {"fill": "white", "stroke_fill": "black", "stroke_width": 2, "font_size": 18}
            text = label if column else f"{what}, {label}"
            draw.text((place[0] + 8, place[1] + 6), text, **style)
            print(f"{what}, {label}: {psnr(picture, clean):.2f} dB")
    sheet.save(Path(sys.argv[1]), quality=70, method=6)


if __name__ == "__main__":
    main()
