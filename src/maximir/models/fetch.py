"""`maximir get`: fetch a model of the authors. Only this and `hf://` addresses use the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from maximir.errors import MaximirError, UsageError
from maximir.files import reason
from maximir.models import checkpoint, official, tfjs, user_models
from maximir.models.authors import BUCKET, BY_DIGEST, LICENCE, AuthorsModel
from maximir.models.download import Report, download

MIRROR = "MAXIMIR_BUCKET"  # environment variable: address of a mirror of the authors' bucket
SUFFIXES = (".npz", ".tgz", ".tar.gz", ".safetensors")
NPM_PATIENCE = 1800.0  # seconds


class Source(NamedTuple):
    """A source of a model.

    Attributes:
        name: for messages.
        bring: fetches the model into a folder and returns the file or folder.
    """

    name: str
    bring: Callable[[Path, Report], Path]


def sources(model: AuthorsModel, given: str | None = None) -> Iterator[Source]:
    """Yield the sources of a model in the order of attempts: the given one, or the bucket and then npm."""
    if given is not None:
        yield given_source(given)
        return
    address = f"{os.environ.get(MIRROR, BUCKET).rstrip('/')}/{model.address}"
    yield Source(address, lambda folder, report: from_web(address, folder, report))
    if model.npm:
        yield Source(f"npm, {model.npm}", lambda folder, report: from_npm(model.npm, folder))


def given_source(given: str) -> Source:
    if is_web(given):
        return Source(given, lambda folder, report: from_web(given, folder, report))
    return Source(given, lambda folder, report: Path(given))


def fetch(
    model: AuthorsModel,
    given: str | None = None,
    *,
    report: Report = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fetch a model into the user's folder and verify it.

    Args:
        given: a file, folder, tarball or web address instead of the usual sources.
        report: called with the bytes of a download that are present, and the total.
        say: called with a line for each source that is tried, and for its failure.

    Returns:
        The path of the `.safetensors`, which is written atomically.

    Raises:
        MaximirError: no source works, the file holds another model, or it cannot be stored.
    """
    problems = []
    with user_models.writing(model.name) as place:
        for source in sources(model, given):
            say(f"{model.name}: trying {source.name}")
            try:
                # A partial download must be found again next time, so its folder has a fixed name.
                parts = place / f".{model.name}.download"
                parts.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=place, prefix=f".{model.name}-") as folder:
                    brought = source.bring(parts if is_web(source.name) else Path(folder), report)
                    keep(model, brought, source.name)
                shutil.rmtree(parts, ignore_errors=True)
                return user_models.path_of(model.name)
            except MaximirError as error:
                problems.append(str(error))
                if given is None:
                    say(f"{model.name}: {error}")
            finally:
                remove_if_empty(parts)
    if given is not None:
        raise MaximirError(problems[0])
    raise MaximirError(
        f"{model.name}: could not be downloaded from any source. Fetch {BUCKET}/{model.address}"
        + (f", or `npm pack {model.npm}`," if model.npm else "")
        + f" on a machine with network access, then run `maximir get {model.name} --from FILE`"
    )


def recognise(given: str) -> AuthorsModel:
    """Identify the authors' model in a file or folder by the digest of its parameters.

    Raises:
        UsageError: `given` is a web address, which requires a name.
        MaximirError: the digest is unknown.
    """
    if is_web(given):
        raise UsageError(f"name the model that comes from {given}: `maximir get NAME --from …`")
    digest = digest_of(checkpoint.read(Path(given)))
    if digest not in BY_DIGEST:
        raise MaximirError(
            f"{given}: is not one of the authors' models with a known digest (its parameters have "
            f"{digest[:16]}…); give the model's name, or use the file directly with --weights"
        )
    return BY_DIGEST[digest]


def digest_of(found: checkpoint.Checkpoint) -> str:
    return tfjs.digest(official.arrays_from_state(found.config, found.state))


def is_web(name: str) -> bool:
    return urllib.parse.urlsplit(name).scheme in ("http", "https")


def remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty: keep only a download that can be resumed
        if not any(folder.glob("*.part")):
            shutil.rmtree(folder, ignore_errors=True)


def keep(model: AuthorsModel, brought: Path, source: str) -> None:
    """Verify a fetched model and write it into the user's folder.

    Raises:
        MaximirError: it is another model, damaged, or cannot be stored.
    """
    found = checkpoint.read(brought)
    digest = digest_of(found)
    if model.digest and digest != model.digest:
        other = BY_DIGEST.get(digest)
        what = f"it is {other.name}" if other else f"its parameters have the digest {digest[:16]}…"
        raise MaximirError(f"{brought.name}: is not {model.name} (digest {model.digest[:16]}…): {what}")
    facts = {
        "name": model.name,
        "task": model.task,
        "trained on": model.trained_on,
        "licence": LICENCE,
        "digest": digest,
        "verified": bool(model.digest),
        "source": source if is_web(source) or source.startswith("npm") else "a file",
    } | {key: value for key, value in found.facts.items() if key == "missing"}
    checkpoint.save_model(
        checkpoint.build(found.config, found.state), user_models.path_of(model.name), metadata=facts
    )


def from_web(address: str, folder: Path, report: Report) -> Path:
    name = Path(urllib.parse.urlsplit(address).path).name
    if not name.lower().endswith(SUFFIXES):
        raise MaximirError(f"{address}: does not end in one of {', '.join(SUFFIXES)}")
    target = folder / name
    try:
        download(address, target, report)
    except OSError as error:
        raise MaximirError(f"{target}: cannot be written ({reason(error)})") from error
    return target


def from_npm(package: str, folder: Path) -> Path:
    """Fetch a package with the user's npm and its configured registry. Runs no script of the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise MaximirError("npm is not installed on this machine")
    command = [npm, "pack", package, "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=NPM_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MaximirError(f"npm took more than {NPM_PATIENCE / 60:.0f} min to fetch {package}") from error
    except OSError as error:
        raise MaximirError(f"npm cannot be run ({reason(error)})") from error
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode or len(tarballs) != 1:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        told = next((line for line in lines if line.strip()), f"exit status {done.returncode}")
        raise MaximirError(f"npm could not fetch {package} ({told.strip()[:200]})")
    return tarballs[0]
