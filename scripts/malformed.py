"""Put tens of thousands of malformed files of all kinds through `images.decode` and `encode`.

    python scripts/malformed.py --cases 50000

Each case is a number (see tests/malformed.py) and runs in a watched child process. Bad cases are printed with
their number; `python scripts/malformed.py --first NUMBER --cases 1` repeats one. Exits with 1 after a crash,
a hang, an error of a type not in maximir.errors, or more memory than --peak.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.malformed import attempt, originals, raws
from helpers.watched import watch


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--of", default="", help="use only originals whose names start with this")
    parser.add_argument("--raw", action="store_true", help="camera raw files, instead of all others")
    parser.add_argument("--seconds", type=float, default=15.0, help="computing time that counts as a hang")
    parser.add_argument("--memory", type=int, default=8, help="limit of address space in GiB")
    parser.add_argument("--peak", type=int, default=1536, help="MiB that one case may take")
    args = parser.parse_args()

    began, bad, slowest, peak = time.monotonic(), 0, 0.0, 0
    ends: Counter[tuple[str, str]] = Counter()
    whole = raws if args.raw else originals
    names, work = list(whole()), functools.partial(attempt, whole=whole)
    every = range(args.first, args.first + args.cases)
    cases = [seed for seed in every if names[seed % len(names)].startswith(args.of)]
    for done, verdict in enumerate(watch(work, cases, seconds=args.seconds, memory=args.memory << 30), 1):
        slowest, peak = max(slowest, verdict.seconds), max(peak, verdict.peak)
        if verdict.bad or verdict.peak > args.peak << 20:
            bad += 1
            print(f"{verdict.case}: {verdict.outcome}, {verdict.peak >> 20} MiB", flush=True)
        else:
            end, name = verdict.outcome.split(":")[0].split(" ", 1)
            ends[name, end] += 1
        if done % 5000 == 0:
            print(f"{done} cases, {bad} bad, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print("| of | read | refused |\n| --- | --- | --- |")
    for name in names:
        print(f"| {name} | {ends[name, 'read']} | {ends[name, 'refused']} |")
    print(f"\n{len(cases)} cases, {bad} bad; slowest {slowest:.1f} s, peak {peak >> 20} MiB")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
