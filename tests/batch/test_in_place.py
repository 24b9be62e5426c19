"""Photographs restored where they are: the original is kept, once, and no failure changes a file."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from helpers.command import files, maximir
from maximir import files as atomic
from maximir import images
from maximir.batch import in_place


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "summer").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "summer/b.tif"):
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(folder / name)
    return folder


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_originals_are_kept_and_a_second_run_changes_nothing(photos, tiny_weights, capsys):
    before = contents(photos)
    os.chmod(photos / "a.png", 0o640)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights)
    after = contents(photos)
    assert set(after) == {"a.png", "a.png.original", "summer/b.tif", "summer/b.tif.original"}
    for name in before:
        assert after[f"{name}.original"] == before[name] != after[name]
        assert images.read(photos / name).rgb.shape == (10, 12, 3)
    assert (photos / "a.png").stat().st_mode & 0o777 == 0o640
    assert "2 restored, 0 failed" in (out := capsys.readouterr().out) and "kept as NAME.original" in out
    for options in ([], ["--strength", "0.5"]):
        maximir("restore", photos, "--in-place", "--weights", tiny_weights, *options)
        assert contents(photos) == after
        assert "2 done before, 0 restored, 0 failed" in capsys.readouterr().out
    os.replace(photos / "a.png.original", photos / "a.png")  # taken back: it may be restored again
    maximir("restore", photos / "a.png", "--in-place", "--weights", tiny_weights)
    assert contents(photos) == after


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(photos, tiny_weights):
    photo = photos / "a.png"
    os.chown(photo, 1234, 2345)
    photo.chmod(0o600)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights)
    facts = photo.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (1234, 2345, 0o600)


def test_a_folder_that_cannot_be_written_stops_no_other(photos, tiny_weights, monkeypatch, capsys):
    real = in_place.keep

    def keep(file, original):
        if file.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(file, original)

    monkeypatch.setattr(in_place, "keep", keep)
    monkeypatch.setattr("maximir.storage.os.access", lambda *args, **more: False)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights, expect=1)
    assert "a.png: cannot be replaced (permission denied)" in capsys.readouterr().err
    assert (photos / "summer" / "b.tif.original").exists() and not (photos / "a.png.original").exists()


def test_what_stays_as_it_is_needs_no_original(photos, tiny_weights):
    before = contents(photos)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights, "--strength", "0")
    assert contents(photos) == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_everything_as_it_was(step, photos, tiny_weights, monkeypatch, capsys):
    before = contents(photos)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, step, full)
    maximir("restore", photos / "a.png", "--in-place", "--weights", tiny_weights, expect=1)
    monkeypatch.undo()
    assert contents(photos) == before
    assert "no space left on device" in capsys.readouterr().err


def test_disks_without_links(photos, tiny_weights, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    before = contents(photos)
    monkeypatch.setattr(in_place.os, "link", refused)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights)
    after = contents(photos)
    assert {name: after[f"{name}.original"] for name in before} == before
    assert all(after[name] != before[name] for name in before)


def test_a_run_that_was_killed_between_both_names(photos, tiny_weights):
    os.link(photos / "a.png", photos / "a.png.original")
    before = (photos / "a.png").read_bytes()
    maximir("restore", photos / "a.png", "--in-place", "--weights", tiny_weights)
    assert (photos / "a.png.original").read_bytes() == before != (photos / "a.png").read_bytes()


def test_kept_originals_are_never_overwritten(tmp_path):
    (tmp_path / "a.png").write_bytes(b"new")
    (tmp_path / "a.png.original").write_bytes(b"precious")
    with pytest.raises(in_place.MaximirError, match=r"a\.png\.original exists but differs from a\.png"):
        in_place.InPlace(tmp_path).write("a.png", b"result")
    assert contents(tmp_path) == {"a.png": b"new", "a.png.original": b"precious"}


def test_links_stay_links(photos, tiny_weights):
    (photos / "link.png").symlink_to(photos / "a.png")
    before = (photos / "a.png").read_bytes()
    maximir("restore", photos / "link.png", photos / "a.png", "--in-place", "--weights", tiny_weights)
    assert (photos / "link.png").is_symlink() and (photos / "a.png.original").read_bytes() == before
    assert files(photos) == ["a.png", "a.png.original", "link.png", "summer/b.tif"]


def test_times_are_those_of_the_original(photos, tiny_weights):
    os.utime(photos / "a.png", ns=(10**18, 10**18))
    for _ in range(2):
        maximir("restore", photos / "a.png", "--in-place", "--keep-times", "--weights", tiny_weights)
        assert (photos / "a.png").stat().st_mtime_ns == 10**18


def test_formats_that_are_not_written(photos, tiny_weights, capsys):
    Image.new("RGB", (8, 8)).save(photos / "c.gif")
    maximir("restore", photos / "c.gif", "--in-place", "--weights", tiny_weights, expect=1)
    assert "cannot write '.gif' files" in capsys.readouterr().err
    assert not (photos / "c.gif.original").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out"], "combined with --output"),
        (["--overwrite"], "combined with --output, --overwrite"),
        (["--resume"], "which keeps originals, cannot be combined"),
        (["--shard", "1/2"], "--shard"),
        (["--format", "png"], "--format is for -o -"),
    ],
)
def test_senseless_requests(options, words, photos, tiny_weights, capsys):
    before = contents(photos)
    maximir("restore", photos, "--in-place", "--weights", tiny_weights, *options, expect=2)
    assert words in capsys.readouterr().err and contents(photos) == before


def test_without_output(photos, tiny_weights, capsys):
    maximir("restore", photos, "--weights", tiny_weights, expect=2)
    assert "give --output" in capsys.readouterr().err


@pytest.mark.long
def test_kills(photos, tiny_weights):
    """Killed at any time, each photograph is the original or the result, and the original is there."""
    before = contents(photos)
    command = [
        sys.executable,
        "-m",
        "maximir",
        "restore",
        str(photos),
        "--in-place",
        "--weights",
        str(tiny_weights),
    ]
    for delay in np.linspace(2, 6, 4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, data in before.items():
            original = photos / f"{name}.original"
            assert data == (original if original.exists() else photos / name).read_bytes()
            assert images.read(photos / name).rgb.shape == (10, 12, 3)
    subprocess.run(command, check=True, capture_output=True)
    assert {name: (photos / f"{name}.original").read_bytes() for name in before} == before
