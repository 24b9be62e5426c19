"""Check that the native kernels compute the same on other processors. Correctness only, no timing.

python scripts/other_processors.py          (Debian: g++-aarch64-linux-gnu qemu-user clang)

Builds other_processors.cpp for each target with `build_kernels.FLAGS`, runs it (under qemu for other
processors) and compares the results of all sweeps with the reference: g++ for the architecture's oldest
processors, hardly optimised. tests/ops/test_kernels.py compares the kernels with torch on the processor at
hand, and AMX's tiles with the same in plain C++, bit by bit, where it has them.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import build_kernels

DRIVER = Path(__file__).with_suffix(".cpp")
FLAGS = [flag for flag in build_kernels.FLAGS if flag not in ("-shared", "-fPIC", "-O3")]
AVX2 = "-mavx2 -mfma"
X86_64 = platform.machine().lower() in ("x86_64", "amd64")
TARGETS = {  # name: compiler, flags, runner
    "ARM NEON, g++": ("aarch64-linux-gnu-g++", "-O3 -static", "qemu-aarch64"),
    "baseline, g++": ("g++", "-O3", None),
    "baseline, clang++": ("clang++", "-O3", None),
    "AMX's tiles in plain C++, g++": ("g++", "-O3 -DPORTABLE_TILES", None),
} | (
    {
        "AVX2, g++": ("g++", f"-O3 {AVX2}", None),
        "AVX2, clang++": ("clang++", f"-O3 {AVX2}", None),
        "AVX2, g++, a Haswell": ("g++", f"-O3 -static {AVX2}", "qemu-x86_64 -cpu Haswell"),
    }
    if X86_64
    else {}
)
TOLERANCES = (1e-5, 1e-2)  # of the largest value, in float32 and in bfloat16, where rounding flips a bit


def results(folder: Path, compiler: str, flags: str, runner: str | None) -> np.ndarray:
    """Return the driver's results, built with this compiler for that processor."""
    program = folder / "driver"
    command = [compiler, *flags.split(), *FLAGS, str(DRIVER), "-o", str(program)]
    subprocess.run(command, check=True)
    run = subprocess.run([*(runner or "").split(), str(program)], check=True, capture_output=True)
    return np.frombuffer(run.stdout, np.float32)


def main() -> None:
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        reference = results(Path(folder), "g++", "-O1", None)
        for name, (compiler, flags, runner) in TARGETS.items():
            tools = [compiler, *(runner or "").split()[:1]]
            if missing := [tool for tool in tools if not shutil.which(tool)]:
                print(f"{name}: not checked, {missing[0]} is missing")
                continue
            try:
                ours = results(Path(folder), compiler, flags, runner)
            except subprocess.CalledProcessError as error:
                print(f"{name}: FAILED, {error}")
                failed = True
                continue
            full, half = np.abs(ours - reference).reshape(2, -1).max(axis=1) / np.abs(reference).max()
            good = full < TOLERANCES[0] and half < TOLERANCES[1]  # False for NaN
            failed |= not good
            differences = f"float32 {full:.1e}, bfloat16 {half:.1e} of the largest value"
            print(f"{name}: {'ok' if good else 'FAILED'}; largest difference: {differences}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
