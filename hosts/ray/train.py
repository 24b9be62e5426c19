"""`maximir train` by Ray Train, on the cluster that Ray runs on.

    python hosts/ray/train.py 16 --gpu -- official/gopro --pairs s3://bucket/gopro --out /shared/runs/gopro

The first word is how many processes there are; behind `--` stands what `maximir train` gets. --out must lie
where all nodes see it. When a process or a node is lost, Ray starts all of them again, and the run goes on
from its newest state. Needs ray[train] (pip install 'ray[train]').
"""

from __future__ import annotations

import argparse
from typing import Any


def work(config: dict[str, Any]) -> None:
    """In each process, which Ray has brought together with the others."""
    from maximir.cli.app import app

    app(["train", *config["words"]], standalone_mode=False)


def main() -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", type=int)
    parser.add_argument("--gpu", action="store_true", help="one for each process")
    parser.add_argument("--failures", type=int, default=3, help="after which it gives up")
    parser.add_argument("words", nargs="+", help="of maximir train")
    args = parser.parse_args()
    TorchTrainer(
        work,
        train_loop_config={"words": args.words},
        scaling_config=ScalingConfig(num_workers=args.processes, use_gpu=args.gpu),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=args.failures)),
    ).fit()


if __name__ == "__main__":
    main()
