"""Compare the official code with ours, with the same trained weights and pictures: largest difference.

python benchmarks/official_pictures.py CHECKOUT MODEL PICTURE...

CHECKOUT is a clone of github.com/google-research/maxim; its code runs unchanged, in JAX, in this process. The
environment needs jax, flax and einops in addition to maximir. MODEL is a model that `maximir models` lists as
here. Pictures are cropped to 256 x 256 at their centre.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict
from PIL import Image

from maximir.models import checkpoint, choice
from maximir.models.official import arrays_from_state
from maximir.network.config import VARIANTS

checkout, name, *pictures = sys.argv[1:]
sys.path.insert(0, checkout)
from maxim.models import maxim  # noqa: E402

found = checkpoint.read(choice.named(name).path)
variant = next(key for key, config in VARIANTS.items() if config == found.config)
arrays = arrays_from_state(found.config, found.state)
params = unflatten_dict({tuple(key.split("/")): jnp.asarray(value) for key, value in arrays.items()})
theirs = maxim.Model(
    variant=variant, num_supervision_scales=3, use_bias=True, num_outputs=3, dropout_rate=0.0
)
ours = checkpoint.build(found.config, found.state).eval()
restore = jax.jit(lambda image: theirs.apply({"params": params}, image))
for picture in pictures:
    whole = Image.open(picture).convert("RGB")
    left, top = (side // 2 - 128 for side in whole.size)
    image = np.asarray(whole.crop((left, top, left + 256, top + 256)), np.float32)[None] / 255
    expected = restore(jnp.asarray(image))
    with torch.inference_mode():
        got = ours(torch.from_numpy(image).permute(0, 3, 1, 2))
    stages = [
        float(np.abs(np.asarray(expected[stage][-1]) - got[stage][-1].permute(0, 2, 3, 1).numpy()).max())
        for stage in range(len(got))
    ]
    told = ", ".join(f"stage {number + 1}: {stage:.1e}" for number, stage in enumerate(stages))
    print(f"{name}, {Path(picture).name}: largest difference {told}", flush=True)
