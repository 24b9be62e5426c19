"""TensorFlow.js packages as UpscalerJS's, of any network: what `maximir.models.tfjs` is to read."""

import io
import json
import tarfile

import numpy as np

from maximir.models import official, tfjs

ROOT = "StatefulPartitionedCall/"
WRAPPER = f"{ROOT}jax2tf_apply_/Wrapper/backbone/"


def arrays_of(model, *, coarse=False):
    """The network's parameters by official name, as the exported graph has them."""
    arrays = official.arrays_from_state(model.config, model.state_dict())
    absent = () if coarse else tfjs.coarse_heads(model.config)
    return {name: array for name, array in arrays.items() if name not in absent}


def graph(arrays, *, flipped=True, swapped=True):
    """Constants (name, stored array) and nodes of the graph; the switches make the wrong ones of controls."""
    constants, nodes = [], []
    for number, (name, array) in enumerate(sorted(arrays.items())):
        module, _, parameter = name.rpartition("/")
        last = module.rpartition("/")[2]
        match parameter:
            case "bias":
                constant, stored = f"{WRAPPER}{module}/Reshape", array.reshape(1, 1, 1, -1)
                op, reader = "AddV2", f"{WRAPPER}{module}/jit_fn_/AddV2"
            case "scale":
                constant, stored = f"{WRAPPER}{module}/Reshape_2", array.reshape(1, 1, 1, -1)
                op, reader = "Mul", f"{WRAPPER}{module}/jit_fn_/Mul_4"
            case _ if last.startswith("ConvTranspose"):
                stored = array.swapaxes(2, 3) if swapped else array
                stored = stored[::-1, ::-1] if flipped else stored
                constant, op = f"{WRAPPER}{module}/transpose_4", "Conv2DBackpropInput"
                reader = f"{WRAPPER}{module}/conv2d_transpose"
            case _ if array.ndim == 4:
                constant, stored = f"{WRAPPER}{module}/transpose_3", array
                op, reader = "Conv2D", f"{WRAPPER}{module}/Conv2D"
            case _:
                constant, stored = f"{ROOT}jax2tf_arg_{number}/ReadVariableOp", array
                op, reader = "Einsum", f"{WRAPPER}{module}/einsum/Einsum"
        constants.append((constant, np.ascontiguousarray(stored, "<f4")))
        nodes.append({"name": reader, "op": op, "input": ["x", f"{constant}:0"]})
    constants.append((f"{ROOT}slope", np.float32(0.2).reshape(())))
    constants.append((f"{ROOT}shape", np.array([1, 2], "<i4")))
    nodes += [{"name": name, "op": "Const"} for name, _ in constants]
    return constants, nodes


def files_of(constants, nodes, *, shard=20_000):
    """The package's files, by name."""
    data = b"".join(array.tobytes() for _, array in constants)
    pieces = [data[start : start + shard] for start in range(0, len(data), shard)]
    names = [f"group1-shard{n}of{len(pieces)}.bin" for n in range(1, len(pieces) + 1)]
    weights = [
        {"name": name, "shape": list(array.shape), "dtype": "int32" if array.dtype.kind == "i" else "float32"}
        for name, array in constants
    ]
    manifest = {
        "format": "graph-model",
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": names, "weights": weights}],
    }
    return {"model.json": json.dumps(manifest).encode(), **dict(zip(names, pieces, strict=True))}


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_tarball(path, files, place="package/models/", members=()):
    """A `.tgz`; `members`: further ones, as (TarInfo, bytes)."""
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        for name, data in [("README.md", b"#"), *files.items()]:
            info = tarfile.TarInfo(place + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path
