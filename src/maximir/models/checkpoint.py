"""Load and save weights: ours as `.safetensors`; the authors' as `.npz` or as TensorFlow.js packages.

Loading is strict and never unpickles. Saving is atomic.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from maximir.errors import MaximirError
from maximir.files import GIT_LFS, reason, refuse_pointer, write_atomically
from maximir.models import choice, int8, official, tfjs
from maximir.models.cards import ModelCard
from maximir.network.config import LEVELS, MaximConfig
from maximir.network.model import Maxim

FORMAT = "maximir-1"
Form = Literal["float32", "float16", "int8"]
DIGEST = "sha256"  # key of the metadata
# Repeats a fact of the config as a tensor, for programs that see only the tensors (spandrel's).
REPLICATES = "padding_mode.replicate"
KINDS = "weights are .safetensors or official .npz files, or TensorFlow.js packages (a folder or .tgz)"
MAX_OFFICIAL_BYTES = 4 * 2**30  # M-3, the largest, has 0.27 GB


class Checkpoint(NamedTuple):
    """The contents of a file of weights.

    Attributes:
        state: tensors by our parameter names, not yet checked against `config`.
        facts: further metadata of a `.safetensors`, and `missing`: official names of parameters that the
            source lacks (`tfjs.coarse_heads`). They are zero, so their outputs equal the input, and training
            starts them anew.
    """

    config: MaximConfig
    state: dict[str, Tensor]
    facts: dict[str, Any]


def load_model(path_or_name: str | os.PathLike[str], stages: int | None = None) -> Maxim:
    """Load a network with its weights, in float32 and evaluation mode, on the CPU.

    Args:
        path_or_name: a `.safetensors` of ours, an official `.npz`, a TensorFlow.js package of the authors'
            model (folder or tarball), the name of a model or of a task ("denoise"), or an address on the Hub,
            "hf://owner/repo/file". Only the latter uses the network.
        stages: stop after this many stages (`Maxim.first_stages`): faster, slightly lower quality. None: all.

    Raises:
        UsageError: more stages than the model has.
        MaximirError: unknown name; missing, truncated, foreign or pickled file; missing, unknown or
            wrong-shaped parameters; values that are not finite.
    """
    return load(choice.choose(path_or_name), stages)[0]


def load(chosen: ModelCard, stages: int | None = None) -> tuple[Maxim, str]:
    """Load a model as `load_model` does; also return its task, "" if neither name nor file gives one."""
    checkpoint = read(chosen.path)
    try:
        model = build(checkpoint.config, checkpoint.state)
    except MaximirError as error:
        raise MaximirError(f"{chosen.path}: {error}") from error
    task = chosen.task or checkpoint.facts.get("task", "")
    return (model if stages is None else model.first_stages(stages)), task if isinstance(task, str) else ""


def read(path: Path) -> Checkpoint:
    """Read a file of weights of any supported kind.

    Raises:
        MaximirError: unsupported, unreadable or damaged file.
    """
    try:
        if tfjs.is_package(path):
            return read_package(path)
        with path.open("rb") as file:  # raises a clear OSError, which safetensors does not
            refuse_pointer(file.read(len(GIT_LFS)))
        match path.suffix.lower():
            case ".safetensors":
                return read_safetensors(path)
            case ".npz":
                return Checkpoint(*official.state_from_official(read_official_arrays(path)), facts={})
    except MaximirError as error:
        raise MaximirError(f"{path}: {error}") from error
    except OSError as error:
        raise MaximirError(f"{path}: cannot be read ({reason(error)})") from error
    raise MaximirError(f"{path}: {KINDS}")


def read_package(path: Path) -> Checkpoint:
    arrays = tfjs.read_package(path)
    config = official.recognise({name: array.shape for name, array in arrays.items()})
    missing = tfjs.coarse_heads(config)
    if there := sorted(set(missing) & set(arrays)):
        raise MaximirError(f"parameter {there[0]} is not expected in a package")
    zeros = {name: np.zeros(shape, np.float32) for name, shape in missing.items()}
    return Checkpoint(*official.state_from_official(arrays | zeros), facts={"missing": sorted(missing)})


def build(config: MaximConfig, state: Mapping[str, Tensor]) -> Maxim:
    """Create the network of `config` with the weights of `state`, checking each parameter."""
    blocks = config.stages * (2 * LEVELS + config.bottlenecks)  # at the least; to create them takes time
    if len(state) < blocks * config.groups:
        raise MaximirError(f"{len(state)} parameters are too few for a network of the config in the file")
    with torch.device("meta"):
        model = Maxim(config)
    parameters = dict(model.named_parameters())
    if missing := sorted(set(parameters) - set(state)):
        raise MaximirError(f"parameter {missing[0]} is missing ({len(missing)} are)")
    if unknown := sorted(set(state) - set(parameters)):
        raise MaximirError(f"parameter {unknown[0]} is unknown ({len(unknown)} are)")
    for name, parameter in parameters.items():
        value = state[name]
        if value.shape != parameter.shape:
            raise MaximirError(f"parameter {name} has shape {list(value.shape)}, not {list(parameter.shape)}")
        if not value.is_floating_point():
            raise MaximirError(f"parameter {name} has type {value.dtype}, not a floating-point one")
    state = {name: state[name].float() for name in parameters}
    check_finite(state)
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(True).eval()


def check_finite(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not value.isfinite().all():
            raise MaximirError(f"parameter {name} holds values that are not finite ({value.dtype})")


def read_safetensors(path: Path) -> Checkpoint:
    metadata, state = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise MaximirError("not a safetensors file of maximir's (it holds no config)")
    try:
        config = MaximConfig.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MaximirError("the config in the file cannot be read") from error
    state.pop(REPLICATES, None)
    return Checkpoint(config, int8.unpack(state), facts_of(metadata))


def facts_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Parse the metadata that `save_model` wrote; foreign metadata stays text."""
    facts: dict[str, Any] = {}
    for key, value in metadata.items():
        if key not in ("format", "config"):
            try:
                facts[key] = json.loads(value)
            except (ValueError, RecursionError):
                facts[key] = value
    return facts


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file; check the digest if it has one.

    Raises:
        MaximirError: not a safetensors file, or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, NotImplementedError) as error:
        raise MaximirError(f"not a complete safetensors file ({error})") from error
    if DIGEST in metadata and metadata.pop(DIGEST) != digest(tensors):
        raise MaximirError("the digest does not match the values: the file is damaged")
    return metadata, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 over names and values; safetensors itself has no checksum."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_official_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the parameters in an official `.npz`, by their names without prefix."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.startswith(official.PREFIX)]
            if sum(info.file_size for info in members) > MAX_OFFICIAL_BYTES:
                raise MaximirError(f"the file holds more than {MAX_OFFICIAL_BYTES:,} bytes of parameters")
            for info in members:
                key = info.filename.removeprefix(official.PREFIX).removesuffix(".npy")
                if key in arrays:
                    raise MaximirError(f"parameter {key} occurs twice")
                arrays[key] = read_array(archive.read(info))
    except (MaximirError, OSError):
        raise
    except Exception as error:  # zipfile, its decompressors and NumPy's header parser raise many types
        raise MaximirError(f"not a complete .npz file of plain arrays ({type(error).__name__})") from error
    if not arrays:
        raise MaximirError(f"the file has no parameters named {official.PREFIX}…")
    return arrays


