"""Send foreign files to the HTTP service without the network, and report the status of each.

    python scripts/corpus_http.py libpng/contrib/pngsuite Pillow/Tests/images

The worker process is the real one, with a restorer that returns the image unchanged. Several clients send at
once. Prints a table of folders. Exits with 1 after a status other than 200, 413, 415 and 422, if the worker
process ended, or if the service is not healthy afterwards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.serving import Service

EXPECTED = (200, 413, 415, 422)  # 400 is for malformed requests, which these are not
WORKER = """
from maximir.restoring import restorer
class Unchanged:
    device = "no device"
    def __init__(self, *args, **kwargs): pass
    def restore_photo(self, photo, **call): return photo
restorer.Restorer = Unchanged
from maximir.service.worker import main
main()
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    args = parser.parse_args()
    bad: list[str] = []
    counts: dict[Path, Counter[int]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder), worker=[sys.executable, "-c", WORKER]) as service,
        ThreadPoolExecutor(args.clients) as clients,
    ):

        def send(path: Path) -> int:
            status: int = service.restore(path.read_bytes(), "image").status_code
            if status not in EXPECTED:
                bad.append(f"{path}: {status}")
            return status

        for folder_of_files in args.folders:
            files = sorted(path for path in folder_of_files.rglob("*") if path.is_file())
            counts[folder_of_files] = Counter(clients.map(send, files))
        healthy = service.health().status_code == 200 and service.idle()
        starts = service.metric("maximir_worker_starts_total")
        held = psutil.Process(service.process.pid).memory_info().rss
        worker = service.metric("maximir_worker_memory_bytes")
    print("| folder | files |", " | ".join(map(str, EXPECTED)), "| other |")
    print("| --- " * (len(EXPECTED) + 3) + "|")
    total: Counter[int] = sum(counts.values(), Counter())
    for name, count in [*((folder.name, count) for folder, count in counts.items()), ("all", total)]:
        other = count.total() - sum(count[status] for status in EXPECTED)
        numbers = [count.total(), *(count[status] for status in EXPECTED), other]
        print(f"| {name} |", " | ".join(map(str, numbers)), "|")
    print(f"\nstarts of the worker: {starts:.0f}; well afterwards: {healthy};", end=" ")
    print(f"memory in the end: {held >> 20} MiB, worker {int(worker) >> 20} MiB")
    for line in bad:
        print(line)
    return int(bool(bad) or not healthy or starts != 1)


if __name__ == "__main__":
    sys.exit(main())
