"""Read the authors' models from TensorFlow.js packages (UpscalerJS's) without TensorFlow.

`model.json` has a graph and a manifest; the manifest lists the graph's constants in the order in which the
shards hold them. The operation that reads a constant tells the kind of parameter; its own or its reader's
name tells the module. The graph was exported for the full-size output only, so it lacks the convolutions of
the last stage's coarse outputs.

A package is a folder, or the tarball from `npm pack`. Nothing is extracted, run or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from maximir.errors import MaximirError
from maximir.files import reason, refuse_pointer
from maximir.network.config import LEVELS, MaximConfig

MANIFEST = "model.json"
PLACES = ("", "models", "package/models", "package")  # of the manifest, in a folder or a tarball
TARBALLS = (".tgz", ".tar.gz")
MAX_MANIFEST = 64 << 20  # bytes; S-3 has 28 MB
MAX_WEIGHTS = 1 << 30  # bytes; M-3, the largest network, would have 0.3 GB
MAX_UNPACKED = 2 << 30  # bytes of a tarball, including what is skipped
MAX_ENTRIES = 10_000  # of a tarball; packages have about 100
BACKBONE = "/backbone/"  # what follows is the official module path
WIDTHS = {"float32": 4, "int32": 4, "bool": 1}  # bytes
GZIP = b"\x1f\x8b"


class Kind(NamedTuple):
    """The kind of a constant, by the operation that reads it.

    Attributes:
        parameter: official name of the parameter.
        parts: number of parts of the reader's name after the module path.
        vector: `[1, ..., 1, C]` in the graph, `[C]` in the checkpoint.
        transposed: kernel of a transposed convolution, which TensorFlow flips and transposes.
    """

    parameter: str
    parts: int = 1
    vector: bool = False
    transposed: bool = False


KINDS = {
    "Conv2D": Kind("kernel"),
    "Conv2DBackpropInput": Kind("kernel", transposed=True),
    "Einsum": Kind("kernel", parts=2),
    "Mul": Kind("scale", vector=True),
    "AddV2": Kind("bias", vector=True),
}


def is_package(path: str | os.PathLike[str]) -> bool:
    """Return True for a folder with a `model.json`, or a file with a tarball's name and first bytes."""
    path = Path(path)
    try:
        if path.is_dir():
            return any((path / place / MANIFEST).is_file() for place in PLACES)
        if not path.name.lower().endswith(TARBALLS):
            return False
        with path.open("rb") as file:
            return file.read(len(GZIP)) == GZIP
    except OSError:
        return False


