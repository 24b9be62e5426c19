"""Run our nodes and plug-ins in the real programs, without a screen, and compare with `maximir restore`.

    PYTHONPATH=src COMFYUIS_PYTHON scripts/hosts.py --comfyui CHECKOUT [--memory lowvram]
    PYTHONPATH=src PYTHON scripts/hosts.py --spandrel
    PYTHONPATH=src PYTHON scripts/hosts.py --gimp gimp-console-3.0

CHECKOUT is a clone of ComfyUI; COMFYUIS_PYTHON has its requirements and maximir's. PYTHON has maximir's, and
spandrel with torchvision. Nothing is fetched, and neither the checkout nor GIMP's folder is changed: models,
pictures and results lie in a temporary folder. Prints a Markdown table and ends with 1 if a case failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib.metadata
import io
import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maximir import Restorer
from maximir.models.catalogue import BOX, MODELS, TASKS

with contextlib.suppress(ImportError):  # ComfyUI's Python has it
    import aiohttp

ROOT = Path(__file__).parents[1]
LEVELS = 1  # of 255: SaveImage truncates where maximir rounds
START = 1200  # seconds that a program may take to start
SAVED = "saved"
PICTURES = {  # name: height, width, channels
    "even": (128, 192, 3),
    "other": (128, 192, 3),
    "odd": (101, 67, 3),
    "grey": (100, 90, 1),
    "alpha": (96, 120, 4),
    "square": (256, 256, 3),
    "small": (704, 704, 3),
    "large": (768, 1024, 3),
    "larger": (1088, 1024, 3),
}
FROM_RESTORE = "of 255 from `maximir restore`"
PREVIEW_EVENT = (1).to_bytes(4, "big")  # the head of ComfyUI's binary messages with a preview
UNOFFERED = ("/etc/hostname", str(BOX / "denoise.safetensors"), "hf://owner/repo/denoise.safetensors")


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def load(name: str) -> dict[str, Any]:
    return node("LoadImage", image=f"{name}.png")


def restore(source: str, model: str = "denoise", **inputs: Any) -> dict[str, Any]:
    usual = {"stages": 0, "precision": "fp32", "strength": 1.0, "detail": 0.0}
    return node("MaximRestore", image=[source, 0], model=model, **usual | inputs)


def workflow(*sources: dict[str, Any], restored: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a workflow: sources "1", "2", …, then `restored`, which is saved."""
    nodes = {str(number): source for number, source in enumerate(sources, 1)}
    return nodes | {
        "restored": restored or restore(str(len(sources))),
        "save": node("SaveImage", images=["restored", 0], filename_prefix=SAVED),
    }


class ComfyUI:
    """A running ComfyUI and the folder that it works in."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, address: str) -> None:
        self.folder, self.session, self.address = folder, session, address

    async def run(self, prompt: dict[str, Any], interrupt_at: int | None = None) -> dict[str, Any]:
        """Run a workflow; return "saved" (arrays), "error", "interrupted", "progress" (%) and "previews".

        Args:
            interrupt_at: interrupt as soon as the node shows this percentage.
        """
        output = self.folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        result: dict[str, Any] = {"error": "", "interrupted": None, "progress": [], "previews": []}
        async with self.session.ws_connect(f"{self.address}/ws?clientId=hosts") as socket_:
            clock = time.monotonic()
            request = {"prompt": prompt, "client_id": "hosts"}
            async with self.session.post(f"{self.address}/prompt", json=request) as response:
                if response.status != 200:
                    return result | {"error": await response.text(), "saved": []}
            async for message in socket_:
                if message.type == aiohttp.WSMsgType.BINARY and message.data[:4] == PREVIEW_EVENT:
                    result["previews"].append(np.asarray(Image.open(io.BytesIO(message.data[8:]))))
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                kind, data = message.json()["type"], message.json()["data"]
                if kind == "progress" and data["node"] == "restored":
                    result["progress"].append(data["value"])
                    if interrupt_at is not None and data["value"] >= interrupt_at:
                        interrupt_at, clock = None, time.monotonic()
                        await self.session.post(f"{self.address}/interrupt")
                if kind == "execution_error":
                    result["error"] = data["exception_message"].strip()
                if kind == "execution_interrupted":
                    result["interrupted"] = time.monotonic() - clock
                if kind in ("execution_success", "execution_error", "execution_interrupted"):
                    break
        result["seconds"] = time.monotonic() - clock
        result["saved"] = [np.asarray(Image.open(file)) for file in sorted(output.glob("*.png"))]
        return result


@contextlib.contextmanager
def running(checkout: Path, folder: Path, memory: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start ComfyUI on this machine only, in one of its modes of memory; yield its process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        checkout / "main.py",
        f"--{memory}",
        "--port",
        str(port),
        "--base-directory",
        folder,
    ]
    command += ["--front-end-root", folder / "web", "--disable-api-nodes", "--disable-auto-launch"]
    command += ["--database-url", "sqlite:///:memory:"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "MAXIMIR_HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def prepare(folder: Path) -> None:
    """Make ComfyUI's folders, with our node, a model for "Load Upscale Model", and noisy pictures."""
    for name in ("custom_nodes", "models/upscale_models", "input", "output", "temp", "user", "web", "home"):
        (folder / name).mkdir(parents=True)
    (folder / "custom_nodes/maximir").symlink_to(ROOT / "hosts/comfyui")
    shutil.copy(BOX / "denoise.safetensors", folder / "models/upscale_models")
    make_pictures(folder / "input")


