"""Names of camera raw files, recognised by content.

Most are TIFFs whose first picture is a small preview; nobody wants that restored instead of the photograph.
"""

from __future__ import annotations

import re
import struct

from maximir.images.codecs import tiff
from maximir.images.metadata import ifd

# First bytes of files that are not TIFFs, or not quite.
STARTS = {
    b"FUJIFILMCCD-RAW": "Fujifilm RAF",
    b"IIU\0": "Panasonic RW2",
    b"IIRO": "Olympus ORF",
    b"IIRS": "Olympus ORF",
    b"MMOR": "Olympus ORF",
    b"FOVb": "Sigma X3F",
    b"\0MRM": "Minolta MRW",
    b"II\x1a\0\0\0HEAPCCDR": "Canon CRW",
    b"ARRI": "ARRIRAW",
}
SUFFIXES = (  # for the names of results; the content decides what a file is
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".rwl"),
    *(".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mrw", ".erf", ".kdc", ".dcr", ".mos", ".mef", ".gpr"),
)
CR3 = b"ftypcrx "
# At byte 8 of TIFFs; in other TIFFs pixels may be there.
CR2, IIQ = b"CR\x02\0", re.compile(rb"IIII.waR|MMMMRaw.", re.DOTALL)
CR2_DIRECTORY = b"\x10\0\0\0"  # at byte 4
DNG_VERSION = 50706
SENSOR = (32803, 34892)  # photometric: colour filter array, linear raw
MAKERS = {b"NIKON": "Nikon NEF", b"SONY": "Sony ARW", b"PENTAX": "Pentax PEF", b"SAMSUNG": "Samsung SRW"}
MAKERS |= {b"EASTMAN": "Kodak KDC", b"HASSELBLAD": "Hasselblad 3FR"}
MAKE = 271
OTHERS = "sensor data in a TIFF"


def name(data: bytes) -> str | None:
    """Return the name of the kind of raw file; None if it is none."""
    for start, called in STARTS.items():
        if data.startswith(start):
            return called
    if data[4:12] == CR3:
        return "Canon CR3"
    if data[:4] not in ifd.STARTS:
        return None
    if data[4:12] == CR2_DIRECTORY + CR2:
        return "Canon CR2"
    if IIQ.match(data, 8):
        return "Phase One IIQ"
    try:
        reader = ifd.Reader(data)
        first, _ = reader.directory(reader.first())
    except struct.error:
        return None
    if any(field.tag == DNG_VERSION for field in first):
        return "DNG"
    if not any(picture.photometric in SENSOR for picture in tiff.pictures(data)):
        return None
    make = next((reader.value(field) for field in first if field.tag == MAKE), b"")
    return next((called for maker, called in MAKERS.items() if make.upper().startswith(maker)), OTHERS)
