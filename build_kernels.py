"""Compile src/maximir/engine/kernels.cpp for this machine's architecture, once per instruction set.

Part of building the package (a hatchling hook); in a checkout: python build_kernels.py
Without a C++ compiler the package is pure Python: the same results, slower.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).parent / "src" / "maximir" / "engine" / "kernels.cpp"
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fopenmp",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
]
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
INSTRUCTION_SETS = (
    {"avx512bf16": f"{AVX512} -mavx512bf16", "avx512": AVX512, "avx2": "-mavx2 -mfma"}
    if platform.machine().lower() in ("x86_64", "amd64")
    else {"baseline": ""}
)


def build() -> list[Path]:
    """Compile the libraries and return their paths; none if there is no working compiler."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None or sys.platform == "win32":
        print("maximir: no C++ compiler, building without native kernels", file=sys.stderr)
        return []
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]  # `kernels.library` asks for it
    built = []
    for name, flags in INSTRUCTION_SETS.items():
        library = SOURCE.with_name(f"kernels-{name}.so")
        define = f'-DSOURCE_DIGEST="{digest}"'
        command = [*compiler.split(), *FLAGS, define, *flags.split(), str(SOURCE), "-o", str(library)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or str(error)
            print(f"maximir: no native kernels for {name}: {why.strip()[-300:]}", file=sys.stderr)
            library.unlink(missing_ok=True)
        else:
            built.append(library)
    return built


class KernelsHook(BuildHookInterface):  # type: ignore[misc]
    """Puts the libraries into the wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if libraries := build():
            build_data["artifacts"] += [f"/src/maximir/engine/{library.name}" for library in libraries]
            build_data["pure_python"] = False
            tag = next(iter(self.platform_tags()))
            build_data["tag"] = f"py3-none-{tag}"

    @staticmethod
    def platform_tags() -> list[str]:
        from packaging.tags import platform_tags

        return list(platform_tags())


if __name__ == "__main__":
    print(*build(), sep="\n")
