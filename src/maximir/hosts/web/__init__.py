"""A page that restores photographs without a server: a folder of static files for any host.

It shares `maximir/page` with the service. ONNX Runtime Web computes; it comes from npm, pinned and checked.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maximir import __version__
from maximir.errors import MaximirError, UsageError
from maximir.files import reason
from maximir.hosts import export
from maximir.models import checkpoint
from maximir.models.cards import ModelCard
from maximir.models.download import download

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "page"
TILES = HERE.parent / "tiles" / "tiles.js"
TILE = 512
RUNTIME = "1.30.0"  # of onnxruntime-web
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{RUNTIME}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# Module, WebAssembly and the code that loads it; the second kind also computes on graphics processors.
PROGRAMS = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs"),
    "gpu": (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
        "ort-wasm-simd-threaded.asyncify.mjs",
    ),
}
WEIGHTS = re.compile(r"\.(safetensors|npz|tgz|tar\.gz)$", re.IGNORECASE)  # suffixes of their files
MODELS = "models.json"  # marks a folder as such a page
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; object-src 'none'"
)


def check_request(output: Path, runtime: Path | None, tile: int, *, overwrite: bool) -> None:
    """Raise as `write_site` does, before any work."""
    export.check_tile(tile)
    export.check_installed()
    if runtime is not None and not runtime.exists():
        raise UsageError(f"--runtime {runtime}: there is no such file or folder")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    if output.exists() and not (output / MODELS).is_file():
        raise UsageError(f"{output} is no page of maximir's: --overwrite would remove what is in it")


def write_site(
    cards: Sequence[ModelCard],
    output: Path,
    runtime: Path | None = None,
    *,
    tile: int = TILE,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the page as a folder, which appears when it is complete.

    Args:
        cards: its models; the first one of a task is the task's default.
        runtime: onnxruntime-web as npm's package (`.tgz`), or a folder with it; None: download it.
        tile: side of the tiles of large photographs.
        report: called with a line about each finished part.

    Raises:
        UsageError: see `check_request`; two models with one name; or the runtime lacks a file.
        MaximirError: a download, a check or writing failed. Nothing is left.
    """
    check_request(output, runtime, tile, overwrite=overwrite)
    for file, count in Counter(file_of(card).lower() for card in cards).items():  # one file on some disks
        if count > 1:
            raise UsageError(
                f"{count} of the models would become {file}: rename them, or leave all but one out"
            )
    try:
        with tempfile.TemporaryDirectory(prefix=".maximir-", dir=output.parent) as part:
            site = Path(part) / "site"
            (site / "static").mkdir(parents=True)
            version, programs = add_runtime(site, runtime)
            report(f"ONNX Runtime Web {version}")
            models: list[dict[str, Any]] = []
            for card in cards:
                facts, difference = add_model(site, card, tile, {model["tasks"][0] for model in models})
                models.append(facts)
                report(
                    f"{card.name}: {facts['bytes'] / 1e6:.1f} MB, "
                    f"differs from maximir by {difference:.1e} at most"
                )
            about = {"version": __version__, "runtime": programs, "models": models}
            (site / MODELS).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
            others = "".join(f"{m['name']}: {m['licence']}\n" for m in models if m["origin"] != "box")
            licences = (HERE / "licences.txt").read_text("utf-8")
            licences = licences.format(version=__version__, runtime=version, models=others)
            (site / "licences.txt").write_text(licences, "utf-8")
            add_page(site)
            site.chmod(0o755)
            replace(output, site, Path(part) / "old")
    except OSError as error:
        raise MaximirError(f"{output}: cannot be written ({reason(error)})") from error


def replace(output: Path, new: Path, old: Path) -> None:
    """Rename a folder to `output`, and what is there to `old`; undo the latter if the former fails."""
    if output.exists():
        output.rename(old)
    try:
        new.rename(output)
    except BaseException:  # includes Ctrl-C: the old page comes back before the error goes on
        if old.exists():
            old.rename(output)
        raise


