"""Training images at addresses: the same samples as from disk, and what is said where that fails."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command import maximir
from maximir import storage
from maximir.errors import MaximirError, UsageError
from maximir.storage import Address, Unreachable
from maximir.training.data import check_pairs, find_pairs, find_scenes, list_images, place_of
from maximir.training.samples import Samples, Views, views

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

NEVER = 10**9


class Weak(MemoryFileSystem):
    """Fails now and then, is slow to tell all, and writes down what is asked of it."""

    protocol = "weak"
    store: dict = {}  # noqa: RUF012  of its own
    failures, short, asked = 0, False, []

    def cat_file(self, path, start=None, end=None, **kwargs):
        Weak.asked.append((path, start, end))
        if Weak.failures:
            Weak.failures -= 1
            raise OSError("the line is bad for weak://me:password@host/x?signature=abc")
        found = super().cat_file(path, start, end, **kwargs)
        return found[:-1] if Weak.short else found


@pytest.fixture(autouse=True)
def _weak(monkeypatch):
    fsspec.register_implementation("weak", Weak, clobber=True)
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.0)
    yield
    Weak.failures, Weak.short, Weak.asked = 0, False, []
    Weak.store.clear()
    MemoryFileSystem.store.clear()


def png(seed, height=80, width=96):
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(data, "png")
    return data.getvalue()


@pytest.fixture
def disk(tmp_path):
    """Two shards of pairs, a folder of photographs, a list."""
    folder = tmp_path / "set"
    (folder / "pairs").mkdir(parents=True)
    (folder / "clean").mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"pairs/{shard}.tar", "w") as tar:
            for name in range(3):
                for part in ("input", "target"):
                    data = png(hash_of(shard, name, part))
                    member = tarfile.TarInfo(f"{shard}{name}.{part}.png")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    for name in range(3):
        (folder / f"clean/{name}.png").write_bytes(png(name))
    (folder / "list.txt").write_text("clean/0.png\tclean/1.png\n")
    return folder


def hash_of(shard, name, part):
    return 100 * shard + 10 * name + (part == "input")


def upload(disk, root):
    fs, path = fsspec.core.url_to_fs(root)
    for file in sorted(disk.rglob("*")):
        if file.is_file():
            fs.pipe(f"{path}/{file.relative_to(disk).as_posix()}", file.read_bytes())
    return place_of(root)


def samples_of(place, in_memory=NEVER, find=lambda place: check_pairs(find_pairs([place / "pairs"]), print)):
    found = Views(views(find(place), [1.0], 64, print, "pairs"), in_memory, print)
    return Samples({"pairs": 1.0}, {"pairs": found}, seed=3), found


def equal(first, second, numbers=range(12)):
    return all(
        torch.equal(a, b)
        for number in numbers
        for a, b in zip(first[number, 64][:2], second[number, 64][:2], strict=True)
    )


@pytest.mark.parametrize("in_memory", [NEVER, 0])
def test_samples_are_those_from_disk(disk, in_memory):
    there = upload(disk, "memory://bucket/set")
    (ours, here), (theirs, far) = samples_of(disk), samples_of(there, in_memory)
    assert here.digest() == far.digest()
    assert equal(ours, theirs)


def test_loose_images_and_lists(disk):
    there = upload(disk, "memory://bucket/set")
    assert [name for name, _ in list_images(there / "clean")] == ["0", "1", "2"]
    assert [scene.name for scene in find_scenes([there])] == [scene.name for scene in find_scenes([disk])]
    ours, theirs = (find_pairs([root / "list.txt"])[0] for root in (disk, there))
    assert ours.name == theirs.name
    assert np.array_equal(ours.inputs[0].load(), theirs.inputs[0].load())
    assert theirs.target.size() == (80, 96)


def test_a_member_is_a_range_and_sizes_need_no_request(disk):
    there = upload(disk, "weak://bucket/set")
    images = list_images(there / "pairs")
    assert [image.size() for _, image in images] == [(80, 96)] * 12
    assert Weak.asked == []
    images[0][1].load()
    ((_, start, end),) = Weak.asked
    assert end - start == images[0][1].member[2]


def test_what_passes_is_tried_again(disk):
    there = upload(disk, "weak://bucket/set")
    expected, _ = samples_of(disk)
    found, _ = samples_of(there, 0)
    Weak.failures = 3
    assert equal(expected, found, range(2))
    assert Weak.failures == 0


@pytest.mark.parametrize("short", [False, True])
def test_what_lasts_ends_the_run_and_no_other_image_is_taken(disk, short):
    there = upload(disk, "weak://me:password@bucket/set")
    found, _ = samples_of(there, 0)
    Weak.failures, Weak.short = (0, True) if short else (NEVER, False)
    with pytest.raises(
        Unreachable, match=r"^weak://\*\*\*@bucket/set/pairs/\d\.tar: cannot be read"
    ) as caught:
        found[0, 64]
    assert not {"password", "signature"} & set(str(caught.value).replace("=", " ").replace(":", " ").split())
    assert caught.value.__cause__ is None


def test_damaged_shards_and_images_are_named(disk):
    (disk / "pairs/0.tar").write_bytes((disk / "pairs/0.tar").read_bytes()[:5000])
    (disk / "clean/0.png").write_bytes(b"nothing")
    there = upload(disk, "memory://bucket/set")
    with pytest.raises(MaximirError, match=r"memory://bucket/set/pairs/0.tar: cannot be read as an uncompr"):
        list_images(there / "pairs")
    with pytest.raises(MaximirError, match=r"clean/0.png: cannot be read as an image"):
        find_scenes([there / "clean"])[0].target.size()
    with pytest.raises(MaximirError, match=r"no such folder"):
        list_images(there / "none")


def test_which_storage_there_is():
    assert isinstance(place_of("memory://bucket/x.tar"), Address)
    assert isinstance(place_of("simplecache::memory://bucket/x.tar"), Address)
    assert not isinstance(place_of("C:/pictures"), Address)
    assert not isinstance(place_of("photos/2024"), Address)
    with pytest.raises(UsageError, match="s4://bucket/a: no storage of this kind"):
        place_of("s4://bucket/a")
    fsspec.register_implementation("nolib", "no_such_package.Files", errtxt="Install nolib", clobber=True)
    with pytest.raises(UsageError, match=r"nolib://b: a package for this is missing \(Install nolib"):
        place_of("nolib://b")


def test_the_command_says_so_in_one_sentence(tmp_path, capsys):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'task = "denoise"\nmixture = { gaussian = 1.0 }\nsteps = 1\nlearning_rate = 1e-3\n'
        "phases = [{ until = 1.0, patch = 64, batch = 1 }]\n"
        "[model]\nfeatures = 8\nstages = 1\ngroups = 1\nbottlenecks = 1\n"
    )
    for address, words in (("s4://bucket/a", "no storage of this kind"), ("memory://none", "no such folder")):
        maximir(
            *("train", recipe, "--data", address, "--out", tmp_path / "run", "--device", "cpu"),
            expect=2,
        )
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"maximir: {address}") and words in line