def read_array(data: bytes) -> np.ndarray:
    """Return the float32 array in the bytes of a `.npy` file.

    Does not use `np.load`, which allocates what the header claims before it looks at the data.
    """
    file = io.BytesIO(data)
    newer = np.lib.format.read_magic(file) != (1, 0)
    read_header = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
    shape, fortran, dtype = read_header(file)
    if dtype.kind != "f":  # includes objects, which would have to be unpickled
        raise MaximirError(f"an array has type {dtype} instead of floating-point numbers")
    values = np.frombuffer(data, dtype, offset=file.tell())
    with np.errstate(over="ignore"):  # overflow to inf is reported as not finite
        return values.reshape(shape, order="F" if fortran else "C").astype(np.float32)


def save_model(
    model: Maxim, path: Path, *, form: Form = "float32", metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights and config as `.safetensors`, atomically.

    Args:
        form: storage of values: exact, half or (`maximir.models.int8`) a quarter of the size.
        metadata: further JSON-able facts to store in the file.

    Raises:
        MaximirError: the file cannot be written, or a value does not fit into float16.
    """
    state = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    if form != "float32":
        check_finite(state)
        state = int8.pack(state) if form == "int8" else {name: value.half() for name, value in state.items()}
    check_finite(state)
    if model.config.padding_mode == "replicate":
        state[REPLICATES] = torch.ones(1)
    facts = {"format": FORMAT, "config": json.dumps(model.config.to_dict())}
    facts |= {key: json.dumps(value) for key, value in (metadata or {}).items()}
    write_tensors(path, state, facts)


def in_order(data: bytes) -> bytes:
    """Return a safetensors file with a sorted header: the library writes metadata in random order, and the
    same model should give the same file."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically.

    Raises:
        MaximirError: the folder is missing or cannot be written to, or the disk is full.
    """
    try:
        facts = {**metadata, DIGEST: digest(tensors)}
        write_atomically(path, in_order(safetensors.torch.save(dict(tensors), facts)))
    except OSError as error:
        raise MaximirError(f"{path}: cannot be written ({reason(error)})") from error
