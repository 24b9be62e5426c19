"""Weights in and out: our `.safetensors` and the official `.npz`. Strict, atomic, and never unpickling."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from maximir import catalogue, official
from maximir.config import MaximConfig
from maximir.errors import MaximirError
from maximir.model import Maxim

FORMAT = "maximir-1"
MAX_OFFICIAL_BYTES = 4 * 2**30  # M-3, the largest, has 0.27 GB


def load_model(path_or_name: str | os.PathLike[str]) -> Maxim:
    """A network with its weights, in float32 and evaluation mode, on the CPU.

    Args:
        path_or_name: a `.safetensors` of ours, an official `.npz`, or the name of an embedded model or of a
            task that has one ("denoise").

    Raises:
        MaximirError: unknown name; missing, truncated, foreign or pickled file; missing, unknown or
            wrong-shaped parameters; values that are not finite.
    """
    path = catalogue.resolve(path_or_name)
    readers = {".safetensors": read_safetensors, ".npz": read_official}
    if path.suffix not in readers:
        raise MaximirError(f"{path}: weights are .safetensors or official .npz files")
    if not path.is_file():
        raise MaximirError(f"{path}: no such file")
    try:
        config, state = readers[path.suffix](path)
        return build(config, state)
    except MaximirError as error:
        raise MaximirError(f"{path}: {error}") from error
    except OSError as error:
        raise MaximirError(f"{path}: cannot be read ({error.strerror or error})") from error


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
        if not value.isfinite().all():
            raise MaximirError(f"parameter {name} holds values that are not finite")
    model.load_state_dict({name: state[name].float() for name in parameters}, strict=True, assign=True)
    return model.requires_grad_(True).eval()


def read_safetensors(path: Path) -> tuple[MaximConfig, dict[str, Tensor]]:
    metadata, state = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise MaximirError("a safetensors file, but not one of maximir's (no config in it)")
    try:
        config = MaximConfig.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MaximirError("the config in the file cannot be read") from error
    return config, state


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise MaximirError(f"not a whole safetensors file ({error})") from error


def read_official(path: Path) -> tuple[MaximConfig, dict[str, Tensor]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.startswith(official.PREFIX)]
            if sum(info.file_size for info in members) > MAX_OFFICIAL_BYTES:
                raise MaximirError(f"more than {MAX_OFFICIAL_BYTES:,} bytes of parameters")
            arrays = {
                info.filename.removeprefix(official.PREFIX).removesuffix(".npy"): read_array(
                    archive.read(info)
                )
                for info in members
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise MaximirError(f"not a whole .npz file of plain arrays ({error})") from error
    if not arrays:
        raise MaximirError(f"no parameters named {official.PREFIX}… in the file")
    return official.state_from_official(arrays)


def read_array(data: bytes) -> np.ndarray:
    """The float32 array in the bytes of a `.npy` file.

    Not `np.load`: it allocates what the header claims before it looks at the data.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(file)
    if dtype.kind != "f":  # also objects, which would have to be unpickled
        raise ValueError(f"an array of type {dtype} instead of floating-point numbers")
    values = np.frombuffer(data, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran else "C").astype(np.float32)


def save_model(
    model: Maxim, path: Path, *, half: bool = False, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights and config as `.safetensors`, atomically.

    Args:
        half: store float16, half the size.
        metadata: further facts to keep in the file, JSON-able.
    """
    state = {
        name: value.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
        for name, value in model.state_dict().items()
    }
    facts = {"format": FORMAT, "config": json.dumps(model.config.to_dict())}
    facts |= {key: json.dumps(value) for key, value in (metadata or {}).items()}
    write_tensors(path, state, facts)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, complete or not at all: written beside, synced, checked, renamed.

    Raises:
        MaximirError: the folder is missing or cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(safetensors.torch.save(dict(tensors), dict(metadata)))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~current_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise MaximirError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
