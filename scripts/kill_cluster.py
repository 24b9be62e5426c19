"""Kill actors, nodes and drivers of `maximir restore --ray` at random; compare with an undisturbed run.

    python scripts/kill_cluster.py --minutes 15

Needs ray[data], s3fs and moto's server. A Ray cluster of a head and two nodes with a processor each, and an
S3 server, run on this machine, with small pictures and a small network with random weights. Each kill follows
soon after a new result. After each kill every result is decoded. When a run is complete, its results and
records are compared byte by byte with those of one process, and the next bucket starts. Finally, one picture
kills every process that opens it. Prints a table of kills.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from maximir import images
from maximir.batch.journal import FOLDER
from maximir.errors import MaximirError
from maximir.models.checkpoint import save_model
from maximir.network.config import MaximConfig
from maximir.network.model import Maxim

LONGEST_WAIT = 60.0  # seconds without a new result, after which the next kill follows anyway
KINDS = ("actor", "actor", "actor", "actor", "node", "driver")
POISON = """
import os, signal, sys

def die(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.png") and "default_worker" in sys.argv[0]:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def contents(fs: Any, bucket: str) -> dict[str, bytes]:
    return {path: bytes(data) for path, data in fs.cat(fs.find(bucket)).items()} if fs.find(bucket) else {}


def results(fs: Any, bucket: str) -> dict[str, bytes]:
    return {path: data for path, data in contents(fs, bucket).items() if FOLDER not in path}


def relative(found: dict[str, bytes]) -> dict[str, bytes]:
    return {path.partition("/")[2]: data for path, data in found.items()}


def torn(found: dict[str, bytes]) -> int:
    count = 0
    for data in found.values():
        try:
            images.decode(data)
        except MaximirError:
            count += 1
    return count


def actors() -> list[psutil.Process]:
    """Return the processes of Ray Data's actors on all nodes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line and line[0].startswith("ray::") and "MapWorker" in line[0]:
            found.append(process)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30, help="stop after this time, with fewer kills")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument(
        "--longest", type=float, default=1.0, help="maximum seconds from a new result to a kill"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, port = random.Random(args.seed), free_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "RAY_DEDUP_LOGS": "0",
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "poison").mkdir()
        (folder / "poison" / "sitecustomize.py").write_text(POISON)
        os.environ["PYTHONPATH"] = f"{folder / 'poison'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run(args, chance, folder, port)
        finally:
            server.kill()


def run(args: argparse.Namespace, chance: random.Random, folder: Path, port: int) -> None:
    import s3fs
    from ray.cluster_utils import Cluster

    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    weights = folder / "tiny.safetensors"
    torch.manual_seed(0)
    save_model(Maxim(MaximConfig(features=8, stages=1, groups=1, bottlenecks=1)).eval(), weights)
    rng = np.random.default_rng(args.seed)
    fs.mkdir("pictures")
    (folder / "in").mkdir()
    for number in range(args.images):
        data, _ = images.encode(images.Photo(rng.integers(0, 256, (64, 64, 3), np.uint8)), "png")
        fs.pipe_file(f"pictures/{'below/' if number % 3 else ''}{number:03}.png", data)
        if number < 40:
            (folder / "in" / f"{number:03}.png").write_bytes(data)
    fs.pipe_file("pictures/torn.png", data[:300])
    (folder / "in" / "poison.png").write_bytes(data)

    def start(source: str, out: str, *more: str) -> subprocess.Popen[bytes]:
        words = ["restore", source, "-o", out, "--weights", str(weights), *more]
        return subprocess.Popen(
            [sys.executable, "-m", "maximir", *words], stdout=subprocess.DEVNULL, stderr=log
        )

    log = (folder / "log").open("wb")
    fs.mkdir("undisturbed")
    start("s3://pictures", "s3://undisturbed").wait()
    expected = relative(contents(fs, "undisturbed"))
    assert len(expected) == 2 * args.images, (folder / "log").read_text()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    begun, kills = time.monotonic(), collections.Counter[str]()
    halves, rounds, equal, strays, twice, reports = 0, 0, 0, 0, 0, 0
    enough = False
    try:
        while not enough:
            rounds += 1
            bucket = f"out{rounds}"
            fs.mkdir(bucket)
            report = folder / f"{bucket}.jsonl"

            def go(bucket: str = bucket, report: Path = report) -> subprocess.Popen[bytes]:
                return start(
                    "s3://pictures", f"s3://{bucket}", "--ray", cluster.address, "--report", str(report)
                )

            driver = go()
            while driver.poll() is None:
                count, waited = len(fs.find(bucket)), time.monotonic()
                enough = sum(kills.values()) >= args.kills or time.monotonic() - begun > 60 * args.minutes
                while driver.poll() is None and (
                    enough or (len(fs.find(bucket)) <= count and time.monotonic() - waited < LONGEST_WAIT)
                ):
                    time.sleep(0.1)
                time.sleep(chance.uniform(0, args.longest))
                if driver.poll() is not None:
                    break
                kind = chance.choice(KINDS)
                if kind == "actor":
                    if not (found := actors()):
                        continue
                    chance.choice(found).kill()
                elif kind == "node":
                    number = chance.randrange(2)
                    cluster.remove_node(nodes[number], allow_graceful=False)
                    nodes[number] = cluster.add_node(num_cpus=1)
                else:
                    driver.send_signal(signal.SIGKILL)
                    driver.wait()
                    driver = go()
                kills[kind] += 1
                halves += torn(results(fs, bucket))
                print(f"{sum(kills.values())}: {kind}", file=sys.stderr, flush=True)
            found = relative(contents(fs, bucket))
            equal += found == expected
            strays += len(found.keys() - expected.keys())
            of_runs: list[list[str]] = []
            for line in report.read_text().splitlines():
                facts = json.loads(line)
                of_runs.append([]) if "run" in facts else of_runs[-1].append(facts["source"])
            reports += len(of_runs)
            twice += sum(len(names) - len(set(names)) for names in of_runs)
            print(f"round {rounds}: {'equal' if found == expected else 'DIFFERENT'}", file=sys.stderr)
        poison_report = folder / "poison.jsonl"
        last = start(
            str(folder / "in"), str(folder / "out"), "--ray", cluster.address, "--report", str(poison_report)
        )
        last.wait(timeout=900)
        said = [json.loads(line) for line in poison_report.read_text().splitlines()[1:]]
        aside = {Path(each["source"]).name: each["error"] for each in said if each["status"] == "failed"}
        print("| killed | times |\n| --- | --- |")
        for kind in ("actor", "node", "driver"):
            print(f"| {kind} | {kills[kind]} |")
        print(
            f"\n{sum(kills.values())} kills in {rounds} runs over {args.images + 1} pictures, "
            f"{(time.monotonic() - begun) / 60:.0f} minutes. Incomplete results after a kill: "
            f"{halves}; unexpected objects: {strays}; pictures reported twice by one driver "
            f"({reports} drivers): {twice}; buckets equal to the undisturbed one, including records: "
            f"{equal} of {rounds}. A picture "
            f"that kills every process that opens it, among 40 others: {len(said) - len(aside)} restored, "
            f"set aside: {aside}"
        )
        if halves or strays or twice or equal < rounds or list(aside) != ["poison.png"]:
            print((folder / "log").read_text()[-2000:], file=sys.stderr)
            raise SystemExit(1)
    finally:  # may hang, so the counts are printed first
        cluster.shutdown()


if __name__ == "__main__":
    main()
