"""maximir: MAXIM image restoration.

    restorer = maximir.Restorer("denoise")
    restored = restorer(image)          # PIL.Image or array, any size
    restorer.restore_file("in.tif", "out.tif")
    for outcome in maximir.restore_files("holiday", "restored", restorer, resume=True): ...

Names are imported on first use, so that `import maximir` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "VARIANTS",
    "AutoRestorer",
    "Chain",
    "Maxim",
    "MaximConfig",
    "MaximirError",
    "Restorer",
    "UsageError",
    "load_model",
    "open_preset",
    "restore_files",
]

_HOMES = {
    "VARIANTS": "maximir.network.config",
    "AutoRestorer": "maximir.restoring.auto",
    "Chain": "maximir.restoring.chain",
    "Maxim": "maximir.network.model",
    "MaximConfig": "maximir.network.config",
    "MaximirError": "maximir.errors",
    "Restorer": "maximir.restoring.restorer",
    "UsageError": "maximir.errors",
    "load_model": "maximir.models.checkpoint",
    "open_preset": "maximir.restoring.opening",
    "restore_files": "maximir.batch.restore",
}

if TYPE_CHECKING:
    from maximir.batch.restore import restore_files
    from maximir.errors import MaximirError, UsageError
    from maximir.models.checkpoint import load_model
    from maximir.network.config import VARIANTS, MaximConfig
    from maximir.network.model import Maxim
    from maximir.restoring.auto import AutoRestorer
    from maximir.restoring.chain import Chain
    from maximir.restoring.opening import open_preset
    from maximir.restoring.restorer import Restorer


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'maximir' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
