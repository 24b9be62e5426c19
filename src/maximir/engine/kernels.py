"""Native kernels for processors, of the sweeps over windows and of convolutions: kernels.cpp.

They are compiled with the package, and do what `network` says, in registers and caches instead of maps. Where
they cannot be used (no library for this processor, a GPU, recorded gradients, odd widths), callers go on in
torch, with the same result.

A block hands over its parameters as a `Table`: weight and bias of one layer after the other, in the order of
the structures in kernels.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor, nn

from maximir.engine import streaming
from maximir.engine.streaming import Axis, Rows, Streaming
from maximir.errors import UsageError

Table = Sequence[Tensor | None]  # of a block, for one axis

SWITCH = "MAXIMIR_KERNELS"  # environment: the library to use, by its name
OFF = "off"
SOURCE = Path(__file__).with_name("kernels.cpp")  # a library of another version would misread its arguments
LIBRARIES = ("avx512bf16", "avx512", "avx2", "baseline")  # the best first
# Torch's OpenMP runtime: what is it, or links it, in torch/lib; and the functions that kernels.cpp calls.
OPENMP = {"win32": "libiomp5md.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
ENTRY_POINTS = (
    ("__kmpc_global_thread_num", "__kmpc_push_num_threads", "__kmpc_fork_call")
    if sys.platform == "win32"
    else ("GOMP_parallel",)
)
CHANNELS = 16  # they do multiples of
CONV_OUTPUTS = 32  # convolutions make multiples of
FEATURES = (torch.float32, torch.bfloat16)
WINDOW_STRIPS = 4  # windows at a time, in strips: their inner maps are small, and the threads start anew


class Sweep(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "height", "width", "channels", "side", "first", "last")),
        *((name, c_int32) for name in ("axis", "precision", "threads", "features_bf16")),
    ]


class MabWeights(Structure):
    _fields_ = [
        *((f"weight{i}", c_void_p) for i in range(16)),
        ("out_stride", c_int64),
    ]


class GateWeights(Structure):
    _fields_ = [*((f"weight{i}", c_void_p) for i in range(12)), ("out_stride", c_int64)]


class CrossWeights(Structure):
    _fields_ = [("x", GateWeights), ("y", GateWeights), *((f"weight{i}", c_void_p) for i in range(4))]


class Convolution(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "rows", "width", "inputs", "outputs")),
        *((name, c_int32) for name in ("top", "bottom", "replicate", "threads")),
        ("negative_slope", c_float),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The best library for this processor.

    Raises:
        UsageError: the environment asks for one that is unknown.
    """
    chosen = os.environ.get(SWITCH)
    if chosen not in (None, OFF, *LIBRARIES):
        raise UsageError(f"{SWITCH}={chosen}: must be {OFF} or one of {', '.join(LIBRARIES)}")
    openmp = openmp_entry_points()
    if openmp is None:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    for name in LIBRARIES:
        path = Path(__file__).with_name(f"kernels-{name}.so")
        if chosen not in (None, name) or not path.exists():
            continue
        try:
            loaded = ctypes.CDLL(str(path))
            loaded.source_digest.restype = ctypes.c_char_p
            current = loaded.source_digest().decode() == digest
        except (OSError, AttributeError):  # of another system or version
            continue
        if current and loaded.supported():
            loaded.use_openmp(openmp)
            return loaded
    return None


def openmp_entry_points() -> ctypes.Array[c_void_p] | None:
    """Addresses of the functions by which the kernels run on torch's threads; None if torch has no OpenMP."""
    try:
        runtime = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / OPENMP))
        functions = [ctypes.cast(getattr(runtime, name), c_void_p) for name in ENTRY_POINTS]
    except (OSError, AttributeError):
        return None
    return (c_void_p * len(functions))(*functions)


def usable(module: nn.Module, *maps: Tensor, dtype: torch.dtype | None = None) -> Streaming | None:
    """The streaming in force, if the kernels can do this layer for these maps.

    Args:
        dtype: of the maps; None: of feature maps.
    """
    running = streaming.active()
    if running is None or not running.kernels or running.features not in FEATURES or library() is None:
        return None
    dropping = module.training and any(m.p > 0 for m in module.modules() if isinstance(m, nn.Dropout))
    fits = all(
        x.device.type == "cpu"
        and x.dtype == (dtype or running.features)
        and x.shape[-1] % CHANNELS == 0
        and x.is_contiguous()
        for x in maps
    )
    plain = all(p.dtype == torch.float32 and p.is_contiguous() for p in module.parameters())
    return running if fits and plain and not dropping else None


