"""Many photographs in the page: the list, its work, saving it, and keeping it over a reload.

The test of accessibility needs axe-core, which axe-playwright-python brings.
"""

import html.parser
import importlib.util
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maximir
from helpers.browsing import (
    PATIENCE,
    PHONE,
    PHOTO,
    WIDE,
    choose,
    done,
    drop,
    encoded,
    expect,
    nameless,
    of_form,
    paused,
    picture,
    refuse,
    restore,
    upload,
)

AXE = importlib.util.find_spec("axe_playwright_python")
WITHOUT_FOLDERS = "delete window.showDirectoryPicker;"  # as in Firefox and Safari
SOURCES = Path(maximir.__file__).parent


def photographs(count, size=(24, 16)):
    """Photographs that differ in their pixels."""
    images = (np.roll(np.asarray(picture(*size)), n, axis=1) for n in range(count))
    return [upload(f"p{n:02}.png", encoded(Image.fromarray(image))) for n, image in enumerate(images)]


def add(page, count=3):
    files = photographs(count)
    page.get_by_label("Choose a photograph").set_input_files(files)
    expect(page.locator("#strip li")).to_have_count(count)
    return files


def restore_all(page):
    page.get_by_role("button", name="Restore all").click()


def all_done(page, count):
    expect(page.locator("#queue-told")).to_have_text(re.compile(f"^{count} of {count} restored"))


def asked(page):
    """The bodies of the requests to restore, which are filled as the page sends them."""
    bodies = []
    page.route(
        "**/v1/restore", lambda route: (bodies.append(route.request.post_data_buffer), route.fallback())
    )
    return bodies


def told(page):
    """The list as a screen reader tells it."""
    return [option.get_attribute("aria-label") for option in page.locator("#strip li").all()]


