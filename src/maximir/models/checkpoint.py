"""Weights in and out: ours as `.safetensors`; the authors' as `.npz` or as TensorFlow.js packages.

Strict, atomic, and never unpickling.
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
from maximir.network.config import MaximConfig
from maximir.network.model import Maxim

FORMAT = "maximir-1"
Form = Literal["float32", "float16", "int8"]
DIGEST = "sha256"  # key of the metadata
# A tensor that says what the config says too, for programs that are given the tensors alone (spandrel's).
REPLICATES = "padding_mode.replicate"
KINDS = "weights are .safetensors or official .npz files, or TensorFlow.js packages (a folder or .tgz)"
MAX_OFFICIAL_BYTES = 4 * 2**30  # M-3, the largest, has 0.27 GB


class Checkpoint(NamedTuple):
    """What a file of weights holds.

    Attributes:
        state: by our parameter names, not yet checked against `config`.
        facts: further metadata of a `.safetensors`, and `missing`: official names of parameters that the
            source does not have, which are zeros here (`tfjs.coarse_heads`): the outputs that they belong to
            are the input, and in training they begin anew.
    """

    config: MaximConfig
    state: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(self.facts.get("missing", ()))


def load_model(path_or_name: str | os.PathLike[str], stages: int | None = None) -> Maxim:
    """A network with its weights, in float32 and evaluation mode, on the CPU.

    Args:
        path_or_name: a `.safetensors` of ours, an official `.npz`, a TensorFlow.js package of the authors'
            model (folder or tarball), the name of a model or of a task ("denoise"), or an address on the Hub,
            "hf://owner/repo/file": of all these, it alone uses the network.
        stages: end after so many (`Maxim.first_stages`): faster, and a little less good. None: all.

    Raises:
        UsageError: more stages than the model has.
        MaximirError: unknown name; missing, truncated, foreign or pickled file; missing, unknown or
            wrong-shaped parameters; values that are not finite.
    """
    return load(path_or_name, stages)[0]


def load(path_or_name: str | os.PathLike[str], stages: int | None = None) -> tuple[Maxim, str]:
    """As `load_model`, and the task that the model is for: "" where neither name nor file says."""
    chosen = choice.choose(path_or_name)
    checkpoint = read(chosen.path)
    try:
        model = build(checkpoint.config, checkpoint.state)
    except MaximirError as error:
        raise MaximirError(f"{chosen.path}: {error}") from error
    task = chosen.task or checkpoint.facts.get("task", "")
    return (model if stages is None else model.first_stages(stages)), task if isinstance(task, str) else ""


def read(path: Path) -> Checkpoint:
    """What is in a file of weights, of any kind that maximir reads.

    Raises:
        MaximirError: it is none of them, cannot be read, or is damaged.
    """
    try:
        if tfjs.is_package(path):
            return read_package(path)
        with path.open("rb") as file:  # safetensors has one message for all that can go wrong
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
    """The network of `config` with the weights of `state`, checked one by one."""
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
        raise MaximirError("a safetensors file, but not one of maximir's (no config in it)")
    try:
        config = MaximConfig.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MaximirError("the config in the file cannot be read") from error
    state.pop(REPLICATES, None)
    return Checkpoint(config, int8.unpack(state), facts_of(metadata))


def facts_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `save_model` was given as metadata; what others wrote in other forms stays text."""
    facts: dict[str, Any] = {}
    for key, value in metadata.items():
        if key not in ("format", "config"):
            try:
                facts[key] = json.loads(value)
            except (ValueError, RecursionError):
                facts[key] = value
    return facts


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, checked against the digest that ours hold.

    Raises:
        MaximirError: not such a file, or a damaged one.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, NotImplementedError) as error:
        raise MaximirError(f"not a whole safetensors file ({error})") from error
    if DIGEST in metadata and metadata.pop(DIGEST) != digest(tensors):
        raise MaximirError("the values are not those that were written: the file is damaged")
    return metadata, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values; safetensors itself has no checksum."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_official_arrays(path: Path) -> dict[str, np.ndarray]:
    """The parameters in an official `.npz`, by their names without prefix."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.startswith(official.PREFIX)]
            if sum(info.file_size for info in members) > MAX_OFFICIAL_BYTES:
                raise MaximirError(f"more than {MAX_OFFICIAL_BYTES:,} bytes of parameters")
            for info in members:
                key = info.filename.removeprefix(official.PREFIX).removesuffix(".npy")
                if key in arrays:
                    raise MaximirError(f"parameter {key} is there twice")
                arrays[key] = read_array(archive.read(info))
    except (MaximirError, OSError):
        raise
    except Exception as error:  # zipfile, its decompressors and NumPy's header parser raise of every kind
        raise MaximirError(f"not a whole .npz file of plain arrays ({type(error).__name__})") from error
    if not arrays:
        raise MaximirError(f"no parameters named {official.PREFIX}… in the file")
    return arrays


def read_array(data: bytes) -> np.ndarray:
    """The float32 array in the bytes of a `.npy` file.

    Not `np.load`: it allocates what the header claims before it looks at the data.
    """
    file = io.BytesIO(data)
    newer = np.lib.format.read_magic(file) != (1, 0)
    read_header = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
    shape, fortran, dtype = read_header(file)
    if dtype.kind != "f":  # also objects, which would have to be unpickled
        raise MaximirError(f"an array of type {dtype} instead of floating-point numbers")
    values = np.frombuffer(data, dtype, offset=file.tell())
    with np.errstate(over="ignore"):  # what float32 cannot hold is found as not finite
        return values.reshape(shape, order="F" if fortran else "C").astype(np.float32)


def save_model(
    model: Maxim, path: Path, *, form: Form = "float32", metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights and config as `.safetensors`, atomically.

    Args:
        form: how values are stored: exactly, in half or (`maximir.models.int8`) in a quarter of the size.
        metadata: further facts to keep in the file, JSON-able.

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
    """A safetensors file with a sorted header. The library writes metadata in a random order, and the same
    model would be another file each time."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, complete or not at all.

    Raises:
        MaximirError: the folder is missing or cannot be written to, or the disk is full.
    """
    try:
        facts = {**metadata, DIGEST: digest(tensors)}
        write_atomically(path, in_order(safetensors.torch.save(dict(tensors), facts)))
    except OSError as error:
        raise MaximirError(f"{path}: cannot be written ({reason(error)})") from error
