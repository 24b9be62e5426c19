"""A watched folder: what is complete, what is tried again, what is set aside, and kills."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import files, maximir
from maximir import images, storage
from maximir.batch import pipeline, watch
from maximir.batch.outcome import Outcome
from maximir.batch.watch import Inbox
from maximir.errors import UsageError
from maximir.files import PART

PATIENCE = 60  # seconds; only what is broken waits that long


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def inbox(tmp_path, clock):
    (tmp_path / "in").mkdir()
    return Inbox(tmp_path / "in", str(tmp_path / "out"), 2.0, clock=clock)


def due(inbox):
    return [job.source.path for job in inbox.look().jobs]


def finish(inbox, error=None, **facts):
    """End all that is due in the same way; return the lines about it."""
    return [inbox.finish(Outcome(job, error, **facts)) for job in inbox.look().jobs]


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)).save(path)


def test_a_file_is_complete_when_it_does_not_change(inbox, clock):
    file = inbox.folder / "below" / "a.jpg"
    file.parent.mkdir()
    for size in range(1, 5):
        file.write_bytes(bytes(size))
        assert due(inbox) == [] and inbox.patience() == 2.0
        clock.now += 1.5
    assert due(inbox) == []
    clock.now += 0.5
    assert due(inbox) == ["below/a.jpg"]
    assert finish(inbox) == [None]
    clock.now += 100
    assert due(inbox) == [] and inbox.patience() == watch.LOOK
    file.write_bytes(bytes(9))  # a new one of the same name
    assert due(inbox) == []
    clock.now += 2
    assert due(inbox) == ["below/a.jpg"]


def test_incomplete_names_hidden_files_and_sidecars_are_left_alone(inbox, clock):
    for name in (".a.jpg", "a.jpg.part", "b.tmp", "c.xmp", "d.crdownload", "failed/e.jpg"):
        (inbox.folder / name).parent.mkdir(exist_ok=True)
        (inbox.folder / name).write_bytes(b"x")
    due(inbox)
    clock.now += 5
    assert due(inbox) == []


def test_failed_ones_are_tried_again_and_then_set_aside(inbox, clock):
    file = inbox.folder / "below" / "a.jpg"
    for number in (1, 2):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"hello")
        due(inbox)
        clock.now += 2
        (line,) = finish(inbox, error=f"{file}: no image")
        assert "tried again if it has not changed in 60 s" in line
        clock.now += 57
        assert due(inbox) == []
        clock.now += 1
        (line,) = finish(inbox, error=f"{file}: no image")
        name = "a.jpg" if number == 1 else "a-2.jpg"
        aside = inbox.folder / "failed" / "below" / name
        assert line.endswith(f"set aside as {aside}")
        assert aside.read_bytes() == b"hello" and not file.exists()
        assert aside.with_name(f"{name}.txt").read_text() == "no image\n"
    assert due(inbox) == []


def test_one_that_changed_while_it_was_read_is_not_blamed(inbox, clock):
    file = inbox.folder / "a.jpg"
    file.write_bytes(b"half")
    due(inbox)
    clock.now += 100
    jobs = inbox.look().jobs
    file.write_bytes(b"half and half")
    assert inbox.finish(Outcome(jobs[0], "truncated")) is None
    assert due(inbox) == [] and file.exists()
    clock.now += 2
    assert due(inbox) == ["a.jpg"]


def test_a_full_disk_is_not_the_photographs_fault(inbox, clock):
    (inbox.folder / "a.jpg").write_bytes(b"x")
    due(inbox)
    clock.now += 100
    (line,) = finish(inbox, error="out/a.jpg: no space left on device", size=(10, 12))
    assert "tried again in 30 s" in line and due(inbox) == []
    clock.now += 30
    assert due(inbox) == ["a.jpg"]


def test_a_file_in_the_results_place_is_not_the_photographs_fault(inbox, clock):
    (inbox.folder / "a.jpg").write_bytes(b"x")
    due(inbox)
    clock.now += 100
    assert finish(inbox, error="out/a.jpg exists, and is not what maximir made of it", obstructed=True) == [
        None
    ]
    clock.now += 1000
    assert due(inbox) == [] and (inbox.folder / "a.jpg").exists()


def test_one_that_cannot_be_moved_stays_and_is_not_tried_for_ever(inbox, clock, monkeypatch):
    (inbox.folder / "a.jpg").write_bytes(b"x")
    due(inbox)
    clock.now += 100
    monkeypatch.setattr(
        watch.os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    (line,) = finish(inbox, error="no image")
    assert "cannot be set aside (permission denied)" in line
    clock.now += 1000
    assert due(inbox) == []


def test_senseless_folders(tmp_path, tiny_weights, capsys):
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    for folder, output, words in (
        ("in", "in", "same folder"),
        ("in", "in/out", "inside the watched folder"),
        ("in/below", "in", "inside the output"),
        ("missing", "out", "does not exist; make the folder"),
        ("file", "out", "is no folder"),
    ):
        words_given = ("watch", tmp_path / folder, "-o", tmp_path / output, "--weights", tiny_weights)
        maximir(*words_given, expect=2)
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(UsageError, match="inside the watched folder"):
        Inbox(tmp_path / "in", f"file://{tmp_path}/in/out", 2.0)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="same folder"):
        Inbox(tmp_path / "in", str(tmp_path / "link"), 2.0)
    maximir("watch", tmp_path / "in", "-o", tmp_path / "file", "--weights", tiny_weights, expect=2)
    assert "cannot write there" in capsys.readouterr().err


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    with pytest.raises(
        UsageError, match=r"pip install 'maximir\[watch\]'; or look every 10 seconds with --poll 10"
    ):
        watch.Events(tmp_path)


def test_events_wake(tmp_path):
    pytest.importorskip("watchdog")
    with watch.Events(tmp_path) as waiter:
        began = time.monotonic()
        (tmp_path / "a.jpg").write_bytes(b"x")
        waiter.wait(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        waiter.wait(0.3)  # what is left of the first events
        began = time.monotonic()
        (tmp_path / "a.jpg").read_bytes()  # reading does not wake
        waiter.wait(0.5)
        assert time.monotonic() - began >= 0.5


# The command


def start(folder, output, weights, *options):
    command = [sys.executable, "-m", "maximir", "watch", folder, "-o", output, "--weights", weights, *options]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def until(condition):
    for _ in range(PATIENCE * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def stop(process, how=signal.SIGINT):
    process.send_signal(how)
    _, error = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("options", [pytest.param(["--poll", "0.2"], marks=pytest.mark.long), []])
def test_arrivals_kills_and_restarts(options, tmp_path, tiny_weights):
    if not options:
        pytest.importorskip("watchdog")
    folder, output = tmp_path / "in", tmp_path / "out"
    picture(folder / "a.png", 1)
    words = (folder, output, tiny_weights, "--settle", "0.2", "--keep-times", *options)
    process = start(*words)
    until((output / "a.png").exists)
    picture(folder / "below" / "b.tif", 2)
    whole = (folder / "a.png").read_bytes()
    with (folder / "slow.png").open("wb") as file:  # grows, and is never read before it is complete
        for at in range(0, len(whole), 100):
            file.write(whole[at : at + 100])
            file.flush()
            time.sleep(0.05)
    (tmp_path / "moved.png").write_bytes(whole)
    os.replace(tmp_path / "moved.png", folder / "moved.png")
    (folder / "bad.jpg").write_bytes(b"hello")
    until((output / "below" / "b.tif").exists)
    until((output / "slow.png").exists)
    until((output / "moved.png").exists)
    until((folder / "failed" / "bad.jpg").exists)
    stop(process, signal.SIGKILL)
    assert (folder / "failed" / "bad.jpg.txt").read_text() == "not an image that maximir can read\n"
    assert (output / "a.png").stat().st_mtime_ns == (folder / "a.png").stat().st_mtime_ns
    # Killed while it wrote the journal, it leaves an incomplete file.
    before = {name: (output / name).read_bytes() for name in files(output) if not name.startswith(PART)}
    assert sorted(before) == ["a.png", "below/b.tif", "moved.png", "slow.png"]

    picture(folder / "last" / "c.png", 3)
    process = start(*words)
    until((output / "last" / "c.png").exists)  # after the others in the plan
    error = stop(process)
    assert process.returncode == 130 and "the same command continues" in error
    assert error.count("(done before)") == 4
    assert not [name for name in files(output) if name.startswith(PART)]
    assert {name: (output / name).read_bytes() for name in before} == before
    assert images.read(output / "last" / "c.png").rgb.shape == (10, 12, 3)


def test_a_full_disk_is_waited_for(tmp_path, tiny_weights, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    tried, real = [], storage.write_atomically

    def write(path, data):
        tried.append(path.name)
        if tried.count("b.png") == 1 and path.name == "b.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    def wait(self, seconds):
        if tried.count("b.png") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_atomically", write)
    monkeypatch.setattr(pipeline, "WAITING_PHOTOS", 1)
    monkeypatch.setattr(watch, "RETRY", 0.1)
    monkeypatch.setattr(watch.Polling, "wait", wait)
    words = (tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny_weights)
    maximir("watch", *words, "--poll", "0.1", "--settle", "0.1", expect=130)
    assert tried == ["a.png", "b.png", "c.png", "b.png"]  # perhaps only b.png was too large
    assert f"{tmp_path / 'out'}: the disk is full; tried again" in capsys.readouterr().err


@pytest.mark.slow
def test_another_run_in_the_output_is_named(tmp_path, tiny_weights):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    with Path(tmp_path / "out" / ".maximir.jsonl").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start(tmp_path / "in", tmp_path / "out", tiny_weights)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "another maximir writes there" in error


@pytest.mark.long
def test_many_kills_leave_what_an_undisturbed_run_leaves(tmp_path, tiny_weights):
    rng = np.random.default_rng(3)
    folder, output = tmp_path / "in", tmp_path / "out"
    for number in range(40):
        picture(folder / f"{number}.png", number)
    maximir("restore", folder, "-o", tmp_path / "undisturbed", "--weights", tiny_weights)
    wanted = {
        name: (tmp_path / "undisturbed" / name).read_bytes() for name in files(tmp_path / "undisturbed")
    }
    words = (folder, output, tiny_weights, "--settle", "0.1", "--poll", "0.1")
    for _ in range(4):
        process = start(*words)
        until(lambda process=process: "watching" in process.stderr.readline())
        time.sleep(float(rng.uniform(0, 0.6)))
        stop(process, signal.SIGKILL)
        for name in files(output) if output.exists() else []:
            assert name.startswith(".maximir-") or (output / name).read_bytes() == wanted[name]
    process = start(*words)
    until(lambda: sum(name in wanted for name in files(output)) == len(wanted))
    stop(process)
    assert {name: (output / name).read_bytes() for name in files(output)} == wanted
