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
from maximir.errors import MaximirError, UsageError
from maximir.restoring import batch, pipeline
from maximir.restoring.batch import Job, restore_files
from maximir.restoring.restorer import Restorer

PATIENCE = 10  # seconds; only what is broken waits that long


class Inverter:
    """A restorer as `restore_files` needs it. `before(photos)` is called first."""

    def __init__(self, most=1, before=lambda photos: None):
        self.most, self.before, self.batches, self.asked = most, before, [], []
        self.alive = weakref.WeakSet()  # results that are still in memory

    def batch_size(self, height, width):
        self.asked.append((height, width))
        return self.most

    def precision_for(self, dtype):
        return "fp32"

    def restore_photos(self, photos, **call):
        self.before(photos)
        self.batches.append([number(photo) for photo in photos])
        restored = [dataclasses.replace(photo, rgb=255 - photo.rgb) for photo in photos]
        self.alive.update(restored)
        return restored


def number(photo):
    return int(photo.rgb[0, 0, 0])


@pytest.fixture
def make_jobs(tmp_path):
    """Jobs on small images; all pixels of the k-th are k."""

    def make(*shapes):
        (tmp_path / "in").mkdir()
        jobs = []
        for k, shape in enumerate(shapes):
            jobs.append(Job(tmp_path / "in" / f"{k}.png", tmp_path / "out" / f"{k}.png"))
            if shape is None:
                jobs[k].source.write_text("not an image")
            else:
                images.write(images.Photo(np.full((*shape, 3), k, np.uint8)), jobs[k].source)
        return jobs

    return make


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not threads()


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("maximir")]


def watch(monkeypatch, name, *, before=lambda *args: None, after=lambda *args: None):
    """Call `before(*args)` and `after(result, *args)` around `images.<name>`."""
    real = getattr(images, name)

    def watched(*args, **options):
        before(*args)
        result = real(*args, **options)
        after(result, *args)
        return result

    monkeypatch.setattr(images, name, watched)


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
    watch(monkeypatch, "read", before=lambda path: time.sleep(0.02 * (path.stem == "7")))
    watch(monkeypatch, "write", before=lambda photo, path: time.sleep(0.005 * (int(path.stem) % 3)))
    begun = []
    inverter = Inverter(2, before=lambda photos: time.sleep(0.01 * (number(photos[0]) % 4 == 0)))
    outcomes = list(restore_files(inverter, jobs, overwrite=False, started=begun.append))
    assert results(outcomes) == [(k, k != 5) for k in range(12)]
    assert outcomes[5].error == "is a link"
    assert begun == jobs[:5] + jobs[6:]
    assert len(written(tmp_path / "out")) == 11


def test_reading_overlaps_computing(make_jobs, monkeypatch):
    jobs = make_jobs(*[(4, 5)] * 4)
    done = [threading.Event() for _ in jobs]
    watch(monkeypatch, "read", after=lambda photo, path: done[number(photo)].set())

    def next_is_read(photos):
        assert done[min(number(photos[0]) + 1, 3)].wait(PATIENCE)

    assert len(list(restore_files(Inverter(before=next_is_read), jobs, overwrite=False))) == 4


def test_writing_overlaps_computing(make_jobs, monkeypatch):
    jobs = make_jobs(*[(4, 5)] * 4)
    begun = [threading.Event() for _ in jobs]

    def next_is_begun(photo, path):
        assert begun[min(int(path.stem) + 1, 3)].wait(PATIENCE)

    watch(monkeypatch, "write", before=next_is_begun)
    inverter = Inverter(before=lambda photos: begun[number(photos[0])].set())
    assert len(list(restore_files(inverter, jobs, overwrite=False))) == 4


@pytest.mark.parametrize(
    ("limit", "value", "ahead"),
    [("WAITING_PHOTOS", 3, 3), ("WAITING_BYTES", 2 * 4 * 5 * 3, 2), ("WAITING_BYTES", 1, 1)],
)
def test_reading_ahead_is_bounded(limit, value, ahead, make_jobs, monkeypatch):
    monkeypatch.setattr(pipeline, limit, value)
    jobs = make_jobs(*[(4, 5)] * 9)
    changed, count = threading.Condition(), 0

    def read(photo, path):
        nonlocal count
        with changed:
            count += 1
            changed.notify_all()

    def as_many_as_allowed(photos):
        expected = min(number(photos[0]) + 1 + ahead, len(jobs))
        with changed:
            assert changed.wait_for(lambda: count >= expected, PATIENCE)
            assert not changed.wait_for(lambda: count > expected, 0.01)

    watch(monkeypatch, "read", after=read)
    assert len(list(restore_files(Inverter(before=as_many_as_allowed), jobs, overwrite=False))) == 9


