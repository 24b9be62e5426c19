"""What users and tools rely on: names, versions, import cost, what lies in the package."""

import subprocess
import sys
from importlib import metadata

import pytest

import maximir
from maximir.models import catalogue, choice


def test_public_names():
    assert maximir.__all__ == sorted(maximir.__all__, key=lambda name: (not name.isupper(), name))
    for name in maximir.__all__:
        assert getattr(maximir, name).__class__
    with pytest.raises(AttributeError, match="'nothing'"):
        maximir.nothing  # noqa: B018


def test_version_is_the_distributions():
    assert metadata.version("maximir") == maximir.__version__


def test_import_is_light():
    code = "import sys, maximir; assert not {'torch', 'numpy', 'pyvips'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_training_needs_torch_numpy_and_pillow_only():
    """The training path must run where libvips, rich and typer are not installed."""
    code = (
        "import sys\n"
        "for name in ('pyvips', 'rich', 'typer', 'tensorboard', 'skimage'): sys.modules[name] = None\n"
        "import maximir.training.train"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_embedded_models_are_whole(model):
    assert maximir.load_model(model.name).config
    assert choice.resolve(model.name) == model.path
    card = model.path.with_suffix(".md").read_text()
    for topic in ("Training data", "Results", "Licence", "Limits"):
        assert topic in card
    assert sum(m.path.stat().st_size for m in catalogue.MODELS) < 80e6