def make_pictures(folder: Path) -> None:
    """Write noisy pictures, and a mask for those of the first size."""
    random = np.random.default_rng(0)
    coffee = Image.open(ROOT / "examples/coffee.png").convert("RGBA")
    for name, (height, width, channels) in PICTURES.items():
        left, top = random.integers(0, 100, 2)
        picture = np.asarray(coffee.crop((left, top, left + 400, top + 400)).resize((width, height)), float)
        picture = np.clip(picture + random.normal(0, 20, (height, width, 1)), 0, 255).astype(np.uint8)
        picture[..., 3] = np.linspace(0, 255, width).astype(np.uint8)
        Image.fromarray(picture[..., 0] if channels == 1 else picture[..., :channels]).save(
            folder / f"{name}.png"
        )
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 10:60] = 255
    mask[:8] = 128
    Image.fromarray(mask).save(folder / "mask.png")


@functools.cache
def restorer(task: str) -> Restorer:
    return Restorer(task, "cpu", "fp32")


def expected(picture: Path, task: str = "denoise", **blend: Any) -> Path:
    """Restore the picture as `maximir restore` does; return the result's path."""
    target = picture.with_name("-".join([picture.stem, task, *blend]) + ".out.png")
    if not target.exists():
        restorer(task).restore_file(picture, target, **blend)
    return target


def difference(a: np.ndarray, b: np.ndarray) -> int:
    """Return the largest difference of colours; 256 for pictures of other sizes."""
    if a.shape[:2] != b.shape[:2]:
        return 256
    a, b = (each[..., :3] if each.ndim == 3 else each[..., None] for each in (a, b))
    return int(np.abs(a.astype(int) - b).max())


class Table:
    """Prints a row for each case, and remembers whether all went well."""

    def __init__(self) -> None:
        self.good, self.began = True, time.monotonic()
        print("| case | outcome | seconds |\n| --- | --- | --- |")

    def row(self, name: str, ok: bool, outcome: str, error: str = "", seconds: float | None = None) -> None:
        self.good &= ok
        seconds = time.monotonic() - self.began if seconds is None else seconds
        print(f"| {name} | {outcome if ok else f'FAILED: {outcome} {error}'} | {seconds:.1f} |", flush=True)
        self.began = time.monotonic()


# ComfyUI.


