"""People's folders, drives and addresses: what lies beside photographs, and what does not answer."""

import errno
import os
import socket
import time
import unicodedata
import zipfile

import fsspec
import pytest
from test_storages import go, memory, png, statuses  # noqa: F401

from helpers import web
from helpers.command import files, maximir
from maximir import images, storage
from maximir.batch import journal, neighbours, plan
from maximir.batch.plan import plan as plan_run
from maximir.errors import MaximirError, TooLarge, UsageError
from maximir.files import NO_FOLDER_SYNC, sync_folder, write_atomically
from maximir.storage import Address, Unreachable, is_address, local_path, open_storage

NEIGHBOURS = (
    *("a.png.xmp", "a.xmp", "a.dop", "a.pp3", "IMG_2.AAE", "IMG_3.MOV", "c.mp4", "d.avi", "notes.txt"),
    *("a.png.json", "old-run.jsonl", "catalog.lrcat", "MVI_1.THM"),
)
SILENT = (
    *(".DS_Store", "Thumbs.db", "desktop.ini", "Picasa.ini", ".picasa.ini", "Icon\r", "._a.png", ".nomedia"),
    *("@eaDir/a.png/SYNOPHOTO_THUMB_M.png", "#recycle/old.png", "$RECYCLE.BIN/x.png", "__MACOSX/._a.png"),
    *("Previews.lrdata/0/p.png", "lost+found/1.png", ".thumbnails/a.png"),
)
CLOUD = (".IMG_1.HEIC.icloud", "b.jpg.nextcloud", "c.jpg.cloud", ".film.MOV.icloud")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    for name in (*NEIGHBOURS, *SILENT, *CLOUD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(1) if name.endswith(".png") else b"x")
    (folder / "a.png").write_bytes(png(1))
    return folder


def names(planned):
    return [job.source.name for job in planned.jobs]


def test_neighbours_are_counted_and_clouds_named(folder, tmp_path, tiny_weights, capsys):
    words = ("restore", folder, "-o", tmp_path / "out", "--weights", tiny_weights)
    for more in ((), ("--resume",)):
        maximir(*words, *more, "--report", folder / "run.txt")
        told = capsys.readouterr()
        assert "0 failed" in told.out
        [line] = [line for line in told.err.splitlines() if "skipped, not images" in line]
        assert line == (
            "maximir: skipped, not images: 1 .aae, 1 .avi, 1 .dop, 1 .json, 1 .jsonl, 1 .lrcat, 1 .mov, "
            "1 .mp4, 1 .pp3, 1 .thm, 1 .txt, 2 .xmp"
        )
        assert "1 photograph is only in iCloud, not on this disk: IMG_1.HEIC" in told.err
        assert "only in Nextcloud, not on this disk: b.jpg" in told.err and "film" not in told.err
    assert files(tmp_path / "out") == ["a.png"]


def test_a_shell_expands_the_folder(folder, tmp_path):
    planned = plan_run(sorted(folder.glob("[!.]*")), tmp_path / "out")
    assert names(planned) == ["a.png"] and planned.left_alone.kinds[".xmp"] == 2


def test_a_neighbour_alone_is_named(folder, tmp_path):
    assert names(plan_run([folder / "a.xmp"], tmp_path / "out")) == ["a.xmp"]
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no files in .*; skipped, not images: 1 \.mp4"):
        plan_run([tmp_path / "films"], tmp_path / "out")


def test_files_that_the_system_would_download(folder, tmp_path, monkeypatch):
    (folder / "z.png").write_bytes(png(2))
    monkeypatch.setattr(plan, "HAS_CLOUD_FLAGS", True)
    inode = (folder / "z.png").stat().st_ino
    monkeypatch.setattr(plan, "is_in_cloud", lambda facts: facts.st_ino == inode)
    planned = plan_run([folder], tmp_path / "out")
    assert names(planned) == ["a.png"] and planned.left_alone.in_clouds["a cloud"] == ["z.png"]

    class Facts:
        st_mode, st_file_attributes, st_flags = 0o100644, 0x400000, 0

    assert neighbours.is_in_cloud(Facts)
    Facts.st_file_attributes = 0x20
    assert not neighbours.is_in_cloud(Facts)


