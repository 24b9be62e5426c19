"""Time the official JAX code, in its own environment (jax, flax, einops).

python benchmarks/official_jax.py CHECKOUT VARIANT 256x256 1024x1024

CHECKOUT is a clone of github.com/google-research/maxim. Prints one line of JSON per size: seconds of the
first call (it compiles), of the best following call, and the process's peak resident memory in GB so far
(give sizes in growing order).
"""

import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

RSS_UNIT = 1 if sys.platform == "darwin" else 1024

checkout, variant, *sizes = sys.argv[1:]
sys.path.insert(0, str(Path(checkout)))
from maxim.models import maxim  # noqa: E402

model = maxim.Model(variant=variant, num_supervision_scales=3, use_bias=True, num_outputs=3, dropout_rate=0.0)
shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, 64, 64, 3)))
rng = np.random.default_rng(0)
variables = jax.tree_util.tree_map(
    lambda leaf: jnp.asarray(rng.normal(0, 0.02, leaf.shape).astype(np.float32)), shapes
)
restore = jax.jit(lambda image: model.apply(variables, image)[-1][-1])
for size in sizes:
    width, height = map(int, size.split("x"))
    image = jnp.asarray(rng.random((1, height, width, 3), dtype=np.float32))
    seconds = []
    for _ in range(1 + max(1, min(5, round(1e6 / (height * width))))):
        start = time.perf_counter()
        restore(image).block_until_ready()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9
    print(json.dumps({"size": size, "first": seconds[0], "warm": min(seconds[1:]), "peak": peak}), flush=True)