def multi_axis(
    x: Tensor, into: Tensor | None, size: int, tables: Mapping[Axis, Table], running: Streaming
) -> Tensor:
    """A multi-axis gated MLP block of a float32 map."""
    block, grid = (structure(MabWeights, tables[axis]) for axis in ("block", "grid"))
    share = running.store.new(x.shape, running.features, x.device)
    run("mab_sweep", block, x, size, "block", running, x, None, share)
    if into is None:
        into = share if share.dtype == x.dtype else running.store.new(x.shape, x.dtype, x.device)
    run("mab_sweep", grid, x, size, "grid", running, x, share, into)
    return into


def cross_gate(
    x: Tensor,
    y: Tensor,
    size: int,
    tables: Mapping[Axis, tuple[Table, Table]],
    joins: Table,
    running: Streaming,
) -> None:
    """A cross-gating block after its projections, in place.

    Args:
        tables: by axis, of the gates computed from X and from Y.
        joins: what joins Y, and what joins X.
    """
    shares = []
    for table, z in zip(tables["grid"], (x, y), strict=True):
        share = running.store.new(z.shape, running.features, z.device)
        run("gate_sweep", structure(GateWeights, table), z, size, "grid", running, z, share)
        shares.append(share)
    gates = (structure(GateWeights, table) for table in tables["block"])
    both = CrossWeights(*gates, *addresses(joins))
    run("cross_gate_sweep", both, x, size, "block", running, x, y, *shares)


def take(*tensors: Tensor) -> bool:
    """Whether the kernels take these float32 tensors, for gradients or not."""
    return (
        streaming.chosen().kernels
        and all(
            type(x) in (Tensor, nn.Parameter)  # none that is only traced
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous()
            and x.numel() > 0
            for x in tensors
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and library() is not None
    )


def gelu(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    call("gelu_forward", *pointers(x, y), c_int64(x.numel()), torch.get_num_threads())
    return y


def gelu_backward(x: Tensor, gradient: Tensor) -> Tensor:
    y = torch.empty_like(x)
    call("gelu_backward", *pointers(x, gradient, y), c_int64(x.numel()), torch.get_num_threads())
    return y


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = torch.empty_like(x)
    channels = x.shape[-1]
    sizes = (c_int64(x.numel() // channels), c_int64(channels), torch.get_num_threads())
    call("layer_norm", *pointers(x, weight, bias, y), *sizes)
    return y


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    top: bool,
    bottom: bool,
    replicate: bool,
    *,
    negative_slope: float = 1.0,
    out: Rows | None = None,
) -> Tensor:
    """A 3x3 convolution of rows [N, H, W, C] by Winograd, and a leaky ReLU; see `operators.convolution`.

    Args:
        out: the rows that it makes of a map, to write there; None: a new tensor.
    """
    n, rows, width, inputs = x.shape
    shape = (n, rows + top + bottom - 2, width, len(weight))
    y = None if out is None else out.out(shape, x.device)
    if y is None or y.dtype != x.dtype or not y.is_contiguous():
        y = x.new_empty(shape)
    sizes = (n, rows, width, inputs, len(weight))
    job = Convolution(*sizes, top, bottom, replicate, torch.get_num_threads(), negative_slope)
    call("convolution", ctypes.byref(job), *pointers(x, weight, bias, y))
    return y


def run(
    name: str,
    weights: Structure,
    shape_of: Tensor,
    side: int,
    axis: Axis,
    running: Streaming,
    *maps: Tensor | None,
) -> None:
    """One sweep, some windows at a time: in between others are told, and scratch files let go of memory."""
    n, h, w, c = shape_of.shape
    count = n * (h // side) * (w // side)
    assert running.strip_bytes is not None
    step = max(1, WINDOW_STRIPS * running.strip_bytes // (side * side * c * 4))
    for first in running.strips(range(0, count, step)):
        sweep = Sweep(
            n, h, w, c, side, first, min(first + step, count),
            axis == "grid", torch.is_autocast_enabled("cpu"), torch.get_num_threads(),
            running.features == torch.bfloat16,
        )  # fmt: skip
        call(name, ctypes.byref(sweep), ctypes.byref(weights), *pointers(*maps))


def pointers(*tensors: Tensor | None) -> list[c_void_p | None]:
    return [None if x is None else c_void_p(x.data_ptr()) for x in tensors]


def call(name: str, *arguments: object) -> None:
    status = getattr(library(), name)(*arguments)
    if status == 2:
        raise MemoryError
    if status:
        raise RuntimeError("the native kernels refused their arguments")


def structure(kind: type[MabWeights] | type[GateWeights], table: Table) -> MabWeights | GateWeights:
    """The kernels' structure of a table, whose last weight may be some columns of a wider one."""
    last = table[-2]
    assert last is not None
    return kind(*addresses(table), last.stride(0))


def addresses(table: Table) -> list[int | None]:
    return [None if parameter is None else parameter.data_ptr() for parameter in table]