def test_placeholders_of_folders_and_odd_keys(memory, tmp_path):  # noqa: F811
    fs = fsspec.filesystem("memory")
    keys = ["a b+c&d%20é.png", "x#1.png", "[1].png", "sub/b.png"]
    for key in keys:
        fs.pipe_file(f"/in/{key}", png(1))
    for key in ("sub_$folder$",):
        fs.pipe_file(f"/in/{key}", b"")
    outcomes = go("memory://in", tmp_path / "out")
    assert statuses(outcomes) == dict.fromkeys(sorted(keys), "restored")


def test_a_listing_with_markers_and_ways_out(memory, tmp_path, monkeypatch):  # noqa: F811
    store = open_storage("memory://in")
    found = {
        "/in/": {"size": 0},
        "/in/sub/": {"size": 0},
        "/in/hdi": {"size": 0, "type": "directory"},
        "/in/../up.png": {"size": 9},
        "/in//two.png": {"size": 9},
        "/in/a.png": {"size": 9},
    }
    monkeypatch.setattr(type(store.fs), "find", lambda self, path, detail: found)
    assert sorted(address.path for address, _ in store.files()) == ["../up.png", "/two.png", "a.png"]
    jobs = plan_run(["memory://in"], tmp_path / "out").jobs
    assert {job.source.path for job in jobs if job.problem} == {"../up.png", "/two.png"}
    assert all("outside the output" in job.problem for job in jobs if job.problem)
    assert not [job for job in plan_run(["memory://in"], "memory://out").jobs if job.problem]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if code in NO_FOLDER_SYNC:
        sync_folder(tmp_path)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.png").write_bytes(png(1))
        assert statuses(go(tmp_path / "in", tmp_path / "out")) == {"a.png": "restored"}
    else:
        with pytest.raises(OSError, match="rror"):
            sync_folder(tmp_path)


