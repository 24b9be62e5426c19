"""What files say about an image, kept as it is: EXIF, XMP, IPTC, colour profiles."""
