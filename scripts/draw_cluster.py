"""Draw the hours and cost that `maximir plan-cluster` estimates for a million photographs.

python scripts/draw_cluster.py docs/images/cluster.png [--cpu 19 0.05] [--gpu 0.3 2.00]

Needs matplotlib (pip install '.[docs]'). Photographs have 12 megapixels. Each pair of numbers is a worker's
seconds per megapixel and its price per hour; everything else is as in `plan-cluster` unless a curve says
otherwise.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from maximir.cluster import Cluster, Kind, Outcome, simulate

IMAGES, PIXELS = 1_000_000, 12_000_000
WORKERS = sorted({round(workers) for workers in np.geomspace(1, 1000, 25)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--cpu", nargs=2, type=float, default=(19, 0.05), metavar=("SECONDS", "PRICE"))
    parser.add_argument("--gpu", nargs=2, type=float, default=(0.3, 2.0), metavar=("SECONDS", "PRICE"))
    args = parser.parse_args()
    usual = Cluster()
    curves = [
        ("one processor core", args.cpu, usual, "C7", "-"),
        ("accelerator", args.gpu, usual, "C0", "-"),
        ("accelerator, a share each (--shards)", args.gpu, replace(usual, shards=True), "C2", "--"),
        ("accelerator, store of 200 MB/s", args.gpu, replace(usual, bandwidth=200e6), "C3", "-"),
        ("accelerator, lost once in two hours", args.gpu, replace(usual, losses=0.5, back=300.0), "C1", ":"),
    ]
    figure, (hours, cost) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for label, (seconds, price), cluster, colour, style in curves:
        outcomes = [simulate_one(seconds, workers, cluster) for workers in WORKERS]
        text = f"{label}: {seconds:g} s a megapixel, {price:.2f} an hour"
        hours.plot(WORKERS, [o.seconds / 3600 for o in outcomes], style, color=colour, label=text)
        cost.plot(WORKERS, [o.worker_seconds / 3600 * price for o in outcomes], style, color=colour)
        last = next((o for o in outcomes if o.busy < 0.5), None)
        print(f"{text}: {outcomes[-1].seconds / 3600:.1f} h with {WORKERS[-1]:,} workers, ", end="")
        print(f"half is waiting from {last.workers} on ({last.limit})" if last else "never half is waiting")
    hours.set(title="hours for 1,000,000 photographs of 12 megapixels", ylabel="hours")
    cost.set(title="their cost, at these prices", ylabel="in the currency of the prices", ylim=(500, None))
    for panel in (hours, cost):
        panel.set(xscale="log", yscale="log", xlabel="workers")
        panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(args.picture, dpi=110)
    print(args.picture)


def simulate_one(seconds: float, workers: int, cluster: Cluster) -> Outcome:
    return simulate([Kind(PIXELS, 1, PIXELS / 1e6 * seconds)], IMAGES, workers, cluster)


if __name__ == "__main__":
    main()
