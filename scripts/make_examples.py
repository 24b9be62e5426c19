"""Make the photographs of `examples/`: public-domain pictures from scikit-image with visible noise.

    python scripts/make_examples.py

The noise is Gaussian, clipped and rounded to 8 bits, as in a file. Origin and terms: docs/examples.md.
"""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from maximir.degradations.noise import gaussian_noise
from maximir.pixels import UINT8, from_unit, to_unit

EXAMPLES = Path(__file__).parent.parent / "examples"
# name in scikit-image → (rows, columns, sigma)
PICTURES = {
    "astronaut": (slice(0, 384), slice(32, 416), 25),
    "chelsea": (slice(0, 300), slice(0, 451), 15),
    "coffee": (slice(20, 380), slice(60, 540), 40),
}

for number, (name, (rows, columns, sigma)) in enumerate(PICTURES.items()):
    clean = getattr(skimage.data, name)()[rows, columns]
    noisy = gaussian_noise(to_unit(clean), sigma, np.random.default_rng(number))
    path = EXAMPLES / f"{name}.png"
    Image.fromarray(from_unit(noisy, UINT8)).save(path, optimize=True)
    h, w = clean.shape[:2]
    print(f"{path.name}: {w} x {h}, sigma {sigma}, {path.stat().st_size / 1e3:.0f} kB")
