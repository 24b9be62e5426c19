"""Folders: what overlaps, what is bounded, and what becomes of each file. The fake restorer inverts."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from maximir import images
from maximir.batch import pipeline
from maximir.batch import restore as batch
from maximir.batch.journal import Journal
from maximir.batch.plan import Job, plan
from maximir.errors import MaximirError, UsageError
from maximir.restoring.restorer import Restorer
from maximir.storage import Address, Folder

PATIENCE = 10  # seconds; only what is broken waits that long


class Inverter:
    """A restorer as `restore_jobs` needs it. `before(photo)` is called first."""

    def __init__(self, before=lambda photo: None):
        self.before, self.seen = before, []
        self.alive = weakref.WeakSet()  # results that are still in memory

    def precision_for(self, dtype):
        return "fp32"

    def restore_photo(self, photo, **call):
        self.before(photo)
        self.seen.append(number(photo))
        restored = dataclasses.replace(photo, rgb=255 - photo.rgb)
        self.alive.add(restored)
        return restored


def restore_files(restorer, jobs, *, overwrite=False, **options):
    return batch.restore_jobs(jobs, restorer, Journal("a"), overwrite=overwrite, **options)


def at(path):
    return Address(Folder(path.parent), path.name)


def number(photo):
    return int(photo.rgb[0, 0, 0])


@pytest.fixture
def make_jobs(tmp_path):
    """Jobs on small images; all pixels of the k-th are k."""

    def make(*shapes):
        (tmp_path / "in").mkdir()
        jobs = []
        for k, shape in enumerate(shapes):
            jobs.append(Job(at(tmp_path / "in" / f"{k}.png"), at(tmp_path / "out" / f"{k}.png")))
            if shape is None:
                jobs[k].source.local.write_text("not an image")
            else:
                images.write(images.Photo(np.full((*shape, 3), k, np.uint8)), jobs[k].source.local)
        return jobs

    return make


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not threads()


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("maximir")]


def watch(monkeypatch, name, *, before=lambda *args: None, after=lambda *args: None):
    """Call `before(name)` and `after(photo, name)` around a job's `read` or `write`; the name is a number."""
    real = getattr(batch, name)

    def watched(*args, **options):
        job = args[0] if name == "read" else args[1].job
        before(job.source.stem)
        result = real(*args, **options)
        after(getattr(result, "photo", None), job.source.stem)
        return result

    monkeypatch.setattr(batch, name, watched)


def results(outcomes):
    return [(int(outcome.job.source.stem), outcome.error is None) for outcome in outcomes]


def written(folder):
    """Everything in the folder, hidden files too; each result is checked."""
    names = sorted(os.listdir(folder)) if folder.exists() else []
    for name in names:
        assert number(images.read(folder / name)) == 255 - int(name.removesuffix(".png"))
    return names


def test_order_is_kept_whatever_takes_long(make_jobs, monkeypatch, tmp_path):
    jobs = make_jobs(*[(4, 5)] * 12)
    jobs[5] = dataclasses.replace(jobs[5], problem="is a link")
    watch(monkeypatch, "read", before=lambda name: time.sleep(0.02 * (name == "7")))
    watch(monkeypatch, "write", before=lambda name: time.sleep(0.005 * (int(name) % 3)))
    begun = []
    inverter = Inverter(before=lambda photo: time.sleep(0.01 * (number(photo) % 4 == 0)))
    outcomes = list(restore_files(inverter, jobs, overwrite=False, started=begun.append))
    assert results(outcomes) == [(k, k != 5) for k in range(12)]
    assert outcomes[5].error == "is a link"
    assert begun == jobs[:5] + jobs[6:]
    assert len(written(tmp_path / "out")) == 11


def test_reading_overlaps_computing(make_jobs, monkeypatch):
    jobs = make_jobs(*[(4, 5)] * 4)
    done = [threading.Event() for _ in jobs]
    watch(monkeypatch, "read", after=lambda photo, name: done[int(name)].set())

    def next_is_read(photo):
        assert done[min(number(photo) + 1, 3)].wait(PATIENCE)

    assert len(list(restore_files(Inverter(before=next_is_read), jobs, overwrite=False))) == 4


