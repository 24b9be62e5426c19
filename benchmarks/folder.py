"""Measure a folder of small images: its rate relative to computing alone, and the effect of batches.

python benchmarks/folder.py [--count 30] [--size 512x384]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import maximir
from maximir import Restorer, images
from maximir.images import Photo
from maximir.sizes import parse_pixels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="denoise")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--size", default="512x384")
    args = parser.parse_args()
    restorer = Restorer(args.weights, precision=args.precision)
    rng = np.random.default_rng(0)

    height, width = parse_pixels(args.size)
    photos = [Photo(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(args.count)]
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "in", Path(name) / "out"
        source.mkdir()
        for number, photo in enumerate(photos):
            images.write(photo, source / f"{number:03}.png")
        restorer.restore_photo(photos[0])
        start = time.perf_counter()
        for photo in photos:
            restorer.restore_photo(photo)
        alone = time.perf_counter() - start
        start = time.perf_counter()
        failed = [o for o in maximir.restore_files(source, target, restorer) if o.error is not None]
        whole = time.perf_counter() - start
        assert not failed
    print(
        f"{args.count} PNGs of {args.size}, {args.weights}, {args.precision}: computing alone {alone:.1f} s,"
    )
    print(f"reading, computing and writing {whole:.1f} s: {alone / whole:.0%} of the rate of computing alone")

    for side in (64, 128, 192):
        arrays = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(16)]
        seconds, differing = {}, {}
        alone_results = [restorer.restore_arrays([array])[0] for array in arrays]
        for size in (1, 2, 4, 16):
            best = 1e9
            for _ in range(3):
                start = time.process_time()
                results: list[np.ndarray] = []
                for first in range(0, 16, size):
                    results += restorer.restore_arrays(arrays[first : first + size])
                best = min(best, time.process_time() - start)
            seconds[size] = best / 16
            differing[size] = sum(int((a != b).sum()) for a, b in zip(results, alone_results, strict=True))
        print(
            f"{side}x{side}: "
            + ", ".join(
                f"{1e3 * each:.0f} ms each in batches of {size} ({differing[size]} values differ)"
                for size, each in seconds.items()
            )
        )


if __name__ == "__main__":
    main()
