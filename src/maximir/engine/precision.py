"""Choice of precision: bfloat16 where it makes the processor or the GPU faster, and float32 elsewhere.

bf16 means bfloat16 products with float32 sums (`docs/performance.md`). A processor without instructions for
it emulates them, many times slower than float32. With them it may still be slower, so the choice by features
is confirmed by a measurement, once on each machine (`measuring`).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import torch

from maximir.engine import measuring
from maximir.ops import kernels

CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere nothing is known, and float32 is the safe choice
CLEARLY = 1.25  # times as fast: enough to use bf16 where features do not promise it
NATIVE = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}  # the last one is ARM's
EMULATED = (
    "this processor has no instructions for bfloat16: bf16 is emulated, and may take a hundred times as long "
    "as fp32; use --precision auto, or fp32"
)


class Processor(NamedTuple):
    """The first processor as the system describes it; empty if it does not."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()
    name: str = ""


class Choice(NamedTuple):
    """The meaning of "auto" on a device for 8-bit images, and the reason."""

    bf16: bool
    reason: str


@functools.cache
def processor() -> Processor:
    try:
        return parse(CPUINFO.read_text("utf-8", "replace"))
    except (OSError, UnicodeError):
        return Processor()


def parse(text: str) -> Processor:
    """Parse the text of `/proc/cpuinfo`, whose lines are "flags : fpu vme …"."""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags") or facts.get("Features") or ""  # as ARM calls them
    return Processor(facts.get("vendor_id", ""), frozenset(flags.split()), facts.get("model name", ""))


def choose(device: torch.device) -> Choice:
    """Return whether bf16 is faster than fp32 on this device, by its features and by a measurement."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice(native, f"the GPU has {'' if native else 'no '}bfloat16")
    vendor, flags, name = processor()
    if not flags:
        return Choice(False, "the system does not say what the processor has")
    if not flags & NATIVE:
        return Choice(False, "the processor has no bfloat16")
    # Intel's AVX-512 has bf16 products at the rate of fp32; only its tiles (AMX) are faster, by our kernels.
    promised = "avx512_bf16" in flags if vendor == "AuthenticAMD" else kernels.name() == "amx"
    speed = measuring.speed_of_bf16(name or vendor)
    if speed is None:
        return Choice(promised, "by the processor's features; not measured, for lack of kernels")
    return Choice(speed >= (1 if promised else CLEARLY), f"measured: bf16 is {speed:g} times as fast as fp32")


def bf16_is_faster(device: torch.device) -> bool:
    """Return True if this device is faster in bf16 than in fp32."""
    return choose(device).bf16


def bf16_is_emulated(device: torch.device) -> bool:
    """Return True if this device is known to have no instructions for bfloat16."""
    if device.type == "cuda":
        return not choose(device).bf16
    flags = processor().flags
    return bool(flags) and not flags & NATIVE
