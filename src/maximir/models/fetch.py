"""`maximir get`: a model of the authors onto this machine. Nothing else in maximir uses the network."""

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

MIRROR = "MAXIMIR_BUCKET"  # environment: address that holds the objects of the authors' bucket
SUFFIXES = (".npz", ".tgz", ".tar.gz", ".safetensors")
NPM_PATIENCE = 1800.0  # seconds


class Source(NamedTuple):
    """A way to a model.

    Attributes:
        name: for people.
        bring: into a folder; gives the file or folder.
    """

    name: str
    bring: Callable[[Path, Report], Path]


def sources(model: AuthorsModel, given: str | None = None) -> Iterator[Source]:
    """The ways to a model, in the order that they are tried: what was given; else the bucket, then npm."""
    if given is not None:
        yield given_source(given)
        return
    address = f"{os.environ.get(MIRROR, BUCKET).rstrip('/')}/{model.address}"
    yield Source(address, lambda folder, report: from_web(address, folder, report))
    if model.npm:
        yield Source(f"npm, {model.npm}", lambda folder, report: from_npm(model.npm, folder))


def given_source(given: str) -> Source:
    if urllib.parse.urlsplit(given).scheme in ("http", "https"):
        return Source(given, lambda folder, report: from_web(given, folder, report))
    return Source(given, lambda folder, report: Path(given))


def fetch(
    model: AuthorsModel,
    given: str | None = None,
    *,
    report: Report = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Bring a model into the user's folder, verified.

    Args:
        given: a file, folder, tarball or web address instead of the usual places.
        report: bytes of a download that are there, and of how many.
        say: told each way that is tried and what became of it.

    Returns:
        The `.safetensors`, which appears whole or not at all.

    Raises:
        MaximirError: no way led to it; or what came is another model; or it cannot be kept.
    """
    problems = []
    with user_models.writing(model.name) as place:
        for source in sources(model, given):
            say(f"{model.name}: trying {source.name}")
            try:
                # Unlike the folder's name, that of a download's part must be there again next time.
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
        f"{model.name}: no way led to it. Fetch {BUCKET}/{model.address}"
        + (f", or `npm pack {model.npm}`," if model.npm else "")
        + f" where there is a network, and give the file: `maximir get {model.name} --from FILE`"
    )


def recognise(given: str) -> AuthorsModel:
    """Which of the authors' models a file or folder holds, by the digest of its parameters.

    Raises:
        UsageError: it is a web address: that takes a name.
        MaximirError: it is none of them.
    """
    if is_web(given):
        raise UsageError(f"name the model that comes from {given}: `maximir get NAME --from …`")
    digest = digest_of(checkpoint.read(Path(given)))
    if digest not in BY_DIGEST:
        raise MaximirError(
            f"{given}: is none of the authors' models whose digest is known (its parameters have "
            f"{digest[:16]}…); give the name of what it should be, or use the file as it is with --weights"
        )
    return BY_DIGEST[digest]


def digest_of(found: checkpoint.Checkpoint) -> str:
    return tfjs.digest(official.arrays_from_state(found.config, found.state))


def is_web(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # a download that will go on
        if not any(folder.glob("*.part")):
            shutil.rmtree(folder, ignore_errors=True)


def keep(model: AuthorsModel, brought: Path, source: str) -> None:
    """Verify what was brought and write it into the user's folder.

    Raises:
        MaximirError: it is another model, damaged, or cannot be kept.
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
    """By the user's own npm, from whatever registry it is set to. No script of the package is run."""
    npm = shutil.which("npm")
    if npm is None:
        raise MaximirError("there is no npm on this machine")
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
        raise MaximirError(f"npm took more than {NPM_PATIENCE / 60:.0f} min to bring {package}") from error
    except OSError as error:
        raise MaximirError(f"npm cannot be run ({reason(error)})") from error
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode or len(tarballs) != 1:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        told = next((line for line in lines if line.strip()), f"exit status {done.returncode}")
        raise MaximirError(f"npm could not bring {package} ({told.strip()[:200]})")
    return tarballs[0]
