"""Mix the weights of a start and a result; often this keeps both strengths (docs/experiments.md, 15).

    python scripts/mix.py START RESULT OUT.safetensors --share 0.2

OUT = START + share (RESULT − START), as float16, with RESULT's config, which may differ in `padding_mode`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from maximir import load_model
from maximir.models import choice
from maximir.models.checkpoint import read, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description="Mix the weights of a start and a result.")
    parser.add_argument("start", help="a name or a file; of a larger model, the first stages are used")
    parser.add_argument("result", help="a name or a file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, required=True, help="share of the result, 0 to 1")
    given = parser.parse_args()
    start, result = load_model(given.start), load_model(given.result)
    begun = start.first_stages(result.config.stages).state_dict()
    with torch.no_grad():
        for name, value in result.state_dict().items():
            value.copy_(torch.lerp(begun[name], value, given.share))
    facts = read(choice.resolve(given.result)).facts
    save_model(result, given.out, form="float16", metadata=facts | {"share": given.share})


if __name__ == "__main__":
    main()