def test_an_encrypted_archive_is_asked_once(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag "encrypted" in both headers
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)
    monkeypatch.setattr(storage, "FIRST_WAIT", 60)
    assert "password" in go(f"zip://::{path}", tmp_path / "out")["a.png"].error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        OSError(errno.EROFS, "Read-only file system"),
        zipfile.BadZipFile("Bad CRC-32"),
        RuntimeError("Bad password for file"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    ],
)
def test_permanent_errors(error):
    assert not storage.may_pass(error)
    assert storage.may_pass(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"))
    assert storage.may_pass(RuntimeError("Session is closed"))


@pytest.mark.parametrize("length", [250, 251, 255])
def test_records_of_long_names(tmp_path, length):
    name = "n" * (length - 4) + ".png"
    (tmp_path / name).write_bytes(png(1))
    for status in ("restored", "known"):
        assert list(statuses(go(tmp_path / name, tmp_path / "out")).values()) == [status]
    assert journal.record_path("a/b.png") == ".maximir/a/b.png.json"  # as in earlier versions
    assert len(journal.record_path("d/" * 500 + "b.png")) < 80


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_impossible_names_are_no_files(name, tmp_path):
    assert not Address(storage.Folder(tmp_path), name).is_file()


def test_a_result_that_cannot_have_its_name_fails_before_the_work(tmp_path):
    (tmp_path / ("n" * 251 + ".gif")).write_bytes(b"GIF89a")
    [job] = plan_run([tmp_path / ("n" * 251 + ".gif")], tmp_path / "out").jobs
    assert "longer than 255 bytes" in job.problem
    write_atomically(tmp_path / ("a." + "b" * 253), b"x")


@pytest.mark.parametrize("name", ["Scan::2.png", "zip::2.png", "http:", "s3::a", "a:b.png"])
def test_what_exists_is_no_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for place in (name, f"a/{name}"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "p.png").write_bytes(png(1))
        assert not is_address(place)
        assert statuses(go(place, tmp_path / "out" / str(len(place)))) == {"p.png": "restored"}
    (tmp_path / "http:" / "host").mkdir(parents=True)
    assert not is_address("http://host") and is_address("http://other")
    assert not is_address("Trip::2024") and is_address("zip::a.zip") and is_address("nosuch://bucket")


def test_addresses_of_files_are_decoded_if_only_that_exists(tmp_path):
    (tmp_path / "My photo::1.png").write_bytes(b"")
    for text in (f"{tmp_path}/My%20photo::1.png", f"localhost{tmp_path}/My%20photo%3A%3A1.png"):
        assert local_path(f"file://{text}") == f"{tmp_path}/My photo::1.png"
    assert local_path("file:///no/such%20file") == "/no/such%20file"


@pytest.mark.parametrize("size", [10, 3 * 2**30])
def test_a_video_is_judged_by_its_first_bytes(tmp_path, size):
    for name, start in (("v.jpg", b"\0\0\0\x20ftypisom"), ("w.jpg", b"\x1aE\xdf\xa3"), ("x.png", b"<svg ")):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(size)
        began = time.process_time()
        outcomes = go(tmp_path / name, tmp_path / "out")
        with pytest.raises(MaximirError, match="not an image"):
            images.read(tmp_path / name)
        assert time.process_time() - began < 2
        assert [outcome.error for outcome in outcomes.values()] == ["not an image that maximir can read"]


def test_a_file_larger_than_the_budget_is_not_read(tmp_path):
    from maximir.batch.restore import read_image

    with (tmp_path / "a.png").open("wb") as file:
        file.write(png(1))
        file.truncate(2 * 2**30)
    source = Address(open_storage(tmp_path), "a.png")
    with pytest.raises(TooLarge, match="the limit is"):
        read_image(source, 10**9)


def test_only_the_start_of_a_large_object_is_asked_for(memory, tmp_path, monkeypatch):  # noqa: F811
    from maximir.batch import restore

    asked = []
    fs = type(fsspec.filesystem("memory"))
    cat = fs.cat_file
    monkeypatch.setattr(restore, "SMALL", 100)
    monkeypatch.setattr(
        fs,
        "cat_file",
        lambda self, path, start=None, end=None, **more: (
            asked.append((path, end)) or cat(self, path, start, end, **more)
        ),
    )
    fsspec.filesystem("memory").pipe_file("/in/v.jpg", b"\0\0\0\x20ftypisom" + bytes(10**6))
    assert "not an image" in go("memory://in", tmp_path / "out")["v.jpg"].error
    assert asked == [("/in/v.jpg", images.START)]


def test_pairs_by_composed_names(tmp_path):
    from maximir.evaluation.datasets import find_cases, match_restored
    from maximir.training.data import find_pairs

    for place, form in (("nf/input", "NFD"), ("nf/target", "NFC"), ("back", "NFD"), ("other", "NFC")):
        (tmp_path / place).mkdir(parents=True)
        for name in ("café.png", "Übung.png", "plain.png"):
            (tmp_path / place / unicodedata.normalize(form, name)).write_bytes(png(1))
    found = find_cases(tmp_path / "nf")
    assert len(found.cases) == 3 and not found.left_out
    for place in ("back", "other"):
        restored, missing, beside = match_restored(found, tmp_path / place)
        assert len(restored) == 3 and not missing and not beside
    assert len(find_pairs([tmp_path / "nf"])) == 3
    for form in ("NFC", "NFD"):  # both on both sides: each has its own
        (tmp_path / "nf" / "input" / unicodedata.normalize(form, "é.png")).write_bytes(png(1))
        (tmp_path / "nf" / "target" / unicodedata.normalize(form, "é.png")).write_bytes(png(1))
    assert len(find_cases(tmp_path / "nf").cases) == 5


@pytest.mark.filterwarnings("default")  # of aiohttp
class TestWeb:
    """With fsspec's HTTP, where aiohttp is installed."""

    @pytest.fixture(autouse=True)
    def _needs(self, monkeypatch):
        pytest.importorskip("aiohttp")
        monkeypatch.setattr(storage, "FIRST_WAIT", 0.0)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/pics/photo.png?X-Amz-Credential=AKIA&X-Amz-Signature=0123456789abcdef", "photo.png"),
            ("/pics/photo.png?sig=ab/cd.jpg", "photo.png"),
            ("/f%C3%BCr%20dich.png", "für dich.png"),
            ("/o/album%2Fphoto.png?alt=media&token=secret", "photo.png"),
            ("/?id=5", "127.0.0.1.png"),
        ],
    )
    def test_a_signature_is_no_name(self, tmp_path, path, name):
        with web.serve() as server:
            server.files[path] = server.files[path.rstrip("/")] = png(1)
            assert statuses(go(server.address + path, tmp_path / "out")) == {name: "restored"}
        left = [str(found) for found in tmp_path.rglob("*")]
        assert not [found for found in left if "0123456789" in found or "secret" in found]

    def test_what_does_not_answer_is_named(self, tmp_path, monkeypatch):
        with web.serve() as server:
            with pytest.raises(UsageError, match="nothing at this address"):
                plan_run([f"{server.address}/none.png"], tmp_path)
            closed = server.address
        with pytest.raises(UsageError, match="connection refused"):
            plan_run([f"{closed}/a.png"], tmp_path)
        with pytest.raises(UsageError, match="unknown host"):
            plan_run(["http://photos.invalid/a.png"], tmp_path)
        monkeypatch.setenv("http_proxy", closed)
        with pytest.raises(UsageError, match="the proxy: connection refused"):
            plan_run(["http://photos.invalid/a.png"], tmp_path)

    def test_proxies_of_the_environment(self, tmp_path, monkeypatch):
        with web.serve() as server:
            server.files["http://photos.invalid/pics/photo.png"] = png(1)
            monkeypatch.setenv("http_proxy", server.address)
            outcomes = go("http://photos.invalid/pics/photo.png", tmp_path / "out")
        assert statuses(outcomes) == {"photo.png": "restored"}

    def test_a_file_whose_length_is_not_known(self, tmp_path, monkeypatch):
        monkeypatch.setattr(images, "MAX_BYTES", 100_000)
        with web.serve() as server:
            server.says_length = False
            server.files["/a.png"], server.files["/b.png"] = png(1), png(1) + bytes(10**6)
            assert statuses(go(f"{server.address}/a.png", tmp_path / "out")) == {"a.png": "restored"}
            [outcome] = go(f"{server.address}/b.png", tmp_path / "out").values()
        assert outcome.error == "the file has 100,001 bytes; the limit is 100,000"

    def test_a_video_is_not_downloaded(self, tmp_path):
        with web.serve() as server:
            server.files["/v.jpg"] = b"\0\0\0\x20ftypisom" + bytes(8 * 2**20)
            [outcome] = go(f"{server.address}/v.jpg", tmp_path / "out").values()
            asked = [header for _, header in server.requests]
        assert "not an image" in outcome.error
        assert asked[-1] == f"bytes=0-{images.START - 1}"

    def test_refusals_are_not_retried(self, monkeypatch):
        class ClientResponseError(Exception):
            status, message = 407, "Proxy Authentication Required"

        assert "user name and password" in storage.error_in_words(ClientResponseError())
        with pytest.raises(Unreachable, match="unknown host"):
            open_storage("http://photos.invalid/a.png").read("")