def test_writing_overlaps_computing(make_jobs, monkeypatch):
    jobs = make_jobs(*[(4, 5)] * 4)
    begun = [threading.Event() for _ in jobs]

    def next_is_begun(name):
        assert begun[min(int(name) + 1, 3)].wait(PATIENCE)

    watch(monkeypatch, "write", before=next_is_begun)
    inverter = Inverter(before=lambda photo: begun[number(photo)].set())
    assert len(list(restore_files(inverter, jobs, overwrite=False))) == 4


@pytest.mark.parametrize(
    ("limit", "value", "ahead"),
    [("WAITING_PHOTOS", 3, 3), ("WAITING_BYTES", 2 * 4 * 5 * 3, 2), ("WAITING_BYTES", 1, 1)],
)
def test_reading_ahead_is_bounded(limit, value, ahead, make_jobs, monkeypatch):
    monkeypatch.setattr(pipeline, limit, value)
    jobs = make_jobs(*[(4, 5)] * 9)
    changed, count = threading.Condition(), 0

    def read(photo, name):
        nonlocal count
        with changed:
            count += 1
            changed.notify_all()

    def as_many_as_allowed(photo):
        expected = min(number(photo) + 1 + ahead, len(jobs))
        with changed:
            assert changed.wait_for(lambda: count >= expected, PATIENCE)
            assert not changed.wait_for(lambda: count > expected, 0.01)

    watch(monkeypatch, "read", after=read)
    assert len(list(restore_files(Inverter(before=as_many_as_allowed), jobs, overwrite=False))) == 9


def test_of_large_photographs_few_are_in_memory(make_jobs, monkeypatch):
    monkeypatch.setattr(pipeline, "WAITING_BYTES", 1)
    jobs = make_jobs(*[(4, 5)] * 9)
    decoded, counts = weakref.WeakSet(), []
    watch(monkeypatch, "read", after=lambda photo, name: decoded.add(photo))
    watch(monkeypatch, "write", before=lambda name: time.sleep(0.005))

    def look(photo):
        counts.append((len(decoded), len(inverter.alive)))
        deadline = time.monotonic() + PATIENCE
        while number(photo) == 8 and inverter.alive:  # what is written goes, not only what is told
            assert time.monotonic() < deadline

    inverter = Inverter(before=look)
    list(restore_files(inverter, jobs, overwrite=False))
    assert max(n for n, _ in counts) <= 2  # in work, read ahead
    assert max(n for _, n in counts) <= 1  # being written
    assert not decoded and not inverter.alive


def test_a_failure_is_that_of_one_image(make_jobs, tmp_path):
    def refuse(photo):
        if number(photo) == 2:
            raise MaximirError("refused")

    outcomes = list(restore_files(Inverter(refuse), make_jobs(*[(4, 5)] * 4)))
    assert [outcome.error for outcome in outcomes] == [None, None, "refused", None]
    assert written(tmp_path / "out") == ["0.png", "1.png", "3.png"]


def test_seconds_are_those_of_computing(make_jobs):
    clock = time.monotonic()
    inverter = Inverter(before=lambda photo: time.sleep(0.01))
    seconds = [outcome.seconds for outcome in restore_files(inverter, make_jobs(*[(4, 5)] * 3))]
    assert min(seconds) >= 0.01 and sum(seconds) <= time.monotonic() - clock


def test_files_that_cannot_be_done_cost_no_computing(make_jobs, tmp_path):
    jobs = make_jobs((4, 5), None, (4, 5), (4, 5))
    jobs[3] = dataclasses.replace(jobs[3], target=at(tmp_path / "out" / "3.gif"))
    (tmp_path / "out").mkdir()
    jobs[0].target.local.write_text("precious")
    inverter = Inverter()
    outcomes = list(restore_files(inverter, jobs, overwrite=False))
    assert outcomes[0].error == f"{jobs[0].target} exists; use --overwrite to replace it"
    assert outcomes[1].error == "not an image that maximir can read"
    assert outcomes[2].error is None
    assert "cannot write '.gif'" in outcomes[3].error
    assert inverter.seen == [2]
    assert jobs[0].target.local.read_text() == "precious"
    assert results(restore_files(inverter, jobs[:1], overwrite=True)) == [(0, True)]
    assert written(tmp_path / "out") == ["0.png", "2.png"]


