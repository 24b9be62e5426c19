"""The web page, in real Chromium: what people do with it, and what can go wrong on the way."""

from __future__ import annotations

import base64
import contextlib
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.browsing import (
    FORBIDDEN,
    MOST_BYTES,
    PAGE,
    PARTS,
    PHONE,
    PHOTO,
    TOKEN,
    WIDE,
    answer,
    choose,
    compared,
    done,
    downloaded,
    drop,
    encoded,
    expect,
    nameless,
    of_form,
    paused,
    picture,
    refuse,
    restore,
    seen,
    slider,
    tell,
    upload,
)
from maximir.models import catalogue

# ---------------------------------------------------------------- the whole way


def test_a_photograph_is_chosen_restored_compared_and_downloaded(real_page, real):
    page = real_page
    expect(page).to_have_title("Restore a photograph")
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose a photograph").click()
    chooser.value.set_files([upload()])
    expect(page.locator("#name")).to_have_text("photo.png")
    expect(page.locator("#size")).to_contain_text("96 × 64")
    page.get_by_role("radio", name="Haze").check()
    restore(page)
    done(page)
    expect(page).to_have_title(re.compile("^Done"))
    expect(page.get_by_role("heading", name=re.compile(r"Restored in \d+ s"))).to_be_focused()
    expect(slider(page)).to_be_visible()
    reply = real.restore(PHOTO, task="dehaze", headers={"Authorization": f"Bearer {TOKEN}"})
    assert reply.status_code == 200
    asked = len(page.watch.requests)
    assert downloaded(page) == ("photo-dehaze.png", reply.content)
    page.wait_for_timeout(700)
    assert not any("/v1/" in url for url in page.watch.requests[asked:])  # nobody asks for progress any more
    before, after = (
        page.locator(f".{half} img:not(.under)").evaluate(
            "image => [image.naturalWidth, image.naturalHeight]"
        )
        for half in ("before", "after")
    )
    assert before == after == [96, 64]


def test_the_format_can_be_chosen(real_page):
    page = real_page
    choose(page)
    page.get_by_label("Save as").select_option("JPEG")
    restore(page)
    done(page)
    name, data = downloaded(page)
    assert name in ("photo-denoise.jpg", "photo-denoise.jpeg")
    assert data.startswith(b"\xff\xd8\xff")


def asked_for_a_file(page):
    """What Enter opens; a browser that has no time may miss the key."""
    from playwright.sync_api import TimeoutError

    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            with page.expect_file_chooser(timeout=4000) as chooser:
                page.keyboard.press("Enter")
            return chooser.value
    raise AssertionError("Enter opens nothing")


