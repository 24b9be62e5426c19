"""The page without a server: its folder, its logic in Node, and in Chromium with photographs.

Tests that compute need onnxruntime-web: MAXIMIR_ORT_WEB names npm's package (a .tgz or a folder).
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.command import maximir
from maximir import MaximirError, Restorer, UsageError
from maximir.hosts import export, web
from maximir.models import catalogue
from maximir.models.cards import ModelCard

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNTIME = os.environ.get("MAXIMIR_ORT_WEB")
PATIENCE = 600_000  # ms: one thread may take minutes on a busy machine
TILE = 128
OLD = "WebAssembly.validate = () => false;"
POOR = """
WebAssembly.Memory = function () { throw new RangeError("no memory"); };
"""
SMALL_DEVICE = "Object.defineProperty(navigator, 'deviceMemory', { value: 0.001 });"


def names():
    return sorted({name for kind in web.PROGRAMS.values() for name in kind})


@pytest.fixture(scope="module")
def fake_runtime(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runtime")
    (folder / "dist").mkdir()
    for name in names():
        (folder / "dist" / name).write_bytes(name.encode())
    (folder / "package.json").write_text('{"version": "9.9.9"}')
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(export, "proved", lambda *args, **options: (b"network", 1e-4))


@pytest.fixture
def site(quick, fake_runtime, tmp_path):
    maximir("export", "--for", "web", "-o", tmp_path / "site", "--runtime", fake_runtime)
    return tmp_path / "site"


# ---------------------------------------------------------------- the folder


def test_the_folder_holds_page_models_and_runtime(site):
    about = json.loads((site / "models.json").read_text())
    assert [model["name"] for model in about["models"]] == [model.name for model in catalogue.MODELS]
    assert all((site / model["file"]).is_file() for model in about["models"])
    assert all(model["default"] == (not model["name"].endswith("-fast")) for model in about["models"])
    assert about["models"][0]["facts"] == export.tiling("denoise", 512)
    assert all((site / path).is_file() for kind in about["runtime"].values() for path in kind["files"])
    assert "ONNX Runtime Web 9.9.9" in (site / "licences.txt").read_text()
    assert (site / "index.html").read_text().count(web.POLICY) == 1
    assert not list(site.parent.glob(".maximir-*"))


def test_the_page_is_the_services(site):
    """One source: the same files, except for the restorer."""
    for path in web.SHARED.iterdir():
        if path.name != "index.html":
            assert (site / "static" / path.name).read_bytes() == path.read_bytes()
    assert not (web.SHARED / "restorer.js").exists()


def test_the_service_worker_lists_the_page(site):
    code = (site / "sw.js").read_text()
    (files,) = re.findall(r'FILES = "([^"]+)"', code)
    assert set(files.split()) == {
        "./",
        "models.json",
        *(f"static/{p.name}" for p in (site / "static").iterdir()),
    }
    assert "{" not in re.findall(r'(?:VERSION|POLICY) = "([^"]+)"', code)[0] and web.POLICY in code


def test_another_version_has_another_name(site, quick, fake_runtime, tmp_path):
    def version(folder):
        return re.findall(r'VERSION = "(maximir-[0-9a-f]{16})"', (folder / "sw.js").read_text())

    same, other = tmp_path / "same", tmp_path / "other"
    maximir("export", "--for", "web", "-o", same, "--runtime", fake_runtime)
    maximir("export", "--for", "web", "-o", other, "--runtime", fake_runtime, "--tile", "256")
    assert version(site) == version(same) != version(other)


def test_npms_package_is_read(quick, fake_runtime, tmp_path, monkeypatch):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(fake_runtime, "package")
    (tmp_path / "web.tgz").write_bytes(data.getvalue())
    maximir("export", "denoise", "--for", "web", "-o", tmp_path / "one", "--runtime", tmp_path / "web.tgz")
    monkeypatch.setattr(web, "download", lambda address, target: target.write_bytes(data.getvalue()))
    with pytest.raises(MaximirError, match="its SHA-512 is not that of onnxruntime-web"):
        web.write_site([catalogue.MODELS[0]], tmp_path / "two")
    digest = base64.b64encode(hashlib.sha512(data.getvalue()).digest()).decode()
    monkeypatch.setattr(web, "SHA512", digest)
    web.write_site([catalogue.MODELS[0]], tmp_path / "two")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two", "web.tgz"]
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_only_pages_are_replaced(site, fake_runtime, quick, tmp_path, capsys):
    (site / "mine.txt").write_text("old")
    again = ("export", "denoise", "--for", "web", "-o", site, "--runtime", fake_runtime)
    maximir(*again, expect=2)
    assert "exists; use --overwrite" in capsys.readouterr().err
    maximir(*again, "--overwrite")
    assert not (site / "mine.txt").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    maximir("export", "--for", "web", "-o", tmp_path / "photos", "--overwrite", expect=2)
    assert "is no page of maximir's" in capsys.readouterr().err
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_the_old_page_stays_if_the_new_one_cannot_take_its_place(site, fake_runtime, quick, monkeypatch):
    (site / "mine.txt").write_text("old")
    rename = Path.rename

    def fail_once(path, target):
        if path.name == "site" and target == site:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(MaximirError, match="cannot be written"):
        web.write_site([catalogue.MODELS[0]], site, fake_runtime, overwrite=True)
    assert (site / "mine.txt").read_text() == "old"
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_models_keep_their_names(tmp_path):
    cards = [
        ModelCard(name, "", "yours") for name in ("mine-1.0", "/a/mine-1.5.safetensors", "hf://o/r/b.npz")
    ]
    assert [web.file_of(card) for card in cards] == [
        "models/mine-1.0.onnx",
        "models/mine-1.5.onnx",
        "models/b.onnx",
    ]
    twice = [ModelCard(name, "", "yours") for name in ("Mine", "/a/mine.npz")]  # one file on some disks
    with pytest.raises(UsageError, match=r"2 of the models would become models/mine.onnx"):
        web.write_site(twice, tmp_path / "site")
    with pytest.raises(UsageError, match=r"2 of the models would become models/denoise-box.onnx"):
        web.write_site(2 * [catalogue.MODELS[0]], tmp_path / "site")


@pytest.mark.parametrize("facts", ["{", "[]", ""])
def test_a_runtime_of_unknown_version(facts, fake_runtime, quick, tmp_path):
    runtime = shutil.copytree(fake_runtime, tmp_path / "runtime")
    (runtime / "package.json").write_text(facts)
    web.write_site([], tmp_path / "site", runtime)
    assert "ONNX Runtime Web of unknown version" in (tmp_path / "site" / "licences.txt").read_text()


def test_a_runtime_that_lacks_a_file(fake_runtime, tmp_path):
    shutil.copytree(fake_runtime, tmp_path / "part")
    (tmp_path / "part" / "dist" / names()[0]).unlink()
    with pytest.raises(UsageError, match=f"{names()[0]} is missing"):
        web.write_site([], tmp_path / "site", tmp_path / "part")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        archive.add(fake_runtime, "package")
    whole = whole.getvalue()
    flipped = [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in (len(whole) // 2, -8)]
    for data in (b"no archive", whole[: len(whole) // 2], *flipped):
        (tmp_path / "broken.tgz").write_bytes(data)
        with pytest.raises(UsageError, match=r"not a package of npm's \(\.tgz\)"):
            web.write_site([], tmp_path / "site", tmp_path / "broken.tgz")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--for", "web"], "give the folder to write: -o site"),
        (["--for", "web", "-o", "site", "--runtime", "nowhere"], "--runtime nowhere: there is no such file"),
        (["--for", "web", "-o", "site", "--tile", "100"], "--tile must be a multiple of 64"),
        (
            ["--for", "web", "-o", "site", "--size", "512"],
            "--size, --stages and --half are not for --for web",
        ),
        (["denoise", "-o", "x.onnx", "--runtime", "."], "--runtime is for --for web"),
        (["denoise", "derain", "-o", "x.onnx"], "give one model"),
        (["denoise", "-o", "x.pt2", "--tile", "512"], "--tile and --half are for .onnx files"),
        (["denoise", "-o", "x.onnx", "--tile", "512", "--size", "512"], "give --tile or --size"),
    ],
)
def test_requests_that_make_no_sense(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    maximir("export", *arguments, expect=2)
    assert capsys.readouterr().err.startswith(f"maximir: {sentence}")


# ---------------------------------------------------------------- its logic, in Node


def node(script, folder):
    """Run a module beside the page's; return what it prints, from JSON."""
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    for path in (*web.SHARED.glob("*.js"), *(web.HERE / "page").iterdir(), web.TILES):
        shutil.copyfile(path, folder / path.name)
    (folder / "package.json").write_text('{"type": "module"}')
    stub = "globalThis.document = { createElement: () => ({ toDataURL: (type) => `data:${type}` }) };\n"
    (folder / "run.js").write_text(stub + script)
    done = subprocess.run(["node", "run.js"], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_browsers_that_cannot_are_told(tmp_path):
    script = """
    const { unfit, smaller } = await import("./restorer.js");
    const full = { validate: () => true, Memory: class { constructor() { throw new RangeError(); } } };
    console.log(JSON.stringify([unfit(), unfit(undefined) && 1, unfit({ validate: () => false }), unfit(full),
        smaller(4000, 6000, 4), smaller(8000, 6000, 4), smaller(100000, 1, 0.0001)]));
    """
    fine, default, old, full, fits, large, strip = node(script, tmp_path)
    assert fine == "" and not default
    assert "lacks WebAssembly SIMD" in old and "too little memory: the page needs 1.5 GB" in full
    assert fits is None
    assert large["width"] * large["height"] <= 24_000_000 and large["width"] / large[
        "height"
    ] == pytest.approx(4 / 3, 0.01)
    assert strip == {"width": 7745, "height": 1}


def keep(folder, original, result, kind):
    (folder / "original").write_bytes(original)
    (folder / "result").write_bytes(result)
    script = f"""
    import {{ readFileSync, writeFileSync }} from "node:fs";
    import {{ keep }} from "./metadata.js";
    const [original, result] = ["original", "result"].map((name) => new Blob([readFileSync(name)]));
    const [blob, notes] = await keep(original, result, "{kind}");
    writeFileSync("kept", new Uint8Array(await blob.arrayBuffer()));
    console.log(JSON.stringify(notes));
    """
    notes = node(script, folder)
    return (folder / "kept").read_bytes(), notes


def encoded(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (10, 200, 30)).save(file, kind, **options)
    return file.getvalue()


def exif():
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "Maker"
    return tags


@pytest.mark.parametrize("before", ["jpeg", "png"])
@pytest.mark.parametrize("after", ["jpeg", "png"])
def test_exif_is_kept_upright(before, after, tmp_path):
    kept, notes = keep(tmp_path, encoded(before, exif=exif()), encoded(after), after)
    image = Image.open(io.BytesIO(kept))
    image.load()
    assert dict(image.getexif()) == {0x0112: 1, 0x010F: "Maker"}
    assert notes == []


def test_other_metadata_is_kept_or_said(tmp_path):
    xmp = b"<x:xmpmeta/>"
    kept, notes = keep(tmp_path, encoded("jpeg", xmp=xmp, comment=b"hello"), encoded("jpeg"), "jpeg")
    image = Image.open(io.BytesIO(kept))
    assert image.info["xmp"] == xmp and image.info["comment"] == b"hello" and notes == []
    _, notes = keep(tmp_path, encoded("jpeg", xmp=xmp), encoded("png"), "png")
    assert notes == ["Metadata other than EXIF is kept only in files of the same kind."]
    _, notes = keep(tmp_path, encoded("jpeg", exif=exif()), encoded("webp"), "webp")
    assert notes == ["Metadata is not kept in WebP files."]
    _, notes = keep(tmp_path, encoded("jpeg", icc_profile=b"Adobe RGB (1998)"), encoded("jpeg"), "jpeg")
    assert notes == ["The colours were converted to sRGB."]


def test_depth_is_said_and_damage_is_survived(tmp_path):
    head = struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0\0\0")), (b"IEND", b""))
    deep = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    assert keep(tmp_path, deep, encoded("png"), "png")[1] == ["16 bits per channel became 8."]
    for cut in (3, 20, 60):
        kept, _ = keep(tmp_path, encoded("jpeg", exif=exif())[:cut], encoded("jpeg"), "jpeg")
        Image.open(io.BytesIO(kept)).load()


# ---------------------------------------------------------------- in Chromium


class Host:
    """A plain static host; `threads`: one that allows threads."""

    def __init__(self, folder, threads=False):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def end_headers(self):
                if threads:
                    self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                    self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                super().end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def opened(browser):
    """A function that opens a folder in a fresh browser; nothing may be asked of another address."""
    hosts, contexts = [], []

    def open_page(folder, script="", threads=False):
        host = Host(folder, threads)
        hosts.append(host)
        context = browser.new_context(viewport={"width": 1000, "height": 660})
        contexts.append((context, host, []))
        context.set_default_timeout(PATIENCE)
        context.add_init_script(script)
        context.on("request", lambda request: contexts[-1][2].append(request.url))
        page = context.new_page()
        page.goto(host.url)
        page.asked, page.host = contexts[-1][2], host
        return page

    yield open_page
    for context, host, asked in contexts:
        context.close()
        assert [url for url in asked if not url.startswith((host.url, f"blob:{host.url}"))] == []
    for host in hosts:
        host.close()


def expect(what):
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(what)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("script", "sentence"), [(OLD, "lacks WebAssembly SIMD"), (POOR, "too little memory")]
)
def test_a_browser_that_cannot_use_it_downloads_nothing(opened, site, script, sentence):
    page = opened(site, script)
    expect(page.locator("#tasks")).to_contain_text(sentence)
    assert not [url for url in page.asked if re.search(r"models|runtime", url)]


