"""Small inputs to begin with: python fuzz/seeds.py FOLDER → FOLDER/decode and one for each other target."""

import gzip
import json
import struct
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import safetensors.numpy

from helpers import kept, malformed, tfjs_package
from maximir import Maxim, images
from maximir.batch.journal import Entry
from maximir.evaluation.scores import Score
from maximir.files import line_of
from maximir.images.metadata import iptc
from maximir.models import checkpoint
from maximir.network.config import MaximConfig
from maximir.training import recipe

EDGE = "edge"
DISPOSITIONS = (
    'form-data; name="image"; filename="photo.png"',
    "form-data; name=image; filename=photo.png; filename*=utf-8''f%C3%BC.png",
    'form-data; name="image"; filename="=?utf-8?B?ZsO8LnBuZw==?="',
    'form-data; name="image"; filename="a%22b\\"c.png"',
    'form-data; name="image"',
)


def form(disposition: str) -> bytes:
    parts = ((disposition, "\x89PNG"), ('form-data; name="task"', "denoise"))
    body = "".join(f"--{EDGE}\r\nContent-Disposition: {how}\r\n\r\n{what}\r\n" for how, what in parts)
    return f"multipart/form-data; boundary={EDGE}\n{body}--{EDGE}--\r\n".encode("latin-1")


def told(order: str) -> list[bytes]:
    """Photographs about which everything is said."""
    photo = images.Photo(malformed.smooth(), metadata=kept.everything(order))
    return [images.encode(photo, kind)[0] for kind in kept.KINDS.values()]


def records() -> list[bytes]:
    entry = line_of(asdict(Entry("a.png", "5", "s", "7", 4, 6)))
    score = line_of(Score("a", "", 30.0, None, float("inf"), 0.5, 4, 6, 0.1, "d").values())
    recipes = [
        b"r" + (recipe.RECIPES / f"{name}.toml").read_bytes() for name in ("denoise-small", "official")
    ]
    run = json.dumps({"settings": {"a": 1}}).encode()
    return [b"j" + 2 * entry, b"o" + 2 * entry, b"s" + run + b"\n\n" + score, *recipes]


def weights() -> list[bytes]:
    """A network's header and the first of its values, a package's tarball and manifest."""
    model = Maxim(MaximConfig(features=4, stages=1, groups=1, bottlenecks=1))
    with tempfile.TemporaryDirectory() as name:
        checkpoint.save_model(model, path := Path(name) / "w.safetensors")
        header = path.read_bytes()
        (length,) = struct.unpack_from("<Q", header)
        package = tfjs_package.files_of(*tfjs_package.graph({"a/b/bias": np.ones(4, np.float32)}))
        tarball = tfjs_package.write_tarball(Path(name) / "w.tgz", package)
        np.savez(Path(name) / "w.npz", **{"params/a/bias": np.ones(4, np.float32)})
        return [
            b"s" + header[: length + 4000],
            b"s" + safetensors.numpy.save({"a": np.ones(4, np.float32)}, {"format": "maximir-1"}),
            b"n" + (Path(name) / "w.npz").read_bytes(),
            b"t" + gzip.decompress(tarball.read_bytes()),
            b"m" + package["model.json"],
        ]


if __name__ == "__main__":
    small = [data for data in malformed.originals().values() if len(data) < 20_000]
    seeds = {
        "decode": small + told("<") + told(">"),
        "forms": list(map(form, DISPOSITIONS)),
        "metadata": [b"e" + kept.block(order) for order in "<>"]
        + [b"x" + kept.XMP % b"here", b"p" + iptc.wrapped(kept.RECORDS) + kept.PATHS],
        "records": records(),
        "weights": weights(),
    }
    for name, inputs in seeds.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed{number:02d}").write_bytes(data)