def zipped(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save all").click()
    assert download.value.suggested_filename == "restored.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def until(page, question):
    """Wait until an asynchronous function returns true (Playwright takes any promise for true)."""
    for _ in range(PATIENCE // 100):
        if page.evaluate(question):
            return
        page.wait_for_timeout(100)
    raise AssertionError(question)


def until_kept(page, condition, store="facts"):
    """Wait until the store keeps something that meets the condition, a function in JavaScript."""
    until(
        page,
        f"""async () => {{
            if (!(await indexedDB.databases()).length) return false; // opening it would make it
            const answer = (asked) => new Promise((done) => (asked.onsuccess = () => done(asked.result)));
            const database = await answer(indexedDB.open("maximir"));
            const kept = await answer(database.transaction("{store}").objectStore("{store}").getAll());
            database.close();
            return kept.some({condition});
        }}""",
    )


def databases(page):
    return page.evaluate("async () => (await indexedDB.databases()).map(({ name }) => name)")


# ---------------------------------------------------------------- the whole way


def test_twenty_are_restored_looked_through_and_saved(opened):
    page = opened(script=WITHOUT_FOLDERS)
    files = add(page, 20)
    expect(page.locator("#strip canvas")).to_have_count(20)
    restore_all(page)
    all_done(page, 20)
    strip = page.get_by_role("listbox", name="Photographs")
    strip.focus()
    for number in (1, 2):
        page.keyboard.press("ArrowRight")
        expect(page.locator("#name")).to_have_text(files[number]["name"])
        expect(page.get_by_role("slider", name="Border between before and after")).to_be_visible()
        expect(strip).to_be_focused()
    assert page.evaluate("urls.size") == 2  # of the open one alone
    page.keyboard.press("Space")
    assert told(page)[1:4] == ["p01.png: restored", "p02.png: restored, left out", "p03.png: restored"]
    page.keyboard.press("End")
    expect(page.locator("#name")).to_have_text("p19.png")
    page.locator("body").press("ArrowLeft")  # also without the list's focus
    expect(page.locator("#name")).to_have_text("p18.png")
    page.get_by_role("button", name="Leave this result out").click()
    expect(page.locator("#queue-told")).to_have_text("20 of 20 restored, 2 left out")
    page.get_by_role("button", name="Leave this result out").click()
    saved = zipped(page)
    assert saved == {
        file["name"].replace(".", "-auto."): file["buffer"] for n, file in enumerate(files) if n != 2
    }


# A folder of the File System Access API, with a file in it.
FOLDER = """
window.chosen = { "p00-auto.png": "mine" };
window.refused = {}; // names, and the errors that they raise
window.full = []; // names that cannot be written
const folder = (path) => ({
    name: "results",
    getDirectoryHandle: async (name) => folder(`${path}${name}/`),
    getFileHandle: async (name, { create } = {}) => {
        if (name in refused) throw new DOMException(refused[name], refused[name]);
        if (!create && !(path + name in chosen)) throw new DOMException("", "NotFoundError");
        chosen[path + name] ??= [];
        const parts = [];
        const write = (part) => {
            if (full.includes(name)) throw new DOMException("QuotaExceededError", "QuotaExceededError");
            parts.push(part);
        };
        const close = async () => {
            chosen[path + name] = [...new Uint8Array(await new Blob(parts).arrayBuffer())];
        };
        return { createWritable: async () => new WritableStream({ write, close }) };
    },
    removeEntry: async (name) => delete chosen[path + name],
});
window.showDirectoryPicker = async () => folder("");
"""


def test_results_are_written_into_a_folder_where_the_browser_can(opened, tmp_path):
    page = opened(script=FOLDER)
    files = add(page, 2)
    (tmp_path / "trip").mkdir()
    (tmp_path / "trip" / "a.png").write_bytes(PHOTO)
    page.get_by_label("Choose a folder").set_input_files(tmp_path / "trip")
    expect(page.locator("#strip li")).to_have_count(3)
    restore_all(page)
    all_done(page, 3)
    page.get_by_role("button", name="Save all").click()
    expect(page.get_by_role("status")).to_have_text("3 photographs saved in results.")
    written = page.evaluate("chosen")
    assert written.pop("p00-auto.png") == "mine"
    assert {name: bytes(data) for name, data in written.items()} == {
        "p00-auto (2).png": files[0]["buffer"],
        "p01-auto.png": files[1]["buffer"],
        "trip/a-auto.png": PHOTO,
    }
    page.evaluate(
        "() => { window.showDirectoryPicker = () => { throw new DOMException('', 'AbortError'); }; }"
    )
    page.get_by_role("button", name="Save all").click()  # the user closes the dialog
    expect(page.locator("#queue-message")).to_be_empty()
    assert len(page.evaluate("Object.keys(chosen)")) == 4


def test_what_a_folder_refuses_is_named_and_leaves_nothing(opened):
    page = opened(script=FOLDER)
    add(page, 3)
    restore_all(page)
    all_done(page, 3)
    page.evaluate("""() => Object.assign(window, {
        refused: { "p00-auto.png": "NotAllowedError", "p01-auto.png": "TypeMismatchError" },
        full: ["p02-auto.png"],
    })""")
    page.get_by_role("button", name="Save all").click()
    expect(page.locator("#queue-message")).to_have_text(
        "Not saved: p00.png: NotAllowedError p02.png: QuotaExceededError"
    )
    expect(page.get_by_role("status")).to_have_text("1 photograph saved in results.")
    assert list(page.evaluate("chosen")) == ["p00-auto.png", "p01-auto (2).png"]


def test_a_folder_is_added_with_its_folders_but_not_what_is_no_photograph(opened, tmp_path):
    page = opened(script=WITHOUT_FOLDERS)
    (tmp_path / "holiday" / "day 1").mkdir(parents=True)
    (tmp_path / "holiday" / "a.png").write_bytes(PHOTO)
    (tmp_path / "holiday" / "day 1" / "a.png").write_bytes(PHOTO)
    (tmp_path / "holiday" / "notes.txt").write_text("notes")
    (tmp_path / "holiday" / "empty.png").write_bytes(b"")
    page.get_by_label("Choose a folder").set_input_files(tmp_path / "holiday")
    expect(page.locator("#stage-message")).to_have_text("2 files are not photographs: left out.")
    restore_all(page)
    all_done(page, 2)
    assert zipped(page) == {"holiday/a-auto.png": PHOTO, "holiday/day 1/a-auto.png": PHOTO}


DROPPED_FOLDER = """async () => {
    const { dropped } = await import("/static/files.js");
    const file = (path) => ({
        isFile: true, name: path.split("/").at(-1),
        file: (resolve) => resolve(new File(["x"], path.split("/").at(-1))),
    });
    const folder = (path, ...parts) => ({
        isDirectory: true, name: path.split("/").at(-1), fullPath: path,
        createReader: () => ({ readEntries: (resolve) => resolve(parts.splice(0, 2)) }), // comes in parts
    });
    const entry = folder("/trip", file("/trip/c.png"), folder("/trip/sub", file("/trip/sub/d.png")),
        file("/trip/b.png"), file("/trip/a.png"));
    const items = [
        { kind: "string", getAsFile: () => null },
        { kind: "file", webkitGetAsEntry: () => entry, getAsFile: () => null },
        { kind: "file", webkitGetAsEntry: () => null, getAsFile: () => new File(["x"], "alone.png") },
    ];
    const found = await dropped({ items });
    const none = await dropped({ items: [items[0]] });
    return [found.map(({ file, folder, within }) => [folder + file.name, within]), none];
}"""


def test_a_dropped_folder_is_walked_through(page):
    found, none = page.evaluate(DROPPED_FOLDER)
    assert found == [
        ["trip/a.png", True],
        ["trip/b.png", True],
        ["trip/c.png", True],
        ["trip/sub/d.png", True],
        ["alone.png", False],
    ]
    assert none is None


DROP = """(name) => {
    const failing = { readEntries: (resolve, reject) => reject(new DOMException("", "NotReadableError")) };
    const entry = { isDirectory: true, fullPath: "/closed", createReader: () => failing };
    const file = new File(["\\xff\\xd8\\xff"], name);
    const items = [
        { kind: "file", webkitGetAsEntry: () => entry, getAsFile: () => null },
        { kind: "file", webkitGetAsEntry: () => null, getAsFile: () => file },
    ];
    const dataTransfer = { items: name ? items : items.slice(0, 1) };
    dispatchEvent(Object.assign(new Event("drop", { cancelable: true }), { dataTransfer }));
}"""


def test_a_dropped_folder_that_cannot_be_read_is_named(page):
    page.evaluate(DROP, "")
    expect(page.locator("#stage-message")).to_have_text("closed cannot be read.")
    page.evaluate(DROP, "beside.jpg")
    expect(page.locator("#name")).to_have_text("beside.jpg")
    expect(page.locator("#stage-message")).to_have_text("closed cannot be read.")


# ---------------------------------------------------------------- one and all


def test_one_of_them_gets_another_task(page):
    bodies = asked(page)
    add(page, 3)
    page.get_by_role("radio", name="Haze").check()
    restore_all(page)
    all_done(page, 3)
    page.get_by_role("option", name="p01.png").click()
    page.get_by_role("button", name="Try another task").click()
    expect(page.get_by_role("checkbox", name="For all 3 photographs")).not_to_be_checked()
    page.get_by_role("radio", name="Rain").check()
    restore(page)
    all_done(page, 3)
    expect(page.locator("#result-name")).to_have_text("p01-derain.png")
    assert [of_form(body, "task") for body in bodies] == 3 * [b"dehaze"] + [b"derain"]
    page.get_by_role("button", name="Try another task").click()
    page.get_by_role("checkbox", name="For all").check()
    page.get_by_role("radio", name="Haze").check()
    restore_all(page)  # those that are restored in this way stay
    all_done(page, 3)
    assert len(bodies) == 5 and of_form(bodies[4], "task") == b"dehaze"


def test_strength_for_one_and_for_all(opened):
    """The saved file has the strength: the server blends it from the kept result."""
    page = opened(script=WITHOUT_FOLDERS)
    bodies = asked(page)
    files = add(page, 3)
    restore_all(page)
    all_done(page, 3)
    page.get_by_role("slider", name="Strength").press("PageDown")
    page.get_by_role("button", name="Use this strength for all").click()
    expect(page.get_by_role("status")).to_have_text("Used for 3 photographs")
    page.get_by_role("option", name="p02.png").click()
    expect(page.get_by_label("Strength")).to_have_value("90")
    page.get_by_role("slider", name="Strength").press("End")
    assert len(bodies) == 3
    assert len(zipped(page)) == 3
    assert [of_form(body, "strength") for body in bodies[3:]] == [b"0.9", b"0.9"]
    assert [of_form(body, "restored") for body in bodies[3:]] == [file["buffer"] for file in files[:2]]
    page.get_by_role("option", name="p00.png").click()
    expect(page.get_by_label("Strength")).to_have_value("90")
    zipped(page)
    assert len(bodies) == 5, "made once for the same settings"


def test_another_task_while_all_are_saved(opened):
    page = opened(script=WITHOUT_FOLDERS)
    add(page, 3)
    restore_all(page)
    all_done(page, 3)
    page.get_by_role("slider", name="Strength").press("PageDown")
    page.get_by_role("button", name="Use this strength for all").click()
    page.get_by_role("option", name="p02.png").click()
    expect(page.locator("#name")).to_have_text("p02.png")
    held = []
    page.route("**/v1/restore", lambda route: held.append(route), times=1)
    page.get_by_role("button", name="Save all").click()
    expect(page.get_by_role("option", name="p00.png: Sending")).to_be_visible()
    page.get_by_role("button", name="Try another task").click()
    with page.expect_download() as download:
        held[0].continue_()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["p00-auto.png", "p01-auto.png"]
    expect(page.get_by_role("status")).to_have_text("2 photographs saved in restored.zip.")
    expect(page.locator("#queue-message")).to_be_empty()


def test_a_download_that_fails_counts_as_unsaved(page):
    add(page, 2)
    restore_all(page)
    all_done(page, 2)
    page.get_by_role("slider", name="Strength").press("PageDown")
    refuse(page, 422, "The file is damaged.")
    page.get_by_role("link", name="Download").click()
    expect(page.locator("#done-message")).to_have_text("The file is damaged.")
    page.get_by_role("button", name="Clear", exact=True).first.click()
    expect(page.get_by_role("dialog")).to_contain_text("2 photographs are restored, but not saved.")


LATE = """() => {
    const decode = HTMLImageElement.prototype.decode;
    HTMLImageElement.prototype.decode = async function () {
        await new Promise((done) => setTimeout(done, 300));
        return decode.call(this);
    };
}"""


def test_a_double_click_shows_a_photograph_and_arrows_the_last_one(page):
    add(page, 3)
    expect(page.locator("#strip canvas")).to_have_count(3)
    page.evaluate(LATE)
    page.get_by_role("option", name="p01.png").dblclick()
    expect(page.locator("#name")).to_have_text("p01.png")
    expect(page.locator("#viewer")).to_be_visible(timeout=1)
    for key in ("ArrowRight", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#name")).to_have_text("p02.png")
    expect(page.locator("#viewer")).to_be_visible(timeout=1)
    restore_all(page)
    all_done(page, 3)
    page.get_by_role("option", name="p01.png").dblclick()
    expect(page.locator("#name")).to_have_text("p01.png")
    expect(page.get_by_role("slider", name="Border between before and after")).to_be_visible(timeout=1)
    page.wait_for_timeout(700)
    assert page.evaluate("urls.size") == 2  # of the open one alone


def test_more_can_be_added_removed_and_stopped(page, service):
    add(page, 2)
    with paused(service):
        restore_all(page)
        expect(page.get_by_role("option", name="p00.png: working")).not_to_be_visible()
        drop(page, upload("later.png"))
        expect(page.locator("#strip li")).to_have_count(3)
        expect(page.locator("#name")).to_have_text("later.png")
        page.get_by_role("button", name="Restore all").click()
        expect(page.get_by_role("heading", name="Waiting: 2 photographs of yours first")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#queue-told")).to_have_text("0 of 3 restored")
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.get_by_role("listbox").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#strip li")).to_have_count(2)
    expect(page.locator("#name")).to_have_text("p01.png")
    page.keyboard.press("Delete")
    expect(page.locator("#queue")).to_be_hidden()  # one is no list
    expect(page.locator("#name")).to_have_text("p00.png")
    restore(page)
    done(page)


def test_one_that_fails_does_not_stop_the_others(page):
    add(page, 3)
    refuse(page, 422, "The file is damaged.", times=1)
    restore_all(page)
    expect(page.locator("#queue-told")).to_have_text("2 of 3 restored, 1 failed")
    failed = next(name for name in told(page) if "failed" in name)
    assert failed.endswith("failed. The file is damaged.")
    page.get_by_role("option", name="failed").click()
    expect(page.locator("#form-message")).to_have_text("The file is damaged.")
    restore_all(page)
    all_done(page, 3)


def test_a_full_queue_is_waited_for_quietly(page):
    refused = refuse(page, 429, "The queue is full.", times=7, Retry_After="1")
    add(page, 3)
    restore_all(page)
    expect(page.get_by_role("heading", name="Waiting for a place at the server")).to_be_visible()
    all_done(page, 3)
    assert len(refused) == 7
    expect(page.locator("#queue-message")).to_be_empty()


def test_a_server_that_is_gone_stops_the_work(page):
    page.watch.gone = True
    tried = []
    for address in ("**/v1/restore", "**/healthz"):
        page.route(address, lambda route: (tried.append(1), route.abort("connectionrefused")))
    add(page, 5)
    restore_all(page)
    expect(page.locator("#form-message")).to_contain_text("The server cannot be reached.")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert len(tried) <= 4, "not one after the other"
    for address in ("**/v1/restore", "**/healthz"):
        page.unroute(address)
    restore_all(page)
    all_done(page, 5)


# ---------------------------------------------------------------- over a reload


def test_the_list_survives_a_reload(opened, service):
    """Results are not computed again, and what was under way is asked for again."""
    page = opened(script=WITHOUT_FOLDERS)
    bodies = asked(page)
    files = add(page, 4)
    page.get_by_role("radio", name="Rain").check()
    restore_all(page)
    all_done(page, 4)
    until_kept(
        page, '({ job }) => job.task === "derain" && !("file" in job)', "results"
    )  # files are kept once
    page.get_by_role("slider", name="Strength").press("PageDown")
    page.get_by_role("button", name="Leave this result out").click()
    page.get_by_role("option", name="p03.png").click()
    page.get_by_role("button", name="Try another task").click()
    page.get_by_role("radio", name="Haze").check()
    page.watch.gone = True  # the reload breaks the request off
    with paused(service):
        restore(page)
        expect(page.get_by_role("option", name="p03.png: Sent")).to_be_visible()
        until_kept(page, '({ state, wish }) => state === "working" && wish.task === "dehaze"')
        page.reload()
        expect(page.locator("#strip li")).to_have_count(4)
    all_done(page, 4)
    assert told(page)[0] == "p00.png: restored, left out"
    expect(page.get_by_label("Strength")).to_have_value("90")
    assert len(bodies) == 6 and of_form(bodies[5], "task") == b"dehaze"
    names = ["p01-derain.png", "p02-derain.png", "p03-dehaze.png"]
    assert zipped(page) == {name: file["buffer"] for name, file in zip(names, files[1:], strict=True)}


def test_a_painted_mask_survives_a_reload(page):
    add(page, 2)
    restore_all(page)
    all_done(page, 2)
    page.get_by_role("button", name="Paint where to restore").press("Enter")
    page.keyboard.press("Space")
    until_kept(page, "({ blend }) => Boolean(blend.mask)")
    page.reload()
    expect(page.locator(".top")).to_have_attribute("style", re.compile("blob:"))
    bodies = asked(page)
    with page.expect_download():
        page.get_by_role("link", name="Download").click()
    mask = np.asarray(Image.open(io.BytesIO(of_form(bodies[0], "mask"))).convert("L"))
    assert mask.shape == (16, 24) and mask.max() > 100 and mask[0, 0] == 0


def test_nothing_is_kept_of_one_photograph_or_after_clearing(page):
    choose(page)
    restore(page)
    done(page)
    assert databases(page) == []
    add(page, 2)
    restore_all(page)
    all_done(page, 2)
    until(page, "async () => (await indexedDB.databases()).length === 1")
    page.get_by_role("button", name="Clear", exact=True).first.click()
    dialog = page.get_by_role("dialog", name="Clear the list?")
    expect(dialog).to_contain_text("2 photographs are restored, but not saved.")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#strip li")).to_have_count(2)
    page.get_by_role("button", name="Clear", exact=True).first.click()
    dialog.get_by_role("button", name="Clear").click()
    expect(page.get_by_label("Choose a photograph")).to_be_focused()
    until(page, "async () => (await indexedDB.databases()).length === 0")
    assert page.evaluate("urls.size") == 0
    page.reload()
    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    expect(page.locator("#queue")).to_be_hidden()


# The browser keeps nothing before `letGo` is called.
HELD = """
const held = new Promise((done) => (window.letGo = done));
navigator.locks.request = async (name, options, hold) => { await held; return hold(); };
"""


@pytest.mark.parametrize(("name", "left"), [("Remove from the list", 3), ("Clear", 0)])
def test_what_is_removed_while_the_list_is_being_kept_stays_away(name, left, opened):
    page = opened(script=HELD)
    add(page, 4)
    page.wait_for_timeout(500)  # keeping has begun
    page.get_by_role("button", name=name, exact=True).first.click()
    expect(page.locator("#strip li")).to_have_count(left)
    page.evaluate("letGo()")
    page.wait_for_timeout(1000)
    assert len(databases(page)) == bool(left)
    page.reload()
    page.evaluate("letGo()")
    expect(page.locator("#strip li")).to_have_count(left)


def test_of_two_pages_one_keeps_the_list(page, service):
    add(page, 2)
    until(page, "async () => (await indexedDB.databases()).length === 1")
    other = page.context.new_page()
    other.goto(service.url)
    expect(other.get_by_role("radio", name="What it needs")).to_be_checked()
    other.wait_for_timeout(1300)
    expect(other.locator("#queue")).to_be_hidden()
    add(other, 3)
    other.wait_for_timeout(500)
    other.get_by_role("button", name="Clear", exact=True).first.click()
    expect(other.locator("#strip li")).to_have_count(0)
    other.wait_for_timeout(500)
    other.close()
    page.reload()
    expect(page.locator("#strip li")).to_have_count(2)


def test_a_browser_that_stores_nothing_says_so_and_works(opened):
    page = opened(
        script="IDBFactory.prototype.open = () => { throw new DOMException('', 'QuotaExceededError'); };"
    )
    add(page, 2)
    expect(page.locator("#queue-message")).to_have_text(
        "This browser has no room to keep this: reloading the page would lose it."
    )
    restore_all(page)
    all_done(page, 2)


# ---------------------------------------------------------------- the ZIP file


ZIP = """async (before) => {
    const { unique, Zip } = await import("/static/save.js");
    const zip = new Zip(before);
    const once = unique();
    const files = [["grüße/ä.png", "one"], ["b.png", ""], ["B.png", "two"], ["b", "3"], ["b", "4"]];
    for (const [name, text] of files)
        await zip.add(once(name), new Blob([text]), new Date(2026, 10, 30, 13, 14, 16));
    return [...new Uint8Array(await zip.finish().arrayBuffer())];
}"""


@pytest.mark.parametrize("before", [0, 5 << 30], ids=["small", "beyond 4 GB"])
def test_the_zip_file(before, page, tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.seek(before)  # takes no space on the disk
        file.write(bytes(page.evaluate(ZIP, before)))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        read = {name: archive.read(name) for name in archive.namelist()}
        assert archive.infolist()[0].date_time == (2026, 11, 30, 13, 14, 16)
        assert archive.infolist()[0].header_offset == before
    assert read == {"grüße/ä.png": b"one", "b.png": b"", "B (2).png": b"two", "b": b"3", "b (2)": b"4"}
    path.unlink()


# ---------------------------------------------------------------- for everybody


@pytest.mark.parametrize("options", [PHONE, WIDE], ids=["phone", "wide"])
def test_nothing_overflows(opened, options):
    page = opened(**options)
    add(page, 20)
    restore_all(page)
    all_done(page, 20)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= options["viewport"]["width"]
    outside = page.locator("body :not(#viewer *, #strip *)").evaluate_all(
        "(all, most) => all.filter(e => e.getBoundingClientRect().right > most).map(e => e.outerHTML)",
        options["viewport"]["width"] + 0.5,
    )
    assert outside == []
    shown = page.locator("#viewer").bounding_box()
    assert shown["height"] > 200


def test_everything_has_a_name(page, service):
    add(page, 3)
    assert nameless(page) == []
    with paused(service):
        restore_all(page)
        expect(page.get_by_role("option", name="p00.png: ")).to_be_visible()
        assert nameless(page) == []
    all_done(page, 3)
    assert nameless(page) == []
    expect(page.get_by_role("listbox")).to_have_accessible_description(
        re.compile("Space leaves its result out")
    )
    expect(page.get_by_role("progressbar", name="3 of 3 restored")).to_be_visible()


@pytest.mark.skipif(AXE is None, reason="needs axe-core: axe-playwright-python")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, opened, service):
    page = opened(color_scheme=scheme)

    def check():
        axe = Path(AXE.origin).with_name("axe.min.js")
        page.evaluate("code => { (0, eval)(code); }", axe.read_text("utf-8"))
        found = page.evaluate("async () => (await axe.run(document)).violations")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    expect(page.get_by_role("radio", name="What it needs")).to_be_checked()
    check()
    add(page, 3)
    refuse(page, 422, "The file is damaged.", times=1)
    check()
    restore_all(page)
    expect(page.locator("#queue-told")).to_have_text("2 of 3 restored, 1 failed")
    check()
    page.get_by_role("option", name="restored").first.click()
    done(page)
    page.get_by_role("listbox").press("Space")
    page.get_by_role("button", name="Paint where to restore").click()
    check()
    page.get_by_role("button", name="Clear", exact=True).first.click()
    check()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("option", name="failed").click()
    with paused(service):
        restore_all(page)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        check()
    all_done(page, 3)


# ---------------------------------------------------------------- texts are in one file


PROGRAM = [
    path
    for folder in ("page", "service/page", "hosts/web/page")
    for path in sorted((SOURCES / folder).iterdir())
    if path.suffix in (".js", ".css", ".html") and path.name not in ("words.js", "opened.js")
]
QUOTED = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)""")
COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`\\])//[^\n]*", re.DOTALL)
# Two words, or one that begins a sentence, outside ${…}.
TEXT = re.compile(r"\b[A-Za-z]{2,} [A-Za-z]{2,}|^[A-Z][a-z]+[ .…!]?")
NAMES = re.compile(  # of keys, headers, errors and kinds of files
    r"Arrow\w+|Page\w+|Home|End|Delete|Files|Authorization|Bearer |Retry-After|"
    r"Content-Disposition|X-Maximir-\w+|\w+Error|Exif\\0\\0|WebP|ICC_PROFILE\\0|Content-Security-Policy|Cross-Origin-\w+-Policy|Infinity"
)
CODE = re.compile(  # selectors, classes, filters and colours
    r"rgb\(.*|[#.\[].*|link, .*|input, select, dialog|JPEG XL|JXL |bad_alloc.*|no canvas of this size|\{\w+\}"
)


def texts_in(path):
    """Literals that people could read."""
    if path.suffix == ".html":
        parser = Reader()
        parser.feed(path.read_text())
        return parser.found
    code = COMMENT.sub("", path.read_text())
    literals = [found[1:-1] for found in QUOTED.findall(code)]
    literals = [re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", "", each) for each in literals]
    return [
        each
        for each in literals
        if TEXT.search(each) and not NAMES.fullmatch(each) and not CODE.fullmatch(each)
    ]


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.within = [], ""

    def handle_starttag(self, tag, attributes):
        self.within = self.within if self.within == "noscript" else tag
        spoken = ("aria-label", "aria-description", "alt", "title", "placeholder")
        self.found += [value for name, value in attributes if name in spoken and value]

    def handle_endtag(self, tag):
        self.within = "" if tag == self.within else self.within

    def handle_data(self, data):
        if re.search("[A-Za-z]", data) and self.within not in ("noscript", "title"):
            self.found.append(data)


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_texts_are_in_words_js_alone(path):
    assert texts_in(path) == []


def test_texts_elsewhere_would_be_found(tmp_path):
    code = tmp_path / "a.js"
    code.write_text(
        '// a comment in words\nsay("Not here"); `Saving ${n} of`; x("Cancel"); $("#a .b"); "ArrowUp"'
    )
    assert texts_in(code) == ["Not here", "Saving  of", "Cancel"]
    page = tmp_path / "a.html"
    page.write_text('<title>maximir</title><p title="Read me">words</p><noscript><p>yes</p></noscript>')
    assert texts_in(page) == ["Read me", "words"]


def test_every_text_that_is_asked_for_is_there():
    words = (SOURCES / "page" / "words.js").read_text()
    keys = set(re.findall(r"^  (\w+):", words, re.MULTILINE))
    used = set()
    for path in PROGRAM:
        text = path.read_text()
        used |= set(re.findall(r"\bwords\.(?!js\b)(\w+)", text)) | set(
            re.findall(r'data-(?:text|label)="(\w+)"', text)
        )
    used |= {"promise", "unshown", "promiseHere", "unshownHere"} | set(re.findall(r"\bwords\.(\w+)", words))
    assert used - keys == set()
    assert keys - used == set(), "texts that nothing shows"
