"""Compile the kernels, src/maximir/ops/native, for the compiler's target, once per instruction set.

Part of building the package (a hatchling hook); in a checkout: python build_kernels.py
python build_kernels.py portable avx512 builds kernels-portable.so: AMX's tiles in plain C++, the rest as in
kernels-avx512.so. It is slow, and shows on a processor without AMX what kernels-amx.so computes.
CXX chooses the compiler, also one for another machine: CXX=aarch64-linux-gnu-g++ makes a wheel for arm64.
Without a C++ compiler the package is pure Python: the same results, slower.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OPS = Path(__file__).parent / "src" / "maximir" / "ops"
SOURCES = OPS / "native"
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
AVX512_BF16 = f"{AVX512} -mavx512bf16"
X86_64 = {
    "amx": f"{AVX512_BF16} -mamx-tile -mamx-bf16",
    "avx512bf16": AVX512_BF16,
    "avx512": AVX512,
    "avx2": "-mavx2 -mfma",
}
PORTABLE = "portable"


def build(compiler: str | None) -> list[Path]:
    """Compile the libraries and return their paths; none if there is no working compiler."""
    if compiler is None:
        print("maximir: no C++ compiler, building without native kernels", file=sys.stderr)
        return []
    instructions = X86_64 if target(compiler).startswith("x86_64") else {"baseline": ""}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = pool.map(partial(compile_library, compiler), instructions, instructions.values())
        return [path for path in built if path]


def build_portable(compiler: str, like: str) -> Path | None:
    """Compile `kernels-portable.so`: AMX's tiles in plain C++, everything else as in that library."""
    instructions = f"{X86_64.get(like, '')} -DPORTABLE_TILES -O1"  # for tests, which wait for it
    return compile_library(compiler, PORTABLE, instructions)


def compile_library(compiler: str, name: str, instructions: str) -> Path | None:
    """Compile one library and return its path, or None after saying why not."""
    flags = FLAGS if "windows" in target(compiler) else [*FLAGS, "-fPIC"]
    library = OPS / f"kernels-{name}.so"  # the same name on every system
    sources = b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))
    define = f'-DSOURCE_DIGEST="{hashlib.sha256(sources).hexdigest()[:16]}"'  # `kernels.library` asks for it
    source = str(SOURCES / "kernels.cpp")
    new = library.with_suffix(f".{os.getpid()}")
    command = [*compiler.split(), *flags, define, *instructions.split(), source, "-o", str(new)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
        new.replace(library)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        print(f"maximir: no native kernels for {name}: {why.strip()[-300:]}", file=sys.stderr)
        library.unlink(missing_ok=True)
        return None
    return library


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
    if sys.argv[1:2] == [PORTABLE]:
        print(build_portable(find_compiler() or "c++", *sys.argv[2:3] or ["avx2"]))
    else:
        print(*build(find_compiler()), sep="\n")
