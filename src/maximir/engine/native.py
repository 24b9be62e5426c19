"""Whole blocks by the native kernels: sweeps over windows in registers and caches instead of maps.

A block hands over its parameters as a `Table`: weight and bias of one layer after the other, in the order of
the structures in ops/native/windows.h.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Mapping, Sequence
from ctypes import Structure, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maximir.engine.sweeps import Pass
from maximir.network.layers import Axis
from maximir.ops import kernels

Table = Sequence[Tensor | None]  # a block's parameters for one axis

FEATURES = (torch.float32, torch.bfloat16)
STRIPS_AT_ONCE = 4  # strips in one call: what lies between is small, and the threads start anew
PICTURE_CHANNELS = (3, 12)  # of pixels, or of squares of them
ROW_WIDTH = 16  # kernels that work on rows take widths that are multiples of this


class Sweep(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "height", "width", "channels", "side", "first", "last")),
        *((name, c_int32) for name in ("axis", "half", "threads")),
    ]


class MabWeights(Structure):
    _fields_ = [*((f"weight{i}", c_void_p) for i in range(16)), ("out_stride", c_int64)]


class GateWeights(Structure):
    _fields_ = [*((f"weight{i}", c_void_p) for i in range(12)), ("out_stride", c_int64)]


class CrossWeights(Structure):
    _fields_ = [("x", GateWeights), ("y", GateWeights), *((f"weight{i}", c_void_p) for i in range(4))]


class MapRows(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "height", "width", "channels", "first", "last")),
        *((name, c_int32) for name in ("half", "replicate", "threads")),
    ]


class RcabWeights(Structure):
    _fields_ = [(f"weight{i}", c_void_p) for i in range(6)]


class SamWeights(Structure):
    _fields_ = [*((f"weight{i}", c_void_p) for i in range(4)), ("picture_channels", c_int64)]


class PictureWeights(Structure):
    _fields_ = [*((f"weight{i}", c_void_p) for i in range(2)), ("picture_channels", c_int64)]


class TermStructure(Structure):
    _fields_ = [
        ("at", c_void_p),
        ("weight", c_void_p),
        *((name, c_int64) for name in ("image", "channels", "rows", "above")),
        *((name, c_int32) for name in ("kind", "factor", "half")),
    ]


class Projection(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "rows", "width", "outputs", "image")),
        *((name, c_int32) for name in ("half", "out_half", "terms", "threads")),
    ]


class Shrink(Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in ("images", "rows", "width", "channels", "in_rows", "in_image", "above")
        ),
        *((name, c_int32) for name in ("factor", "half", "threads")),
    ]


class Kind(enum.IntEnum):
    """Way of a term, rows [N, H, W, C], into the sum; see ops/native/projection.h."""

    PRODUCT = 0  # weight [outputs, C]
    TRANSPOSED = 1  # 2 x 2 with stride 2, from rows of half the size: weight [2, 2, outputs, C]
    ENLARGED = 2  # bilinearly by `factor`


@dataclass(frozen=True)
class Term:
    """Some rows in a sum of projections.

    Attributes:
        above: rows of `x` that come before those of the result.
    """

    kind: Kind
    x: Tensor
    weight: Tensor | None = None
    factor: int = 1
    above: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """N, H, W of the result; not for what is enlarged, which has more rows."""
        scale = 2 if self.kind == Kind.TRANSPOSED else 1
        n, h, w, _ = self.x.shape
        return n, scale * h, scale * w


def fits(
    run: Pass, module: nn.Module, *maps: Tensor, dtype: torch.dtype | None = None, rows: bool = False
) -> bool:
    """Return True if the kernels can compute this block for these maps.

    Args:
        dtype: type of the maps; None: that of feature maps.
        rows: the kernel works on rows, not on windows.
    """
    streaming = run.streaming
    return (
        streaming.kernels
        and streaming.features in FEATURES
        and all(
            x.device.type == "cpu"
            and x.dtype == (dtype or streaming.features)
            and x.shape[-1] % kernels.BLOCK_CHANNELS == 0
            and (not rows or x.shape[2] % ROW_WIDTH == 0)
            and x.is_contiguous()
            for x in maps
        )
        and all(p.dtype == torch.float32 and p.is_contiguous() for p in module.parameters())
        and kernels.library() is not None
    )


def multi_axis(run: Pass, x: Tensor, into: Tensor | None, size: int, tables: Mapping[Axis, Table]) -> Tensor:
    """Run a multi-axis gated MLP block of a float32 map; may write the result into `into`."""
    block, grid = (structure(MabWeights, tables[axis]) for axis in ("block", "grid"))
    share = run.new(x.shape, x.device, feature=True)
    sweep("mab_sweep", run, block, x, size, "block", x, None, share)
    if into is None:
        into = share if share.dtype == x.dtype else run.new(x.shape, x.device, feature=False)
    sweep("mab_sweep", run, grid, x, size, "grid", x, share, into)
    return into


def cross_gate(
    run: Pass, x: Tensor, y: Tensor, size: int, tables: Mapping[Axis, tuple[Table, Table]], joins: Table
) -> None:
    """Run a cross-gating block after its projections, in place.

    Args:
        tables: by axis, of the gates computed from X and from Y.
        joins: the projections that join Y, and X.
    """
    shares = []
    for table, z in zip(tables["grid"], (x, y), strict=True):
        share = run.new(z.shape, z.device, feature=True)
        sweep("gate_sweep", run, structure(GateWeights, table), z, size, "grid", z, share)
        shares.append(share)
    gates = (structure(GateWeights, table) for table in tables["block"])
    both = CrossWeights(*gates, *addresses(joins))
    sweep("cross_gate_sweep", run, both, x, size, "block", x, y, *shares)


def channel_attention(run: Pass, x: Tensor, table: Table, replicate: bool) -> tuple[Tensor, Tensor]:
    """Run the convolutions of a channel attention block of a float32 map.

    Args:
        table: LayerNorm and both convolutions.
        replicate: these are padded with the outermost pixels.

    Returns:
        y, a feature map, and the sums of its rows [N, H, C].
    """
    n, h, _, c = x.shape
    y, sums = run.new(x.shape, x.device, feature=True), x.new_empty(n, h, c)
    row_sweep("rcab_sweep", run, x, replicate, RcabWeights(*addresses(table)), x, y, sums)
    return y, sums


def attend(
    run: Pass, x: Tensor, y: Tensor, weight: Tensor, shortcut: Tensor | None, into: Tensor | None
) -> Tensor:
    """Return x + y * weight; with a long shortcut, which is added, as a feature map.

    Args:
        weight: [N, C].
        into: a map to overwrite, if it has the result's type.
    """
    dtype = run.dtype(shortcut is not None)
    out = next((z for z in (into, y) if z is not None and z.dtype == dtype), None)
    if out is None:
        out = run.new(x.shape, x.device, feature=shortcut is not None)
    row_sweep("attend_sweep", run, x, False, None, x, y, weight.float().contiguous(), shortcut, out)
    return out


def supervise(run: Pass, x: Tensor, image: Tensor, table: Table, replicate: bool) -> Tensor:
    """Return the features that a supervised attention module attends to by its restored image, a feature map.

    Args:
        x: a feature map.
        image: float32 [N, H, W, few channels].
        table: the convolutions of x and of the image.
        replicate: these are padded with the outermost pixels.
    """
    out = run.new(x.shape, x.device, feature=True)
    weights = SamWeights(*addresses(table), image.shape[-1])
    row_sweep("sam_sweep", run, x, replicate, weights, x, image, out)
    return out


def picture(run: Pass, x: Tensor, channels: int, table: Table, replicate: bool) -> Tensor:
    """Convolve a feature map 3 x 3 to a float32 picture [N, H, W, channels]; see `supervise`."""
    out = run.new((*x.shape[:3], channels), x.device, feature=False)
    row_sweep("picture_sweep", run, x, replicate, PictureWeights(*addresses(table), channels), x, out)
    return out


def row_sweep(
    name: str,
    run: Pass,
    shape_of: Tensor,
    replicate: bool,
    weights: Structure | None,
    *maps: Tensor | None,
) -> None:
    """Run one sweep, some rows at a time: between them progress is reported and scratch pages released."""
    n, h, w, c = shape_of.shape
    step = max(ROW_WIDTH, STRIPS_AT_ONCE * run.streaming.strip_bytes * h // (4 * shape_of.numel()))
    for first in run.streaming.strips(range(0, h, step)):
        last = min(first + step, h)
        job = MapRows(n, h, w, c, first, last, is_half(run), replicate, torch.get_num_threads())
        structures = [job] if weights is None else [job, weights]
        kernels.call(name, *map(ctypes.byref, structures), *kernels.pointers(*maps))


def projects(bias: Tensor, maps: Sequence[Tensor]) -> bool:
    """Return True if the kernels can project these maps, whose widths differ by powers of two."""
    return (
        kernels.allowed()
        and bias.device.type == "cpu"
        and len(bias) % kernels.BLOCK_CHANNELS == 0
        and all(
            x.device.type == "cpu"
            and x.dtype in FEATURES
            and x.shape[-1] % kernels.BLOCK_CHANNELS == 0
            and x.shape[2] % ROW_WIDTH == 0
            and x.is_contiguous()
            for x in maps
        )
    )


def project(terms: Sequence[Term], bias: Tensor, out: Tensor, copy: Tensor | None = None) -> Tensor:
    """Write bias + the sum of all terms to rows of a map, and the same to those of a bfloat16 map.

    Products are in bfloat16 under autocast.
    """
    n, rows, w, outputs = out.shape
    structures = (TermStructure * len(terms))(*map(term_structure, terms))
    half, out_half = torch.is_autocast_enabled("cpu"), out.dtype == torch.bfloat16
    job = Projection(n, rows, w, outputs, out.stride(0), half, out_half, len(terms), torch.get_num_threads())
    kernels.call("project_rows", ctypes.byref(job), structures, *kernels.pointers(bias, out, copy))
    return out


def term_structure(term: Term) -> TermStructure:
    _, rows, _, channels = term.x.shape
    where = addresses([term.x, term.weight])
    half = term.x.dtype == torch.bfloat16
    return TermStructure(*where, term.x.stride(0), channels, rows, term.above, term.kind, term.factor, half)


def shrink(x: Tensor, rows: int, factor: int, above: int) -> Tensor:
    """Return `ops.functional.shrink` of rows of a map.

    Args:
        rows: of the result.
        above: rows of `x` that come before the first that these stand for.
    """
    n, in_rows, width, c = x.shape
    y = x.new_empty(n, rows, width // factor, c)
    half = x.dtype == torch.bfloat16
    sizes = (n, rows, width // factor, c, in_rows, x.stride(0), above)
    job = Shrink(*sizes, factor, half, torch.get_num_threads())
    kernels.call("shrink_rows", ctypes.byref(job), *kernels.pointers(x, y))
    return y


def is_half(run: Pass) -> bool:
    return run.streaming.features == torch.bfloat16


def sweep(
    name: str,
    run: Pass,
    weights: Structure,
    shape_of: Tensor,
    side: int,
    axis: Axis,
    *maps: Tensor | None,
) -> None:
    """Run one sweep, some windows at a time: between them progress is reported and scratch pages released."""
    n, h, w, c = shape_of.shape
    count = n * (h // side) * (w // side)
    step = max(1, STRIPS_AT_ONCE * run.streaming.strip_bytes // (side * side * c * 4))
    for first in run.streaming.strips(range(0, count, step)):
        job = Sweep(
            n, h, w, c, side, first, min(first + step, count),
            axis == "grid", is_half(run), torch.get_num_threads(),
        )  # fmt: skip
        kernels.call(name, ctypes.byref(job), ctypes.byref(weights), *kernels.pointers(*maps))


def structure(kind: type[MabWeights] | type[GateWeights], table: Table) -> MabWeights | GateWeights:
    """Return the kernels' structure of a table, whose last weight may be some columns of a wider one."""
    last = table[-2]
    assert last is not None
    return kind(*addresses(table), last.stride(0))


def addresses(table: Table) -> list[int | None]:
    return [None if parameter is None else parameter.data_ptr() for parameter in table]
