"""Curves of training runs: loss and validation PSNR over steps. Needs matplotlib (pip install '.[docs]').

python scripts/plot_runs.py docs/images/denoise.png NAME=runs/a/log.jsonl NAME=runs/b/log.jsonl
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("logs", nargs="+", metavar="NAME=LOG")
    args = parser.parse_args()

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, log in (item.split("=", 1) for item in args.logs):
        lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
        for panel, key in zip(panels, ("loss", "psnr_sigma25"), strict=True):
            points = [(line["step"], line[key]) for line in lines if key in line]
            panel.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
    for panel, title in zip(panels, ("training loss", "validation PSNR, sigma 25 (dB)"), strict=True):
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_yscale("log")
    figure.savefig(args.picture, dpi=110)
    print(args.picture)


if __name__ == "__main__":
    main()