@pytest.mark.browser
def test_sizes_are_said_before_and_a_large_photograph_is_offered_smaller(opened, site):
    page = opened(site, SMALL_DEVICE)
    expect(page.locator("#limits")).to_contain_text("Downloads 7 bytes for the model and")
    page.get_by_label("Choose a photograph").set_input_files(EXAMPLES / "coffee.png")
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#form-message")).to_contain_text("too large for this browser's memory")
    expect(page.get_by_role("button", name=re.compile(r"Restore it at \d\d × \d\d"))).to_be_visible()
    assert not [url for url in page.asked if re.search(r"models/|runtime/", url)]


WORKER = """
onmessage = async ({ data: { file, size } }) => {
    const { width } = size ?? (await createImageBitmap(file));
    if (size || width < 400) postMessage({ done: { blob: file, name: file.name, notes: [], seconds: 1 } });
    else postMessage({ problem: "Too little memory.", size: { width: 10, height: 10 } });
};
"""


@pytest.mark.browser
def test_many_photographs_one_after_the_other(opened, site):
    """Like at the service, with a worker that gives them back: one fails, and is restored smaller."""
    (site / "static" / "worker.js").write_text(WORKER)
    page = opened(site, "delete window.showDirectoryPicker;")
    expect(page.locator("#limits")).to_contain_text("Downloads")
    page.get_by_label("Choose a photograph").set_input_files(sorted(EXAMPLES.glob("*.png"))[:2])
    page.get_by_role("button", name="Restore all").click()
    expect(page.locator("#queue-told")).to_have_text("1 of 2 restored, 1 failed")
    page.get_by_role("option", name="failed. Too little memory.").click()
    page.get_by_role("button", name="Restore it at 10 × 10").click()
    expect(page.locator("#queue-told")).to_have_text("2 of 2 restored")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save all").click()
    assert download.value.suggested_filename == "restored.zip"


