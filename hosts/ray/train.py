"""Run `maximir train` with Ray Train on a Ray cluster.

    python hosts/ray/train.py 16 --gpu -- official/gopro --pairs s3://bucket/gopro --out /shared/runs/gopro

The first argument is the number of processes; `maximir train` gets those after `--`. All nodes must see the
folder of --out. If a process or node is lost, Ray restarts all processes, and the run continues from its
newest state. Requires ray[train] (pip install 'ray[train]').
"""

from __future__ import annotations

import argparse
from typing import Any


def work(config: dict[str, Any]) -> None:
    """Train in one process of the group that Ray has set up."""
    from maximir.cli.app import app

    app(["train", *config["words"]], standalone_mode=False)


def main() -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", type=int)
    parser.add_argument("--gpu", action="store_true", help="use one GPU per process")
    parser.add_argument("--failures", type=int, default=3, help="stop after this many failures")
    parser.add_argument("words", nargs="+", help="arguments of maximir train")
    args = parser.parse_args()
    TorchTrainer(
        work,
        train_loop_config={"words": args.words},
        scaling_config=ScalingConfig(num_workers=args.processes, use_gpu=args.gpu),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=args.failures)),
    ).fit()


if __name__ == "__main__":
    main()
