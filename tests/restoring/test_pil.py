"""Colour spaces of PIL images: as in files."""

import io

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from maximir import images
from maximir.restoring import pil

PRESS = bytes(pyvips.Image.profile_load("cmyk"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)


@pytest.mark.parametrize("profile", [PRESS, None, b"no profile" * 30])
@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_converted_as_in_files(profile, kind):
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (30, 20), NOISE.tobytes()).save(buffer, kind, icc_profile=profile)
    photo = images.decode(buffer.getvalue())
    with Image.open(buffer) as image:
        pixels, alpha, info = pil.to_arrays(image)
    assert alpha is None
    np.testing.assert_array_equal(pixels, photo.rgb)
    assert info["icc_profile"] == photo.metadata["icc-profile-data"]
    assert info["icc_profile"][16:20] == b"RGB "


def test_alpha_counts_where_there_is_a_transparent_colour_too():
    image = Image.fromarray(NOISE[..., :3])
    image.info["transparency"] = (1, 2, 3)
    image.putalpha(128)
    pixels, alpha, info = pil.to_arrays(image)
    assert alpha.min() == alpha.max() == 128 and "transparency" not in info
    assert pil.from_arrays(pixels, alpha, info).mode == "RGBA"


def test_lab_is_converted():
    smooth = np.add.outer(np.arange(20), np.arange(30))[..., None].astype(np.uint8) * (2, 3, 4) + np.uint8(20)
    rgb = Image.fromarray(smooth.astype(np.uint8))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(rgb, srgb, lab, outputMode="LAB")
    image.info["icc_profile"] = LAB
    pixels, _, info = pil.to_arrays(image)
    assert np.abs(pixels.astype(int) - smooth).max() <= 6  # Lab has 8 bits
    assert "icc_profile" not in info


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "YCbCr", "HSV", "I;16"])
@pytest.mark.parametrize("profile", [SRGB, PRESS, LAB, b"short"])
def test_a_profile_stays_where_it_fits(mode, profile):
    image = Image.fromarray(NOISE[..., 0]) if mode == "I;16" else Image.fromarray(NOISE[..., :3])
    image = image.convert(mode)
    image.info["icc_profile"] = profile
    pixels, alpha, info = pil.to_arrays(image)
    restored = pil.from_arrays(pixels, alpha, info)
    fits = profile is SRGB and restored.mode in ("RGB", "RGBA")
    assert restored.info == ({"icc_profile": SRGB} if fits else {})
