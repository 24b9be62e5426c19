"""Take screenshots of the web page for docs/: drawn by Chromium, with photographs restored by the service.

python scripts/screenshots.py docs/images

Needs Chromium and Playwright (extra dev).
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

EXAMPLES = Path(__file__).parent.parent / "examples"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WIDE = {"viewport": {"width": 1040, "height": 660}}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
PATIENCE = 300_000  # ms


@contextmanager
def serving() -> Iterator[str]:
    """Run a service and yield its address."""
    command = [sys.executable, "-m", "maximir", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        assert service.stdout is not None
        address = re.search(r"http://[^,]+", service.stdout.readline())
        try:
            if address is None:
                raise SystemExit("the service did not start")
            yield address[0]
        finally:
            service.terminate()


def open_page(browser: Browser, address: str, *, dark: bool = False, **options: object) -> Page:
    page = browser.new_page(color_scheme="dark" if dark else "light", **options)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("radio").first.wait_for()
    return page


def choose(page: Page, name: str, data: bytes | None = None) -> None:
    data = (EXAMPLES / name).read_bytes() if data is None else data
    file = {"name": name, "mimeType": "image/png", "buffer": data}
    page.get_by_label("Choose a photograph").set_input_files(file)
    page.locator("#caption").wait_for()


def doubled(name: str) -> bytes:
    """Enlarge a photograph, so that progress is visible."""
    photograph, file = Image.open(EXAMPLES / name), io.BytesIO()
    photograph.resize((2 * photograph.width, 2 * photograph.height)).save(file, "png")
    return file.getvalue()


def choose_many(page: Page, count: int) -> None:
    """Choose parts of the examples."""
    files = []
    for number in range(count):
        path = sorted(EXAMPLES.glob("*.png"))[number % 3]
        photograph, file = Image.open(path), io.BytesIO()
        left, top = (number * 37 % (photograph.width - 320), number * 53 % (photograph.height - 240))
        photograph.crop((left, top, left + 320, top + 240)).save(file, "png")
        files.append(
            {"name": f"part {number + 1:02}.png", "mimeType": "image/png", "buffer": file.getvalue()}
        )
    page.get_by_label("Choose a photograph").set_input_files(files)
    page.locator("#strip canvas").nth(count - 1).wait_for()


def restore(page: Page) -> None:
    page.get_by_role("button", name="Restore", exact=True).click()


def take(page: Page, path: Path) -> None:
    """Save a screenshot with 256 colours: noisy photographs would make large files."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB", flush=True)


def paint(page: Page) -> None:
    """Paint over a part of the photograph."""
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    places = [(0.40, 0.35), (0.55, 0.35), (0.62, 0.5), (0.45, 0.5), (0.42, 0.62), (0.6, 0.62)]
    for number, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        parser.error(f"no Chromium: none of {', '.join(CHROMIUM)} is there")
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])

        page = open_page(browser, address, **WIDE)
        take(page, folder / "page-start.png")
        choose(page, "chelsea.png")
        page.get_by_role("radio", name="Noise").check()
        page.locator("#ways").evaluate("row => row.scrollIntoView({ block: 'center' })")
        take(page, folder / "page-models.png")
        restore(page)
        page.get_by_role("link", name="Download").wait_for()
        take(page, folder / "page-result.png")

        page.get_by_label("Strength").fill("80")
        page.get_by_role("button", name="Paint where to restore").click()
        paint(page)
        take(page, folder / "page-mask.png")

        page = open_page(browser, address, **WIDE)
        choose_many(page, 20)
        page.get_by_role("radio", name="Noise").check()
        page.get_by_role("button", name="Restore all").click()
        page.locator("#strip li.done").nth(7).wait_for()
        page.mouse.move(0, 0)
        page.get_by_role("listbox").focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.get_by_role("link", name="Download").wait_for()
        take(page, folder / "page-queue.png")
        page.close()

        page = open_page(browser, address, dark=True, **WIDE)
        choose(page, "astronaut.png", doubled("astronaut.png"))
        restore(page)
        page.wait_for_function("() => document.querySelector('#progress').value > 0.35")
        take(page, folder / "page-working.png")
        page.close()

        page = open_page(browser, address, **PHONE)
        choose(page, "astronaut.png")
        take(page, folder / "page-phone-chosen.png")
        restore(page)
        page.get_by_role("link", name="Download").wait_for()
        take(page, folder / "page-phone.png")

        page = open_page(browser, address, **PHONE)
        choose(page, "download.png", (EXAMPLES / "chelsea.png").read_bytes()[:200_000])
        restore(page)
        page.locator("#form-message:not(:empty)").wait_for()
        take(page, folder / "page-error.png")
        browser.close()


if __name__ == "__main__":
    main()
