import copy
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from conftest import TINY
from helpers.reference import write_checkpoint
from helpers.weights import POINTER
from maximir import MaximirError, UsageError, load_model
from maximir.models import checkpoint
from maximir.models.checkpoint import save_model
from maximir.models.official import PREFIX, recognise, table
from maximir.network.config import MaximConfig


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {entry.key: rng.standard_normal(entry.shape).astype(np.float32) for entry in table(TINY).values()}


def test_official_file_opens(arrays, tmp_path):
    model = load_model(write_checkpoint(tmp_path / "checkpoint.npz", arrays))
    assert model.config == TINY
    assert not model.training
    kernel = arrays["stage_0_input_conv_1/kernel"]
    np.testing.assert_array_equal(
        model.stages[0].input_convs[1].weight.detach().numpy(), kernel.transpose(3, 2, 0, 1)
    )


@pytest.mark.parametrize(
    "config",
    [
        MaximConfig(features=8, stages=3, groups=1, bottlenecks=2),
        MaximConfig(features=16, stages=1, groups=3, bottlenecks=1, reduction=8),
    ],
)
def test_config_is_recognised_from_the_keys(config):
    assert recognise({entry.key: entry.shape for entry in table(config).values()}) == config


def test_a_small_file_with_a_large_config_takes_no_time(tiny_model, tmp_path, monkeypatch):
    save_model(tiny_model, path := tmp_path / "w.safetensors")
    huge = json.dumps({"stages": 512, "groups": 512, "bottlenecks": 512}).encode()
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["config"] = huge.decode()
    made = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + length :])
    monkeypatch.setattr(checkpoint, "Maxim", None)
    with pytest.raises(MaximirError, match="too few for a network of the config"):
        load_model(path)


def test_safetensors_round_trip(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors")
    assert loaded.config == tiny_model.config
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_half_precision_file(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "full.safetensors")
    save_model(tiny_model, tmp_path / "half.safetensors", form="float16")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (
        tmp_path / "full.safetensors"
    ).stat().st_size
    for name, value in load_model(tmp_path / "half.safetensors").state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, tiny_model.state_dict()[name].half().float())


def test_file_of_8_bits(tiny_model, tmp_path):
    torch.manual_seed(0)
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        model.stages[0].bottlenecks[0].groups[0][1].dense1.weight[0] = 0
    save_model(model, tmp_path / "full.safetensors")
    save_model(model, tmp_path / "int8.safetensors", form="int8")
    full, small = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "int8"))
    assert small < 0.4 * full  # names and biases are much of so small a network
    loaded = load_model(tmp_path / "int8.safetensors").state_dict()
    errors = []
    for name, value in model.state_dict().items():
        if value.ndim > 1 and 3 not in value.shape[:2] and not name.endswith(".project.weight"):
            step = value.flatten(1).abs().amax(1, keepdim=True) / 127
            errors.append(((loaded[name] - value).flatten(1) / step.clamp_min(1e-9)).flatten())
        else:
            assert torch.equal(loaded[name], value.half().float())
    assert torch.cat(errors).square().mean().sqrt() < 0.3  # of steps; rounding alone has 0.289
    assert not loaded["stages.0.bottlenecks.0.groups.0.1.dense1.weight"][0].any()


def test_8_bits_without_their_scale(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "a.safetensors", form="int8")
    metadata, tensors = checkpoint.read_tensors(tmp_path / "a.safetensors")
    name = next(name for name in tensors if name.endswith(".scale"))
    for wrong in (None, tensors[name][:-1], tensors[name].to(torch.int32)):
        broken = {key: value for key, value in tensors.items() if key != name}
        if wrong is not None:
            broken[name] = wrong
        checkpoint.write_tensors(tmp_path / "b.safetensors", broken, metadata)
        with pytest.raises(MaximirError, match="has no scale for each of its rows"):
            load_model(tmp_path / "b.safetensors")


def some_key(arrays):
    return "stage_0_cross_gating_block_0/Conv_0/kernel"


def missing(arrays):
    del arrays[some_key(arrays)]


def unknown(arrays):
    arrays["stage_0_extra/kernel"] = np.zeros((1, 1), np.float32)


def wrong_shape(arrays):
    arrays[some_key(arrays)] = arrays[some_key(arrays)][..., :-1]


def dense_for_convolution(arrays):  # the same numbers, another layout
    arrays[some_key(arrays)] = arrays[some_key(arrays)][0, 0]


def not_finite(arrays):
    arrays[some_key(arrays)][0, 0, 0, 0] = np.nan


