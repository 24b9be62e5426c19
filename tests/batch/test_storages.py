"""Addresses, shards and records: nothing lost, double or half where storage is no disk."""

import dataclasses
import errno
import hashlib
import json
import random
import threading
import time
import zipfile

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_journal import Inverter

from helpers.command import maximir
from maximir import images, storage
from maximir.batch.journal import FOLDER
from maximir.batch.plan import plan, select_shard, shard_number
from maximir.batch.restore import restore_jobs
from maximir.errors import UsageError
from maximir.files import PART
from maximir.storage import Address, Unreachable, open_storage


class Killed(BaseException):
    """As signal 9: what ran is gone."""


class Weather(MemoryFileSystem):
    """A store with bad days: slow, failing, throttling, listing late, and dying with who writes."""

    protocol = "weather"  # none of those whose objects appear at once by nature
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    chance = random.Random(0)
    trouble = 0.0
    late: set = set()  # noqa: RUF012
    kill_at = None
    calls = 0

    @classmethod
    def calm(cls):
        cls.trouble, cls.kill_at, cls.calls, cls.late = 0.0, None, 0, set()

    def _weather(self):
        cls = type(self)
        cls.calls += 1
        if cls.kill_at is not None and cls.calls >= cls.kill_at:
            raise Killed
        if cls.chance.random() < cls.trouble:
            time.sleep(0.001)
            raise cls.chance.choice(
                [OSError(errno.EBUSY, "SlowDown"), TimeoutError("no answer"), ConnectionError("reset")]
            )

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._weather()
        return super().cat_file(path, start, end, **kwargs)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        half = value[: len(value) // 2]
        try:
            self._weather()
        except BaseException:
            super().pipe_file(path, half, mode, **kwargs)  # half of it has arrived
            raise
        super().pipe_file(path, value, mode, **kwargs)

    def info(self, path, **kwargs):
        self._weather()
        return super().info(path, **kwargs)

    def find(self, path, **kwargs):
        self._weather()
        found = super().find(path, **kwargs)
        for name in self.late & set(found):
            found.remove(name) if isinstance(found, list) else found.pop(name)
        return found

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("weather://", "memory://"))


