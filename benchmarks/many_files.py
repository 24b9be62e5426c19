"""Time per picture of planning and of the journal, with a stand-in for the network: it must not grow.

    python benchmarks/many_files.py 5000 10000

A tenth of the files are damaged. Prints seconds and microseconds per picture of each step, and peak memory.
"""

import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from maximir import images
from maximir.batch.journal import FILE
from maximir.batch.outcome import Report
from maximir.batch.plan import estimate_jobs, plan
from maximir.batch.restore import restore_jobs


class StandIn:
    """Inverts; takes no time."""

    def precision_for(self, dtype):
        return "fp32"

    def restore_photo(self, photo, **call):
        return dataclasses.replace(photo, rgb=255 - photo.rgb)


def measure(folder: Path, count: int) -> None:
    good = images.encode(images.Photo(np.full((8, 8, 3), 7, np.uint8)), "png")[0]
    (folder / "in").mkdir(parents=True)
    for k in range(count):
        (folder / "in" / f"{k:06}.png").write_bytes(good[:45] if k % 10 == 0 else good)
    (folder / "out").mkdir()

    def tell(step: str, began: float) -> None:
        took = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{count} files, {step}: {took:.2f} s, {took / count * 1e6:.0f} us each, {memory} MiB", flush=True
        )

    began = time.perf_counter()
    planned = plan([folder / "in"], folder / "out")
    estimate_jobs(planned.jobs)
    tell("plan", began)
    for step in ("restore", "resume"):
        began = time.perf_counter()
        report = Report(folder / f"{step}.jsonl", "benchmark")
        with planned.open_journal("a", resume=True) as journal:
            failed = 0
            for outcome in restore_jobs(planned.jobs, StandIn(), journal):
                report.add(outcome)
                failed += outcome.error is not None
        report.close()
        assert failed == count // 10
        tell(step, began)
    for name, path in (("report", folder / "restore.jsonl"), ("journal", folder / "out" / FILE)):
        print(f"{count} files, {name}: {path.stat().st_size / count:.0f} bytes each", flush=True)


if __name__ == "__main__":
    for text in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            measure(Path(place), int(text))
