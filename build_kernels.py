"""Compile src/maximir/ops/kernels.cpp for the compiler's target, once per instruction set.

Part of building the package (a hatchling hook); in a checkout: python build_kernels.py
CXX chooses the compiler, also one for another machine: CXX=aarch64-linux-gnu-g++ makes a wheel for arm64.
Without a C++ compiler the package is pure Python: the same results, slower.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).parent / "src" / "maximir" / "ops" / "kernels.cpp"
FLAGS = [
    "-O3",
    "-std=c++17",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
]
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
X86_64 = {"avx512bf16": f"{AVX512} -mavx512bf16", "avx512": AVX512, "avx2": "-mavx2 -mfma"}


def build(compiler: str | None) -> list[Path]:
    """Compile the libraries and return their paths; none if there is no working compiler."""
    if compiler is None:
        print("maximir: no C++ compiler, building without native kernels", file=sys.stderr)
        return []
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]  # `kernels.library` asks for it
    machine = target(compiler)
    flags = FLAGS if "windows" in machine else [*FLAGS, "-fPIC"]
    built = []
    for name, instructions in (X86_64 if machine.startswith("x86_64") else {"baseline": ""}).items():
        library = SOURCE.with_name(f"kernels-{name}.so")  # the same name on every system
        define = f'-DSOURCE_DIGEST="{digest}"'
        command = [*compiler.split(), *flags, define, *instructions.split(), str(SOURCE), "-o", str(library)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or str(error)
            print(f"maximir: no native kernels for {name}: {why.strip()[-300:]}", file=sys.stderr)
            library.unlink(missing_ok=True)
        else:
            built.append(library)
    return built


def find_compiler() -> str | None:
    """Return the compiler that CXX names, or the first that is installed."""
    compilers = ("clang++",) if sys.platform == "win32" else ("g++", "clang++", "c++")
    return os.environ.get("CXX") or next(filter(shutil.which, compilers), None)


def target(compiler: str) -> str:
    """Return the compiler's target, such as x86_64-linux-gnu; "" if it does not say."""
    try:
        command = [*compiler.split(), "-dumpmachine"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class KernelsHook(BuildHookInterface):  # type: ignore[misc]
    """Put the libraries into the wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compiler = find_compiler()
        if self.target_name != "wheel" or not (libraries := build(compiler)):
            return
        build_data["artifacts"] += [f"/src/maximir/ops/{library.name}" for library in libraries]
        build_data["pure_python"] = False
        machine, _, system = target(compiler).partition("-")
        own = self.build_config.builder.get_best_matching_tag().split("-")[-1]
        build_data["tag"] = f"py3-none-linux_{machine}" if "linux" in system else f"py3-none-{own}"


if __name__ == "__main__":
    print(*build(find_compiler()), sep="\n")