def test_of_large_photographs_few_are_in_memory(make_jobs, monkeypatch):
    monkeypatch.setattr(pipeline, "WAITING_BYTES", 1)
    jobs = make_jobs(*[(4, 5)] * 9)
    decoded, counts = weakref.WeakSet(), []
    watch(monkeypatch, "read", after=lambda photo, path: decoded.add(photo))
    watch(monkeypatch, "write", before=lambda photo, path: time.sleep(0.005))

    def look(photos):
        counts.append((len(decoded), len(inverter.alive)))
        deadline = time.monotonic() + PATIENCE
        while number(photos[0]) == 8 and inverter.alive:  # what is written goes, not only what is told
            assert time.monotonic() < deadline

    inverter = Inverter(before=look)
    list(restore_files(inverter, jobs, overwrite=False))
    assert max(n for n, _ in counts) <= 2  # in work, read ahead
    assert max(n for _, n in counts) <= 1  # being written
    assert not decoded and not inverter.alive


@pytest.mark.parametrize("most", [1, 2, 100])
def test_neighbours_of_equal_size_are_restored_together(most, make_jobs, tmp_path):
    a, b = (4, 5), (5, 4)
    jobs = make_jobs(a, a, a, b, a, a, None, a)
    inverter = Inverter(most)
    assert results(restore_files(inverter, jobs, overwrite=False)) == [(k, k != 6) for k in range(8)]
    expected = {2: [[0, 1], [2], [3], [4, 5], [7]], 100: [[0, 1, 2], [3], [4, 5], [7]]}
    assert inverter.batches == expected.get(most, [[0], [1], [2], [3], [4], [5], [7]])
    assert inverter.asked == [a, b, a, a]
    assert len(written(tmp_path / "out")) == 7


def test_a_share_of_the_time_each(make_jobs):
    clock = time.monotonic()
    inverter = Inverter(6, before=lambda photos: time.sleep(0.03))
    seconds = [
        outcome.seconds for outcome in restore_files(inverter, make_jobs(*[(4, 5)] * 6), overwrite=False)
    ]
    assert 0.03 <= sum(seconds) <= time.monotonic() - clock


def test_more_together_than_wait(make_jobs, monkeypatch):
    monkeypatch.setattr(pipeline, "WAITING_PHOTOS", 2)
    inverter = Inverter(5)
    assert len(list(restore_files(inverter, make_jobs(*[(4, 5)] * 7), overwrite=False))) == 7
    assert [len(numbers) for numbers in inverter.batches] == [5, 2]


def test_a_failure_together_is_narrowed_down(make_jobs, tmp_path):
    def refuse(photos):
        if any(number(photo) == 2 for photo in photos):
            raise MaximirError(f"refused {len(photos)}")

    outcomes = list(restore_files(Inverter(4, refuse), make_jobs(*[(4, 5)] * 6), overwrite=False))
    assert [outcome.error for outcome in outcomes] == [None, None, "refused 1", None, None, None]
    assert written(tmp_path / "out") == ["0.png", "1.png", "3.png", "4.png", "5.png"]


def test_files_that_cannot_be_done_cost_no_computing(make_jobs, tmp_path):
    jobs = make_jobs((4, 5), None, (4, 5), (4, 5))
    jobs[3] = dataclasses.replace(jobs[3], target=tmp_path / "out" / "3.gif")
    (tmp_path / "out").mkdir()
    jobs[0].target.write_text("precious")
    inverter = Inverter()
    outcomes = list(restore_files(inverter, jobs, overwrite=False))
    assert (
        outcomes[0].error
        == f"{jobs[0].target} exists; use --overwrite to replace it, or --resume to keep what is done"
    )
    assert outcomes[1].error == "not an image that maximir can read"
    assert outcomes[2].error is None
    assert "cannot write '.gif'" in outcomes[3].error
    assert inverter.batches == [[2]]
    assert jobs[0].target.read_text() == "precious"
    assert results(restore_files(inverter, jobs[:1], overwrite=True)) == [(0, True)]
    assert written(tmp_path / "out") == ["0.png", "2.png"]


def test_what_appears_meanwhile_is_not_replaced(make_jobs):
    jobs = make_jobs((4, 5), (4, 5))
    jobs[1] = dataclasses.replace(
        jobs[1], target=jobs[0].target
    )  # as on a disk where case makes no difference
    inverter = Inverter(2)
    assert results(restore_files(inverter, jobs, overwrite=False)) == [(0, True), (1, False)]
    assert inverter.batches == [[0, 1]]
    assert number(images.read(jobs[0].target)) == 255


