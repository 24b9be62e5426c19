"""The code for hosts that cut photographs into tiles: in three languages, the same as ours."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import maximir
from maximir.hosts import export
from maximir.restoring import views

FOLDER = Path(maximir.__file__).parent / "hosts" / "tiles"
LIGHT = {"view": 160, "large": 256, "smooth": 4.0}
FACTS = {"multiple": 64, "tile": 128, "overlap": 64, "whole": 160 * 160, "light": None}
SIZES = ((300, 210), (161, 129), (64, 400), (50, 70))  # the last one is restored at once


def load():
    spec = importlib.util.spec_from_file_location("tiles", FOLDER / "tiles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiles = load()


class Fake:
    """A network that depends on the whole of what it sees, and on the place in it."""

    def __init__(self, facts):
        self.facts, self.seen = facts, []

    def __call__(self, image):
        multiple = self.facts["multiple"]
        assert image.shape[0] % multiple == image.shape[1] % multiple == 0
        self.seen.append(image.shape[:2])
        y = np.arange(len(image), dtype=np.float32)[:, None, None] / len(image)
        return 0.6 * image + 0.3 * image.mean(dtype=np.float64).astype(np.float32) + 0.05 * y


JS = """
import {{ readFileSync, writeFileSync }} from "node:fs";
import {{ restore, work }} from {module};
let computed = 0;
const run = async (planes, h, w) => {{
  computed += h * w;
  const mean = planes.reduce((sum, value) => sum + value, 0) / planes.length;
  return planes.map((value, i) => 0.6 * value + 0.3 * mean + (0.05 * (Math.floor(i / w) % h)) / h);
}};
const data = new Uint8ClampedArray(readFileSync("image"));
const told = [];
const planes = await restore({{ data, width: {w}, height: {h} }}, {facts}, run, (part) => told.push(part));
writeFileSync("restored", planes);
if (computed !== work({h}, {w}, {facts})) throw new Error("work");
if (told.some((part, i) => part < (told[i - 1] ?? 0)) || (told.length && told.at(-1) !== 1))
  throw new Error(told);
"""

CPP = """
#include "tiles.hpp"
#include <cstdio>
int main() {{
    maximir::Network network;
    network.multiple = {multiple}; network.tile = {tile}; network.overlap = {overlap};
    network.whole = {whole}; network.view = {view}; network.large = {large};
    network.run = [](std::vector<float> planes, int h, int w) {{
        double mean = 0;
        for (float value : planes) mean += value;
        mean /= planes.size();
        for (std::size_t i = 0; i < planes.size(); i++)
            planes[i] = 0.6f * planes[i] + float(0.3 * mean) + 0.05f * float(i / w % h) / h;
        return planes;
    }};
    maximir::Image image({h}, {w});
    FILE *file = fopen("image", "rb");
    for (std::size_t i = 0; i < image.data.size() / 3; i++) {{
        unsigned char rgba[4];
        if (fread(rgba, 1, 4, file) != 4) return 1;
        for (int c = 0; c < 3; c++) image.data[c * image.data.size() / 3 + i] = rgba[c] / 255.f;
    }}
    image = maximir::restore(image, network);
    fwrite(image.data.data(), 4, image.data.size(), fopen("restored", "wb"));
}}
"""


def run_js(folder, h, w, facts):
    script = JS.format(module=json.dumps((FOLDER / "tiles.js").as_uri()), h=h, w=w, facts=json.dumps(facts))
    (folder / "run.mjs").write_text(script)
    subprocess.run(["node", "--no-warnings", "run.mjs"], cwd=folder, check=True)


def run_cpp(folder, h, w, facts):
    light = facts["light"] or {"view": 0, "large": 0}
    (folder / "run.cpp").write_text(CPP.format(**{**facts, **light}, h=h, w=w))
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", "run.cpp", "-o", "run"]
    subprocess.run(command, cwd=folder, check=True)
    subprocess.run(["./run"], cwd=folder, check=True)


@pytest.fixture
def photo():
    def make(h, w):
        return np.random.default_rng(0).integers(20, 230, (h, w, 3), np.uint8)

    return make


@pytest.mark.parametrize(
    "kind", [{}, {"light": LIGHT}, {"multiple": 128}], ids=["detail", "light", "multiples of 128"]
)
@pytest.mark.parametrize(("h", "w"), SIZES)
@pytest.mark.parametrize(("program", "run"), [("node", run_js), ("g++", run_cpp)], ids=["js", "cpp"])
def test_other_languages_do_what_python_does(program, run, h, w, kind, photo, tmp_path):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    facts = FACTS | kind
    image = photo(h, w)
    rgba = np.dstack([image, np.full((h, w), 255, np.uint8)])
    (tmp_path / "image").write_bytes(rgba.tobytes())
    run(tmp_path, h, w, facts)
    restored = np.fromfile(tmp_path / "restored", np.float32).reshape(3, h, w).transpose(1, 2, 0)
    expected = tiles.restore(np.float32(image) / 255, Fake(facts))
    assert np.abs(restored - expected).max() < 1e-5


@pytest.mark.parametrize(("h", "w"), SIZES[:2])
def test_light_and_tiles_are_those_of_the_engine(h, w, photo, monkeypatch):
    for name, value in (("SMALL", 160), ("LARGE", 256), ("TILE", 128)):
        monkeypatch.setattr(views, name, value)
    network = Fake(FACTS | {"light": LIGHT})
    image = np.float32(photo(h, w)) / 255
    expected = views.restore_in_views(image, lambda part: tiles.restore_at_once(part, network), print)
    assert np.abs(tiles.restore(image, network) - expected.clip(0, 1)).max() < 1e-5


def test_weights_sum_to_one():
    for length in (129, 192, 300, 1000):
        total = np.zeros(length)
        for start, weights in tiles.tiles(length, 128, 64):
            total[start : start + len(weights)] += weights
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_no_tile_is_larger_than_asked(photo):
    network = Fake(FACTS | {"light": LIGHT})
    tiles.restore(np.float32(photo(300, 210)) / 255, network)
    assert max(h * w for h, w in network.seen) <= FACTS["whole"]


def test_facts_follow_the_task():
    facts = {"multiple": 64, "tile": 512, "overlap": 64, "whole": 409600, "light": None}
    assert export.tiling("denoise", 512) == facts
    assert export.tiling("dejpeg", 512, 128) == facts | {"multiple": 128}
    assert export.tiling("enhance", 256)["whole"] == 409600  # the view is restored at once
    assert export.tiling("enhance", 256)["light"] == {"view": 640, "large": 1024, "smooth": 4.0}