def read_package(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the parameters in a package: official name without prefix → float32 array in the official layout.

    The last stage's coarse heads are absent (`coarse_heads`). Each constant is used exactly once; names and
    shapes are checked by `official.state_from_official`.

    Raises:
        MaximirError: not such a package, or a damaged or hostile one.
        OSError: it cannot be read.
    """
    path = Path(path)
    files = folder_files(path) if path.is_dir() else tarball_files(path)
    manifest = parse(content(files, MANIFEST))
    constants = list(entries(manifest))
    data = b"".join(shards(manifest, files))
    if len(data) != (expected := sum(entry.bytes for entry in constants)):
        raise MaximirError(f"the shards have {len(data):,} bytes, but the manifest lists {expected:,}")
    readers = readers_of(manifest, {entry.name for entry in constants if entry.is_parameter})
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    for entry in constants:
        if entry.is_parameter:
            values = np.frombuffer(data, "<f4", entry.numbers, offset).reshape(entry.shape)
            name, array = parameter(entry, values, readers)
            if name in arrays:
                raise MaximirError(f"parameter {name} occurs twice")
            arrays[name] = array
        offset += entry.bytes
    return arrays


def coarse_heads(config: MaximConfig) -> dict[str, tuple[int, ...]]:
    """Return official names and shapes of the last stage's coarse output heads, which packages lack."""
    heads: dict[str, tuple[int, ...]] = {}
    for level in range(1, LEVELS):
        head = f"stage_{config.stages - 1}_output_conv_{level}"
        heads[f"{head}/kernel"] = (3, 3, config.features << level, 3)
        heads[f"{head}/bias"] = (3,)
    return heads


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return SHA-256 over sorted names and float32 values, without coarse heads: equal for all sources."""
    from maximir.models import official

    config = official.recognise({name: array.shape for name, array in arrays.items()})
    absent = coarse_heads(config)
    sha = hashlib.sha256()
    for name in sorted(set(arrays) - set(absent)):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(arrays[name], "<f4").data)
    return sha.hexdigest()


class Constant(NamedTuple):
    """An entry of the manifest."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numbers * WIDTHS[self.dtype]

    @property
    def is_parameter(self) -> bool:
        """Return True for parameters: they are floating-point and have more than one value."""
        return self.dtype == "float32" and self.numbers > 1


def parameter(entry: Constant, values: np.ndarray, readers: Mapping[str, Node]) -> tuple[str, np.ndarray]:
    """Return the official name and layout of a constant."""
    reader = readers.get(entry.name)
    if reader is None:
        raise MaximirError(f"constant {entry.name!r} is used by no operation")
    kind = KINDS.get(reader.op)
    if kind is None:
        raise MaximirError(f"constant {entry.name!r} is used by an operation {reader.op!r}, not by a layer")
    own = BACKBONE in entry.name
    _, found, tail = (entry.name if own else reader.name).partition(BACKBONE)
    module = tail.split("/")[: -1 if own else -kind.parts]
    if not found or not module:
        raise MaximirError(f"constant {entry.name!r} belongs to no module of the network")
    if kind.vector:
        if entry.numbers != entry.shape[-1]:
            raise MaximirError(f"constant {entry.name!r} has shape {list(entry.shape)}, not that of a vector")
        values = values.reshape(-1)
    elif kind.transposed:  # stored [h, w, out, in] and flipped: TensorFlow's gradient of a convolution
        if values.ndim != 4:
            raise MaximirError(f"constant {entry.name!r} has shape {list(entry.shape)}, not [h, w, out, in]")
        values = values.swapaxes(2, 3)[::-1, ::-1]
    return "/".join([*module, kind.parameter]), np.array(values, np.float32, order="C")


class Node(NamedTuple):
    """An operation of the graph."""

    name: str
    op: str


def readers_of(manifest: dict[str, Any], names: set[str]) -> dict[str, Node]:
    """Map each of these constants to the operation that reads it.

    Raises:
        MaximirError: two operations read one constant, or there is no valid graph.
    """
    readers: dict[str, Node] = {}
    topology = manifest.get("modelTopology")
    nodes = topology.get("node") if isinstance(topology, dict) else None
    if not isinstance(nodes, list):
        raise MaximirError(f"{MANIFEST} has no graph in it")
    for node in nodes:
        match node:
            case {"name": str(name), "op": str(op)}:
                inputs = node.get("input", [])
            case _:
                raise MaximirError(f"{MANIFEST}: an operation has no name or kind")
        if not isinstance(inputs, list):
            raise MaximirError(f"{MANIFEST}: the inputs of {name!r} are not a list")
        for source in inputs:
            constant = source.partition(":")[0] if isinstance(source, str) else ""
            if constant in names:
                if constant in readers:
                    raise MaximirError(f"constant {constant!r} is used twice")
                readers[constant] = Node(name, op)
    return readers


def entries(manifest: dict[str, Any]) -> Iterator[Constant]:
    """Yield the constants in their order in the shards."""
    seen: set[str] = set()
    group = only_group(manifest)
    for entry in group["weights"]:
        match entry:
            case {"name": str(name), "shape": list(shape), "dtype": str(dtype)} if all(
                type(n) is int and 0 <= n <= MAX_WEIGHTS for n in shape
            ):
                pass
            case _:
                raise MaximirError(f"{MANIFEST}: a constant has no name, shape or type")
        if "quantization" in entry:
            raise MaximirError(f"constant {name!r} is quantised; maximir reads exact weights only")
        if dtype not in WIDTHS:
            raise MaximirError(f"constant {name!r} has type {dtype!r}; expected {', '.join(WIDTHS)}")
        if name in seen:
            raise MaximirError(f"constant {name!r} occurs twice")
        seen.add(name)
        yield Constant(name, tuple(shape), dtype)


def only_group(manifest: dict[str, Any]) -> dict[str, Any]:
    match manifest.get("weightsManifest"):
        case [{"paths": list(), "weights": list()} as group]:
            return group
    raise MaximirError(f"{MANIFEST} lacks the list of weights of this kind of package")


def parse(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MaximirError(f"{MANIFEST} is damaged") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "graph-model":
        raise MaximirError(f"{MANIFEST} does not describe a TensorFlow.js graph model")
    return manifest


def shards(manifest: dict[str, Any], files: Mapping[str, bytes]) -> Iterator[bytes]:
    paths = only_group(manifest)["paths"]
    seen = set()
    for path in paths:
        if not isinstance(path, str) or PurePosixPath(path).name != path or "\\" in path:
            raise MaximirError(f"shard {path!r} is not a file beside {MANIFEST}")
        if path in seen:
            raise MaximirError(f"shard {path!r} is listed twice")
        seen.add(path)
        if path not in files:
            raise MaximirError(f"shard {path!r} is missing")
        yield content(files, path)


def content(files: Mapping[str, bytes], name: str) -> bytes:
    data = files[name]
    try:
        refuse_pointer(data)
    except MaximirError as error:
        raise MaximirError(f"{name} {error}") from error
    return data


class FolderFiles(dict[str, bytes]):
    """The files of one folder, read on demand; links that lead out of it are excluded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.left = folder, MAX_WEIGHTS

    def __contains__(self, name: object) -> bool:
        path = self.folder / str(name)
        return path.is_file() and path.resolve().parent == self.folder.resolve()

    def __missing__(self, name: str) -> bytes:
        limit = MAX_MANIFEST if name == MANIFEST else self.left
        with (self.folder / name).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise too_large(name, limit)
        if name != MANIFEST:
            self.left -= len(data)
        return data


def folder_files(folder: Path) -> Mapping[str, bytes]:
    for place in PLACES:
        if (folder / place / MANIFEST).is_file():
            return FolderFiles(folder / place)
    raise MaximirError(f"the folder has no {MANIFEST}")


def tarball_files(path: Path) -> Mapping[str, bytes]:
    """Read manifest and shards of a tarball by name; nothing is extracted."""
    found: dict[str, dict[str, bytes]] = {}
    left = MAX_WEIGHTS
    try:
        with tarfile.open(path, "r|gz") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_ENTRIES or member.offset_data + member.size > MAX_UNPACKED:
                    raise MaximirError(
                        f"the tarball unpacks to more than {MAX_UNPACKED:,} bytes or {MAX_ENTRIES:,} files"
                    )
                where = PurePosixPath(member.name)
                place, name = str(where.parent).removeprefix("."), where.name
                wanted = name == MANIFEST or name.endswith(".bin")
                if not (member.isreg() and wanted and place in PLACES):
                    continue
                limit = MAX_MANIFEST if name == MANIFEST else left
                if member.size > limit:
                    raise too_large(name, limit)
                if name in found.setdefault(place, {}):
                    raise MaximirError(f"{name} occurs twice in the tarball")
                content = archive.extractfile(member)
                assert content is not None
                found[place][name] = content.read()
                left -= member.size if name != MANIFEST else 0
    except OSError as error:
        if (
            isinstance(error, tarfile.TarError) or error.errno is None
        ):  # gzip's own errors are OSErrors without a number
            raise MaximirError(f"not a complete tarball ({error})") from error
        raise MaximirError(f"cannot be read ({reason(error)})") from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise MaximirError(f"not a complete tarball ({error})") from error
    for place in PLACES:
        if MANIFEST in found.get(place, {}):
            return found[place]
    raise MaximirError(f"the tarball has no {MANIFEST}")


def too_large(name: str, limit: int) -> MaximirError:
    return MaximirError(f"{name} is larger than the {limit:,} bytes allowed in such a package")