@pytest.mark.browser
def test_a_page_that_was_opened_as_a_file_says_what_to_do(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    expect(page.locator("#stage-message")).to_contain_text("python -m http.server")
    page.close()


@pytest.mark.browser
def test_the_policy_lets_nothing_leave(opened, site):
    page = opened(site)
    expect(page.locator("#limits")).to_contain_text("Downloads")
    blocked = page.evaluate("fetch('http://localhost:9/').then(() => 'sent', (error) => error.message)")
    assert "sent" not in blocked
    assert not [url for url in page.asked if ":9/" in url]


@pytest.fixture(scope="module")
def real_site(tmp_path_factory):
    if RUNTIME is None:
        pytest.skip("MAXIMIR_ORT_WEB names no package of onnxruntime-web: npm pack onnxruntime-web")
    folder = tmp_path_factory.mktemp("real") / "site"
    arguments = ("--for", "web", "-o", folder, "--runtime", RUNTIME, "--tile", TILE)
    maximir("export", "denoise", *arguments)
    return folder


def restored(page, path, kind=""):
    """Restore a photograph; return the result's file."""
    page.get_by_label("Choose a photograph").set_input_files(path)
    expect(page.locator("#caption")).to_be_visible()
    page.get_by_label("Save as").select_option(kind)
    page.get_by_role("button", name="Restore", exact=True).click()
    link = page.get_by_role("link", name="Download")
    expect(link.or_(page.locator("#form-message:not(:empty)"))).to_be_visible()
    assert page.locator("#form-message").inner_text() == ""
    with page.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes(), download.value.suggested_filename


def crop(folder, width, height, turned=False):
    """Part of a photograph of examples/; `turned`: stored on its side, as phones do."""
    image = Image.open(EXAMPLES / "coffee.png").convert("RGB").crop((120, 60, 120 + width, 60 + height))
    options = {"format": "png"}
    if turned:
        tags = Image.Exif()
        tags[0x0112] = 6
        image, options["exif"] = image.transpose(Image.Transpose.ROTATE_90), tags
    image.save(folder / "crop.png", **options)
    return folder / "crop.png"


def by_maximir(path):
    image = ImageOps.exif_transpose(Image.open(path))
    return np.asarray(Restorer("denoise", precision="fp32", view="exact")(np.asarray(image)), float)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)


