"""The web page in real Chromium: what its tests do with it. The fixtures are in tests/service/conftest.py."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import maximir

PAGE = Path(maximir.__file__).parent / "page"
PARTS = [*PAGE.iterdir(), *(PAGE.parent / "service" / "page").iterdir()]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Nothing of its own, so that it is quick and what it asks for is the page's.
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
WIDE = {"viewport": {"width": 1000, "height": 660}}
PHONE = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
TOKEN = "a-token-for-tests"
PATIENCE = 60_000  # ms: machines may be busy, and three browsers may start at once
MOST_BYTES = 1_000_000
MOST_WAITING = 2
# Counts object URLs, each of which keeps a whole photograph in memory.
COUNTING = """
window.urls = new Set();
const [make, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
URL.createObjectURL = (blob) => { const url = make.call(URL, blob); urls.add(url); return url; };
URL.revokeObjectURL = (url) => { urls.delete(url); revoke.call(URL, url); };
"""
# Storage as in a browser that forbids it.
FORBIDDEN = "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('forbidden'); } });"


# ---------------------------------------------------------------- photographs


def picture(width=96, height=64):
    """Every pixel another, and each corner another colour."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x * 7 + y * 13) % 256], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PHOTO = encoded(picture())


def upload(name="photo.png", data=PHOTO, mime="image/png"):
    return {"name": name, "mimeType": mime, "buffer": data}


# ---------------------------------------------------------------- service and browser


LIMITS = {"token": TOKEN, "queue": MOST_WAITING, "max_bytes": MOST_BYTES}  # low, so that they can be met


@contextlib.contextmanager
def paused(service):
    """Nothing is computed meanwhile."""
    worker = service.worker
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


@dataclass
class Watch:
    """Records the requests and the complaints of a page."""

    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)  # of failures that the test provokes: browsers log them
    gone: bool = False  # requests are expected to break off

    def expected(self, complaint):
        status = re.search(r"responded with a status of (\d+)", complaint)
        return (status and int(status[1]) in self.statuses) or (self.gone and "net::ERR_" in complaint)


def expect(what):
    """Playwright's: waits until it is so."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(what)


def choose(page, *files):
    page.get_by_label("Choose a photograph").set_input_files(list(files) or [upload()])
    if not files:
        page.get_by_role("radio", name="Noise").check()  # auto would be the page's choice
        expect(page.locator("#viewer")).to_be_visible()


def restore(page):
    page.get_by_role("button", name="Restore", exact=True).click()


def done(page):
    expect(page.get_by_role("link", name="Download")).to_be_visible()


def downloaded(page):
    """Name and bytes."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def answer(page, data=PHOTO, mime="image/png", name="photo-denoise.png", notes=None, seconds="1.25"):
    """Have the page get this result at once, instead of the service's."""
    headers = {"Content-Type": mime, "Content-Disposition": f'attachment; filename="{name}"'}
    headers |= {"X-Maximir-Seconds": seconds} | ({"X-Maximir-Notes": notes} if notes else {})
    page.route("**/v1/restore", lambda route: route.fulfill(status=200, headers=headers, body=data))


def refuse(page, status, sentence, times=None, **headers):
    """Have the page's requests refused; the watch expects what the browser logs."""
    page.watch.statuses.add(status)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(route):
        if times is not None and len(refused) == times:
            return route.fallback()
        refused.append(route.request)
        return route.fulfill(
            status=status,
            headers=headers,
            body=json.dumps({"error": sentence}),
            content_type="application/json",
        )

    refused: list[object] = []
    page.route("**/v1/restore", reply)
    return refused


def seen(page, locator=None, clip=None):
    """The screen's pixels as [H, W, 3]."""
    data = locator.screenshot() if locator else page.screenshot(clip=clip)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


def compared(page, before=PHOTO, after=None, name="photo.png", mime="image/png"):
    """A photograph and its result side by side, without the service."""
    answer(page, before if after is None else after)
    choose(page, upload(name, before, mime))
    page.get_by_role("radio", name="Noise").check()
    restore(page)
    done(page)


def slider(page):
    return page.get_by_role("slider", name="Border between before and after")


DROP = """([files, target]) => {
    const transfer = new DataTransfer();
    for (const [name, data, type] of files)
        transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, { type }));
    const event = (kind) => new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    const element = document.querySelector(target);
    const before = element.dispatchEvent(event("dragenter")) && document.body.classList.contains("dragging");
    const allowed = !element.dispatchEvent(event("dragover"));
    const taken = !element.dispatchEvent(event("drop"));
    return [before, allowed, taken, document.body.classList.contains("dragging")];
}"""


def drop(page, *files, target="header"):
    packed = [(file["name"], base64.b64encode(file["buffer"]).decode(), file["mimeType"]) for file in files]
    return page.evaluate(DROP, [packed, target])


def tell(page, **progress):
    """Answer progress requests with this dictionary, which the test changes."""
    told = {"state": "working", "ahead": 0, "fraction": 0, "seconds_left": None} | progress
    page.route("**/v1/progress/*", lambda route: route.fulfill(json=told))
    return told


def nameless(page):
    """Roles of what can be operated and has no name, in the browser's own accessibility tree."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    operable = {
        "button",
        "link",
        "radio",
        "slider",
        "combobox",
        "textbox",
        "progressbar",
        "group",
        "dialog",
        "radiogroup",
    }
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in operable]
    assert found
    return [node["role"]["value"] for node in found if not node.get("name", {}).get("value")]


def of_form(body, name):
    """The content of a field of multipart/form-data."""
    part = body.split(f'name="{name}"'.encode())[1]
    return part.split(b"\r\n\r\n", 1)[1].split(b"\r\n------", 1)[0]
