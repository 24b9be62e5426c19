"""Folders of the user: models, settings, and what may be measured or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "MAXIMIR_HOME"  # environment variable: folder to use instead of the system's


def data_folder() -> Path:
    """Return the folder for models, which may not exist yet."""
    import platformdirs  # here, because training does without it

    home = os.environ.get(HOME)
    return Path(home) if home else Path(platformdirs.user_data_dir("maximir", appauthor=False))


def config_folder() -> Path:
    """Return the folder for the user's settings, which may not exist yet."""
    import platformdirs

    home = os.environ.get(HOME)
    return Path(home) if home else Path(platformdirs.user_config_dir("maximir", appauthor=False))


def cache_folder() -> Path:
    """Return the folder for what can be made again, which may not exist yet."""
    import platformdirs

    home = os.environ.get(HOME)
    return Path(home) if home else Path(platformdirs.user_cache_dir("maximir", appauthor=False))
