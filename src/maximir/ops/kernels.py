"""The native library for this processor (`native/`), and its kernels for single operators.

The library is compiled with the package, once for each instruction set. Where a kernel does not fit (no
library for this processor, a GPU, a graph that is being captured, odd widths), torch computes the same. The
kernels of whole blocks are called by `maximir.engine.native`.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor, nn

from maximir.errors import UsageError

SWITCH = "MAXIMIR_KERNELS"  # environment variable: the library to use, by its name
OFF = "off"
SOURCES = Path(__file__).with_name("native")  # a library of another version would misread its arguments
LIBRARIES = ("amx", "avx512bf16", "avx512", "avx2", "baseline")  # the best first
PORTABLE = "portable"  # slow, for tests: used only if the environment names it (build_kernels.py)
# The library in torch/lib that is or links torch's OpenMP runtime, and the functions that memory.h calls.
OPENMP = {"win32": "libiomp5md.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
ENTRY_POINTS = (
    ("__kmpc_global_thread_num", "__kmpc_push_num_threads", "__kmpc_fork_call")
    if sys.platform == "win32"
    else ("GOMP_parallel",)
)
CHANNELS = 16  # LayerNorm and convolutions take multiples of this; convolutions also fewer, as of images,
IMAGE_WIDTH = 8  # which then have widths that are multiples of this
BLOCK_CHANNELS = 32  # whole blocks take, and convolutions make, multiples of this
EPSILON = 1e-6  # of LayerNorm, a constant in native/

_allowed: contextvars.ContextVar[bool] = contextvars.ContextVar("allowed", default=True)


class Convolution(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "rows", "width", "inputs", "outputs")),
        *((name, c_int32) for name in ("top", "bottom", "replicate", "threads")),
        ("negative_slope", c_float),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the best library for this processor, or None.

    Raises:
        UsageError: the environment asks for an unknown one.
    """
    chosen = os.environ.get(SWITCH)
    if chosen not in (None, OFF, PORTABLE, *LIBRARIES):
        raise UsageError(f"{SWITCH}={chosen}: must be {OFF} or one of {', '.join(LIBRARIES)}")
    openmp = openmp_entry_points()
    if openmp is None:
        return None
    for name in LIBRARIES if chosen is None else [chosen]:
        path = Path(__file__).with_name(f"kernels-{name}.so")
        if not path.exists():
            continue
        try:
            loaded = ctypes.CDLL(str(path))
            loaded.source_digest.restype = ctypes.c_char_p
            current = loaded.source_digest().decode() == digest()
        except (OSError, AttributeError):  # of another system or version
            continue
        if current and loaded.supported():
            loaded.use_openmp(openmp)
            return loaded
    return None


@functools.cache
def digest() -> str:
    """Return the digest of the sources, by which a library is known to be made of them."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))).hexdigest()[:16]


def name() -> str | None:
    """Return the name of the library in use; None: torch computes everything."""
    loaded = library()
    return None if loaded is None else Path(loaded._name).stem.removeprefix("kernels-")


def openmp_entry_points() -> ctypes.Array[c_void_p] | None:
    """Addresses of the functions by which the kernels run on torch's threads; None if torch has no OpenMP."""
    try:
        runtime = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / OPENMP))
        functions = [ctypes.cast(getattr(runtime, name), c_void_p) for name in ENTRY_POINTS]
    except (OSError, AttributeError):
        return None
    return (c_void_p * len(functions))(*functions)


@contextlib.contextmanager
def allow(on: bool) -> Iterator[None]:
    """Use kernels in this context, or leave everything to torch."""
    token = _allowed.set(on)
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed() -> bool:
    """Return True if there are kernels and this context uses them."""
    return _allowed.get() and library() is not None


def take(*tensors: Tensor | None) -> bool:
    """Return True if kernels can compute with these tensors: contiguous float32, on the processor, real."""
    return (
        not torch.compiler.is_compiling()  # first: the compiler cannot trace the rest
        and _allowed.get()
        and all(
            type(x) in (Tensor, nn.Parameter)  # a subclass may only be traced
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous()
            and x.numel() > 0
            for x in tensors
            if x is not None
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()  # torch has no public names for these two:
        and not torch._C._len_torch_dispatch_stack()  # a mode, such as make_fx, would not see the operator
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
    bias: Tensor | None,
    top: bool,
    bottom: bool,
    replicate: bool,
    *,
    negative_slope: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Convolve rows `[N, H, W, C]` 3 x 3, then a leaky ReLU; see `functional.convolve`.

    Args:
        top, bottom, replicate: where rows are padded, and by the outermost row instead of zeros.
        out: written to if it is contiguous float32; else, or if None, a new tensor is.
    """
    n, rows, width, inputs = x.shape
    if out is None or out.dtype != x.dtype or not out.is_contiguous():
        out = x.new_empty(n, rows + top + bottom - 2, width, len(weight))
    sizes = (n, rows, width, inputs, len(weight))
    job = Convolution(*sizes, top, bottom, replicate, torch.get_num_threads(), negative_slope)
    call("convolution", ctypes.byref(job), *pointers(x, weight, bias, out))
    return out


def pointers(*tensors: Tensor | None) -> list[c_void_p | None]:
    return [None if x is None else c_void_p(x.data_ptr()) for x in tensors]


def call(name: str, *arguments: object) -> None:
    """Call a kernel of the library.

    Raises:
        MemoryError: the kernel has none for its buffers.
    """
    status = getattr(library(), name)(*arguments)
    if status == 2:
        raise MemoryError
    if status:
        raise RuntimeError("the native kernels refused their arguments")
