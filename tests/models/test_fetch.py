"""`maximir get` and `maximir models`: from a local server, a fake npm and files; never from the network."""

import json
import os
import shutil
import socket
import stat
import struct
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.tfjs_package import arrays_of, files_of, graph, write_tarball
from helpers.web import serve
from helpers.weights import POINTER
from maximir import Maxim, MaximConfig, MaximirError, UsageError, load_model, places
from maximir.cli.app import app
from maximir.cli.models import wanted
from maximir.models import authors, catalogue, checkpoint, choice, download, fetch, tfjs, user_models

CONFIG = MaximConfig(features=8, stages=2, groups=1, bottlenecks=1)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nobody's own models are used or touched, and no way leads out of this machine."""
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # nobody's npm, which would go there by itself
    monkeypatch.setattr(download, "PAUSE", 0.01)
    real = socket.getaddrinfo

    def only_here(host, *args, **more):
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    monkeypatch.delenv(fetch.MIRROR, raising=False)
    return tmp_path / "home" / "models"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return Maxim(CONFIG).eval()


@pytest.fixture
def model(network, monkeypatch):
    """An author's model that is small."""
    digest = tfjs.digest(arrays_of(network))
    model = replace(authors.BY_NAME["derain-rain13k"], digest=digest)
    monkeypatch.setitem(authors.BY_NAME, model.name, model)
    monkeypatch.setattr(authors, "MODELS", (model,))
    return model


@pytest.fixture
def npz(network, tmp_path):
    arrays = arrays_of(network, coarse=True)
    np.savez(tmp_path / "checkpoint.npz", **{f"opt/target/{name}": a for name, a in arrays.items()})
    return tmp_path / "checkpoint.npz"


@pytest.fixture
def tgz(network, tmp_path):
    return write_tarball(tmp_path / "package.tgz", files_of(*graph(arrays_of(network))))


@pytest.fixture
def web():
    with serve() as web:
        yield web


@pytest.fixture
def bucket(web, model, npz, monkeypatch):
    """The authors' bucket, on this machine."""
    web.files[f"/ckpt/{model.address}"] = npz.read_bytes()
    monkeypatch.setenv(fetch.MIRROR, f"{web.address}/ckpt/")
    return web


