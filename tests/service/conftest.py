"""Fixtures of the tests of the page: a service, a browser, and pages in it."""

import pytest

from helpers.browsing import COUNTING, LIMITS, PATIENCE, TOKEN, WIDE, Watch
from helpers.serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The real one, but for its worker, which gives photographs back as they are."""
    with Service(tmp_path_factory.mktemp("service"), **LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real one, for what only its worker knows."""
    with Service(tmp_path_factory.mktemp("real"), real=True, **LIMITS) as running:
        yield running


@pytest.fixture
def opened(browser, service):
    """A function that opens the page in a fresh context; at the end, nothing may have gone wrong in any."""
    pages = []

    def open_page(token=TOKEN, script="", at=service, **options):
        context = browser.new_context(**(WIDE | options))
        context.set_default_timeout(PATIENCE)
        context.add_init_script(COUNTING + script)
        if token:
            context.add_init_script(f"sessionStorage.setItem('maximir-token', '{token}')")
        page = context.new_page()
        page.watch = watch = Watch(at.url)
        pages.append(page)
        page.on("request", lambda request: watch.requests.append(request.url))
        page.on(
            "console", lambda line: line.type in ("error", "warning") and watch.complaints.append(line.text)
        )
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.goto(at.url)
        return page

    yield open_page
    for page in pages:
        page.context.close()
        allowed = (f"{page.watch.url}/", f"blob:{page.watch.url}/")
        assert [url for url in page.watch.requests if not url.startswith(allowed)] == []
        assert [text for text in page.watch.complaints if not page.watch.expected(text)] == []


@pytest.fixture
def page(opened):
    return opened()


@pytest.fixture
def real_page(opened, real):
    return opened(at=real)
