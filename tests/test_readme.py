"""README's commands and example do what they say, with the model and the photographs in the box."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maximir import cli
from maximir.evaluation.layouts import LAYOUTS
from maximir.evaluation.protocols import PROTOCOLS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_main_command_restores_the_examples(tmp_path, monkeypatch):
    (command,) = re.findall(r"^maximir restore examples .*$", README, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    names = sorted(path.name for path in (ROOT / "examples").iterdir())
    assert len(names) >= 3
    restored = sorted(path.name for path in (tmp_path / "restored").iterdir())
    assert restored == [".maximir.jsonl", *names]  # the journal: docs/decisions/0003-files.md
    for name in names:
        before, after = (
            np.asarray(Image.open(tmp_path / folder / name), float) for folder in ("examples", "restored")
        )
        assert before.shape == after.shape
        steps = [np.abs(np.diff(image, axis=1)).mean() for image in (before, after)]
        assert steps[1] < 0.6 * steps[0]  # much smoother
        assert 2 < np.abs(before - after).mean() < 40  # but the same picture


def test_the_python_example_runs(monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    restored = names["restored"]
    assert isinstance(restored, Image.Image)
    assert (tmp_path / "coffee.png").read_bytes() == (tmp_path / "restored" / "coffee.png").read_bytes()
    with Image.open(ROOT / "examples" / "coffee.png") as original:
        assert restored.size == original.size
        assert restored.mode == original.mode


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_page_on_evaluation_has_every_layout_and_protocol():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    for layout in LAYOUTS:
        assert f"| `{layout.name}` | `{layout.looks}` | `{layout.protocol}` |" in page
    for name in PROTOCOLS:
        assert f"`{name}`" in page