@pytest.mark.slow
@pytest.mark.browser
def test_photographs_are_restored_as_by_maximir_also_offline(opened, real_site, tmp_path):
    page = opened(real_site)
    assert not page.evaluate("crossOriginIsolated")  # a plain host: one thread
    one = crop(tmp_path, 180, 120, turned=True)
    data, name = restored(page, one)
    assert name == "crop-denoise.png" and Image.open(io.BytesIO(data)).getexif()[0x0112] == 1
    assert np.abs(pixels(data) - by_maximir(one)).max() <= 1  # a level of 255; the network's output: 1e-3
    page.host.close()
    page.reload()
    expect(page.locator("#limits")).to_contain_text("In this browser already.")
    tiled = crop(tmp_path, 256, 128)
    data, _ = restored(page, tiled)
    expect(page.locator("#notes")).to_contain_text("Restored in tiles.")
    assert 10 * np.log10(255**2 / np.square(pixels(data) - by_maximir(tiled)).mean()) >= 40
    assert page.evaluate("crossOriginIsolated")  # from the second visit on, the page allows threads itself


@pytest.mark.slow
@pytest.mark.browser
def test_cancel_stops_the_worker(opened, real_site, tmp_path):
    page = opened(real_site, threads=True)
    page.get_by_label("Choose a photograph").set_input_files(EXAMPLES / "coffee.png")
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#phase")).to_contain_text("Restoring")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Restore", exact=True)).to_be_visible()
    for _ in range(100):  # the browser reports it later
        if not page.workers:
            return
        page.wait_for_timeout(100)
    raise AssertionError(page.workers)
