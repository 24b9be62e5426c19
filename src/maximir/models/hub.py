"""Weights on the Hugging Face Hub, by an explicit address: `hf://owner/repo/file`."""

from __future__ import annotations

import re
from pathlib import Path

from maximir.errors import MaximirError, UsageError

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+\.(safetensors|npz))")
FORM = "hf://owner/repo/file.safetensors (or .npz; owner/repo@revision pins a revision)"


def fetch(address: str) -> Path:
    """Return the file at this address, from the Hub client's cache or from the Hub.

    Raises:
        UsageError: the address is malformed, or the extra `hub` is missing.
        MaximirError: the file does not exist, or the Hub cannot be reached.
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
    except Exception as error:  # the Hub client, its HTTP library and the system share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MaximirError(f"{address}: cannot be fetched ({reason})") from error
