"""Print the largest difference from the official code for every golden, stage and scale: network and engine.

python benchmarks/parity.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.reference import GOLDEN, reference_image, reference_weights
from maximir.engine import network as engine
from maximir.models.checkpoint import build
from maximir.models.official import state_from_official

table = Table("golden", "", "stage", "1/4", "1/2", "full", title="largest absolute difference, fp32, CPU")
for path in sorted(GOLDEN.glob("*.npz")):
    golden = np.load(path)
    salt = int(golden["salt"])
    model = build(*state_from_official(reference_weights(str(golden["variant"]), salt)))
    image = reference_image(int(golden["height"]), int(golden["width"]), salt)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        ways = {"network": model(batch), "engine": engine.run(model, batch)}
    for way, outputs in ways.items():
        for stage, scales in enumerate(outputs):
            errors = [
                np.abs(output[0].permute(1, 2, 0).numpy() - golden[f"stage{stage}_scale{scale}"]).max()
                for scale, output in enumerate(scales)
            ]
            table.add_row(path.stem, way, str(stage), *(f"{error:.1e}" for error in errors))
Console(width=80).print(table)
