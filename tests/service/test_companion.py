"""`maximir open`: the service of one page, which begins with photographs and ends with the page."""

import asyncio
import configparser
import errno
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from helpers.browsing import FORBIDDEN, PATIENCE, PHOTO, done, expect, restore
from helpers.command import maximir
from helpers.serving import FAKE, until
from maximir.service import companion, server
from maximir.service.companion import Opened, Presence, find_files

ROOT = Path(__file__).parents[2]
# The command itself, with a fake worker and a browser that only writes down its address.
OPEN = """
import os, sys, webbrowser
from maximir.service import companion, settings
companion.Presence.__init__.__defaults__ = (6.0,)
worker = (sys.executable, sys.argv.pop(1), sys.argv.pop(1))
found = sys.argv.pop(1)
make = settings.Settings
settings.Settings = lambda **options: make(worker=worker, **options)
webbrowser.open = lambda address: print("browser", address, flush=True) is None and found == "yes"
from maximir.cli import main
main()
"""

pytestmark = pytest.mark.slow


class Opening:
    """`maximir open` in a process of its own."""

    def __init__(self, folder, *paths, found="yes"):
        command = [
            sys.executable,
            "-c",
            OPEN,
            str(FAKE),
            str(folder / "log"),
            found,
            "open",
            *map(str, paths),
        ]
        self.stderr = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        assert self.process.stdout is not None
        self.url = re.search(r"at (http://127.0.0.1:\d+),", self.process.stdout.readline())[1]
        self.address = self.process.stdout.readline().split()[1]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def ended(self):
        return self.process.wait(30)


