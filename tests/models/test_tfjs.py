"""The authors' models as TensorFlow.js packages: read exactly, strictly, and never trusted."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import torch

from helpers.tfjs_package import arrays_of, files_of, graph, write_folder, write_tarball
from helpers.weights import POINTER
from maximir import Maxim, MaximConfig, MaximirError, Restorer, load_model
from maximir.models import authors, checkpoint, official, tfjs

CONFIG = MaximConfig(features=8, stages=2, groups=1, bottlenecks=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    model = Maxim(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones would hide a mistake
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def files(model):
    return files_of(*graph(arrays_of(model)))


@pytest.fixture(params=["folder", "models", "package", "tarball", "flat tarball"])
def package(request, files, tmp_path):
    match request.param:
        case "folder":
            return write_folder(tmp_path / "model", files)
        case "models" | "package":
            place = "models" if request.param == "models" else "package/models"
            write_folder(tmp_path / place, files)
            return tmp_path
        case "tarball":
            return write_tarball(tmp_path / "a-0.1.0.tgz", files)
        case _:
            return write_tarball(tmp_path / "a.tar.gz", files, place="./")


def test_every_layout_gives_the_network_that_was_written(package, model):
    assert tfjs.is_package(package)
    read = load_model(package)
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        ours, theirs = read(image), model(image)
    for scale, expected in zip(ours[0] + ours[1][-1:], theirs[0] + theirs[1][-1:], strict=True):
        torch.testing.assert_close(scale, expected, rtol=0, atol=1e-6)
    coarse = ours[1][:2]  # heads that the package does not have: zeros, so that the output is the input
    for scale in coarse:
        small = torch.nn.functional.interpolate(image, size=scale.shape[2:], mode="nearest-exact")
        torch.testing.assert_close(scale, small)


def test_what_is_missing_is_said_and_kept(files, tmp_path, model):
    folder = write_folder(tmp_path / "model", files)
    found = checkpoint.read(folder)
    heads = {f"stage_1_output_conv_{level}/{name}" for level in (1, 2) for name in ("kernel", "bias")}
    assert set(found.facts["missing"]) == heads
    checkpoint.save_model(load_model(folder), tmp_path / "a.safetensors", metadata=found.facts)
    assert set(checkpoint.read(tmp_path / "a.safetensors").facts["missing"]) == heads
    assert checkpoint.read(tmp_path / "a.safetensors").facts == found.facts


def test_the_digest_is_the_same_from_either_source(files, tmp_path, model):
    arrays = tfjs.read_package(write_folder(tmp_path, files))
    assert tfjs.digest(arrays) == tfjs.digest(arrays_of(model, coarse=True))
    name = "stage_0_input_conv_0/kernel"
    assert tfjs.digest(arrays) != tfjs.digest(arrays | {name: arrays[name] + np.float32(1e-7)})


def test_official_layout_there_and_back(model):
    arrays = official.arrays_from_state(CONFIG, model.state_dict())
    config, state = official.state_from_official(arrays)
    assert config == CONFIG
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_restores(files, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    assert Restorer(write_folder(tmp_path, files))(image).shape == image.shape


def test_an_unflipped_kernel_is_another_network(model, tmp_path):
    """Negative control: both reader and writer could leave the flip out."""
    wrong = load_model(write_folder(tmp_path, files_of(*graph(arrays_of(model), flipped=False))))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert (wrong(image)[-1][-1] - model(image)[-1][-1]).abs().max() > 1e-3


def test_swapped_axes_are_refused(model, tmp_path):
    with pytest.raises(MaximirError, match=r"ConvTranspose_0/kernel has shape"):
        load_model(write_folder(tmp_path, files_of(*graph(arrays_of(model), swapped=False))))


def spoil_manifest(change):
    def spoil(files):
        manifest = json.loads(files["model.json"])
        change(manifest)
        return files | {"model.json": json.dumps(manifest).encode()}

    return spoil


def weights_of(manifest):
    return manifest["weightsManifest"][0]["weights"]


def use_twice(manifest):
    node = next(node for node in manifest["modelTopology"]["node"] if node["op"] == "Conv2D")
    manifest["modelTopology"]["node"].append(node | {"name": "again"})


def circle(manifest):
    manifest["modelTopology"]["node"] += [
        {"name": "a", "op": "Mul", "input": ["b"]},
        {"name": "b", "op": "Mul", "input": ["a"]},
    ]


def rename_module(manifest):
    node = next(node for node in manifest["modelTopology"]["node"] if node["op"] == "Einsum")
    node["name"] = node["name"].replace("stage_", "page_")


HOSTILE = {
    "is damaged": lambda files: files | {"model.json": files["model.json"][:-20]},
    "is damaged ": lambda files: files | {"model.json": b"[" * 100_000},
    "does not describe a TensorFlow.js graph": lambda files: files | {"model.json": b"[]"},
    "does not describe a TensorFlow.js graph model": spoil_manifest(
        lambda m: m.update(format="layers-model")
    ),
    "has no graph": spoil_manifest(lambda m: m.pop("modelTopology")),
    "lacks the list of weights": spoil_manifest(lambda m: m.update(weightsManifest=[])),
    "shard '../secret.bin' is not a file beside": spoil_manifest(
        lambda m: m["weightsManifest"][0]["paths"].append("../secret.bin")
    ),
    "shard '/etc/passwd' is not a file beside": spoil_manifest(
        lambda m: m["weightsManifest"][0]["paths"].append("/etc/passwd")
    ),
    "is listed twice": spoil_manifest(
        lambda m: m["weightsManifest"][0]["paths"].append("group1-shard1of4.bin")
    ),
    "shard 'other.bin' is missing": spoil_manifest(
        lambda m: m["weightsManifest"][0]["paths"].append("other.bin")
    ),
    "bytes, but the manifest lists": lambda files: files | {"group1-shard1of4.bin": b"123"},
    "the manifest lists": spoil_manifest(lambda m: weights_of(m)[0]["shape"].append(10**8)),
    "no name, shape or type": spoil_manifest(lambda m: weights_of(m)[0].update(shape=[-1])),
    "no name, shape or type ": spoil_manifest(lambda m: weights_of(m)[0].update(shape=[10**30])),
    "is quantised": spoil_manifest(lambda m: weights_of(m)[0].update(quantization={"dtype": "uint8"})),
    "has type 'complex64'": spoil_manifest(lambda m: weights_of(m)[0].update(dtype="complex64")),
    "occurs twice": spoil_manifest(lambda m: weights_of(m).append(weights_of(m)[0])),
    "is used twice": spoil_manifest(use_twice),
    "model.json is a Git LFS pointer": lambda files: files | {"model.json": POINTER},
    "group1-shard1of4.bin is a Git LFS pointer": lambda files: files | {"group1-shard1of4.bin": POINTER},
    "is used by no operation": spoil_manifest(lambda m: m["modelTopology"].update(node=[])),
    "parameter .* is missing|unknown|no module": spoil_manifest(rename_module),
}


@pytest.mark.parametrize("reason", HOSTILE)
@pytest.mark.parametrize("kind", ["folder", "tarball"])
def test_hostile_packages_get_a_sentence(reason, kind, files, tmp_path):
    first = next(name for name in files if "shard1of" in name)
    renamed = {name.replace(first, "group1-shard1of4.bin"): data for name, data in files.items()}
    renamed["model.json"] = files["model.json"].replace(first.encode(), b"group1-shard1of4.bin")
    spoiled = HOSTILE[reason](renamed)
    (tmp_path / "secret.bin").write_bytes(b"1234")
    path = (
        write_folder(tmp_path / "package", spoiled)
        if kind == "folder"
        else write_tarball(tmp_path / "a.tgz", spoiled)
    )
    with pytest.raises(MaximirError, match=reason.strip()) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_circles_in_the_graph_do_not_matter(files, tmp_path):
    """Nobody walks along it."""
    assert load_model(write_folder(tmp_path, spoil_manifest(circle)(files)))


def test_values_that_are_not_finite(model, tmp_path):
    arrays = arrays_of(model)
    arrays["stage_0_input_conv_0/kernel"] = arrays["stage_0_input_conv_0/kernel"] * np.float32(np.nan)
    with pytest.raises(MaximirError, match="not finite"):
        load_model(write_folder(tmp_path, files_of(*graph(arrays))))


def test_a_package_of_another_network(tmp_path):
    with pytest.raises(MaximirError, match="not the parameters of a MAXIM"):
        load_model(write_folder(tmp_path, files_of(*graph({"conv/kernel": np.ones((3, 3, 3, 3), "f4")}))))


def test_heads_that_should_be_missing(model, tmp_path):
    with pytest.raises(MaximirError, match="is not expected in a package"):
        load_model(write_folder(tmp_path, files_of(*graph(arrays_of(model, coarse=True)))))


def test_links_lead_nowhere(files, tmp_path):
    folder = write_folder(tmp_path / "package", files)
    shard = next(name for name in files if name.endswith(".bin"))
    (folder / shard).rename(tmp_path / "outside.bin")
    (folder / shard).symlink_to(tmp_path / "outside.bin")
    with pytest.raises(MaximirError, match="is missing"):
        load_model(folder)
    link = tarfile.TarInfo("package/models/model.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(MaximirError, match=r"the tarball has no model\.json"):
        load_model(write_tarball(tmp_path / "a.tgz", {}, members=[(link, b"")]))


def test_tarballs_that_are_none_or_never_end(files, tmp_path, monkeypatch):
    whole = write_tarball(tmp_path / "a.tgz", files)
    data = whole.read_bytes()
    (tmp_path / "cut.tgz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.tgz").write_bytes(gzip.compress(b"no tarball, but text" * 100))
    for name in ("cut.tgz", "text.tgz"):
        with pytest.raises(MaximirError, match=r"not a complete tarball"):
            load_model(tmp_path / name)
    (tmp_path / "plain.tgz").write_bytes(b"no gzip")
    with pytest.raises(MaximirError, match=r"TensorFlow\.js packages"):
        load_model(tmp_path / "plain.tgz")
    monkeypatch.setattr(tfjs, "MAX_UNPACKED", 10_000)
    with pytest.raises(MaximirError, match="unpacks to more than 10,000 bytes"):
        load_model(whole)
    monkeypatch.undo()
    monkeypatch.setattr(tfjs, "MAX_WEIGHTS", 10_000)
    for path in (whole, write_folder(tmp_path / "folder", files)):
        with pytest.raises(MaximirError, match="is larger than the"):
            load_model(path)


@pytest.mark.skipif("MAXIMIR_TEST_DOWNLOADS" not in os.environ, reason="MAXIMIR_TEST_DOWNLOADS is not set")
@pytest.mark.parametrize("model", [m for m in authors.MODELS if m.npm], ids=lambda model: model.name)
def test_the_real_packages(model, tmp_path):
    subprocess.run([shutil.which("npm"), "pack", model.npm, "--silent"], cwd=tmp_path, check=True)
    arrays = tfjs.read_package(next(tmp_path.glob("*.tgz")))
    assert tfjs.digest(arrays) == model.digest