def test_what_appears_meanwhile_is_not_replaced(make_jobs, monkeypatch):
    jobs = make_jobs((4, 5), (4, 5))
    jobs[1] = dataclasses.replace(
        jobs[1], target=jobs[0].target
    )  # as on a disk where case makes no difference
    second = threading.Event()
    inverter = Inverter(before=lambda photo: number(photo) == 0 or second.set())
    watch(monkeypatch, "write", before=lambda name: second.wait(PATIENCE))
    assert results(restore_files(inverter, jobs, overwrite=False)) == [(0, True), (1, False)]
    assert inverter.seen == [0, 1]
    assert number(images.read(jobs[0].target.local)) == 255


def test_targets_that_cannot_be_written(make_jobs, tmp_path):
    jobs = make_jobs(*[(4, 5)] * 3)
    (tmp_path / "file").write_text("")
    jobs[0] = dataclasses.replace(jobs[0], target=at(tmp_path / "file" / "0.png"))
    jobs[1].target.local.mkdir(parents=True)
    outcomes = list(restore_files(Inverter(), jobs, overwrite=True))
    assert [outcome.error for outcome in outcomes] == [
        f"{tmp_path / 'file'}: file exists",
        f"{jobs[1].target}: is a directory",
        None,
    ]
    assert sorted(os.listdir(tmp_path / "out")) == ["1.png", "2.png"]


def test_closed_early(make_jobs, monkeypatch, tmp_path):
    """What is being written is finished; of the rest, nothing is begun."""
    jobs = make_jobs(*[(4, 5)] * 9)
    second, writing, closing = threading.Event(), threading.Event(), threading.Event()

    class Pool(pipeline.ThreadPoolExecutor):
        def shutdown(self, **options):
            super().shutdown(**options | {"wait": False})
            closing.set()
            super().shutdown(**options)

    def held(name):
        if name == "0":  # the first outcome must not come before the second is on its way
            assert second.wait(PATIENCE)
        if name == "1":
            writing.set()
            assert closing.wait(PATIENCE)

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", Pool)
    watch(monkeypatch, "write", before=held)

    def before(photo):
        if number(photo) == 1:
            second.set()
        if number(photo) == 2:
            assert writing.wait(PATIENCE)

    inverter = Inverter(before=before)
    outcomes = restore_files(inverter, jobs, overwrite=False)
    assert next(outcomes).error is None
    assert writing.wait(PATIENCE)
    outcomes.close()
    assert not threads()
    assert written(tmp_path / "out") == ["0.png", "1.png"]