def integers(arrays):
    arrays[some_key(arrays)] = arrays[some_key(arrays)].astype(np.int32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (missing, "is missing"),
        (unknown, "is unknown"),
        (wrong_shape, "has shape"),
        (dense_for_convolution, "has shape"),
        (not_finite, "not finite"),
        (integers, "has type int32"),
    ],
)
def test_damaged_official_parameters(arrays, damage, reason, tmp_path):
    damage(arrays)
    path = write_checkpoint(tmp_path / "checkpoint.npz", arrays)
    with pytest.raises(MaximirError, match=reason) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    """Unpickling this leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, (os.environ["MAXIMIR_TEST_BOMB"],)


def pickled_array(path):
    np.savez(path, **{PREFIX + "stage_0_input_conv_0/kernel": np.array([Bomb()], dtype=object)})


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def torch_file(path):
    torch.save({"model": torch.zeros(3)}, path)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not weights")


def empty_zip(path):
    with zipfile.ZipFile(path, "w"):
        pass


def folder(path):
    path.mkdir()


def other_arrays(path):
    with path.open("wb") as file:
        np.savez(file, weights=np.zeros(3, np.float32))


def other_safetensors(path):
    safetensors.torch.save_file({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    "make",
    [
        pickled_array,
        bare_pickle,
        torch_file,
        empty,
        text,
        empty_zip,
        folder,
        other_arrays,
        other_safetensors,
    ],
)
def test_foreign_files(make, suffix, tmp_path, monkeypatch):
    bomb = tmp_path / "unpickled"
    monkeypatch.setenv("MAXIMIR_TEST_BOMB", str(bomb))
    source = tmp_path / "file.npz"
    make(source)
    path = tmp_path / f"weights{suffix}"
    source.rename(path)
    with pytest.raises(MaximirError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert not bomb.exists()


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_truncated_files(kind, arrays, tiny_weights, tmp_path):
    whole = tiny_weights if kind == "safetensors" else write_checkpoint(tmp_path / "whole.npz", arrays)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{kind}"
    for fraction in (0.001, 0.1, 0.5, 0.9, 0.9999):
        path.write_bytes(data[: int(len(data) * fraction)])
        with pytest.raises(MaximirError):
            load_model(path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.tgz", "a.tar.gz"])
def test_what_a_clone_without_git_lfs_has(name, tmp_path):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(MaximirError, match=rf"{name}: is a Git LFS pointer.*`git lfs pull`"):
        load_model(tmp_path / name)


def test_flipped_bits_in_npz_are_found(arrays, tmp_path):
    data = bytearray(write_checkpoint(tmp_path / "a.npz", arrays).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(MaximirError):
        load_model(tmp_path / "a.npz")


def test_safetensors_with_another_config(tiny_model, tmp_path):
    path = tmp_path / "a.safetensors"
    other = json.dumps(MaximConfig(features=16).to_dict())
    safetensors.torch.save_file(
        {name: value.clone() for name, value in tiny_model.state_dict().items()},
        path,
        {"format": "maximir-1", "config": other},
    )
    with pytest.raises(MaximirError, match="parameter"):
        load_model(path)


@pytest.mark.parametrize(
    "config",
    ["", "[]", '{"features": 1099511627776}', "[" * 100_000, '{"features": "many"}', '{"colour": 1}'],
)
def test_safetensors_with_a_broken_config(config, tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"format": "maximir-1", "config": config})
    with pytest.raises(MaximirError, match="config"):
        load_model(path)


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown model 'sharpen'"):
        load_model("sharpen")


def test_wrong_suffix_and_missing_file(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"x")
    with pytest.raises(MaximirError, match=r"safetensors or official \.npz"):
        load_model(tmp_path / "a.pth")
    with pytest.raises(MaximirError, match="no such file or directory"):
        load_model(tmp_path / "a.npz")


def test_values_that_float16_cannot_hold_are_not_written(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        next(model.parameters()).fill_(1e5)
    with pytest.raises(MaximirError, match="float16"):
        save_model(model, tmp_path / "a.safetensors", form="float16")
    assert not list(tmp_path.iterdir())


def test_a_parameter_twice(arrays, tmp_path):
    path = write_checkpoint(tmp_path / "a.npz", arrays)
    with zipfile.ZipFile(path, "a") as archive:
        name = archive.namelist()[0]
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, archive.read(name))
    with pytest.raises(MaximirError, match="occurs twice"):
        load_model(path)


def test_numbers_beyond_float32(arrays, tmp_path):
    arrays[some_key(arrays)] = np.full_like(arrays[some_key(arrays)], 1e300, dtype=np.float64)
    with pytest.raises(MaximirError, match="not finite"):
        load_model(write_checkpoint(tmp_path / "a.npz", arrays))


@pytest.mark.parametrize("header", ["{", "('<f4',)", "{[]: 1}", "{'descr': '<f4,,'}", "\0", "(" * 500])
def test_odd_array_headers(header, tmp_path):
    text = header.encode().ljust(118) + b"\n"
    data = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + b"\0" * 16
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(PREFIX + "stage_0_input_conv_0/kernel.npy", data)
    with pytest.raises(MaximirError, match="not a complete"):
        load_model(tmp_path / "a.npz")


def test_suffixes_in_capitals(tiny_weights, tmp_path):
    path = tmp_path / "A.SAFETENSORS"
    path.write_bytes(tiny_weights.read_bytes())
    assert load_model(path)


def test_failed_write_leaves_the_old_file(tiny_model, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(MaximirError, match="no space left"):
        save_model(tiny_model, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_npz_that_unpacks_to_too_much_is_not_read_blindly(tmp_path):
    """A lying header of an array: declared shape larger than the data."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(PREFIX + "stage_0_input_conv_0/kernel.npy", header.getvalue() + b"\0" * 16)
    with pytest.raises(MaximirError):
        load_model(tmp_path / "a.npz")
