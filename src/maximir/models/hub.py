"""Weights on the Hugging Face Hub, by an address that nobody writes by accident: `hf://owner/repo/file`."""

from __future__ import annotations

import re
from pathlib import Path

from maximir.errors import MaximirError, UsageError

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+\.(safetensors|npz))")
FORM = "hf://owner/repo/file.safetensors (or .npz; owner/repo@revision for one that stays the same)"


def fetch(address: str) -> Path:
    """The file at this address, from the client's cache or from the Hub.

    Raises:
        UsageError: another form of address, or the extra `hub` is missing.
        MaximirError: it is not there, or cannot be reached.
    """
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(f"{address}: addresses on the Hub are {FORM}")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UsageError(f"{SCHEME} needs {error.name}: pip install 'maximir[hub]'") from error
    try:
        return Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
    except Exception as error:  # the client's own, its HTTP library's, and the system's, of no common family
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MaximirError(f"{address}: cannot be fetched ({reason})") from error