@pytest.fixture
def npm(tmp_path, tgz, monkeypatch):
    """A fake npm on the PATH; it writes down what it is asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(
        f"#!{sys.executable} -IS\nimport os, shutil, sys\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        "if os.environ.get('NPM_FAILS'): sys.exit('npm error 404 Not Found')\n"
        f"shutil.copy({str(tgz)!r}, 'package.tgz')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    return tmp_path / "asked"


def leftovers(home):
    return sorted(p.name for p in home.iterdir() if not p.name.endswith((".lock", ".safetensors")))


def command(*args):
    return CliRunner().invoke(app, args)


def test_from_the_bucket(bucket, model, own_home, network):
    told, seen = [], []
    path = fetch.fetch(model, report=lambda done, total: seen.append((done, total)), say=told.append)
    assert path == own_home / "derain-rain13k.safetensors"
    assert told == [f"derain-rain13k: trying {bucket.address}/ckpt/{model.address}"]
    assert seen[-1][0] == seen[-1][1] > 0
    assert not leftovers(own_home)
    loaded = load_model("derain-rain13k")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))
    facts = checkpoint.read(path).facts
    assert facts["digest"] == model.digest and facts["verified"] and not facts.get("missing")


def test_two_fetches_give_the_same_bytes(bucket, model, own_home):
    first = fetch.fetch(model).read_bytes()
    assert fetch.fetch(model).read_bytes() == first


def test_then_from_npm(model, npm, own_home):
    told = []
    fetch.fetch(model, say=told.append)
    assert "pack @upscalerjs/maxim-deraining@0.1.0 --ignore-scripts" in npm.read_text()
    assert "cannot be fetched" in told[1] and "trying npm" in told[2]
    assert checkpoint.read(user_models.path_of(model.name)).facts["missing"]
    assert not leftovers(own_home)


@pytest.mark.parametrize("kind", ["npz", "tgz", "folder", "address", "safetensors"])
def test_from_what_was_given(kind, model, npz, tgz, web, own_home, tmp_path, network):
    match kind:
        case "npz":
            given = str(npz)
        case "tgz":
            given = str(tgz)
        case "folder":
            shutil.unpack_archive(tgz, tmp_path / "unpacked")
            given = str(tmp_path / "unpacked")
        case "safetensors":
            checkpoint.save_model(network, tmp_path / "mine.safetensors")
            given = str(tmp_path / "mine.safetensors")
        case _:
            web.files["/a/package.tgz"] = tgz.read_bytes()
            web.moved["/package.tgz"] = "/a/package.tgz"
            given = f"{web.address}/package.tgz?x=1"
            web.moved["/package.tgz?x=1"] = "/a/package.tgz"
    assert fetch.fetch(model, given).exists()
    assert not leftovers(own_home)
    if kind != "address":
        assert Path(given).exists(), "what the user gave is the user's"


def test_a_connection_that_breaks_is_taken_up_again(bucket, model):
    bucket.cut = [1000, 20_000, None]
    fetch.fetch(model)
    assert [asked for _, asked in bucket.requests] == [None, "bytes=1000-", "bytes=21000-"]


def test_the_next_call_goes_on_from_there(bucket, model, own_home):
    bucket.cut = [5000] + [0] * download.TRIES
    with pytest.raises(MaximirError, match="could not be downloaded"):
        fetch.fetch(model)
    assert leftovers(own_home) == [".derain-rain13k.download"]
    bucket.requests.clear()
    fetch.fetch(model)
    assert bucket.requests[0][1] == "bytes=5000-"
    assert not leftovers(own_home)


def test_a_server_that_never_sends_all_is_given_up(bucket, model):
    bucket.etag = ""  # so each try begins anew
    bucket.cut = [5000, 7000, 6000, 8000, 7500] * 20
    with pytest.raises(MaximirError, match="could not be downloaded"):
        fetch.fetch(model)
    assert len(bucket.requests) <= 3 * download.TRIES


def test_another_file_by_then_starts_anew(bucket, model, own_home):
    bucket.cut = [5000] + [0] * download.TRIES
    with pytest.raises(MaximirError):
        fetch.fetch(model)
    bucket.etag = '"2"'
    assert fetch.fetch(model).exists()


def test_a_length_that_lies(bucket, model, own_home):
    bucket.lie = 7
    with pytest.raises(MaximirError, match="could not be downloaded"):
        fetch.fetch(model)
    assert not user_models.path_of(model.name).exists()


def test_more_than_any_checkpoint(bucket, model, own_home, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    told = []
    with pytest.raises(MaximirError):
        fetch.fetch(model, say=told.append)
    assert "more than any checkpoint" in told[1]
    assert not leftovers(own_home)


def test_not_found(web, model, monkeypatch, npm):
    monkeypatch.setenv(fetch.MIRROR, web.address)
    told = []
    fetch.fetch(model, say=told.append)
    assert "the server replied 404" in told[1]
    assert len(web.requests) == 1, "what is not there is not asked for again"


def test_a_wrong_digest_is_refused_by_name(bucket, model, own_home, monkeypatch):
    other = replace(model, digest="0" * 64)
    with pytest.raises(MaximirError, match="could not be downloaded"):
        fetch.fetch(other)
    monkeypatch.setitem(authors.BY_DIGEST, model.digest, replace(model, name="derain-other"))
    given = f"{bucket.address}/ckpt/{model.address}"
    with pytest.raises(MaximirError, match=r"is not derain-rain13k .*: it is derain-other"):
        fetch.fetch(other, given)
    assert not own_home.exists() or not leftovers(own_home)
    assert not user_models.path_of(model.name).exists()


def test_an_old_one_stays_where_the_new_one_is_refused(bucket, model, own_home):
    path = fetch.fetch(model)
    before = path.read_bytes()
    with pytest.raises(MaximirError):
        fetch.fetch(replace(model, digest="0" * 64))
    assert path.read_bytes() == before


def test_ctrl_c_leaves_nothing_behind(bucket, model, own_home):
    def interrupt(done, total):
        if done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(model, report=interrupt)
    assert not leftovers(own_home)


def test_a_full_disk_leaves_nothing_behind(bucket, model, own_home, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(MaximirError, match="could not be downloaded"):
        fetch.fetch(model)
    assert not leftovers(own_home)


def test_no_way_at_all_names_those_that_are_left(model, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = []
    with pytest.raises(MaximirError, match=r"storage\.googleapis\.com/.*npm pack .*--from FILE"):
        fetch.fetch(model, say=told.append)
    assert "npm is not installed" in told[-1]


def test_npm_that_fails(model, npm, monkeypatch):
    monkeypatch.setenv("NPM_FAILS", "1")
    told = []
    with pytest.raises(MaximirError):
        fetch.fetch(model, say=told.append)
    assert "npm could not fetch @upscalerjs/maxim-deraining@0.1.0 (npm error 404 Not Found)" in told[-1]


def test_two_at_once(bucket, model, own_home):
    own_home.mkdir(parents=True)
    with (
        filelock.FileLock(own_home / f".{model.name}.lock"),
        pytest.raises(MaximirError, match="another `maximir get`"),
    ):
        fetch.fetch(model)


def test_a_folder_that_cannot_be_written(bucket, model, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(places.HOME, str(tmp_path / "file"))
    with pytest.raises(MaximirError, match=r"models cannot be stored there .* MAXIMIR_HOME"):
        fetch.fetch(model)


def test_addresses_that_are_no_weights(model):
    with pytest.raises(MaximirError, match=r"does not end in one of \.npz"):
        fetch.fetch(model, "https://127.0.0.1/model.pth")


# --- choosing -------------------------------------------------------------------------------------------


def test_the_order_of_a_task(bucket, model, network, own_home):
    assert choice.for_task("derain").name == "derain-box"
    fetch.fetch(model)
    assert choice.for_task("derain").name == "derain-box", "the box is the better one on people's photographs"
    assert choice.named("derain-rain13k").origin == "authors"
    for name in choice.BEFORE_THE_BOX:
        checkpoint.save_model(network, user_models.path_of(name))
        assert choice.for_task(name.partition("-")[0]).name == name
    checkpoint.save_model(network, user_models.path_of("derain-mine"))
    assert choice.named("derain-mine").origin == "yours" and choice.named("derain-mine").task == "derain"


def test_a_fast_model_is_selected_by_its_name_alone(monkeypatch):
    best, fast = choice.named("denoise-box"), choice.named("denoise-fast")
    assert fast.fast and not best.fast and fast.task == "denoise"
    monkeypatch.setattr(catalogue, "MODELS", (fast, best))
    assert choice.for_task("denoise") is best and choice.choose("denoise-fast") is fast


def test_a_task_without_a_model(monkeypatch):
    monkeypatch.setattr(catalogue, "MODELS", ())
    with pytest.raises(
        UsageError, match="no model for retouch is on this machine: `maximir get retouch-fivek`"
    ):
        choice.for_task("retouch")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dehaze-indoor", "is not on this machine: `maximir get dehaze-indoor`"),
        ("dehaze-indor", "did you mean dehaze-indoor"),
        ("paint", "`maximir models` lists all"),
    ],
)
def test_names_that_are_not_here(name, sentence):
    with pytest.raises(UsageError, match=sentence):
        choice.named(name)
    with pytest.raises(UsageError, match=sentence):
        load_model(name)


def test_listing(bucket, model, own_home):
    fetch.fetch(model)
    by_name = choice.known()
    assert set(by_name) == {m.name for m in catalogue.MODELS} | {model.name}
    assert by_name[model.name].where == str(own_home / "derain-rain13k.safetensors")
    assert by_name[model.name].header.stages == 2 and by_name[model.name].header.parameters > 1e5
    assert by_name["denoise-box"].where == "in the box"
    (own_home / "broken.safetensors").write_bytes(b"nothing")
    broken = choice.available()["broken"]
    assert broken.facts()["where"] == str(own_home / "broken.safetensors") and broken.header.bytes is None


def safetensors_file(config, shape=(1,)):
    header = {
        "__metadata__": {"config": config},
        "weight": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


WHOLE = safetensors_file(json.dumps(CONFIG.to_dict()))
DAMAGED = {
    "pointer": (POINTER, "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    "empty": (b"", "not a safetensors file"),
    "short": (WHOLE[:50], "not a safetensors file"),
    "cut": (WHOLE[:-1], "not a whole safetensors file"),
    "longer": (WHOLE + b"\0", "not a whole safetensors file"),
    "list": (struct.pack("<Q", 2) + b"[]", "not a safetensors file"),
    "numbers": (struct.pack("<Q", 7) + b'{"a":1}', "not a safetensors file"),
    "deep": (struct.pack("<Q", 100_000) + b"[" * 100_000, "not a safetensors file"),
    "deep config": (safetensors_file("[" * 100_000), "not one of maximir's"),
    "no config": (safetensors_file("[]"), "not one of maximir's"),
    "text": (safetensors_file(json.dumps({"stages": "two"})), "stages must be an integer"),
    "shape": (safetensors_file("{}", [1.5]), "not one of maximir's"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_one_damaged_file_is_named_and_all_others_listed(kind, own_home, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    data, problem = DAMAGED[kind]
    own_home.mkdir(parents=True)
    (own_home / "denoise-mine.safetensors").write_bytes(data)
    (own_home / "denoise-whole.safetensors").write_bytes(WHOLE)
    (own_home / "denoise-folder.safetensors").mkdir()
    result = command("models")
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "denoise-mine" in line)
    assert line.split()[1] == "damaged" and problem in line
    assert "denoise-box" in result.stdout and result.stdout.count(" damaged ") == 1
    listed = {entry["name"]: entry for entry in json.loads(command("models", "--json").stdout)}
    assert problem in listed["denoise-mine"]["problem"] and listed["denoise-mine"]["bytes"] is None
    assert listed["denoise-whole"]["problem"] == "" and listed["denoise-whole"]["parameters"] == 1


def test_a_damaged_model_is_fetched_again(bucket, model, own_home):
    own_home.mkdir(parents=True)
    (own_home / "derain-rain13k.safetensors").write_bytes(POINTER)
    assert "verified" in command("get", "derain-rain13k").stdout
    assert "already here" in command("get", "derain-rain13k").stdout


# --- the commands ---------------------------------------------------------------------------------------


def test_get_and_models(bucket, model, own_home):
    result = command("get", "derain")
    assert result.exit_code == 0, result.output
    assert "verified, its parameters are the authors'" in result.stdout
    assert "already here" in command("get", "derain-rain13k").stdout
    listed = json.loads(command("models", "--json").stdout)
    assert [entry["name"] for entry in listed if entry["origin"] == "authors"] == ["derain-rain13k"]
    assert "derain-rain13k" in command("models").stdout
    assert command("get", "--all").exit_code == 0


def test_restore_says_which_model_it_was(bucket, model, tmp_path):
    from PIL import Image

    fetch.fetch(model)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "a.png")
    photo = str(tmp_path / "a.png")
    for words, name in (
        (["--model", "derain-rain13k"], "derain-rain13k"),
        (["--task", "derain"], "derain-box"),
        (["--weights", "derain-rain13k", "--stages", "1"], "derain-rain13k"),
    ):
        result = command("restore", photo, "-o", str(tmp_path / f"out{len(words)}"), "--overwrite", *words)
        assert result.exit_code == 0, result.output
        assert f"(model: {name}, " in result.stdout
    refused = CliRunner().invoke(app, ["restore", photo, "-o", str(tmp_path / "x"), "--model", "enhance-lol"])
    assert isinstance(refused.exception, UsageError) and "maximir get enhance-lol" in str(refused.exception)


@pytest.mark.parametrize("words", [[], ["derain", "--all"], ["derain", "dehaze", "--from", "x.npz"], ["foo"]])
def test_get_that_makes_no_sense(words):
    assert isinstance(command("get", *words).exception, UsageError)


def test_a_file_is_recognised_by_its_parameters(model, tgz, monkeypatch, own_home, tmp_path):
    monkeypatch.setattr(fetch, "BY_DIGEST", {model.digest: model})
    result = command("get", "--from", str(tgz))
    assert result.exit_code == 0 and "derain-rain13k: verified" in result.stdout
    assert (own_home / "derain-rain13k.safetensors").exists()
    other = tmp_path / "other.safetensors"
    checkpoint.save_model(Maxim(MaximConfig(features=4, stages=1)), other)
    with pytest.raises(MaximirError, match="not one of the authors' models"):
        fetch.recognise(str(other))
    with pytest.raises(UsageError, match="name the model that comes from https://"):
        fetch.recognise("https://localhost/x.npz")


def test_get_of_an_unknown_name():
    with pytest.raises(UsageError, match="did you mean deblur-gopro"):
        wanted("deblur-godro")
    ours_alone = "dejpeg"
    theirs = {*catalogue.TASKS} - {ours_alone}
    assert {wanted(task).task for task in theirs} == theirs
    with pytest.raises(UsageError, match="no model for dejpeg; the one in the box needs no download"):
        wanted(ours_alone)


def test_nothing_but_get_uses_the_network(monkeypatch, tmp_path):
    def refuse(*args, **more):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert command("models").exit_code == 0
    for name in ("enhance-lol", "nothing"):
        with pytest.raises(UsageError):
            load_model(name)
    assert os.environ[places.HOME] and not user_models.folder().exists(), "looking makes no folder"
