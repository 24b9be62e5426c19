"""XMP packets: XML that is kept unchanged, except for what is no longer true of a restored picture.

Edits are small cuts in the text, so that all else stays byte by byte, and packets which are not quite XML can
be corrected, too. JPEG holds long packets in two parts, a standard and an extended one.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from xml.parsers import expat

NAME = rb"[\w.-]+"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TIFF, EXIF = b"http://ns.adobe.com/tiff/1.0/", b"http://ns.adobe.com/exif/1.0/"
NOTE = b"http://ns.adobe.com/xmp/note/"
WIDTHS = ((EXIF, b"PixelXDimension"), (TIFF, b"ImageWidth"))
HEIGHTS = ((EXIF, b"PixelYDimension"), (TIFF, b"ImageLength"))
PHOTOSHOP, RGB = b"http://ns.adobe.com/photoshop/1.0/", b"3"
ORIENTATION = (TIFF, b"Orientation")
BESIDES_GONE = "XMP about videos and gain maps left out"
PLACES_GONE = "XMP with places in the picture, which was turned, left out (faces, depth, panorama)"
# Properties about other things in the file, which are not kept: names by namespace, or all of them.
BESIDES = (
    (b"http://ns.google.com/photos/1.0/camera/", rb"(?:MotionPhoto|MicroVideo)\w*"),
    (b"http://ns.google.com/photos/1.0/container/", NAME),
    (b"http://ns.google.com/photos/dd/1.0/container/", NAME),
    (b"http://ns.adobe.com/hdr-gain-map/1.0/", NAME),
    (b"http://ns.apple.com/HDRGainMap/1.0/", NAME),
    (b"http://ns.oplus.com/photos/1.0/camera/", rb"(?:MotionPhoto|OLivePhoto|VideoLength)\w*"),
    (b"http://ns.xiaomi.com/photos/1.0/camera/", rb"XMPMeta"),
)
THUMBNAILS = ((b"http://ns.adobe.com/xap/1.0/", rb"Thumbnails"),)  # of the picture before restoring
# Properties with places in the picture as it was stored.
PLACES = (
    (b"http://www.metadataworkinggroup.com/schemas/regions/", rb"Regions"),
    (b"http://ns.microsoft.com/photo/1.2/", rb"RegionInfo"),
    (b"http://ns.google.com/photos/1.0/depthmap/", NAME),
    (b"http://ns.google.com/photos/1.0/panorama/", rb"(?:Cropped|Full|Largest)\w*"),
)
USUAL = {TIFF: b"tiff", EXIF: b"exif", BESIDES[0][0]: b"GCamera", BESIDES[3][0]: b"hdrgm"}  # prefixes
USUAL |= {BESIDES[1][0]: b"Container", BESIDES[4][0]: b"HDRGainMap"}
EXTENDED = b"HasExtendedXMP"
MOST_STANDARD = 65_502  # bytes of a packet in one segment of a JPEG
TAG = re.compile(rb"(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
ATTRIBUTE = re.compile(rb"\s(?!xmlns:|rdf:|xml:)%s:%s\s?=\s?(?:\"[^\"]*\"|'[^']*')" % (NAME, NAME))
MOST_PREFIXES = 8  # of one namespace


def corrected(packet: bytes, width: int, height: int, turned: bool) -> tuple[bytes, tuple[str, ...]]:
    """Correct a packet for an upright picture of this size; return it with notes on what was removed."""
    notes = []
    found = packet
    if turned:
        found = upright(found)
    for names, value in ((WIDTHS, width), (HEIGHTS, height)):
        for uri, name in names:
            found = _set(found, uri, name, b"%d" % value)
    for uri, name in THUMBNAILS:
        found = without(found, uri, name)
    whole = found
    for uri, name in BESIDES:
        found = without(found, uri, name)
    if found != whole:
        notes.append(BESIDES_GONE)
    whole = found
    for uri, name in PLACES if turned else ():
        found = without(found, uri, name)
    if found != whole:
        notes.append(PLACES_GONE)
    return found, tuple(notes)


def upright(packet: bytes) -> bytes:
    """Set the orientation to 1: XMP repeats EXIF's, and some programs use it."""
    return _set(packet, *ORIENTATION, b"1")


def in_rgb(packet: bytes) -> bytes:
    """Mark the picture as RGB and remove the name of the profile of the inks that it was converted from."""
    return without(_set(packet, PHOTOSHOP, b"ColorMode", RGB), PHOTOSHOP, b"ICCProfile")