def test_interrupted(make_jobs, monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "WAITING_PHOTOS", 2)
    reads = []
    watch(monkeypatch, "read", before=reads.append)

    def interrupt(photo):
        if number(photo) == 3:
            raise KeyboardInterrupt

    outcomes = restore_files(Inverter(before=interrupt), make_jobs(*[(4, 5)] * 20), overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)
    assert not threads()
    assert len(reads) <= 6
    assert set(written(tmp_path / "out")) <= {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize("where", ["read", "restore", "write"])
def test_what_is_no_fault_of_a_file_is_raised(where, make_jobs, monkeypatch):
    def fail(what):
        if what == "2" or where == "restore":
            raise ZeroDivisionError(where)

    jobs = make_jobs(*[(4, 5)] * 5)
    if where != "restore":
        watch(monkeypatch, where, before=fail)
    inverter = Inverter(before=fail if where == "restore" else lambda photo: None)
    with pytest.raises(ZeroDivisionError, match=where):
        list(restore_files(inverter, jobs, overwrite=False))
    assert not threads()


def test_a_generator_that_is_forgotten_does_not_keep_the_process(make_jobs, tmp_path):
    make_jobs(*[(4, 5)] * 9)
    code = (
        "import sys; from maximir.batch import journal, pipeline, plan, restore\n"
        "class Same:\n"
        "    def precision_for(self, dtype): return 'fp32'\n"
        "    def restore_photo(self, photo, **call): return photo\n"
        "pipeline.WAITING_PHOTOS = 2\n"
        "jobs = plan.plan(['in'], 'out').jobs\n"
        "outcomes = restore.restore_jobs(jobs, Same(), journal.Journal('a'))\n"
        "assert next(outcomes).error is None\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert all(name.endswith(".png") and name[0] != "." for name in os.listdir(tmp_path / "out"))


def test_a_network(make_jobs, tiny_weights):
    """The same files come out as when each is restored by itself, whatever its neighbours."""
    restorer = Restorer(tiny_weights, device="cpu")
    jobs = make_jobs((9, 7), (9, 7), (9, 7), (7, 9))
    assert results(restore_files(restorer, jobs, overwrite=False)) == [(k, True) for k in range(4)]
    for job in jobs:
        restorer.restore_file(job.source.local, job.target.local.with_name("alone.png"), overwrite=True)
        assert job.target.local.with_name("alone.png").read_bytes() == job.target.local.read_bytes()


def test_in_python_as_by_the_command(make_jobs, tiny_weights, tmp_path):
    make_jobs((9, 7), (9, 7))
    deep = images.Photo(np.full((8, 6, 3), 300, np.uint16))
    images.write(deep, tmp_path / "in" / "deep.png")
    restorer = Restorer(tiny_weights, device="cpu")
    first = list(batch.restore_files(tmp_path / "in", tmp_path / "out", restorer))
    assert [outcome.error for outcome in first] == [None] * 3
    assert images.read(tmp_path / "out" / "deep.png").rgb.dtype == np.uint16
    again = list(batch.restore_files([tmp_path / "in"], tmp_path / "out", str(tiny_weights), resume=True))
    assert [outcome.known for outcome in again] == [True] * 3
    (one,) = batch.restore_files(tmp_path / "in" / "0.png", tmp_path / "one.png", restorer)
    assert one.error is None and (tmp_path / "one.png").is_file()
    with pytest.raises(MaximirError, match="exists; give overwrite=True"):
        restorer.restore_file(tmp_path / "in" / "0.png", tmp_path / "one.png")
    with pytest.raises(MaximirError, match=r"none\.png: no such file"):
        restorer.restore_file(tmp_path / "none.png", tmp_path / "two.png")


@pytest.mark.parametrize("suffix", [".jp2", ".ppm", ".tga", ".psd", ".dng", ".exr"])
def test_one_image_to_a_kind_that_cannot_be_written(suffix, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=f"cannot write {suffix}"):
        plan([tmp_path / "a.png"], tmp_path / f"result{suffix}")
    (tmp_path / f"result{suffix}").mkdir()
    assert plan([tmp_path / "a.png"], tmp_path / f"result{suffix}").jobs[0].target.name == "a.png"


def plan_of(folder, *names):
    """What becomes of files: names of results, or why there is none."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    jobs = plan([folder], folder.parent / "out").jobs
    return {job.source.name: job.problem or job.target.name for job in jobs}


def test_who_keeps_its_name_has_the_better_right_to_it(tmp_path):
    for folder, (other, name) in enumerate([("photo", "photo.png"), ("b.gif", "b.gif.png"), ("z", "z.png")]):
        planned = plan_of(tmp_path / str(folder), other, name)
        assert planned[name] == name and f"{name}, as {name} does" in planned[other]
    for given in (("photo", "photo.png"), ("photo.png", "photo")):
        jobs = plan([tmp_path / "0" / name for name in given], tmp_path / "out").jobs
        assert {job.source.name: job.problem is None for job in jobs} == {"photo.png": True, "photo": False}


def test_two_inputs_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        plan_of(tmp_path / folder, "x.png", "y")
    for name in ("x.png", "y"):
        with pytest.raises(UsageError, match="would both become"):
            plan([tmp_path / "a" / name, tmp_path / "b" / name], tmp_path / "out")


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "photos" / "results").symlink_to(tmp_path / "out")
    jobs = {job.source.local: job for job in plan([tmp_path / "photos"], tmp_path / "out").jobs}
    wanted = tmp_path / "photos" / "link"
    assert jobs.keys() == {wanted / "b.png", wanted / "round"}
    assert jobs[wanted / "b.png"].target.local == tmp_path / "out" / "link" / "b.png"
    assert jobs[wanted / "round"].problem == "is a link to a folder that it is in"


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPE", "a.jpeg"])
def test_suffixes_of_jpeg_stay(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert plan([tmp_path / name], tmp_path / "out").jobs[0].target.name == name