def test_files_and_folders(tmp_path):
    others = ("b/.hidden/d.png", "b/.e.png", "b/@eaDir/a.png", "b/Thumbs.db", "b/a.xmp")
    for name in ("b/z.png", "b/a.png", "b/sub/c.png", "f.png", "linked/g.png", *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    b = tmp_path / "b"
    (b / "link").symlink_to(tmp_path / "linked")
    assert list(find_files([tmp_path / "f.png", b])) == [
        Opened(tmp_path / "f.png"),
        Opened(b / "a.png", "b/", True),
        Opened(b / "z.png", "b/", True),
        Opened(b / "link" / "g.png", "b/link/", True),
        Opened(b / "sub" / "c.png", "b/sub/", True),
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, caplog):
    for folder in ("closed", "open"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"x")
    list_folder = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [opened.path for opened in find_files([tmp_path])] == [tmp_path / "open" / "a.png"]
    assert caplog.messages == [f"{tmp_path / 'closed'}: cannot be read (permission denied)"]


def test_what_is_left_out_of_a_folder_is_counted(tmp_path, monkeypatch, caplog):
    for name in ("a.png", "b.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * len(name))
    monkeypatch.setattr(
        companion, "is_in_cloud", lambda facts: facts.st_ino == (tmp_path / "b.png").stat().st_ino
    )
    assert [opened.path.name for opened in find_files([tmp_path])] == ["a.png"]
    assert caplog.messages == [
        "maximir: skipped, not images: 1 .txt",
        "maximir: 1 photograph is only in a cloud, not on this disk: b.png",
    ]


def test_names_that_are_no_text(tmp_path):
    app = FastAPI()
    broken = Opened(Path(os.fsdecode(b"a\xff.png")), os.fsdecode(b"b\xff/"))
    of_macos = Opened(Path("Screenshot at 9.41\u202fAM.png"))
    companion.add_routes(app, [broken, of_macos], Presence())

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/opened")

    assert asyncio.run(ask()).json() == [
        {"name": "a?.png", "folder": "b?/", "within": False},
        {"name": of_macos.path.name, "folder": "", "within": False},
    ]


def test_presence():
    """It ends some time after the last page, not before there was one, nor during work."""

    async def run():
        busy = True
        presence = Presence(grace=0.4)
        gone = asyncio.create_task(presence.gone(lambda: busy))
        await asyncio.sleep(0.7)
        assert not gone.done()  # there was no page yet
        for _ in range(3):
            with presence.here():
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.2)  # a reload
            assert not gone.done()
        await asyncio.sleep(0.7)
        assert not gone.done()  # there is work
        busy = False
        await asyncio.wait_for(gone, 5)

    asyncio.run(run())


def test_what_is_not_there_is_named(tmp_path, capsys):
    maximir("open", tmp_path / "nothing.png", expect=2)
    assert "nothing.png: there is no such file or folder" in capsys.readouterr().err


def test_the_photographs_are_shown_and_the_service_ends_with_the_page(browser, tmp_path):
    (tmp_path / "a.png").write_bytes(PHOTO)
    (tmp_path / "trip").mkdir()
    (tmp_path / "trip" / "b.png").write_bytes(PHOTO)
    (tmp_path / "trip" / "notes.txt").write_text("no photograph")
    with Opening(tmp_path, tmp_path / "a.png", tmp_path / "trip") as opening:
        assert opening.address == f"{opening.url}/#opened"
        context = browser.new_context()
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(opening.address)
        expect(page.locator("#strip li")).to_have_count(2)
        page.get_by_role("option", name="b.png").click()
        expect(page.locator("#name")).to_have_text("trip/b.png")
        expect(page.locator("#queue-told")).to_have_text("0 of 2 restored")
        page.wait_for_timeout(700)
        page.reload()
        expect(page.locator("#strip li")).to_have_count(2)  # not twice
        page.wait_for_timeout(1500)
        expect(page.locator("#strip li")).to_have_count(2)
        page.get_by_role("checkbox", name="For all").uncheck()
        restore(page)
        done(page)
        assert opening.process.poll() is None
        context.close()
        assert opening.ended() == 0
        opening.stderr.seek(0)
        assert opening.stderr.read().splitlines() == [  # no line for each request
            "maximir: skipped, not images: 1 .txt",
            "a library that prints",  # the fake worker's
        ]


def test_a_photograph_that_is_gone_is_named_also_where_storage_is_forbidden(browser, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PHOTO)
    with Opening(tmp_path, tmp_path / "a.png", tmp_path / "b.png") as opening:
        (tmp_path / "a.png").unlink()
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(FORBIDDEN)
        page.goto(opening.address)
        expect(page.locator("#name")).to_have_text("b.png")
        expect(page.locator("#stage-message")).to_have_text("a.png cannot be read.")
        page.context.close()


def test_one_photograph_is_there_again_after_a_reload(browser, tmp_path):
    (tmp_path / "a.png").write_bytes(PHOTO)
    with Opening(tmp_path, tmp_path / "a.png") as opening:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        for _ in range(2):
            page.goto(opening.address)
            expect(page.locator("#name")).to_have_text("a.png")
            page.reload()
        page.context.close()


def test_only_what_was_given_is_sent(tmp_path):
    (tmp_path / "a.png").write_bytes(PHOTO)
    with Opening(tmp_path, tmp_path / "a.png") as opening:
        with httpx.Client(base_url=opening.url, trust_env=False) as client:
            assert client.get("/v1/opened").json() == [{"name": "a.png", "folder": "", "within": False}]
            assert client.get("/v1/opened/0").content == PHOTO
            for other in ("1", "-1", "..%2fa.png", "a.png"):
                assert client.get(f"/v1/opened/{other}").status_code in (404, 422), other
            assert client.get("/v1/opened", headers={"Host": "evil.example"}).status_code == 403
            (tmp_path / "a.png").unlink()
            assert client.get("/v1/opened/0").status_code == 404
        opening.process.send_signal(signal.SIGINT)
        assert opening.ended() == 0


def test_without_a_browser_the_address_is_said_and_a_taken_port_is_no_obstacle(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", server.PREFERRED))
            taken.listen()
        except OSError:
            pass  # another program's: as well
        with Opening(tmp_path, found="no") as opening:
            assert not opening.url.endswith(f":{server.PREFERRED}")
            stderr = tmp_path / "stderr"
            until(lambda: f"no browser was found: open {opening.url}/#opened" in stderr.read_text())


def test_the_service_itself_has_nothing_of_it(tmp_path):
    from helpers.serving import Service

    with Service(tmp_path) as service:
        for path in ("/v1/opened", "/v1/opened/0", "/v1/presence"):
            assert service.client.get(path).status_code == 404


def test_the_desktop_entry():
    path = ROOT / "hosts" / "desktop" / "maximir.desktop"
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(path.read_text("utf-8"))
    entry = parser["Desktop Entry"]
    assert shlex.split(entry["Exec"]) == ["maximir", "open", "%F"]
    assert "image/png" in entry["MimeType"].split(";") and entry["MimeType"].endswith(";")
    assert entry["Type"] == "Application" and entry["Terminal"] == "false"
    if checker := shutil.which("desktop-file-validate"):
        subprocess.run([checker, path], check=True, env=os.environ)


def test_pages_ask_again_before_the_service_gives_up():
    assert companion.RENEWED > companion.GRACE > 2