async def cases(comfy: ComfyUI) -> bool:
    """Run all cases and print a row for each; return True if all went well."""
    table = Table()

    def row(name: str, result: dict[str, Any], ok: bool, outcome: str) -> None:
        table.row(name, ok, outcome, result["error"], result.get("seconds", 0.0))

    async def compare(name: str, prompt: dict[str, Any], *pictures: str, **options: Any) -> None:
        result = await comfy.run(prompt)
        paths = [expected(comfy.folder / f"input/{picture}.png", **options) for picture in pictures]
        wanted = [np.asarray(Image.open(path)) for path in paths]
        saved = result["saved"]
        if len(saved) != len(wanted):
            row(name, result, False, f"{len(saved)} saved of {len(wanted)}")
            return
        worst = max(difference(*pair) for pair in zip(saved, wanted, strict=True))
        row(name, result, worst <= LEVELS, f"{len(saved)} saved, {worst} {FROM_RESTORE}")

    async with comfy.session.get(f"{comfy.address}/object_info/MaximRestore") as response:
        inputs = (await response.json())["MaximRestore"]["input"]
    listed = inputs["required"]["model"][1]["options"]
    missing = {*TASKS, *(model.name for model in MODELS)} - {*listed}
    table.row("the node's list of models", not missing, f"all {len(listed)}", f"without {missing}")
    for task in TASKS:
        prompt = workflow(load("even"), restored=restore("1", task))
        await compare(f"{task}, 128 × 192", prompt, "even", task=task)
    await compare("an odd size, 101 × 67", workflow(load("odd")), "odd")
    await compare("a grey file", workflow(load("grey")), "grey")
    batch = node("ImageBatch", image1=["1", 0], image2=["2", 0])
    await compare("a batch of two", workflow(load("even"), load("other"), batch), "even", "other")
    prompt = workflow(load("even"), restored=restore("1", stages=3))
    await compare("stages 3 of a model that has one", prompt, "even")
    await compare("0.8 megapixels", workflow(load("large")), "large")

    blend = {"strength": 0.6, "detail": 0.3}
    prompt = workflow(load("even"), restored=restore("1", **blend))
    await compare("strength 0.6, detail 0.3", prompt, "even", **blend)
    mask = node("LoadImageMask", image="mask.png", channel="red")
    prompt = workflow(load("even"), mask, restored=restore("1", mask=["2", 0]))
    await compare("a mask of half the size", prompt, "even", mask=comfy.folder / "input/mask.png")
    result = await comfy.run(workflow(load("even"), restored=restore("1", mask=["1", 1])))
    row("the empty mask of an opaque picture", result, "all black" in result["error"], "refused")
    result = await comfy.run(workflow(load("odd"), mask, restored=restore("1", mask=["2", 0])))
    row("a mask of another shape", result, "does not scale" in result["error"], "refused")
    result = await comfy.run(workflow(load("even"), restored=restore("1", strength=1.5)))
    row("strength 1.5", result, "strength" in result["error"] and not result["saved"], "refused")

    joined = node("JoinImageWithAlpha", image=["1", 0], alpha=["1", 1])
    plain = await comfy.run(
        {"1": load("alpha"), "2": joined, "save": node("SaveImage", images=["2", 0], filename_prefix=SAVED)}
    )
    result = await comfy.run(workflow(load("alpha"), joined))
    ok = not result["error"] and np.array_equal(result["saved"][0][..., 3], plain["saved"][0][..., 3])
    row("alpha", result, ok, "unchanged")

    mask = node("MaskToImage", mask=["1", 1])
    result = await comfy.run(workflow(load("alpha"), mask))
    row("a mask as an image", result, not result["error"] and len(result["saved"]) == 1, "restored")

    upscale = node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0])
    model = node("UpscaleModelLoader", model_name="denoise.safetensors")
    await compare('"Load Upscale Model", 256²', workflow(load("square"), model, restored=upscale), "square")

    for name in UNOFFERED:
        result = await comfy.run(workflow(load("even"), restored=restore("1", name)))
        kind = name.replace(str(BOX), "…")
        row(f"model {kind}", result, "is not offered" in result["error"] and not result["saved"], "refused")

    result = await comfy.run(workflow(load("large"), restored=restore("1", stages=1)))
    shown = result["progress"]
    row("progress, 0.8 megapixels", result, 20 < len(shown) <= 101, f"{len(shown)} messages, to {shown[-1:]}")
    result = await comfy.run(workflow(load("larger"), restored=restore("1", precision="bf16")))
    previews = result["previews"]
    sizes = {picture.shape for picture in previews}
    changed = sum(difference(*pair) > 8 for pair in itertools.pairwise(previews))
    ok = len(previews) > 10 and sizes == {(320, 301, 3)} and changed > len(previews) / 2
    row("previews, 1.1 megapixels", result, ok, f"{len(previews)} of 320 × 301 pixels")
    for name, at in (("large", 30), ("small", 0)):
        height, width, _ = PICTURES[name]
        prompt = workflow(load(name), restored=restore("1", precision="bf16"))
        result = await comfy.run(prompt, interrupt_at=at)
        took = result["interrupted"]
        ok = took is not None and not result["saved"]
        row(f"interruption at {at}%, {height} × {width}", result, ok, f"ended after {took or 0:.2f} s")
    await compare("the run after it", workflow(load("odd")), "odd")
    request = {"unload_models": True, "free_memory": True}
    async with comfy.session.post(f"{comfy.address}/free", json=request) as response:
        response.raise_for_status()
    await compare("the run after ComfyUI has unloaded all models", workflow(load("even")), "even")
    return table.good


