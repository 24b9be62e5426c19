"""Choice of precision: bfloat16 where the processor or the GPU has instructions that make it faster.

bf16 means bfloat16 products with float32 sums (`docs/performance.md`). A processor without instructions for
it emulates them, many times slower than float32.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import torch

CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere nothing is known, and float32 is the safe choice
FASTER = {  # vendor: the instructions that make bf16 faster than fp32
    "AuthenticAMD": "avx512_bf16",
    "GenuineIntel": "amx_bf16",  # with avx512_bf16 alone bf16 took 5.6 s instead of 3.9
}
NATIVE = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}  # the last one is ARM's
EMULATED = (
    "this processor has no instructions for bfloat16: bf16 is emulated, and may take a hundred times as long "
    "as fp32; use --precision auto, or fp32"
)


class Processor(NamedTuple):
    """The first processor as the system describes it; empty if it does not."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()


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
    return Processor(facts.get("vendor_id", ""), frozenset(flags.split()))


def bf16_is_faster(device: torch.device) -> bool:
    """Return True if this device is known to be faster in bf16 than in fp32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    vendor, flags = processor()
    return FASTER.get(vendor) in flags


def bf16_is_emulated(device: torch.device) -> bool:
    """Return True if this device is known to have no instructions for bfloat16."""
    if device.type == "cuda":
        return not bf16_is_faster(device)
    flags = processor().flags
    return bool(flags) and not flags & NATIVE
