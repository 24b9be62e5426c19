"""Metadata of an image, kept unchanged: EXIF, XMP, IPTC, colour profiles."""