def prefixes(packet: bytes, uri: bytes) -> list[bytes]:
    """Return the namespace's prefixes; the usual one where a fragment does not declare it."""
    found = re.findall(rb"xmlns:(%s)\s?=\s?[\"']%s[\"']" % (NAME, re.escape(uri)), packet)
    usual = USUAL.get(uri)
    if usual and b"xmlns:" + usual + b"=" not in packet:
        found.append(usual)
    return list(dict.fromkeys(found))[:MOST_PREFIXES]


def without(packet: bytes, uri: bytes, name: bytes) -> bytes:
    """Remove the properties of a namespace whose names match, both attributes and elements."""
    for prefix in prefixes(packet, uri):
        full = re.escape(prefix) + b":" + name
        packet = re.sub(rb"\s" + full + rb"\s?=\s?(?:\"[^\"<]*\"|'[^'<]*')", b"", packet)
        packet = _without_elements(packet, full)
    return packet


def _without_elements(packet: bytes, full: bytes) -> bytes:
    kept, at = [], 0
    for match in re.finditer(rb"<(" + full + rb")(?=[\s/>])[^<>]*>", packet):
        if match.start() < at:  # within a removed one
            continue
        end = match.end()
        if not match[0].endswith(b"/>"):
            close = b"</" + match[1] + b">"
            if (end := packet.find(close, end)) < 0:  # none behind it closes either
                break
            end += len(close)
        kept.append(packet[at : match.start()])
        at = end
    return b"".join((*kept, packet[at:]))


def _set(packet: bytes, uri: bytes, name: bytes, value: bytes) -> bytes:
    """Replace the number that is a property's value."""
    for prefix in prefixes(packet, uri):
        full = re.escape(prefix) + b":" + name
        packet = re.sub(rb"(\s" + full + rb"\s?=\s?[\"'])\d+", rb"\g<1>" + value, packet)
        packet = re.sub(rb"(<" + full + rb">)\d+(?=<)", rb"\g<1>" + value, packet)
    return packet


def extended_by(packet: bytes) -> bytes | None:
    """Return the GUID of the packet's second part; None if it has none."""
    for prefix in (*prefixes(packet, NOTE), b"xmpNote"):
        full = re.escape(prefix) + b":" + EXTENDED
        if match := re.search(full + rb"(?:\s?=\s?[\"']|>)([0-9A-Fa-f]{32})", packet):
            return match[1].upper()
    return None


def joined(packet: bytes, extension: bytes) -> bytes | None:
    """Join both parts into one packet; return None if they do not fit."""
    packet = unextended(packet)
    head, body, _ = _parts(extension)
    mine, _, end = _parts(packet)
    if not body or not end:
        return None
    rest = body.strip()
    for prefix, uri in re.findall(rb"xmlns:(%s)\s?=\s?[\"']([^\"']*)[\"']" % NAME, head):
        said = re.search(rb"xmlns:%s\s?=\s?[\"']([^\"']*)[\"']" % re.escape(prefix), mine)
        if said is not None and said[1] != uri:
            return None
        if said is None:  # declare it where both see it
            at = mine.index(b"<rdf:RDF") + len(b"<rdf:RDF")
            mine = mine[:at] + b' xmlns:%s="%s"' % (prefix, uri) + mine[at:]
    own = len(_parts(packet)[0])
    at = packet.rindex(b"</rdf:RDF>")
    return mine + packet[own:at] + rest + packet[at:]


def unextended(packet: bytes) -> bytes:
    return without(packet, NOTE, EXTENDED) if extended_by(packet) else packet


