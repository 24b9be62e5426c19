"""The metadata of an image, whatever file it comes from or goes to."""

from __future__ import annotations

from typing import TypedDict

Metadata = TypedDict(
    "Metadata",
    {
        # libvips's names
        "icc-profile-data": bytes,
        "exif-data": bytes,
        "xmp-data": bytes,
        "iptc-data": bytes,  # bare records, or Photoshop's resources
        "xres": float,  # pixels per mm, where the file says so
        "yres": float,
        "bits-per-sample": int,  # where it is fewer than the array's, which still has full range
        # maximir's names
        "png-texts": bytes,  # chunks as they stood in the file
        "png-chunks": bytes,  # others of a PNG that hold for the restored picture, as they stood in the file
        "png-srgb": bytes,  # the intent of a PNG that says "sRGB"
        "jpeg-segments": bytes,  # others of a JPEG, as they stood in the file
        "extra-sample": int,  # what a TIFF says its last channel is, if not usual alpha: see `tiff`
        "png-light": bytes,  # on the light of HDR, as chunks of a PNG
        "comments": tuple[bytes, ...],  # of a JPEG or GIF
        "cicp": bytes,  # a PNG's colours, or those of HDR, as 4 numbers of ITU-T H.273: see `profiles.chosen`
        "cicp-profile": bytes,  # the profile beside these numbers, for readers that do not know them
    },
    total=False,
)
