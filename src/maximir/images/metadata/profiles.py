"""Colour spaces: whether an ICC profile can be used, and profiles for spaces that a file tells by numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from maximir.images.metadata.fields import Metadata

Primaries = tuple[tuple[float, float], ...]  # xy chromaticities of red, green, blue and white

D65 = (0.3127, 0.3290)
BT709: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)  # sRGB's, too
# By the numbers of ITU-T H.273, which AVIF, HEIC and PNG use.
PRIMARIES: dict[int, Primaries] = {
    1: BT709,
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), (0.310, 0.316)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # the other curves are sRGB's or near it
HDR = {16: "PQ", 18: "HLG"}
BT601 = (5, 6, 7)  # video encoders write these by default; viewers treat them as BT.709

D50 = np.array([0.9642, 1.0, 0.8249])  # white of every profile
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
MAX_BYTES = 16 * 2**20  # printers' profiles have one or two


@dataclass(frozen=True)
class Colours:
    """A colour space of three primaries and one curve; `gamma` None: sRGB's curve."""

    primaries: Primaries = BT709
    gamma: float | None = None

    def is_srgb(self) -> bool:
        """Return whether these are nearly sRGB's: files round them, and mean sRGB's curve by 2.2."""
        apart = np.abs(np.subtract(self.primaries, BT709)).max()
        return bool(apart < 0.002) and (self.gamma is None or abs(self.gamma - 2.2) < 0.03)


def by_numbers(primaries: int, transfer: int) -> Colours:
    """Return the colour space of two numbers of H.273; sRGB where they are unspecified."""
    if primaries in BT601 and transfer not in GAMMAS:
        return Colours()
    return Colours(PRIMARIES.get(primaries, BT709), GAMMAS.get(transfer))


def chosen(numbers: bytes | None, icc: bytes | None, *, grey: bool, numbers_first: bool = False) -> Metadata:
    """Return metadata for the colour space of a file that may state it by numbers, by a profile, or by both.

    Args:
        numbers: primaries, transfer, matrix and full-range flag of H.273, as in PNG's cICP.
        numbers_first: they count before the profile, as in PNG; elsewhere only those of HDR do.
    """
    kept = numbers is not None and (numbers_first or numbers[1] in HDR)
    if icc is not None and not kept:
        return {"icc-profile-data": icc}
    if numbers is None:
        return {}
    found: Metadata = {"cicp": numbers} if kept else {}
    if icc is not None:
        found["cicp-profile"] = icc
    return found if numbers[1] in HDR else found | described(by_numbers(numbers[0], numbers[1]), grey=grey)


def numbers_in(icc: bytes) -> bytes | None:
    """Return the numbers that a profile of version 4.4 states in its own "cicp" tag."""
    count = int.from_bytes(icc[128:132], "big")
    for at in range(132, min(132 + 12 * count, len(icc) - 11), 12):
        name, start, length = struct.unpack_from(">4sII", icc, at)
        if name == b"cicp" and length == 12 and icc[start : start + 4] == b"cicp" and start + 12 <= len(icc):
            return icc[start + 8 : start + 12]
    return None


def described(colours: Colours, *, grey: bool) -> Metadata:
    """Return metadata with a profile for `colours`, unless they are sRGB's."""
    try:
        return {} if colours.is_srgb() else {"icc-profile-data": profile(colours, grey=grey)}
    except (np.linalg.LinAlgError, struct.error):  # primaries on a line, or nearly
        return {}


def are_plausible(points: Primaries) -> bool:
    """Return whether these can be chromaticities of red, green, blue and white."""
    return all(0 < x < 1 and 0 < y < 1 and x + y <= 1 for x, y in points)


def misfit(icc: bytes, *, grey: bool) -> str | None:
    """Return why a profile cannot be in a file of grey or RGB pixels; None if it can."""
    if len(icc) < 132 or icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc):
        return "damaged colour profile"
    if len(icc) > MAX_BYTES:
        return "colour profile of suspicious length"
    wanted = b"GRAY" if grey else b"RGB "
    if icc[16:20] != wanted:
        return f"colour profile for {icc[16:20].decode('ascii', 'replace').strip()}"
    return None


def profile(colours: Colours, *, grey: bool) -> bytes:
    """Return an ICC profile, version 4."""
    to_xyz, adaptation = matrices(colours.primaries)
    curve = struct.pack(">HH", 0, 0) + fixed(colours.gamma or 0)
    if colours.gamma is None:
        curve = struct.pack(">HH", 3, 0) + fixed(*SRGB_CURVE)
    tags = {
        b"desc": b"mluc" + text("sRGB" if colours.is_srgb() and not grey else "by the file's numbers"),
        b"cprt": b"mluc" + text("no copyright"),
        b"wtpt": b"XYZ " + bytes(4) + fixed(*D50),
        b"chad": b"sf32" + bytes(4) + fixed(*adaptation.ravel()),
    }
    for k, name in enumerate(b"" if grey else b"rgb"):
        tags[bytes((name,)) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*to_xyz[:, k])
    for name in b"k" if grey else b"rgb":
        tags[bytes((name,)) + b"TRC"] = b"para" + bytes(4) + curve
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for kind, value in tags.items():
        table += struct.pack(">4sII", kind, at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"", 0x04300000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*D50)
    return header + bytes(128 - len(header)) + table + body


def matrices(primaries: Primaries) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix linear RGB → XYZ relative to D50, and the white's adaptation to D50; 3 × 3 each."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    columns, white = xyz[:, :3], xyz[:, 3]
    gains = (BRADFORD @ D50) / (BRADFORD @ white)
    adaptation = np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD
    return adaptation @ (columns * np.linalg.solve(columns, white)), adaptation


def fixed(*values: float) -> bytes:
    """Encode numbers as ICC's s15Fixed16."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def text(line: str) -> bytes:
    encoded = line.encode("utf-16-be")
    return bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