async def try_comfyui(checkout: Path, memory: str) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        timeout = aiohttp.ClientTimeout(total=None)
        with running(checkout, folder, memory) as (process, address):
            async with aiohttp.ClientSession(timeout=timeout) as session:
                system: dict[str, str] = {}
                deadline = time.monotonic() + START
                while not system and process.poll() is None and time.monotonic() < deadline:
                    await asyncio.sleep(1)
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"{address}/system_stats") as response:
                            system = (await response.json())["system"]
                if not system:
                    sys.exit(f"ComfyUI did not start:\n{(folder / 'log').read_text()}")
                versions = f"ComfyUI {system['comfyui_version']}, torch {system['pytorch_version']}"
                print(f"{versions}, --{memory}\n")
                good = await cases(ComfyUI(folder, session, address))
        if not good:
            print((folder / "log").read_text(), file=sys.stderr)
        return good


# spandrel.


def try_spandrel() -> bool:
    import spandrel
    import torch
    from safetensors.torch import load, save

    from maximir import MaximConfig, load_model
    from maximir.hosts import spandrel as ours

    print(f"spandrel {importlib.metadata.version('spandrel')}, torch {torch.__version__}\n")
    ours.install()
    ours.install()  # a second call changes nothing
    (maxim,) = (
        each.architecture
        for each in spandrel.MAIN_REGISTRY.architectures()
        if each.architecture.id == "MAXIM"
    )
    table = Table()
    for config in (
        MaximConfig(features=8, stages=1, groups=1, bottlenecks=1),
        MaximConfig(features=24, stages=2, groups=3, bottlenecks=4, reduction=8),
        MaximConfig(),
    ):
        state = ours.DescribedMaxim(config).state_dict()
        loaded = [maxim.load(each).model for each in (state, load(save(state)))]
        ok = maxim.detect(state) and all(
            type(each) is ours.DescribedMaxim
            and each.hyperparameters == ours.DescribedMaxim(config).hyperparameters
            for each in loaded
        )
        table.row(f"{config.features} features, {config.stages} stages", ok, "recognised by its tensors")
    descriptor = spandrel.ModelLoader().load_from_file(str(BOX / "denoise.safetensors")).eval()
    image = torch.rand(1, 3, 128, 64)
    with torch.inference_mode():
        away = float((descriptor(image) - load_model("denoise")(image)[-1][-1].clamp(0, 1)).abs().max())
    table.row("denoise of the box, 128 × 64", away == 0, f"{away} from our network")
    return table.good


# GIMP.

GIMP_CASES = (  # name, what it is, picture, function of hosts_gimp.py that prepares it
    ("rgb", "colour, 8 bits", "even", None),
    ("deep", "colour, 16 bits", "deep", None),
    ("grey", "grey", "grey", None),
    ("alpha", "transparent", "alpha", None),
    ("selection", "a selection of 40 × 40", "even", "select"),
    ("hidden", "all layers hidden", "even", "hide"),
    ("indexed", "indexed", "even", "index"),
)


