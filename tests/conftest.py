import copy
import os

import pytest
import torch

from helpers.browsing import CHROMIUM, QUIET
from maximir.models.checkpoint import save_model
from maximir.network.config import MaximConfig
from maximir.network.model import Maxim

os.environ["MAXIMIR_HOME"] = "/dev/null/home-of-the-tests"  # models of who runs them are not used
torch.set_num_threads(1)  # small work; and two threads that wait for each other crawl on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the commands that tests run, too


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more process than there are cores: many tests wait for others, but four browsers starve on two."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")
    # A process takes a file at a time, and its fixtures once. Files that take long come first.
    takes_long = {item.path for item in items if item.get_closest_marker("browser")}
    longer = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in takes_long, item.path not in longer))


@pytest.fixture(autouse=True)
def by_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--precision auto` is decided by the processor's features, not by a measurement beside other tests."""
    monkeypatch.setattr("maximir.engine.measuring.speed_of_bf16", lambda processor: None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright (extra dev)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


TINY = MaximConfig(features=8, stages=1, groups=1, bottlenecks=1)


@pytest.fixture(scope="session")
def tiny_model() -> Maxim:
    """A network small enough for tests, with random weights. Not to be changed."""
    torch.manual_seed(0)
    return Maxim(TINY).eval()


@pytest.fixture(scope="session")
def tiny_weights(tiny_model, tmp_path_factory):
    """The same, as a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(tiny_model, path)
    return path


@pytest.fixture(scope="session")
def gentle_weights(tiny_model, tmp_path_factory):
    """The same, but what the network adds to an image is faint: results are within [0, 1] or nearly."""
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in model.stages[-1].outputs.parameters():
            parameter *= 0.02
    path = tmp_path_factory.mktemp("weights") / "gentle.safetensors"
    save_model(model, path)
    return path