def test_targets_that_cannot_be_written(make_jobs, tmp_path):
    jobs = make_jobs(*[(4, 5)] * 3)
    (tmp_path / "file").write_text("")
    jobs[0] = dataclasses.replace(jobs[0], target=tmp_path / "file" / "0.png")
    jobs[1].target.mkdir(parents=True)
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

    def held(photo, path):
        if path.stem == "0":  # the first outcome must not come before the second is on its way
            assert second.wait(PATIENCE)
        if path.stem == "1":
            writing.set()
            assert closing.wait(PATIENCE)

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", Pool)
    watch(monkeypatch, "write", before=held)

    def before(photos):
        if number(photos[0]) == 1:
            second.set()
        if number(photos[0]) == 2:
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

    def interrupt(photos):
        if number(photos[0]) == 3:
            raise KeyboardInterrupt

    outcomes = restore_files(Inverter(before=interrupt), make_jobs(*[(4, 5)] * 20), overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)
    assert not threads()
    assert len(reads) <= 6
    assert set(written(tmp_path / "out")) <= {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize("where", ["read", "restore", "write"])
def test_what_is_no_fault_of_a_file_is_raised(where, make_jobs, monkeypatch):
    def fail(*args):
        if args[-1] == jobs[2].source or args[-1] == jobs[2].target or where == "restore":
            raise ZeroDivisionError(where)

    jobs = make_jobs(*[(4, 5)] * 5)
    if where != "restore":
        watch(monkeypatch, where, before=fail)
    inverter = Inverter(before=fail if where == "restore" else lambda photos: None)
    with pytest.raises(ZeroDivisionError, match=where):
        list(restore_files(inverter, jobs, overwrite=False))
    assert not threads()


def test_a_generator_that_is_forgotten_does_not_keep_the_process(make_jobs, tmp_path):
    make_jobs(*[(4, 5)] * 9)
    code = (
        "import sys; from pathlib import Path; from maximir.restoring import batch\n"
        "class Same:\n"
        "    def batch_size(self, height, width): return 1\n"
        "    def precision_for(self, dtype): return 'fp32'\n"
        "    def restore_photos(self, photos, **call): return photos\n"
        "batch.pipeline.WAITING_PHOTOS = 2\n"
        "jobs = batch.plan([Path('in')], Path('out'))\n"
        "outcomes = batch.restore_files(Same(), jobs, overwrite=False)\n"
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
    """The same files come out as when each is restored by itself, but for rounding."""
    restorer = Restorer(tiny_weights, device="cpu")
    jobs = make_jobs((9, 7), (9, 7), (9, 7), (7, 9))
    assert results(restore_files(restorer, jobs, overwrite=False)) == [(k, True) for k in range(4)]
    for job in jobs:
        alone = restorer.restore_photos([images.read(job.source)])[0].rgb.astype(int)
        assert np.abs(images.read(job.target).rgb - alone).max() <= 1


@pytest.mark.parametrize("suffix", [".jp2", ".ppm", ".tga", ".psd", ".dng", ".exr"])
def test_one_image_to_a_kind_that_cannot_be_written(suffix, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=f"cannot write {suffix}"):
        batch.plan([tmp_path / "a.png"], tmp_path / f"result{suffix}")
    (tmp_path / f"result{suffix}").mkdir()
    assert batch.plan([tmp_path / "a.png"], tmp_path / f"result{suffix}")[0].target.name == "a.png"


def plan_of(folder, *names):
    """What becomes of files: names of results, or why there is none."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    jobs = batch.plan([folder], folder.parent / "out")
    return {job.source.name: job.problem or job.target.name for job in jobs}


def test_who_keeps_its_name_has_the_better_right_to_it(tmp_path):
    for folder, (other, name) in enumerate([("photo", "photo.png"), ("b.gif", "b.gif.png"), ("z", "z.png")]):
        planned = plan_of(tmp_path / str(folder), other, name)
        assert planned[name] == name and f"{name}, as {name} does" in planned[other]
    for given in (("photo", "photo.png"), ("photo.png", "photo")):
        jobs = batch.plan([tmp_path / "0" / name for name in given], tmp_path / "out")
        assert {job.source.name: job.problem is None for job in jobs} == {"photo.png": True, "photo": False}


def test_two_inputs_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        plan_of(tmp_path / folder, "x.png", "y")
    for name in ("x.png", "y"):
        with pytest.raises(UsageError, match="would both become"):
            batch.plan([tmp_path / "a" / name, tmp_path / "b" / name], tmp_path / "out")


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "photos" / "results").symlink_to(tmp_path / "out")
    jobs = {job.source: job for job in batch.plan([tmp_path / "photos"], tmp_path / "out")}
    wanted = tmp_path / "photos" / "link"
    assert jobs.keys() == {wanted / "b.png", wanted / "round"}
    assert jobs[wanted / "b.png"].target == tmp_path / "out" / "link" / "b.png"
    assert jobs[wanted / "round"].problem == "is a link to a folder that it is in"


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPE", "a.jpeg"])
def test_suffixes_of_jpeg_stay(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert batch.plan([tmp_path / name], tmp_path / "out")[0].target.name == name
