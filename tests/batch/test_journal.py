"""Runs that were stopped: what is done stays, what is not is done again, and nothing else is touched."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest

from maximir import images, storage
from maximir.batch.journal import FILE, Entry, FileJournal, settings_digest
from maximir.batch.plan import plan
from maximir.batch.restore import restore_jobs
from maximir.errors import UsageError
from maximir.files import PART
from maximir.storage import Address, Folder


class Inverter:
    """A restorer as `restore_jobs` needs it, that says what it was given."""

    def __init__(self):
        self.seen = []

    def precision_for(self, dtype):
        return "fp32"

    def restore_photo(self, photo, **call):
        self.seen.append(int(photo.rgb[0, 0, 0]))
        return dataclasses.replace(photo, rgb=255 - photo.rgb)


@pytest.fixture
def folders(tmp_path):
    """Twelve small images, all pixels of the k-th are k; six of them in a folder below."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    for k in range(12):
        folder = tmp_path / "in" / ("below" if k > 5 else "")
        images.write(images.Photo(np.full((4, 5, 3), k, np.uint8)), folder / f"{k:02}.png")
    return tmp_path / "in", tmp_path / "out"


def go(folders, *, restorer=None, settings="a", resume=True, overwrite=False, stop_after=None):
    """Restore the folder; what became of each image, and which were computed."""
    restorer = restorer or Inverter()
    folders[1].mkdir(exist_ok=True)
    planned = plan([folders[0]], folders[1])
    with planned.open_journal(settings, resume=resume) as journal:
        outcomes = restore_jobs(planned.jobs, restorer, journal, overwrite=overwrite)
        done = []
        for outcome in outcomes:
            done.append(outcome)
            if len(done) == stop_after:
                outcomes.close()
                break
    return {outcome.job.source.name[:2]: outcome.facts()["status"] for outcome in done}, restorer.seen


def entry(name):
    return Entry(name, "source", "a", "result", 1, 2)


