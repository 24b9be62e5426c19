"""Run the ComfyUI node in the real ComfyUI, headless on the CPU, and compare with `maximir restore`.

    PYTHONPATH=src COMFYUIS_PYTHON scripts/hosts.py --comfyui CHECKOUT

CHECKOUT is a clone of ComfyUI; COMFYUIS_PYTHON has its requirements and maximir's. Nothing is fetched, and
the checkout is not changed: models, pictures and results lie in a temporary folder. Prints a Markdown table
and ends with 1 if a case failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from maximir.models.catalogue import BOX, TASKS

ROOT = Path(__file__).parents[1]
LEVELS = 1  # of 255: SaveImage truncates where maximir rounds
START = 300  # seconds that ComfyUI may take to start
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
}
UNOFFERED = ("/etc/hostname", str(BOX / "denoise.safetensors"), "hf://owner/repo/denoise.safetensors")


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def load(name: str) -> dict[str, Any]:
    return node("LoadImage", image=f"{name}.png")


def restore(source: str, model: str = "denoise", stages: int = 0, precision: str = "fp32") -> dict[str, Any]:
    return node("MaximRestore", image=[source, 0], model=model, stages=stages, precision=precision)


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
        """Run a workflow; return "saved" (arrays), "error", "interrupted" and "progress" (percentages).

        Args:
            interrupt_at: interrupt as soon as the node shows this percentage.
        """
        output = self.folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        result: dict[str, Any] = {"error": "", "interrupted": None, "progress": []}
        async with self.session.ws_connect(f"{self.address}/ws?clientId=hosts") as socket_:
            clock = time.monotonic()
            request = {"prompt": prompt, "client_id": "hosts"}
            async with self.session.post(f"{self.address}/prompt", json=request) as response:
                if response.status != 200:
                    return result | {"error": await response.text(), "saved": []}
            async for message in socket_:
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
def running(checkout: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start ComfyUI on this machine only; yield its process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, checkout / "main.py", "--cpu", "--port", str(port), "--base-directory", folder]
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
    random = np.random.default_rng(0)
    coffee = Image.open(ROOT / "examples/coffee.png").convert("RGBA")
    for name, (height, width, channels) in PICTURES.items():
        left, top = random.integers(0, 100, 2)
        picture = np.asarray(coffee.crop((left, top, left + 400, top + 400)).resize((width, height)), float)
        picture = np.clip(picture + random.normal(0, 20, (height, width, 1)), 0, 255).astype(np.uint8)
        picture[..., 3] = np.linspace(0, 255, width).astype(np.uint8)
        Image.fromarray(picture[..., 0] if channels == 1 else picture[..., :channels]).save(
            folder / f"input/{name}.png"
        )


def expected(folder: Path, name: str, task: str) -> np.ndarray:
    """Return the picture as `maximir restore` writes it."""
    target = folder / f"{name}-{task}.png"
    if target.exists():
        return np.asarray(Image.open(target))
    command = [sys.executable, "-m", "maximir", "restore", folder / f"input/{name}.png", "-o", target]
    command += ["--task", task, "--precision", "fp32"]
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )
    return np.asarray(Image.open(target))


async def cases(comfy: ComfyUI) -> bool:
    """Run all cases and print a row for each; return True if all went well."""
    good = True

    def row(name: str, result: dict[str, Any], ok: bool, outcome: str) -> None:
        nonlocal good
        good &= ok
        seconds = f"{result['seconds']:.1f}" if "seconds" in result else ""
        outcome = outcome if ok else f"FAILED: {outcome} {result['error']}"
        print(f"| {name} | {outcome} | {seconds} |", flush=True)

    async def compare(name: str, prompt: dict[str, Any], *pictures: str, task: str = "denoise") -> None:
        result = await comfy.run(prompt)
        wanted = [expected(comfy.folder, picture, task) for picture in pictures]
        differences = [
            int(np.abs(a[..., :3].astype(int) - (b if b.ndim == 3 else b[..., None])[..., :3]).max())
            for a, b in zip(result["saved"], wanted, strict=False)
            if a.shape[:2] == b.shape[:2]
        ]
        worst = max(differences, default=256)
        ok = len(differences) == len(wanted) == len(result["saved"]) and worst <= LEVELS
        row(name, result, ok, f"{len(differences)} saved, {worst} of 255 from `maximir restore`")

    print("| case | outcome | seconds |\n| --- | --- | --- |")
    for task in TASKS:
        await compare(
            f"{task}, 128 × 192", workflow(load("even"), restored=restore("1", task)), "even", task=task
        )
    await compare("an odd size, 101 × 67", workflow(load("odd")), "odd")
    await compare("a grey file", workflow(load("grey")), "grey")
    batch = node("ImageBatch", image1=["1", 0], image2=["2", 0])
    await compare("a batch of two", workflow(load("even"), load("other"), batch), "even", "other")
    await compare(
        "stages 3 of a model that has one", workflow(load("even"), restored=restore("1", stages=3)), "even"
    )
    await compare("0.8 megapixels", workflow(load("large")), "large")

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

    result = await comfy.run(workflow(load("large"), restored=restore("1", "denoise", 1)))
    shown = result["progress"]
    row("progress, 0.8 megapixels", result, 20 < len(shown) <= 101, f"{len(shown)} messages, to {shown[-1:]}")
    for name, at in (("large", 30), ("small", 0)):
        height, width, _ = PICTURES[name]
        result = await comfy.run(
            workflow(load(name), restored=restore("1", precision="bf16")), interrupt_at=at
        )
        took = result["interrupted"]
        ok = took is not None and not result["saved"]
        row(f"interruption at {at}%, {height} × {width}", result, ok, f"ended after {took or 0:.2f} s")
    await compare("the run after it", workflow(load("odd")), "odd")
    return good


async def main(checkout: Path) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        timeout = aiohttp.ClientTimeout(total=None)
        with running(checkout, folder) as (process, address):
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
                print(f"ComfyUI {system['comfyui_version']}, torch {system['pytorch_version']}\n")
                good = await cases(ComfyUI(folder, session, address))
        if not good:
            print((folder / "log").read_text(), file=sys.stderr)
        return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True, metavar="CHECKOUT")
    sys.exit(not asyncio.run(main(parser.parse_args().comfyui.resolve())))