def _parts(packet: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a packet into the text before the descriptions, these, and the text behind them.

    An unusual packet is returned as the first of the three."""
    start = packet.find(b"<rdf:RDF")
    begin = packet.find(b">", start) + 1
    end = packet.rfind(b"</rdf:RDF>")
    if start < 0 or not 0 < begin <= end:
        return packet, b"", b""
    return packet[:begin], packet[begin:end], packet[end:]


class Piece(NamedTuple):
    """A property that may stand in the second part: its bytes, and the start tag of its description."""

    begin: int
    end: int
    description: int
    attribute: bool


def split(packet: bytes) -> tuple[bytes, bytes] | None:
    """Split a packet as JPEG stores it: a standard part and an extended one (b"" if not needed).

    Returns None if the packet cannot be split.

    The largest properties go into the second part, until the first fits.
    """
    if len(packet) <= MOST_STANDARD:
        return packet, b""
    packet = _unpadded(packet)
    if len(packet) <= MOST_STANDARD:
        return packet, b""
    try:
        tags, pieces = _pieces(packet)
    except (expat.ExpatError, ValueError):
        return None
    room = MOST_STANDARD - 200  # for the name of the second part
    moved, left = [], len(packet)
    for piece in sorted(pieces, key=lambda piece: piece.begin - piece.end):
        if left <= room:
            break
        moved.append(piece)
        left -= piece.end - piece.begin
    if left > room or not moved:
        return None
    extension = _extension(packet, tags, moved)
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    named = b' xmlns:xmpNote="%s" xmpNote:%s="%s"' % (NOTE, EXTENDED, guid)
    cuts = [(piece.begin, piece.end, b"") for piece in moved]
    first = tags[min(tags)]
    name_end = first.begin + first.name
    cuts.append((name_end, name_end, named))
    kept, at = [], 0
    for begin, end, instead in sorted(cuts):
        kept += [packet[at:begin], instead]
        at = end
    return b"".join((*kept, packet[at:])), extension


class Tag(NamedTuple):
    """Start tag of a description: its place, the length of `<rdf:Description`, and its namespaces."""

    begin: int
    end: int
    name: int
    spaces: dict[str, str]
    about: bytes


def _pieces(packet: bytes) -> tuple[dict[int, Tag], list[Piece]]:
    """Return descriptions and their properties.

    Raises:
        expat.ExpatError: not XML. ValueError: with things that XMP does not have.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    tags: dict[int, Tag] = {}
    pieces: list[Piece] = []
    open_: list[tuple[str, int]] = []  # names and places of elements
    spaces: list[tuple[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        if name == f"{RDF} Description" and [n for n, _ in open_[-1:]] == [f"{RDF} RDF"]:
            tags[at] = _tag(packet, at, dict(spaces))
        open_.append((name, at))

    def end(name: str) -> None:
        _, begin = open_.pop()
        if len(open_) >= 1 and (parent := open_[-1][1]) in tags and begin not in tags:
            # An element without content ends where it starts.
            pieces.append(Piece(begin, _tag_end(packet, parser.CurrentByteIndex), parent, False))

    def space(prefix: str | None, uri: str | None) -> None:
        if prefix is None or uri is None:
            raise ValueError("a namespace without a prefix")
        spaces.append((prefix, uri))

    def doctype(*_: object) -> None:
        raise ValueError("a document type")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartNamespaceDeclHandler = space
    parser.StartDoctypeDeclHandler = doctype
    parser.Parse(packet, True)
    for at, tag in tags.items():
        pieces += [Piece(*match.span(), at, True) for match in ATTRIBUTE.finditer(packet, at, tag.end)]
    if not tags:
        raise ValueError("no description")
    return tags, pieces


def _tag(packet: bytes, at: int, spaces: dict[str, str]) -> Tag:
    end = _tag_end(packet, at)
    name = re.compile(rb"<[\w:.-]+").match(packet, at)
    about = re.compile(rb"\srdf:about\s?=\s?(\"[^\"]*\"|'[^']*')").search(packet, at, end)
    return Tag(at, end, len(name[0]) if name else 0, spaces, about[1] if about else b'""')


def _tag_end(packet: bytes, at: int) -> int:
    if (match := TAG.match(packet, at)) is None:
        raise ValueError("an odd tag")
    return match.end()


def _extension(packet: bytes, tags: dict[int, Tag], moved: list[Piece]) -> bytes:
    found = [b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s">' % RDF.encode()]
    for at, tag in tags.items():
        mine = sorted(piece for piece in moved if piece.description == at)
        if not mine:
            continue
        attributes = b"".join(packet[piece.begin : piece.end] for piece in mine if piece.attribute)
        elements = b"".join(packet[piece.begin : piece.end] for piece in mine if not piece.attribute)
        spaces = b"".join(
            b' xmlns:%s="%s"' % (prefix.encode(), uri.encode())
            for prefix, uri in tag.spaces.items()
            if prefix not in ("x", "rdf") and prefix.encode() + b":" in attributes + elements
        )
        head = b"<rdf:Description rdf:about=%s%s%s>" % (tag.about, spaces, attributes)
        found.append(head + elements + b"</rdf:Description>")
    return b"".join((*found, b"</rdf:RDF></x:xmpmeta>"))


def _unpadded(packet: bytes) -> bytes:
    """Remove the padding at the end, which programs leave for later edits."""
    at = packet.rfind(b"<?xpacket end")
    if at < 0:
        return packet.rstrip(b" \t\r\n\0")
    return packet[:at].rstrip(b" \t\r\n") + b"\n" + packet[at:].rstrip(b" \t\r\n\0")