def test_by_keyboard_alone(page):
    expect(page.get_by_role("radio").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose a photograph")).to_be_focused()
    outlined = page.get_by_text("Choose a photograph").evaluate(
        "label => getComputedStyle(label).outlineStyle"
    )
    assert outlined == "solid"
    chooser = asked_for_a_file(page)
    chooser.set_files([upload()])
    expect(page.get_by_role("radio", name="What it needs")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Rain")).to_be_checked()
    page.keyboard.press("Enter")
    done(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Download")).to_be_focused()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "photo-derain.png"
    for _ in range(4):  # back over the zoom
        page.keyboard.press("Shift+Tab")
    expect(slider(page)).to_be_focused()


def test_dropped_anywhere(page):
    assert drop(page, upload("dropped.png")) == [True, True, True, False]
    expect(page.locator("#name")).to_have_text("dropped.png")
    drop(page, upload("second.png"), target="#panel")
    expect(page.locator("#name")).to_have_text("second.png")
    expect(page.locator("#queue")).to_be_hidden()


def test_what_is_no_file_cannot_be_dropped(page):
    drop(page)
    expect(page.locator("#stage-message")).to_contain_text("Only files can be dropped here")


PASTE = """([name, data]) => {
    const clipboardData = new DataTransfer();
    if (data) clipboardData.items.add(
        new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, { type: "image/png" }));
    else clipboardData.setData("text/plain", name);
    document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
}"""


def test_pasted(page):
    page.evaluate(PASTE, ["only words", ""])
    expect(page.locator("#stage-message")).to_have_text("There is no picture in the clipboard.")
    page.evaluate(PASTE, ["image.png", base64.b64encode(PHOTO).decode()])
    expect(page.locator("#name")).to_have_text("image.png")
    expect(page.locator("#stage-message")).to_be_empty()


SLOW = """() => {
    const decode = HTMLImageElement.prototype.decode;
    const delays = [1500, 0];
    HTMLImageElement.prototype.decode = async function () {
        await new Promise((done) => setTimeout(done, delays.shift() ?? 0));
        return decode.call(this);
    };
}"""


HELD = """() => {
    const decode = HTMLImageElement.prototype.decode;
    const held = new Promise((done) => (window.letGo = done));
    HTMLImageElement.prototype.decode = async function () {
        await held;
        return decode.call(this);
    };
}"""


def test_restoring_waits_for_the_choice(page):
    """Large photographs take a moment to be opened."""
    answer(page)
    page.evaluate(HELD)
    choose(page, upload())
    restore(page)
    expect(page.locator("#stage-message")).to_have_text("Opening photo.png …")
    page.evaluate("window.letGo()")
    done(page)
    expect(page.locator("#stage-message")).to_be_empty()


def test_the_last_choice_counts(page):
    page.evaluate(SLOW)
    choose(page, upload("slow.png"))
    choose(page, upload("quick.png"))
    expect(page.locator("#name")).to_have_text("quick.png")
    page.wait_for_timeout(1600)
    expect(page.locator("#name")).to_have_text("quick.png")
    assert page.evaluate("urls.size") == 1


def test_the_page_begins_with_what_a_photograph_needs(page):
    page.get_by_label("Choose a photograph").set_input_files([upload()])
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    sent = []
    page.route(
        "**/v1/restore", lambda route: (sent.append(route.request.post_data_buffer), route.continue_())
    )
    restore(page)
    done(page)
    assert b'name="task"\r\n\r\nauto' in sent[0] and b'name="model"' not in sent[0]


def test_another_task_and_going_on_with_the_result(page):
    sent = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.post_data_buffer))
    compared(page)
    page.get_by_role("button", name="Try another task").click()
    expect(page.locator("#name")).to_have_text("photo.png")
    restore(page)
    done(page)
    page.get_by_role("button", name="Continue with this result").click()
    expect(page.locator("#name")).to_have_text("photo-denoise.png")
    page.get_by_role("radio", name="Too dark").check()
    restore(page)
    done(page)
    assert [b'filename="photo-denoise.png"' in body for body in sent] == [False, False, True]
    assert [re.search(rb'name="task"\r\n\r\n(\w+)', body)[1] for body in sent] == [
        b"denoise",
        b"denoise",
        b"enhance",
    ]
    page.get_by_role("button", name="Restore another photograph").click()
    expect(page.get_by_label("Choose a photograph")).to_be_focused()
    expect(page).to_have_title("Restore a photograph")


# ---------------------------------------------------------------- progress and cancelling


def test_progress_is_shown_and_cancelling_ends_it(page, service):
    told = tell(page, state="waiting", ahead=3)
    choose(page)
    bar = page.get_by_role("progressbar")
    with paused(service):
        restore(page)
        expect(page.get_by_role("heading", name="Waiting, 3 ahead of you")).to_be_visible()
        expect(bar).not_to_have_attribute("value", re.compile(""))
        expect(page.locator("#status")).to_contain_text("Waiting, 3 ahead of you")  # screen readers hear it
        told["ahead"] = 0
        expect(page.get_by_role("heading", name="Waiting, you are next")).to_be_visible()
        told["state"] = "working"
        expect(page.get_by_role("heading", name="Restoring …")).to_be_visible()
        expect(bar).not_to_have_attribute("value", re.compile(""))
        told["fraction"] = 0.004
        expect(page.get_by_role("heading", name="Restoring, 0%")).to_be_visible()
        expect(page.locator("#left")).to_be_empty()
        told |= {"fraction": 0.42, "seconds_left": 83.2}
        expect(page.get_by_role("heading", name="Restoring, 42%")).to_be_visible()
        expect(page.locator("#left")).to_have_text("about 85 s left")
        expect(page).to_have_title("Restoring, 42% · Restore a photograph")
        assert float(bar.get_attribute("value")) == 0.42
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/restore")):
            page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Restore", exact=True)).to_be_focused()
        expect(page.locator("#status")).to_have_text("Cancelled.")
        expect(page.locator("#form-message")).to_be_empty()
        expect(page).to_have_title("Restore a photograph")
        asked = len(page.watch.requests)
        page.wait_for_timeout(700)
        assert len(page.watch.requests) == asked  # nobody asks for progress any more


def test_waiting_for_others_as_the_service_tells_it(opened, service):
    """One image is before the second; a third is too many, and is sent again. All are done in the end."""
    pages = [opened() for _ in range(3)]
    pages[2].watch.statuses.add(429)
    for page in pages:
        choose(page)
    with paused(service):
        restore(pages[0])
        expect(pages[0].get_by_role("heading", name="Restoring …")).to_be_visible()
        restore(pages[1])
        expect(pages[1].get_by_role("heading", name="Waiting, 1 ahead of you")).to_be_visible()
        restore(pages[2])
        heading = pages[2].get_by_role("heading", name="Too many images are waiting; try again later.")
        expect(heading).to_be_visible()
        expect(pages[2].locator("#left")).to_have_text(re.compile(r"Trying again in \d+ s \(1 of 3\)"))
    for page in pages:
        done(page)
    assert len({downloaded(page) for page in pages}) == 1
    asked = [url for page in pages[:2] for url in page.watch.requests if "/v1/progress/" in url]
    ids = {url.rsplit("/", 1)[1] for url in asked}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{8,64}", each) for each in ids)


def test_sending_is_shown(page):
    """How much has been sent is the browser's to tell: through a thin wire."""
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    choose(page, upload("noise.png", PHOTO + bytes(600_000)))
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000},
    )
    restore(page)
    expect(page.locator("#phase")).to_have_text(re.compile(r"Sending, [1-9]\d?%"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Restore", exact=True)).to_be_visible()


# ---------------------------------------------------------------- what goes wrong


def test_refusals_are_told_in_the_services_words(page):
    choose(page)
    for status in (403, 408, 413, 422, 504):
        refuse(page, status, f"Too many <b>pixels</b> & {status}.")
        restore(page)
        message = page.locator("#form").get_by_role("alert")
        expect(message).to_have_text(f"Too many <b>pixels</b> & {status}.")
        expect(message).to_be_in_viewport()
        expect(page.get_by_role("button", name="Restore", exact=True)).to_be_focused()
        page.unroute("**/v1/restore")
    answer(page)
    restore(page)
    done(page)


def test_refusals_without_words(page):
    page.watch.statuses.add(502)
    page.route("**/v1/restore", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
    choose(page)
    restore(page)
    expect(page.locator("#form-message")).to_have_text("The server answered with error 502.")


def test_what_the_service_says_of_bad_files(real_page):
    page = real_page
    for data, status, words in [
        (b"no image at all", 415, "Not an image"),
        (PHOTO[: len(PHOTO) // 2], 422, "The file is truncated or damaged"),
        (PHOTO + bytes(MOST_BYTES), 413, "The image is too large; this server accepts at most 1,000,000"),
    ]:
        page.watch.statuses.add(status)
        choose(page, upload(data=data))
        restore(page)
        expect(page.locator("#form-message")).to_have_text(re.compile(f"^{words}.*\\.$"))


def test_a_busy_server_is_asked_again(page):
    refused = refuse(page, 429, "The queue is full.", times=2, Retry_After="1")
    choose(page)
    restore(page)
    expect(page.get_by_role("heading", name="The queue is full.")).to_be_visible()
    expect(page.locator("#left")).to_have_text("Trying again in 1 s (1 of 3)")
    expect(page.locator("#status")).to_have_text("The queue is full. Trying again in 1 s.")
    expect(page.locator("#left")).to_have_text("Trying again in 1 s (2 of 3)")
    done(page)
    assert len(refused) == 2


def test_but_not_for_ever(page):
    refused = refuse(page, 503, "The worker is not there.", Retry_After="0")
    choose(page)
    restore(page)
    expect(page.locator("#form-message")).to_have_text("The worker is not there.")
    assert len(refused) == 4


def test_who_is_to_come_back_much_later_is_told_at_once(page):
    refused = refuse(page, 503, "The server is stopping.", Retry_After="3600")
    choose(page)
    restore(page)
    expect(page.locator("#form-message")).to_have_text("The server is stopping.")
    assert len(refused) == 1


def test_waiting_for_another_try_can_be_cancelled(page):
    refused = refuse(page, 429, "The queue is full.", Retry_After="60")
    choose(page)
    restore(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    assert len(refused) == 1


def test_a_server_that_is_gone(page):
    page.watch.gone = True
    choose(page)
    for address in ("**/v1/restore", "**/healthz"):
        page.route(address, lambda route: route.abort("connectionrefused"))
    restore(page)
    expect(page.locator("#form-message")).to_contain_text("The server cannot be reached.")
    page.unroute("**/v1/restore")
    restore(page)
    done(page)


def test_a_connection_that_breaks_off(page):
    page.watch.gone = True
    choose(page)
    page.route("**/v1/restore", lambda route: route.abort("connectionreset"))
    restore(page)
    expect(page.locator("#form-message")).to_contain_text("The connection was interrupted.")


def test_a_server_that_is_not_there_when_the_page_comes(page):
    page.watch.gone = True
    page.route("**/v1/models", lambda route: route.abort("connectionrefused"))
    page.reload()
    expect(page.locator("#tasks")).to_contain_text("The server cannot be reached.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()


def test_who_presses_restore_before_the_server_has_said_what_it_can_do_need_not_press_again(page):
    held = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    page.get_by_label("Choose a photograph").set_input_files([upload()])
    restore(page)
    page.wait_for_timeout(300)
    expect(page.locator("#form-message")).to_have_text("")
    held[0].continue_()
    done(page)


def test_the_token_is_asked_for_and_forgotten_with_the_tab(opened, service):
    page = opened(token=None)
    page.watch.statuses.add(401)
    dialog = page.get_by_role("dialog", name="This server requires a token")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#tasks")).to_contain_text("This server requires a token.")
    page.get_by_role("button", name="Try again").click()
    expect(dialog.get_by_label("Token")).to_be_focused()  # only then: keys typed before it are lost
    page.keyboard.type("wrong-token")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("That token was not accepted.")
    expect(dialog.get_by_label("Token")).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    choose(page)
    restore(page)
    done(page)
    page.reload()  # the tab still knows it
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    assert TOKEN not in page.content()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    other = page.context.new_page()
    other.goto(service.url)
    expect(other.get_by_role("dialog")).to_be_visible()


def test_the_token_where_storage_is_forbidden(opened):
    page = opened(token=None, script=FORBIDDEN)
    page.watch.statuses.add(401)
    page.get_by_role("dialog").get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()


def test_a_token_that_is_asked_for_only_when_restoring(page):
    page.watch.statuses.add(401)
    choose(page)
    refuse(page, 401, "The token is missing or wrong.", times=1)
    restore(page)
    page.get_by_role("dialog").get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    done(page)


def test_what_certainly_is_no_photograph_is_not_sent(page):
    for file, words in [
        (upload("a.png", b""), "a.png is empty."),
        (upload("photo.jpg", b"%PDF-1.7 and so on"), "photo.jpg is not a photograph: it is a PDF."),
        (upload("v.mp4", b"\0\0\0\x18ftypmp42" + bytes(50)), "v.mp4 is not a photograph: it is a video."),
    ]:
        choose(page, file)
        expect(page.locator("#stage").get_by_role("alert")).to_have_text(words)
    restore(page)
    expect(page.locator("#form-message")).to_have_text("Choose a photograph first.")
    expect(page.get_by_label("Choose a photograph")).to_be_focused()
    assert not any(url.endswith("/v1/restore") for url in page.watch.requests)


def test_a_file_that_changes_after_it_was_chosen(page, tmp_path):
    page.watch.gone = True
    path = tmp_path / "photo.png"
    path.write_bytes(PHOTO)
    page.get_by_label("Choose a photograph").set_input_files(path)
    expect(page.locator("#viewer")).to_be_visible()
    path.unlink()
    restore(page)
    expect(page.locator("#form-message")).to_have_text("The file cannot be read any more. Choose it again.")


# ---------------------------------------------------------------- before and after


def test_the_line_moves_by_keyboard(page):
    compared(page)
    line = slider(page)
    expect(line).to_have_attribute("aria-valuenow", "50")
    line.focus()
    for key, now, words in [
        ("ArrowLeft", 48, "48% before, 52% after"),
        ("ArrowRight", 50, "50% before, 50% after"),
        ("Shift+ArrowRight", 60, "60% before, 40% after"),
        ("PageDown", 50, "50% before, 50% after"),
        ("Home", 0, "only after"),
        ("ArrowLeft", 0, "only after"),
        ("End", 100, "only before"),
    ]:
        page.keyboard.press(key)
        expect(line).to_have_attribute("aria-valuenow", str(now))
        expect(line).to_have_attribute("aria-valuetext", words)


def test_the_line_moves_by_mouse_and_shows_what_it_says(page):
    """The left of it is the photograph, the right its result."""
    compared(page, encoded(Image.new("RGB", (96, 64), "red")), encoded(Image.new("RGB", (96, 64), "blue")))
    box = page.locator(".before img").bounding_box()
    line = slider(page).bounding_box()
    middle = box["y"] + box["height"] * 0.8
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + line["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=3)
    page.mouse.up()
    expect(slider(page)).to_have_attribute("aria-valuenow", "25")
    row = seen(page, clip={"x": box["x"], "y": middle, "width": box["width"], "height": 1})[0]
    red, blue = (np.flatnonzero((row == colour).all(1)) for colour in ([255, 0, 0], [0, 0, 255]))
    assert abs(red.max() / len(row) - 0.25) < 0.03
    assert red.max() < blue.min() < red.max() + 12  # the line and its shadow are between
    # Where nothing can be panned, it follows the pointer from anywhere.
    page.mouse.move(box["x"] + box["width"] * 0.9, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=3)
    page.mouse.up()
    expect(slider(page)).to_have_attribute("aria-valuenow", "70")


def boxes(page):
    return [page.locator(f".{half} img:not(.under)").bounding_box() for half in ("before", "after")]


def test_zooming_and_panning_keep_both_aligned(page):
    compared(page, encoded(picture(1500, 900)))
    viewer = page.locator("#viewer").bounding_box()
    centre = viewer["x"] + viewer["width"] / 2, viewer["y"] + viewer["height"] / 2
    level = page.locator("#zoom-level")
    widths = []

    def check():
        before, after = boxes(page)
        assert before == after
        widths.append(before["width"])

    check()
    assert widths[0] <= viewer["width"] + 0.5  # the whole photograph
    page.get_by_role("button", name="Zoom in").click()
    check()
    page.mouse.move(*centre)
    page.mouse.wheel(0, -700)
    expect(level).not_to_have_text("67%")
    check()
    page.mouse.down()
    page.mouse.move(centre[0] - 200, centre[1] - 100, steps=4)
    page.mouse.up()
    moved = boxes(page)[0]
    check()
    page.locator("#viewer").focus()
    page.keyboard.press("ArrowRight")
    assert boxes(page)[0]["x"] < moved["x"]
    check()
    page.keyboard.press("1")
    expect(level).to_have_text("100%")
    check()
    assert widths[-1] == 1500
    page.keyboard.press("+")
    page.keyboard.press("-")
    expect(level).to_have_text("100%")
    page.mouse.dblclick(*centre)
    check()
    assert widths[-1] == widths[0]
    page.mouse.dblclick(*centre)
    expect(level).to_have_text("100%")
    page.set_viewport_size({"width": 900, "height": 700})
    check()
    page.keyboard.press("0")
    check()
    for _ in range(20):
        page.get_by_role("button", name="Zoom in").click()
    expect(level).to_have_text("800%")
    check()
    for _ in range(20):
        page.get_by_role("button", name="Zoom out").click()
    viewer = page.locator("#viewer").bounding_box()
    assert boxes(page)[0]["width"] <= viewer["width"] + 0.5
    check()
    assert len(set(widths)) >= 5


def test_zooming_at_the_pointer_keeps_what_is_under_it(page):
    compared(page, encoded(picture(1500, 900)))
    viewer = page.locator("#viewer").bounding_box()
    x, y = viewer["x"] + viewer["width"] * 0.3, viewer["y"] + viewer["height"] * 0.6
    page.locator("#viewer").focus()
    page.keyboard.press("1")

    def under():
        box = boxes(page)[0]
        return (x - box["x"]) / box["width"], (y - box["y"]) / box["height"]

    before = under()
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    expect(page.locator("#zoom-level")).not_to_have_text("100%")
    assert under() == pytest.approx(before, abs=1e-3)


def test_small_photographs_are_enlarged_but_can_be_seen_at_their_size(page):
    compared(page)
    level = page.locator("#zoom-level")
    expect(level).to_have_text("200%")
    level.click()
    expect(level).to_have_text("100%")
    assert boxes(page)[0]["width"] == boxes(page)[1]["width"] == 96
    expect(level).to_have_accessible_name("Zoom 100%: show the whole picture")
    level.click()
    expect(level).to_have_text("200%")


@pytest.mark.parametrize("density", [1, 2])
def test_at_100_percent_the_screen_shows_the_files_pixels(opened, density):
    page = opened(device_scale_factor=density)
    images = [picture(1800, 1100), picture(1800, 1100).rotate(180)]
    compared(page, *map(encoded, images))
    page.locator("#viewer").focus()
    page.keyboard.press("1")
    expect(page.locator("#zoom-level")).to_have_text("100%")
    viewer, photograph = page.locator("#viewer").bounding_box(), boxes(page)[0]
    clip = {"x": viewer["x"] + 100, "y": viewer["y"] + 100, "width": 300, "height": 200}
    left, top = (round((clip[axis] - photograph[axis]) * density) for axis in "xy")
    slider(page).focus()
    for key, image in zip(("End", "Home"), images, strict=True):
        page.keyboard.press(key)
        expected = np.asarray(image, int)[top : top + 200 * density, left : left + 300 * density]
        assert np.array_equal(seen(page, clip=clip), expected)


@pytest.mark.slow
def test_rotated_photographs_lie_upright_over_each_other(page):
    corners = Image.new("RGB", (640, 320))
    for place, colour in enumerate(["red", "lime", "blue", "yellow"]):
        corners.paste(
            colour, (place % 2 * 320, place // 2 * 160, place % 2 * 320 + 320, place // 2 * 160 + 160)
        )
    for orientation in (2, 3, 5, 6):  # mirrored, upside down, both axes swapped, turned
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encoded(corners, "jpeg", exif=exif, quality=95, subsampling=0)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
        compared(page, stored, encoded(upright), "photo.jpg", "image/jpeg")
        assert boxes(page)[0] == boxes(page)[1]
        box = boxes(page)[0]
        middle = {"x": box["x"] + box["width"] / 4, "y": box["y"] + box["height"] / 4}
        middle |= {"width": box["width"] / 2, "height": box["height"] / 2}  # no labels, no line
        views = []
        slider(page).focus()
        for end in ("Home", "End"):
            page.keyboard.press(end)
            views.append(seen(page, clip=middle))
        # Two decoders and two ways to scale; one pixel beside, edges would differ by 100 and more.
        assert np.abs(views[0] - views[1]).max() < 50, orientation
        assert views[0].std() > 50
        page.unroute("**/v1/restore")
        page.get_by_role("button", name="Restore another photograph").click()


def test_the_service_gives_rotated_photographs_back_upright(real_page):
    page = real_page
    exif = Image.Exif()
    exif[0x0112] = 6
    choose(page, upload("phone.jpg", encoded(picture(), "jpeg", exif=exif), "image/jpeg"))
    expect(page.locator("#size")).to_contain_text("64 × 96")
    restore(page)
    done(page)
    expect(slider(page)).to_be_visible()
    assert boxes(page)[0] == boxes(page)[1]


def test_an_original_of_another_size_is_not_compared(page):
    compared(page, after=encoded(picture(50, 50)))
    expect(page.locator("#notes")).to_contain_text("in another size or orientation: only the result is shown")
    expect(slider(page)).to_be_hidden()
    expect(page.locator(".after img:not(.under)")).to_be_visible()


def test_an_original_that_the_browser_cannot_show(page):
    choose(page, upload("scan.tif", encoded(picture(), "tiff"), "image/tiff"))
    expect(page.locator("#unseeable")).to_contain_text("This browser cannot show this TIFF file.")
    answer(page)
    restore(page)
    done(page)
    expect(page.locator("#notes")).to_contain_text(
        "cannot show the original, this TIFF file: only the result is shown"
    )
    expect(slider(page)).to_be_hidden()
    expect(page.locator(".after img:not(.under)")).to_be_visible()
    page.get_by_role("button", name="Try another task").click()
    expect(page.locator("#unseeable")).to_contain_text("This browser cannot show this TIFF file.")


def test_a_result_that_the_browser_cannot_show(page):
    answer(page, encoded(picture(), "tiff"), "image/tiff", "photo-denoise.tif")
    choose(page)
    restore(page)
    done(page)
    expect(page.locator("#unseeable")).to_contain_text(
        "This browser cannot show the result, but you can download it."
    )
    name, data = downloaded(page)
    assert name.startswith("photo-denoise.tif")
    assert Image.open(io.BytesIO(data)).size == (96, 64)


def test_notes_and_names_are_shown_as_text(page):
    answer(page, name="a b<i>c.png", notes="first of 3 frames; CMYK <b>converted</b>", seconds="83.4")
    choose(page)
    restore(page)
    done(page)
    expect(page.get_by_role("heading", name="Restored in 83 s")).to_be_visible()
    assert page.get_by_role("listitem").all_inner_texts() == ["first of 3 frames", "CMYK <b>converted</b>"]
    expect(page.locator("#result-name")).to_have_text("a b<i>c.png")


def test_file_names_from_headers(page):
    for header, name in [
        ('attachment; filename="photo-denoise.png"', "photo-denoise.png"),
        (r'attachment; filename="a \"b\".png"', 'a "b".png'),
        ("attachment; filename=plain.png", "plain.png"),
        ("attachment; filename=\"x.png\"; filename*=UTF-8''gr%C3%BC%C3%9Fe.png", "grüße.png"),
        ("attachment; filename=\"x.png\"; filename*=UTF-8''%FF.png", "x.png"),
        ("inline", None),
        (None, None),
    ]:
        read = page.evaluate("async (header) => (await import('/static/api.js')).fileName(header)", header)
        assert read == name


# ---------------------------------------------------------------- phones, screen readers, memory, privacy


def test_on_a_phone_fingers_move_the_line_zoom_and_pan(opened):
    page = opened(**PHONE)
    compared(page, encoded(picture(900, 700)))
    session = page.context.new_cdp_session(page)

    def touch(*steps):
        """The fingers' places, step after step; then they are lifted."""
        for number, points in enumerate([*steps, []]):
            kind = "touchMove" if points and number else "touchStart" if points else "touchEnd"
            places = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    line = slider(page).bounding_box()
    x, y = line["x"] + line["width"] / 2, line["y"] + line["height"] * 0.8
    touch([(x, y)], [(x + 40, y)], [(x + 90, y)])
    expect(slider(page)).to_have_attribute("aria-valuenow", "75")
    before = boxes(page)[0]
    touch([(150, y), (210, y)], [(120, y), (240, y)], [(90, y), (270, y)])
    after = boxes(page)
    assert after[0] == after[1]
    assert after[0]["width"] == pytest.approx(3 * before["width"], rel=0.1)
    touch([(150, y)], [(100, y)], [(50, y)])
    assert boxes(page)[0]["x"] == pytest.approx(after[0]["x"] - 100, abs=12)


@pytest.mark.slow
@pytest.mark.parametrize("options", [PHONE, WIDE], ids=["phone", "wide"])
def test_nothing_overflows_or_jumps(opened, service, options):
    """In each state: no sideways scrolling, and the photograph's place stays where it is."""
    page = opened(**options)
    places = []

    def check():
        width = options["viewport"]["width"]  # not innerWidth, which grows with what overflows on phones
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        outside = page.locator("body :not(#viewer *)").evaluate_all(
            "(all, most) => all.filter(e => e.getBoundingClientRect().right > most).map(e => e.outerHTML)",
            width + 0.5,
        )
        assert outside == []
        places.append(page.locator("#stage").bounding_box())
        small = page.locator(
            "button:visible, label.button:visible, a.button:visible, select:visible"
        ).evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).filter(b => b.width < 40 || b.height < 40).length"
        )
        assert small == 0  # all are large enough for a finger

    places.append(page.locator("#stage").bounding_box())
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    check()
    long = "a_very_long_name_" * 8 + ".png"
    choose(page, upload(long))
    check()
    tell(page, fraction=0.3, seconds_left=12)
    with paused(service):
        restore(page)
        expect(page.get_by_text("about 12 s left", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Cancel")).to_be_in_viewport()
        check()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Restore", exact=True)).to_be_visible()
    refuse(page, 422, "The file is damaged " + "x" * 200 + ".")
    restore(page)
    expect(page.locator("#form-message")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Restore", exact=True)).to_be_in_viewport()
    check()
    page.unroute("**/v1/restore")
    answer(page, name=long, notes="first of 3 frames; " + "note" * 40)
    restore(page)
    done(page)
    page.evaluate("scrollTo(0, 0)")
    check()
    assert all(place == places[0] for place in places)


def test_a_task_with_several_models_offers_all(page):
    """Best, fast or thorough; the choice goes with the photograph."""
    box = {
        "name": "derain-box",
        "tasks": ["derain"],
        "origin": "box",
        "default": True,
        "limits": "Of the box.",
    }
    fast = {"name": "derain-fast", "tasks": ["derain"], "origin": "box", "default": False}
    theirs = {
        "name": "derain-rain13k",
        "tasks": ["derain"],
        "origin": "authors",
        "data": "Rain13k",
        "stages": 2,
    }
    alone = {"name": "denoise-box", "tasks": ["denoise"], "origin": "box", "default": True}
    page.route("**/v1/models", lambda route: route.fulfill(json=[theirs, fast, box, alone]))
    page.reload()
    how = page.get_by_label("Model", exact=True)
    expect(page.locator("[value=auto]")).to_be_checked()
    choose(page)
    expect(how).to_be_hidden()
    page.locator("[value=derain]").check()
    expect(how).to_have_value("derain-box")
    right = "it => it.getBoundingClientRect().right"
    assert how.evaluate(right) <= page.locator("#form").evaluate(right), (
        "a long option makes the form too wide"
    )
    expect(how.locator("option")).to_have_text(
        [
            "Best, for all kinds",
            "Thorough, for photographs like Rain13k (2 times as slow)",
            "Fast, for all kinds: a fifth of the time",
        ]
    )
    expect(page.locator("#limits")).to_have_text("Limits: Of the box.")
    how.select_option("derain-rain13k")
    expect(page.locator("#limits")).to_have_text("")
    sent = []
    page.route(
        "**/v1/restore", lambda route: (sent.append(route.request.post_data_buffer), route.continue_())
    )
    page.watch.statuses.add(422)
    restore(page)
    expect(page.locator("#form-message")).to_contain_text("derain-rain13k")
    assert b'name="model"\r\n\r\nderain-rain13k' in sent[0]


def test_tasks_come_and_change_without_a_jump(page):
    """What stands below the tasks stays where it is when they come."""
    waiting = []
    page.route("**/v1/models", lambda route: waiting.append(route))
    page.reload()
    expect(page.locator("#tasks")).to_contain_text("Loading the tasks")
    before = page.get_by_label("Save as").bounding_box()
    page.wait_for_timeout(100)
    waiting[0].continue_()
    for model in catalogue.MODELS:
        page.locator(f"[value={model.task}]").check()
        if model.fast:
            page.get_by_label("Model", exact=True).select_option(model.name)
        assert model.limits
        expect(page.locator("#limits")).to_have_text(f"Limits: {model.limits}")
        assert page.get_by_label("Save as").bounding_box()["y"] == pytest.approx(before["y"], abs=4)


def test_everything_has_a_name_for_screen_readers(page, service):
    expect(page.get_by_role("group", name="What is wrong with it?")).to_be_visible()
    noise = page.get_by_role("radio", name="Noise")
    expect(noise).to_have_accessible_description(re.compile("Grainy"))
    assert nameless(page) == []
    tell(page, fraction=0.3)
    choose(page)
    expect(page.locator("#status")).to_contain_text("photo.png, 96 × 64")
    assert nameless(page) == []
    with paused(service):
        restore(page)
        expect(page.get_by_role("progressbar", name="Restoring, 30%")).to_be_visible()
        assert nameless(page) == []
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Restore", exact=True)).to_be_visible()
    answer(page)
    restore(page)
    done(page)
    expect(page.locator("#status")).to_contain_text("Restored in 1 s")
    expect(page.get_by_role("group", name="Before and after")).to_have_accessible_description(
        re.compile("Plus and minus")
    )
    expect(page.get_by_role("button", name=re.compile(r"Zoom \d+%: show actual pixels"))).to_be_visible()
    assert nameless(page) == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_a_phone_stays_awake_meanwhile(page):
    """Where it can; asleep, it would let go of the connection."""
    page.evaluate(
        "navigator.wakeLock.request = async (what) => { window.lock = [what, false];"
        " return { release: () => (lock[1] = true) }; }"
    )
    requests = []
    page.route("**/v1/restore", lambda route: requests.append(route))
    choose(page)
    restore(page)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.wait_for_function("() => window.lock")
    assert page.evaluate("lock") == ["screen", False]
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function("() => lock[1]")


def test_photographs_are_let_go(page):
    answer(page)
    for _ in range(3):
        choose(page)
        assert page.evaluate("urls.size") == 1
        restore(page)
        done(page)
        assert page.evaluate("urls.size") == 2
        page.get_by_role("button", name="Try another task").click()
        assert page.evaluate("urls.size") == 1
        restore(page)
        done(page)
        page.get_by_role("button", name="Continue with this result").click()
        expect(page.locator("#name")).to_have_text("photo-denoise.png")
        assert page.evaluate("urls.size") == 1
        restore(page)
        done(page)
        page.get_by_role("button", name="Restore another photograph").click()
        assert page.evaluate("[urls.size, document.images.length]") == [0, 1]  # the icon


@pytest.mark.slow
def test_nothing_is_stored(page):
    expect(page.get_by_text("Sent to this server only, and not kept.")).to_be_visible()
    compared(page)
    kept = page.evaluate(
        "(async () => [Object.keys(sessionStorage), localStorage.length, document.cookie,"
        " (await indexedDB.databases()).length, (await caches.keys()).length])()"
    )
    assert kept == [["maximir-token"], 0, "", 0, 0]


def test_the_policy_forbids_what_the_page_does_not_need(page):
    """And what violates it would be noticed by all these tests."""
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://localhost:9/x.png\">')")
    page.wait_for_timeout(100)
    violations = [text for text in page.watch.complaints if "Content Security Policy" in text]
    assert len(violations) == 2
    page.watch.complaints.clear()
    page.watch.requests.clear()


def test_motion_only_where_it_is_welcome(page):
    page.route("**/v1/restore", lambda route: None)
    choose(page)
    restore(page)
    for motion, animated in (("reduce", False), ("no-preference", True)):
        page.emulate_media(reduced_motion=motion)
        bar = page.get_by_role("progressbar")
        assert (bar.evaluate("bar => getComputedStyle(bar).animationName") != "none") == animated
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")


# ---------------------------------------------------------------- the files themselves, without a browser


def test_the_page_needs_nothing_that_the_policy_forbids():
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", html) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    for path in PARTS:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"https?:|(?<![:/])//[a-z]|@import|@font-face|innerHTML|\beval\(", text) == [], (
            path.name
        )


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_to_read(scheme):
    """WCAG 2.2 AA: 4.5 : 1 for text, 3 : 1 for edges of what is operated."""
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(), re.DOTALL)
    colours = {}
    for block in (light, dark)[: 1 if scheme == "light" else 2]:
        for name, value in re.findall(r"--([\w-]+): (#\w+);", block):
            colours[name] = value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:])

    def ratio(one, other):
        low, high = sorted([luminance(colours[one]), luminance(colours[other])])
        return (high + 0.05) / (low + 0.05)

    for text, ground in [
        *[(text, ground) for text in ("text", "soft") for ground in ("ground", "stage", "card", "tint")],
        ("on-accent", "accent"),
        ("wrong", "wrong-tint"),
    ]:
        assert ratio(text, ground) >= 4.5, (text, ground)
    for edge, ground in [
        ("field", "ground"),
        ("field", "card"),
        ("field", "stage"),
        ("accent", "ground"),
        ("accent", "tint"),
    ]:
        assert ratio(edge, ground) >= 3, (edge, ground)


# ---------------------------------------------------------------- strength, fine texture and painting


INVERTED = encoded(Image.fromarray(255 - np.asarray(picture())))


def sent(page, data=INVERTED):
    """Restore with this result; return the requests, which are filled as the page sends them."""
    requests = []

    def reply(route):
        requests.append(route.request.post_data_buffer)
        headers = {"Content-Type": "image/png", "Content-Disposition": 'attachment; filename="a.png"'}
        route.fulfill(status=200, headers=headers, body=data)

    page.route("**/v1/restore", reply)
    choose(page)
    restore(page)
    done(page)
    return requests


def colour_at(page, x, y):
    """The colour at a point of the photograph, whose sides are 1."""
    box = page.locator(".top img").bounding_box()
    clip = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "width": 2, "height": 2}
    return seen(page, clip=clip).mean(axis=(0, 1))


def test_strength_shows_at_once_and_the_download_has_it(page):
    requests = sent(page)
    slider = page.get_by_role("slider", name="Strength")
    expect(slider).to_have_attribute("aria-valuetext", "100%")
    after = colour_at(page, 0.7, 0.5)
    slider.press("Home")
    before = colour_at(page, 0.7, 0.5)
    for _ in range(5):
        slider.press("PageUp")
    expect(page.get_by_label("Strength")).to_have_value("50")
    assert np.abs(colour_at(page, 0.7, 0.5) - (before + after) / 2).max() < 3 < np.abs(before - after).max()
    assert len(requests) == 1, "the server is not asked before the download"
    downloaded(page)
    downloaded(page)
    assert len(requests) == 2, "once for the same settings"
    assert of_form(requests[1], "strength") == b"0.5" and of_form(requests[1], "detail") == b"0"
    assert of_form(requests[1], "restored") == INVERTED and of_form(requests[1], "image") == PHOTO
    assert b'name="mask"' not in requests[1]
    slider.press("End")
    assert downloaded(page)[1] == INVERTED and len(requests) == 2


def test_fine_texture_shows(page):
    fine = np.full((384, 576, 3), 100, np.uint8)  # larger than the handle of the border
    fine[:, ::4] = fine[:, 1::4] = 140
    smooth = encoded(Image.fromarray(np.full((384, 576, 3), 120, np.uint8)))
    page.route(
        "**/v1/restore", lambda route: route.fulfill(status=200, body=smooth, content_type="image/png")
    )
    choose(page, upload(data=encoded(Image.fromarray(fine))))
    restore(page)
    done(page)
    box = page.locator(".top img").bounding_box()
    clip = {
        "x": box["x"] + 0.75 * box["width"],
        "y": box["y"] + 0.25 * box["height"],
        "width": 40,
        "height": 20,
    }
    assert np.ptp(seen(page, clip=clip)) <= 2
    page.get_by_role("slider", name="Fine texture").press("End")
    assert np.ptp(seen(page, clip=clip)) > 25


def test_painting_by_keyboard(page):
    requests = sent(page)
    page.get_by_role("button", name="Paint where to restore").press("Enter")
    expect(page.locator("#viewer")).to_be_focused()
    expect(page.locator("#viewer")).to_have_attribute("aria-describedby", "brush-keys")
    after, elsewhere = colour_at(page, 0.56, 0.5), colour_at(page, 0.9, 0.2)
    for key in ("ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    expect(page.get_by_role("status")).to_have_text("Painted at 56% from the left, 50% from the top")
    expect(page.locator(".top")).to_have_attribute("style", re.compile("blob:"))
    assert np.abs(colour_at(page, 0.56, 0.5) - after).max() < 12
    assert np.abs(colour_at(page, 0.9, 0.2) - elsewhere).max() > 50, "the original again"
    downloaded(page)
    mask = np.asarray(Image.open(io.BytesIO(of_form(requests[1], "mask"))).convert("L"))
    assert mask.shape == (64, 96) and mask[32, 54] > 250 and mask[5, 5] == 0
    page.get_by_role("button", name="Erase").press("Enter")
    page.get_by_role("button", name="Clear").press("Enter")
    assert downloaded(page)[1] == INVERTED and len(requests) == 2
    page.get_by_role("button", name="Try another task").click()
    expect(page.locator(".brush")).to_have_count(0)
    assert page.evaluate("urls.size") == 1


def test_nothing_is_painted_while_the_file_is_being_made(page):
    """It would be shown, but missing in the file and in every later one."""
    requests = sent(page)
    page.get_by_role("button", name="Paint where to restore").press("Enter")
    page.keyboard.press("Space")
    held = []
    page.route("**/v1/restore", lambda route: held.append(route), times=1)
    page.get_by_role("link", name="Download").click()
    expect(page.get_by_role("heading", name="Sending")).to_be_visible()
    unpainted = colour_at(page, 0.7, 0.5)
    page.locator("#viewer").focus()
    for key in 7 * ["ArrowRight"] + ["Space"]:
        page.keyboard.press(key)
    with page.expect_download():
        held[0].fallback()
    done(page)
    page.wait_for_timeout(300)
    assert np.abs(colour_at(page, 0.7, 0.5) - unpainted).max() < 12
    page.locator("#viewer").press("Space")
    downloaded(page)
    masks = [Image.open(io.BytesIO(of_form(each, "mask"))).convert("L") for each in requests[1:]]
    assert [mask.getpixel((67, 32)) > 250 for mask in masks] == [False, True]


def test_a_lossy_result_is_computed_again(page):
    """Its blend with the original would not be that of `--strength`."""
    requests = []

    def reply(route):
        requests.append(route.request.post_data_buffer)
        route.fulfill(status=200, body=encoded(picture(), "jpeg"), content_type="image/jpeg")

    page.route("**/v1/restore", reply)
    choose(page)
    restore(page)
    done(page)
    page.get_by_role("slider", name="Strength").press("PageDown")
    downloaded(page)
    assert b'name="restored"' not in requests[1] and of_form(requests[1], "strength") == b"0.9"


def test_a_preset_takes_the_place_of_a_task_and_moves_the_sliders(page):
    """Strength and detail of the preset are the sliders' first places; what is asked is the whole result."""
    sent = []
    answer(page)
    page.on("request", lambda asked: sent.append(asked) if asked.url.endswith("/v1/restore") else None)
    choose(page)
    page.get_by_label("Or a preset").select_option(label="Phone at night")
    expect(page.locator("[name=task]:checked")).to_have_count(0)
    restore(page)
    done(page)
    asked = sent[0].post_data_buffer
    assert b'name="task"\r\n\r\ndenoise,enhance\r\n' in asked
    assert b'name="model"' not in asked and b'name="strength"' not in asked
    expect(page.get_by_label("Strength")).to_have_value("90")
    expect(page.get_by_label("Fine texture")).to_have_value("20")
    page.get_by_role("button", name="Try another task").click()
    page.get_by_role("radio", name="Haze").check()
    expect(page.get_by_label("Or a preset")).to_have_value("")