def add_runtime(site: Path, source: Path | None) -> tuple[str, dict[str, Any]]:
    """Copy the runtime's files; return its version and what the page must know about them."""
    folder = site / "runtime"
    folder.mkdir()
    needed = sorted({name for names in PROGRAMS.values() for name in names})
    version = "of unknown version"
    found = {}
    for name, data in package_files(source, {*needed, "package.json"}):
        if name == "package.json":
            with contextlib.suppress(ValueError, AttributeError):  # not JSON, or no object
                version = str(json.loads(data).get("version", version))
        else:
            found[name] = data
    if missing := [name for name in needed if name not in found]:
        raise UsageError(
            f"--runtime {source}: {missing[0]} is missing; it must be npm's package onnxruntime-web {RUNTIME}"
        )
    for name, data in found.items():
        (folder / name).write_bytes(data)
    programs = {
        kind: {
            "folder": "runtime/",
            "module": f"runtime/{module}",
            "wasm": f"runtime/{wasm}",
            "files": [f"runtime/{name}" for name in (module, wasm, loader)],
            "bytes": sum(len(found[name]) for name in (module, wasm, loader)),
        }
        for kind, (module, wasm, loader) in PROGRAMS.items()
    }
    return version, programs


def package_files(source: Path | None, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of these files of npm's package; `dist/` for all but package.json."""
    if source is not None and source.is_dir():
        for name in names:
            for path in (source / "dist" / name, source / name):
                if path.is_file():
                    yield name, path.read_bytes()
                    break
        return
    data = fetch_package() if source is None else source.read_bytes()
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as archive:  # checks the whole file
            for entry in archive:
                folder, _, name = entry.name.rpartition("/")
                content = archive.extractfile(entry) if entry.isfile() and name in names else None
                if content is not None and folder == (
                    "package" if name == "package.json" else "package/dist"
                ):
                    yield name, content.read()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"--runtime {source}: not a package of npm's (.tgz): {error}") from error


def fetch_package() -> bytes:
    """Download npm's package and check it.

    Raises:
        MaximirError: it cannot be fetched, or its SHA-512 is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "runtime.tgz"
        download(ADDRESS, target)
        data = target.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise MaximirError(f"{ADDRESS}: its SHA-512 is not that of onnxruntime-web {RUNTIME}")
    return data


def file_of(card: ModelCard) -> str:
    """Return the path of a model's file in the page: "models/denoise-box.onnx"."""
    return f"models/{WEIGHTS.sub('', Path(card.name).name)}.onnx"


def add_model(site: Path, card: ModelCard, tile: int, tasks: set[str]) -> tuple[dict[str, Any], float]:
    """Export a model; return what the page must know about it, and the largest difference from ours."""
    (site / "models").mkdir(exist_ok=True)
    network, stored = checkpoint.load(card)
    task = card.task or stored
    name = file_of(card)
    data, difference = export.proved(network, ".onnx", None, {"model": card.name, "task": task}, half=True)
    (site / name).write_bytes(data)
    known = card.facts()
    facts = {key: known[key] for key in ("name", "origin", "description", "licence", "stages", "limits")}
    facts |= {
        "tasks": [task or card.name],
        "default": task not in tasks,
        "data": known["trained_on"],
        "file": name,
        "bytes": len(data),
        "facts": export.tiling(task, tile),
    }
    return facts, difference


def add_page(site: Path) -> None:
    """Copy the page's own files; its service worker lists them, and has a version of their contents."""
    for path in (*SHARED.iterdir(), *(HERE / "page").iterdir(), TILES):
        shutil.copyfile(path, site / "static" / path.name)
    index, worker = site / "static" / "index.html", site / "static" / "sw.js"
    charset = '<meta charset="utf-8">\n'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    html = index.read_text("utf-8").replace(charset, charset + policy)
    (site / "index.html").write_text(html, "utf-8")
    code = worker.read_text("utf-8")
    index.unlink()
    worker.unlink()
    digest = hashlib.sha256(code.encode())
    for path in sorted(path for path in site.rglob("*") if path.is_file()):
        digest.update(path.relative_to(site).as_posix().encode() + b"\0" + path.read_bytes())
    files = ["./", MODELS, *sorted(f"static/{path.name}" for path in (site / "static").iterdir())]
    facts = {"version": f"maximir-{digest.hexdigest()[:16]}", "files": " ".join(files), "policy": POLICY}
    for name, fact in facts.items():
        code = code.replace(f"{{{name}}}", fact)
    (site / "sw.js").write_text(code, "utf-8")
