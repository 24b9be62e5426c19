"""Fuzz what reads files of weights: see README.md.

The input: one letter, then the file: s, a safetensors; n, an official `.npz`; t, a TensorFlow.js package's
tarball before gzip; m, its `model.json`, beside a shard. A finding is any exception but a `MaximirError`, 2
GB, or 15 seconds.
"""

import contextlib
import gzip
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["maximir", "tarfile", "zipfile"]):
    from maximir.models import checkpoint, user_models
from maximir.errors import MaximirError


def place(folder: Path, letter: bytes, data: bytes) -> Path | None:
    """Write the file; return the path to read."""
    match letter:
        case b"s" | b"n":
            path = folder / ("w.safetensors" if letter == b"s" else "w.npz")
            path.write_bytes(data)
        case b"t":
            path = folder / "w.tgz"
            path.write_bytes(gzip.compress(data, 1))
        case b"m":
            path = folder
            (folder / "model.json").write_bytes(data)
            (folder / "w.bin").write_bytes(bytes(40))
        case _:
            return None
    return path


def one(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        path = place(Path(name), data[:1], data[1:])
        if path is None:
            return
        with contextlib.suppress(MaximirError):
            read = checkpoint.read(path)
            checkpoint.build(read.config, read.state)
        if path.suffix == ".safetensors":
            with contextlib.suppress(MaximirError):
                user_models.header(path)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], "-timeout=15", "-rss_limit_mb=2000", *sys.argv[1:]], one)
    atheris.Fuzz()
