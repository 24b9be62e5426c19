"""Plot loss and validation PSNR of training runs over steps. Needs matplotlib (pip install '.[docs]').

python scripts/plot_runs.py docs/images/denoise.png NAME=runs/a NAME=runs/b/log.jsonl

One panel shows the loss, and one each group of validation images that a run has measured.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

LOSS, PSNR = "loss", "psnr_"
COLUMNS = 4  # of panels
RENAMED = {"psnr_sigma25": "psnr_gaussian-25"}  # in older logs


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the lines of a run's log; `path` is the log or the run's folder."""
    lines = (path / "log.jsonl" if path.is_dir() else path).read_text().splitlines()
    return [{RENAMED.get(key, key): value for key, value in json.loads(line).items()} for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("logs", nargs="+", metavar="NAME=LOG")
    args = parser.parse_args()

    runs = {name: read_log(Path(log)) for name, log in (item.split("=", 1) for item in args.logs)}
    scores = {key for lines in runs.values() for line in lines for key in line if key.startswith(PSNR)}
    keys = [LOSS, *sorted(scores)]
    columns = min(COLUMNS, len(keys))
    rows = -(-len(keys) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(5 * columns, 3.6 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(keys) :]:
        panel.axis("off")
    for panel, key in zip(panels.flat[: len(keys)], keys, strict=True):
        for name, lines in runs.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        title = "training loss" if key == LOSS else f"validation PSNR, {key.removeprefix(PSNR)} (dB)"
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0, 0].set_yscale("log")
    figure.savefig(args.picture, dpi=110)
    print(args.picture)


if __name__ == "__main__":
    main()