class Dimmer(Inverter):
    def restore_photo(self, photo, **call):
        return dataclasses.replace(photo, rgb=photo.rgb // 2)


@pytest.fixture
def weather(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.0)
    fsspec.register_implementation("weather", Weather, clobber=True)
    Weather.calm()
    Weather.store.clear()
    yield Weather
    Weather.calm()


@pytest.fixture
def memory():
    MemoryFileSystem.store.clear()
    return MemoryFileSystem.store


class Immovable(MemoryFileSystem):
    """A server that does not move onto files, and whose moves fail: from the `fails`-th on, for `times`."""

    protocol = "immovable"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    fails, times, copies, moves = 0, 0, False, 0

    def mv(self, path1, path2, **kwargs):
        cls = type(self)
        cls.moves += 1
        failing = cls.fails <= cls.moves < cls.fails + cls.times
        if self.exists(path2):
            raise OSError(errno.EEXIST, "file exists")
        if failing and cls.copies:  # a part of it
            self.pipe_file(path2, self.cat_file(path1)[:-1])
        if failing:
            raise ConnectionError("reset")
        super().mv(path1, path2, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("immovable://", "memory://"))


@pytest.fixture
def immovable(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.0)
    fsspec.register_implementation("immovable", Immovable, clobber=True)
    Immovable.store.clear()
    for name in ("fails", "times", "copies", "moves"):
        monkeypatch.setattr(Immovable, name, 0)
    return Immovable


def png(value, shape=(4, 5, 3)):
    return images.encode(images.Photo(np.full(shape, value, np.uint8)), "png")[0]


def fill(url, count=10):
    fs, root = fsspec.core.url_to_fs(url)
    for k in range(count):
        fs.pipe_file(f"{root}/{'below/' if k > 5 else ''}{k:02}.png", png(k))


def go(source, target, *, resume=True, settings="a", overwrite=False, shard=None, restorer=None):
    planned = plan([str(source)], str(target), shard=shard, shared=True)
    with planned.open_journal(settings, resume=resume) as journal:
        outcomes = restore_jobs(planned.jobs, restorer or Inverter(), journal, overwrite=overwrite)
        return {outcome.job.target.path: outcome for outcome in outcomes}


def statuses(outcomes):
    return {name: outcome.facts()["status"] for name, outcome in outcomes.items()}


def contents(url):
    fs, root = fsspec.core.url_to_fs(str(url))
    return {name[len(root) :]: fs.cat_file(name) for name in fs.find(root)}


def test_in_memory_and_again(memory):
    fill("memory://in")
    first = go("memory://in", "memory://out", resume=False)
    assert set(statuses(first).values()) == {"restored"} and len(first) == 10
    assert (images.decode(memory["/out/below/07.png"].getvalue()).rgb == 248).all()
    assert set(statuses(go("memory://in", "memory://out")).values()) == {"known"}
    again = go("memory://in", "memory://out", resume=False)
    assert all("--resume" in outcome.error for outcome in again.values())
    assert set(statuses(go("memory://in", "memory://out", settings="b")).values()) == {"restored"}


def test_what_changed_is_done_again_and_what_is_not_ours_stays(memory):
    fill("memory://in")
    go("memory://in", "memory://out")
    memory["/in/03.png"].seek(0)
    fsspec.filesystem("memory").pipe_file("/in/03.png", png(77))
    fsspec.filesystem("memory").pipe_file("/out/04.png", b"somebody's")
    fsspec.filesystem("memory").rm_file("/out/05.png")
    outcomes = go("memory://in", "memory://out")
    assert [name for name, status in statuses(outcomes).items() if status != "known"] == [
        "03.png", "04.png", "05.png",
    ]  # fmt: skip
    assert "is not what maximir made" in outcomes["04.png"].error
    assert memory["/out/04.png"].getvalue() == b"somebody's"


def test_a_replacement_that_was_killed_leaves_the_old_result_ours(memory, monkeypatch):
    fill("memory://in", 1)
    go("memory://in", "memory://out")
    with monkeypatch.context() as patch:
        patch.setattr(Address, "write", lambda self, data: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            go("memory://in", "memory://out", settings="b", restorer=Dimmer())
    assert statuses(go("memory://in", "memory://out")) == {"00.png": "known"}
    again = go("memory://in", "memory://out", settings="b", restorer=Dimmer())
    assert statuses(again) == {"00.png": "restored"}


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("fails", [1, 2, 3])
@pytest.mark.parametrize("times", [1, 3, storage.ATTEMPTS, 1000])
def test_replacing_where_files_are_not_moved_onto_loses_nothing(immovable, fails, times, copies):
    """Whichever moves fail: the new file stands there, or the earlier one, or the error names both."""
    there = Address(open_storage("immovable://out"), "a.png")
    there.write(b"earlier")
    immovable.moves, immovable.fails, immovable.times, immovable.copies = 0, fails, times, copies
    try:
        there.write(b"of now")
        assert there.read() == b"of now"
    except Unreachable as error:
        if "beside it as" in str(error):
            earlier, new = (word.strip(";,") for word in str(error).split() if word.startswith(PART))
            assert fails == 2 and times == 1000
            assert immovable.store[f"/out/{earlier}"].getvalue() == b"earlier"
            assert immovable.store[f"/out/{new}"].getvalue() == b"of now"
            return
        assert there.read() == b"earlier"
    assert list(immovable.store) == ["/out/a.png"]


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_a_store_with_bad_days(weather, seed):
    """A run is killed at each of many moments, in bad weather; the last one ends as the undisturbed."""
    fill("weather://in")
    go("weather://in", "weather://undisturbed")
    weather.chance, chance, kills = random.Random(seed), random.Random(seed), 0
    while True:
        weather.calls, weather.kill_at = 0, chance.randint(5, 60) if kills < 8 else None
        weather.trouble = 0.1
        try:
            outcomes = go("weather://in", "weather://out")
        except Killed:
            kills += 1
            weather.calm()
            for name, data in contents("weather://out").items():
                if not name.rpartition("/")[2].startswith(".") and FOLDER not in name:
                    images.decode(data)  # whole
            continue
        except UsageError:  # more trouble than attempts, and said before work
            continue
        if all(outcome.error is None for outcome in outcomes.values()):
            break
    weather.calm()
    found, expected = contents("weather://out"), contents("weather://undisturbed")
    assert kills >= 4
    assert {name: found[name] for name in expected} == expected
    assert all(PART in name for name in found.keys() - expected.keys())


def test_a_late_listing_loses_nothing(weather):
    fill("weather://in")
    weather.late = {"/in/02.png", "/in/below/07.png"}
    assert len(go("weather://in", "weather://out")) == 8
    weather.late = {name for name in weather.store if name.startswith("/out/")}  # no result is listed yet
    assert sorted(statuses(go("weather://in", "weather://out")).values()) == ["known"] * 8 + ["restored"] * 2


def test_trouble_that_stays_fails_the_picture_alone(weather, monkeypatch):
    fill("weather://in", 3)
    read = Weather.cat_file
    monkeypatch.setattr(
        Weather,
        "cat_file",
        lambda self, path, *rest, **more: (
            (_ for _ in ()).throw(OSError(errno.EIO, "InternalError"))
            if path.endswith("in/01.png")
            else read(self, path, *rest, **more)
        ),
    )
    outcomes = go("weather://in", "weather://out")
    assert list(statuses(outcomes).values()) == ["restored", "failed", "restored"]
    assert "weather://in/01.png: cannot be read" in outcomes["01.png"].error


def test_a_record_that_cannot_be_read_fails_its_own_picture(weather, monkeypatch):
    fill("weather://in", 3)
    go("weather://in", "weather://out")
    read = Weather.cat_file

    def cat_file(self, path, *rest, **more):
        if path.endswith("01.png.json"):
            raise OSError(errno.EIO, "InternalError")
        return read(self, path, *rest, **more)

    monkeypatch.setattr(Weather, "cat_file", cat_file)
    outcomes = go("weather://in", "weather://out")
    assert list(statuses(outcomes).values()) == ["known", "failed", "known"]


def test_two_at_once_write_the_same(memory):
    fill("memory://in")
    go("memory://in", "memory://alone")
    threads = [threading.Thread(target=go, args=("memory://in", "memory://out")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents("memory://out") == contents("memory://alone")


def test_shards_do_all_and_nothing_twice(memory, tmp_path):
    fill("memory://in")
    whole = [job.target.path for job in plan(["memory://in"], "memory://out").jobs]
    parts = [
        [job.target.path for job in plan(["memory://in"], tmp_path, shard=f"{i}/3").jobs] for i in (1, 2, 3)
    ]
    assert sorted(parts[0] + parts[1] + parts[2]) == sorted(whole) and all(parts)
    assert [shard_number(name, 7) for name in ("a.png", "below/é.jpg", "z")] == [2, 7, 5]  # everywhere
    for i in (1, 2, 3):
        go("memory://in", tmp_path, shard=f"{i}/3")
    assert set(statuses(go("memory://in", tmp_path)).values()) == {"known"}
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(UsageError, match="a shard is i/n"):
            select_shard([], wrong)


def test_a_zip_is_read_but_not_written(tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a/one.png", png(1))
        archive.writestr("two.png", png(2))
    outcomes = go(f"zip://::{tmp_path}/pictures.zip", tmp_path / "out")
    assert statuses(outcomes) == {"a/one.png": "restored", "two.png": "restored"}
    with pytest.raises(UsageError, match="cannot be written object by object"):
        open_storage(f"zip://::{tmp_path}/pictures.zip").check_writable()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://bucket/in", "nosuch"),
        ("s3://AKIAKEY:verysecret@bucket/in", "credentials do not belong in an address"),
        ("memory://nothing-here", "no files in memory://nothing-here"),
    ],
)
def test_bad_addresses_are_one_sentence_before_work(memory, capsys, tmp_path, gentle_weights, url, says):
    maximir("restore", url, "-o", tmp_path / "out", "--weights", gentle_weights, expect=2)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and says in told
    assert "verysecret" not in told and "AKIAKEY" not in told
    assert not (tmp_path / "out").exists()


def test_credentials_are_never_shown():
    for url in (
        "webdav://me:hidden@host/in",
        "https://host/a.png?token=hidden&x=1",
        "zip://a::ftp://u:hidden@h/z",
    ):
        assert "hidden" not in storage.redact(url) and "***" in storage.redact(url)


class ClientError(Exception):
    def __init__(self, status):
        self.status = status
        super().__init__(f"HTTP {status}")


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (PermissionError("Access Denied"), 1),
        (FileNotFoundError("gone"), 1),
        (NoCredentialsError("Unable to locate credentials"), 1),
        (ClientError(401), 1),
        (ClientError(404), 1),
        (ClientError(429), storage.ATTEMPTS),
        (ClientError(503), storage.ATTEMPTS),
        (OSError(errno.EBUSY, "SlowDown"), storage.ATTEMPTS),
        (TimeoutError("no answer"), storage.ATTEMPTS),
    ],
)
def test_what_cannot_pass_is_not_tried_again(weather, monkeypatch, error, attempts):
    asked = []

    def fail(self, path, *rest, **more):
        asked.append(path)
        raise error

    monkeypatch.setattr(Weather, "cat_file", fail)
    address = open_storage("weather://in")
    with pytest.raises(Unreachable, match=r"^weather://in/a\.png: cannot be read") as caught:
        address.read("a.png")
    assert len(asked) == attempts
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_an_error_of_the_storage_shows_no_secret(weather, monkeypatch):
    def fail(self, path, *rest, **more):
        raise PermissionError("me with hidden at weather://me:hidden@in/a.png?token=secret was refused")

    monkeypatch.setattr(Weather, "cat_file", fail)
    with pytest.raises(Unreachable) as caught:
        open_storage("weather://me:hidden@in").read("a.png")
    assert "hidden" not in str(caught.value) and "secret" not in str(caught.value)


def test_entries_are_those_of_earlier_versions(memory, tmp_path):
    """Byte for byte, so that old runs go on."""
    fill("memory://in", 1)
    go("memory://in", "memory://out")
    record = (
        '{"target": "00.png", "source": "%s", "settings": "a", "result": "%s", "height": 4, "width": 5, '
        '"source_md5": "%s", "result_md5": "%s"}\n'
    )
    source, result = memory["/in/00.png"].getvalue(), memory["/out/00.png"].getvalue()
    digests = [hashlib.new(kind, data).hexdigest() for kind in ("sha256", "md5") for data in (source, result)]
    assert memory["/out/.maximir/00.png.json"].getvalue().decode() == record % tuple(digests)
    (tmp_path / "00.png").write_bytes(source)
    planned = plan([tmp_path / "00.png"], tmp_path / "out")
    (tmp_path / "out").mkdir()
    with planned.open_journal("a", resume=False) as journal:
        assert [outcome.error for outcome in restore_jobs(planned.jobs, Inverter(), journal)] == [None]
    line = record.partition(', "source_md5"')[0] % tuple(digests[:2]) + "}\n"
    assert (tmp_path / "out" / ".maximir.jsonl").read_text() == line


def test_an_image_given_twice_is_one(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    for inputs in (
        [tmp_path / "in", tmp_path / "in" / "a.png"],
        [tmp_path / "in" / "a.png", tmp_path / "in"],
    ):
        assert len(plan(inputs, tmp_path / "out").jobs) == 1


def test_names_that_would_be_one(memory):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/in/a.gif", b"GIF89a")
    fs.pipe_file("/in/a.gif.png", png(1))
    outcomes = go("memory://in", "memory://out")
    assert len(outcomes) == 1
    jobs = plan(["memory://in"], "memory://out").jobs
    assert [job.problem for job in jobs if job.problem] == [
        "would become memory://out/a.gif.png, as a.gif.png does"
    ]
    with pytest.raises(UsageError, match="same folder"):
        plan(["memory://in"], "memory://in")


@pytest.mark.slow
def test_the_command(memory, tmp_path, capsys, gentle_weights):
    """By the command: to a disk as from a disk, shards, what is left, a report."""
    fill("memory://in", 8)
    (tmp_path / "in" / "below").mkdir(parents=True)
    fill(f"file://{tmp_path}/in", 8)
    also = ("--weights", gentle_weights)
    maximir("restore", tmp_path / "in", "-o", tmp_path / "disk", *also)
    maximir("restore", "memory://in", "-o", tmp_path / "shards", *also, "--left", expect=1)
    maximir("restore", "memory://in", "-o", tmp_path / "shards", *also, "--shard", "1/2")
    capsys.readouterr()
    maximir("restore", "memory://in", "-o", tmp_path / "shards", *also, "--left", expect=1)
    told = capsys.readouterr()
    assert "of 8 left" in told.err and 0 < told.out.count("memory://in/") < 8
    report = tmp_path / "report.jsonl"
    maximir("restore", "memory://in", "-o", tmp_path / "shards", *also, "--shard", "2/2", "--report", report)
    maximir("restore", "memory://in", "-o", tmp_path / "shards", *also, "--left")
    maximir("restore", "memory://in", "-o", "memory://out", *also)
    maximir("restore", tmp_path / "in", "-o", tmp_path / "disk", *also, "--left")
    for name, data in contents(tmp_path / "disk").items():
        if name.endswith(".png"):
            assert data == (tmp_path / "shards" / name.lstrip("/")).read_bytes()
            assert data == memory[f"/out{name}"].getvalue()
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert all(line["status"] == "restored" for line in lines[1:]) and len(lines) > 1
    assert (tmp_path / "disk" / ".maximir.jsonl").exists()  # a disk alone has its journal, as always
    assert not (tmp_path / "shards" / ".maximir.jsonl").exists()