def files(folder):
    """All files below, with their bytes; hidden ones and the journal too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_done_stays(folders):
    assert set(go(folders, stop_after=4)[0].values()) == {"restored"}
    first = files(folders[1])
    del first[FILE]
    times = {name: os.stat(folders[1] / name).st_mtime_ns for name in first}
    status, seen = go(folders)
    assert 4 <= list(status.values()).count("known") == len(first) < 12
    assert len(seen) == 12 - len(first)
    assert len(files(folders[1])) == 12 + 1
    assert {name: os.stat(folders[1] / name).st_mtime_ns for name in first} == times
    status, seen = go(folders)
    assert set(status.values()) == {"known"} and not seen


def test_content_decides_not_names_or_times(folders):
    go(folders)
    source, target = folders
    images.write(images.Photo(np.full((4, 5, 3), 100, np.uint8)), source / "00.png")  # another picture
    os.utime(source / "01.png", (1, 1))  # the same, of another time
    (target / "02.png").unlink()  # a result that is gone
    (target / "03.png").write_bytes(b"somebody else's")
    status, seen = go(folders)
    assert seen == [100, 2]
    assert [status[k] for k in ("00", "01", "02", "03")] == ["restored", "known", "restored", "failed"]
    assert (target / "03.png").read_bytes() == b"somebody else's"
    assert images.read(target / "00.png").rgb[0, 0, 0] == 155


def test_what_could_not_be_replaced_is_still_ours(folders, monkeypatch):
    """Entered, but never written, as when the disk is full or the run is killed in between."""
    go(folders)
    before = files(folders[1])

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    images.write(images.Photo(np.full((4, 5, 3), 100, np.uint8)), folders[0] / "00.png")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomically", full)
        status, _ = go(folders)
    assert status.pop("00") == "failed" and set(status.values()) == {"known"}
    assert files(folders[1]) == before
    status, seen = go(folders)
    assert status["00"] == "restored" and seen == [100]


def test_what_others_changed_is_named(folders):
    go(folders)
    (folders[1] / "03.png").write_bytes(b"somebody else's")
    planned = plan([folders[0] / "03.png"], folders[1])
    with planned.open_journal("a", resume=True) as journal:
        (outcome,) = restore_jobs(planned.jobs, Inverter(), journal)
        why = "exists, and is not what maximir made of it; move it away, or restore with --overwrite"
        assert outcome.error == f"{folders[1] / '03.png'} {why}"
        (outcome,) = restore_jobs(planned.jobs, Inverter(), journal, overwrite=True)
        assert outcome.error is None


def test_resuming_is_proposed_where_it_can_be_done(folders):
    go(folders)
    one = plan([folders[0] / "03.png"], folders[1] / "03.png")  # to a file, which has no journal
    for planned, words in ((plan([folders[0] / "03.png"], folders[1]), ", or --resume"), (one, "replace it")):
        with planned.open_journal("a", resume=False) as journal:
            (outcome,) = restore_jobs(planned.jobs, Inverter(), journal)
        assert outcome.error.endswith("to keep what is done") == (words == ", or --resume")
        assert words in outcome.error


def test_other_settings_are_another_run(folders):
    go(folders)
    status, _ = go(folders, settings="b")
    assert set(status.values()) == {"restored"}
    assert set(go(folders, settings="b")[0].values()) == {"known"}


def test_without_resume_the_journal_counts_for_nothing(folders):
    go(folders)
    assert set(go(folders, resume=False)[0].values()) == {"failed"}
    assert set(go(folders, resume=False, overwrite=True)[0].values()) == {"restored"}
    assert set(go(folders)[0].values()) == {"known"}  # written all the same


def test_a_journal_that_was_cut_off(folders):
    go(folders)
    path = folders[1] / FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert b"\n" not in path.read_bytes()[-20:]
    status, _ = go(folders)
    assert list(status.values()).count("failed") == 1  # its line is lost: it could be anybody's
    status, _ = go(folders, overwrite=True)
    assert list(status.values()).count("restored") == 1
    assert set(go(folders)[0].values()) == {"known"}


def entry_line(**changes):
    values = {"target": "x", "source": "s", "settings": "a", "result": "r", "height": 1, "width": 1}
    return json.dumps(values | changes).encode()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b'{"target": "x"}\n',
        b"1" * 100_000,
        b"[" * 100_000,
        entry_line(target=5),
        entry_line(result=["r"]),
        entry_line(target="\ud800"),
        entry_line(target="\0"),
    ],
    ids=range(9),
)
def test_rubbish_in_a_journal(folders, rubbish):
    go(folders)
    path = folders[1] / FILE
    path.write_bytes(rubbish + b"\n" + path.read_bytes())
    assert set(go(folders)[0].values()) == {"known"}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("of_journal", "of_files"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_that_another_system_spells_in_its_way(of_journal, of_files, shared, tmp_path):
    """Macs write "é" as two characters; drives and programs change names as they are copied."""
    first, second = (unicodedata.normalize(form, "été.png") for form in (of_journal, of_files))
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    images.write(images.Photo(np.full((4, 5, 3), 7, np.uint8)), tmp_path / "in" / first)
    for name, status in ((first, "restored"), (second, "known"), (second, "known")):
        planned = plan([tmp_path / "in"], tmp_path / "out", shared=shared)
        with planned.open_journal("a", resume=True) as journal:
            [outcome] = restore_jobs(planned.jobs, Inverter(), journal)
        assert outcome.job.target.name == name and outcome.facts()["status"] == status
        for folder in ("in", "out"):
            (tmp_path / folder / name).rename(tmp_path / folder / second)


def test_two_runs_in_a_folder(tmp_path):
    with (
        FileJournal(tmp_path, "a"),
        FileJournal(tmp_path, "b"),  # side by side is fine
        pytest.raises(UsageError, match="another maximir writes there"),
    ):
        FileJournal(tmp_path, "a", resume=True)
    FileJournal(tmp_path, "a", resume=True).close()


def test_a_journal_ends_in_order(folders):
    """One line a result, by name, however the run went; results that are gone are forgotten."""
    go(folders, stop_after=4)
    go(folders, settings="b")
    path, undisturbed = folders[1] / FILE, folders[1].with_name("undisturbed")
    go((folders[0], undisturbed), settings="b", resume=False)
    assert path.read_bytes() == (undisturbed / FILE).read_bytes()
    targets = [json.loads(line)["target"] for line in path.read_text().splitlines()]
    assert targets == sorted(set(targets)) and len(targets) == 12
    (folders[1] / "03.png").unlink()
    (folders[0] / "03.png").unlink()
    go(folders, settings="b")
    assert [json.loads(line)["target"] for line in path.read_text().splitlines()] == [
        target for target in targets if target != "03.png"
    ]


def test_a_journal_is_not_put_in_order_under_another_run(tmp_path):
    with FileJournal(tmp_path, "a") as other:
        with FileJournal(tmp_path, "a"):
            pass
        (tmp_path / "photo.png").write_bytes(b"")
        other.add(entry("photo.png"))
    with FileJournal(tmp_path, "a", resume=True) as journal:
        assert journal.known == {"photo.png"}


def test_drives_without_locks(folders, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("maximir.batch.journal.fcntl.flock", flock)
    assert set(go(folders)[0].values()) == {"restored"}
    assert set(go(folders)[0].values()) == {"known"}
    with FileJournal(folders[1], "a") as other:  # nobody knows of it: nothing is put in order
        go(folders)
        other.add(entry("new.png"))
    with FileJournal(folders[1], "a", resume=True) as journal:
        assert "new.png" in journal.known


@pytest.mark.parametrize("target", ["photo.png", "below/photo.png"])
def test_half_written_files_are_removed(target, tmp_path):
    (tmp_path / f"{PART}0123456789ab.jsonl").write_bytes(b"half")
    (tmp_path / target).parent.mkdir(exist_ok=True)
    (tmp_path / target).with_name(f"{PART}0123456789ab.png").write_bytes(b"half")
    (tmp_path / FILE).write_bytes(b"")
    (tmp_path / target).write_bytes(b"whole")
    FileJournal(tmp_path, "a", resume=True, targets=[Address(Folder(tmp_path), target)]).close()
    assert files(tmp_path) == {FILE: b"", target: b"whole"}


def test_settings_have_one_name():
    assert settings_digest(a=1, b=None) == settings_digest(b=None, a=1) != settings_digest(a=2, b=None)


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "maximir", *map(str, words)], capture_output=True, text=True, **options
    )


@pytest.mark.long
def test_killed_and_resumed(tmp_path, gentle_weights):
    """Killed at any moment and started again until it is through: the files of an undisturbed run."""
    rng = np.random.default_rng(0)
    for k in range(16):  # in batches, and alone
        shape = (48, 40) if k % 4 else (200, 150)
        path = tmp_path / "in" / f"{k:02}.{('png', 'jpg', 'webp', 'tif')[k % 3]}"
        path.parent.mkdir(exist_ok=True)
        images.write(images.Photo(rng.integers(0, 256, (*shape, 3), np.uint8)), path)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ("restore", tmp_path / "in", "--weights", gentle_weights)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    undisturbed = command(*words, "-o", tmp_path / "undisturbed", env=environment, timeout=120)
    assert undisturbed.returncode == 1 and "16 restored, 1 failed" in undisturbed.stdout
    moments, kills = random.Random(0), 0
    while kills < 3:
        run = subprocess.Popen(
            [sys.executable, "-m", "maximir", *map(str, words), "-o", str(tmp_path / "out"), "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        # Past the start, which takes most of the time: wait for the journal to grow.
        journal = tmp_path / "out" / FILE
        size, patience = journal.stat().st_size if journal.exists() else 0, time.monotonic() + 60
        while run.poll() is None and time.monotonic() < patience:
            if journal.exists() and journal.stat().st_size > size:
                break
            time.sleep(0.002)
        while kills == 0 and run.poll() is None and not list((tmp_path / "out").glob("[0-9]*")):
            time.sleep(0.002)  # the first run leaves a result, however slow the disk is
        time.sleep(moments.uniform(0, 0.1))
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
        for path in (tmp_path / "out").rglob("*"):
            if not path.name.startswith("."):
                images.read(path)  # whole
    assert kills >= 2
    report = tmp_path / "run.jsonl"
    last = command(
        *words, "-o", tmp_path / "out", "--resume", "--report", report, env=environment, timeout=120
    )
    assert last.returncode == 1 and "done before" in last.stdout, last.stderr
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line.get("status") for line in lines} <= {None, "known", "restored", "failed"}
    assert [line["source"][-10:] for line in lines if line.get("status") == "failed"] == ["broken.png"]