@contextlib.contextmanager
def gimp(
    command: str, folder: Path, cases: list[tuple[str, str, str | None]]
) -> Iterator[subprocess.Popen[str]]:
    """Start GIMP with our plug-in and a configuration of its own."""
    plug_ins = folder / "config/plug-ins"
    shutil.copytree(ROOT / "hosts/gimp", plug_ins, dirs_exist_ok=True)
    restore = folder / "maximir"
    restore.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m maximir "$@" --precision fp32\n'
    )
    restore.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "GIMP3_DIRECTORY": str(folder / "config"),
        "MAXIMIR": str(restore),
        "HOSTS_FOLDER": str(folder),
        "HOSTS_CASES": json.dumps(cases),
    }
    script = f"exec(open({str(ROOT / 'scripts/hosts_gimp.py')!r}).read())"
    arguments = ["-i", "--quit", "--batch-interpreter", "python-fu-eval", "-b", script]
    with subprocess.Popen(
        [*shlex.split(command), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def try_gimp(command: str) -> bool:
    import pyvips

    def pixels(path: Path) -> np.ndarray:
        return np.atleast_3d(pyvips.Image.new_from_file(str(path)).numpy())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder)
        deep = (pyvips.Image.new_from_file(str(folder / "even.png")) * 256 + 77).cast("ushort")
        deep.copy(interpretation="rgb16").write_to_file(str(folder / "deep.png"))
        version = subprocess.run([*shlex.split(command), "--version"], capture_output=True, text=True).stdout
        print(f"{version.strip().splitlines()[-1]}\n")
        table = Table()
        with gimp(command, folder, [(name, *rest) for name, _, *rest in GIMP_CASES]) as process:
            output = process.communicate()[0]
        lines = [line.removeprefix("CASE ") for line in output.splitlines() if line.startswith("CASE ")]
        found = {name: rest for name, *rest in map(json.loads, lines)}
        for name, what, picture, _ in GIMP_CASES:
            status, error, layers = found.get(name, ("", output[:500], []))
            if name in ("hidden", "indexed"):
                ok = "No layer is visible" in error if name == "hidden" else status == "success"
                table.row(what, ok, "refused" if name == "hidden" else "restored", error)
                continue
            source = folder / f"{picture}.png"
            before, ours = pixels(source), pixels(expected(source))
            theirs = pixels(folder / f"{name}-gimp.png") if status == "success" else before * 0
            seen = np.ones(before.shape[:2], bool) if before.shape[2] < 4 else before[..., 3] > 64
            if name == "selection":
                seen[:], seen[20:60, 20:60] = False, True
                ours = np.where(seen[..., None], ours, before)
                seen[:] = True
            colours = 3 if ours.shape[2] > 2 else 1
            away = int(np.abs(theirs[..., :colours].astype(int) - ours[..., :colours])[seen].max())
            full = np.iinfo(ours.dtype).max
            ok = status == "success" and away <= LEVELS
            ok &= name != "alpha" or (np.array_equal(theirs[..., 3], before[..., 3]) and not layers[1][0])
            table.row(what, ok, f"{away} of {full} from `maximir restore`", error)
        with gimp(command, folder, [("cancelled", "larger", None)]) as process:
            ok, outcome = cancelled(process)
        table.row("the plug-in killed during 1.1 megapixels", ok, outcome)
    return table.good


def cancelled(gimp: subprocess.Popen[str]) -> tuple[bool, str]:
    """Kill GIMP's plug-in while it restores, as *Cancel* does; its command and folder must go."""
    import psutil

    def find(name: str) -> psutil.Process | None:
        for process in psutil.Process(gimp.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(part.endswith(name) for part in process.cmdline()):
                    return process
        return None

    deadline = time.monotonic() + START
    while (supervisor := find("supervise.py")) is None or not supervisor.children(recursive=True):
        if time.monotonic() > deadline or gimp.poll() is not None:
            return False, "did not start"
        time.sleep(0.1)
    time.sleep(2)
    family = [supervisor, *supervisor.children(recursive=True)]
    folder = Path(supervisor.cmdline()[2])
    began = time.monotonic()
    supervisor.parent().kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    ok = not alive and not folder.exists()
    return ok, f"command and folder gone after {time.monotonic() - began:.1f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    host = parser.add_mutually_exclusive_group(required=True)
    host.add_argument("--comfyui", type=Path, metavar="CHECKOUT")
    host.add_argument("--spandrel", action="store_true")
    host.add_argument("--gimp", metavar="COMMAND", help="such as gimp-console-3.0")
    modes = ("cpu", "lowvram", "novram", "normalvram", "highvram", "gpu-only")
    parser.add_argument("--memory", choices=modes, default="cpu", help="ComfyUI's mode of memory")
    wanted = parser.parse_args()
    if wanted.comfyui:
        sys.exit(not asyncio.run(try_comfyui(wanted.comfyui.resolve(), wanted.memory)))
    sys.exit(not (try_spandrel() if wanted.spandrel else try_gimp(wanted.gimp)))
