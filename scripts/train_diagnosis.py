"""Train the small network behind `--task auto` (`maximir.restoring.diagnosis`), in three steps, and test it.

    python scripts/train_diagnosis.py make --clean FOLDER... --pairs FOLDER... -o samples --count 6000
    python scripts/train_diagnosis.py train samples -o diagnosis.safetensors --epochs 30
    python scripts/train_diagnosis.py test samples diagnosis.safetensors
    python scripts/train_diagnosis.py blocks FOLDER...

`make` damages photographs by training's degradations, none, one or two at a time, or takes real pairs; every
seventh photograph is held out. Harmless changes (softness, contrast, a good JPEG) are among the clean ones: a
clean photograph must stay alone. `test` prints the confusion table of the held-out ones; `blocks` which of
some clean photographs are seen as compressed, as they are and as JPEGs.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from maximir.degradations import degrade_photograph
from maximir.degradations.files import compress
from maximir.restoring.diagnosis import (
    CERTAIN,
    DAMAGES,
    SURE,
    Diagnosis,
    Views,
    blockiness,
    probabilities,
    views_of,
)

KINDS = {  # of each damage
    "darkness": ["low-light"],
    "haze": ["haze"],
    "rain": ["rain"],
    "blur": ["motion-blur", "straight-motion", "averaged-frames"],
    "noise": ["gaussian", "camera-noise"],
    "compression": ["compression"],
}  # and in the order in which they happen
TOGETHER = [
    ("blur", "noise"), ("haze", "noise"), ("noise", "compression"), ("rain", "compression"),
    ("haze", "compression"), ("blur", "compression"), ("darkness", "compression"),
]  # fmt: skip
OF_PAIRS = {"noise": "noise", "low-light": "darkness", "haze": "haze", "blur": "blur", "rain": "rain"}
SHARES = [0.3, 0.14, 0.14, 0.14, 0.14, 0.14]  # of `DAMAGES`: compression is the hardest to see
UNKNOWN = -1.0  # a label that is not trained
VISIBLE, HIDDEN = 36.0, 42.0  # dB: below, a damage is one; above, it is none
HELD_OUT = 7  # one in so many photographs


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float32) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def to_uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def cut(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a part of a photograph, perhaps scaled: 256 to 512 pixels a side."""
    scale = np.exp(rng.uniform(np.log(0.5), np.log(1.5)))
    least = 256 / min(photograph.size)
    size = [round(side * max(scale, least)) for side in photograph.size]
    photograph = photograph.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    width, height = (int(rng.integers(256, min(side, 512) + 1)) for side in size)
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    return photograph.crop((left, top, left + width, top + height))


def harmless(photograph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Change a photograph as its owner or camera may, without damage."""
    if rng.random() < 0.3:
        photograph = photograph.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.2:
        photograph = photograph.filter(ImageFilter.UnsharpMask(1, int(rng.integers(30, 90)), 2))
    image = np.asarray(photograph, np.float32) / 255
    if rng.random() < 0.5:
        image = image ** rng.uniform(0.75, 1.35)
    if rng.random() < 0.3:
        image = (image - 0.5) * rng.uniform(0.8, 1.2) + 0.5
    if rng.random() < 0.2:
        image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return to_uint8(image)


def damaged(photograph: Image.Image, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture, uint8 [H, W, 3], and its labels [6]: 1, 0 or UNKNOWN."""
    image = harmless(cut(photograph, rng), rng)
    labels = dict.fromkeys(DAMAGES, 0.0)
    choice = rng.random()
    chosen: tuple[str, ...] = ()
    if choice > 0.7:
        chosen = TOGETHER[rng.integers(len(TOGETHER))]
    elif choice > 0.3:
        chosen = (str(rng.choice(list(DAMAGES), p=SHARES)),)
    for damage in (name for name in KINDS if name in chosen):
        kind = str(rng.choice(KINDS[damage]))
        after = to_uint8(degrade_photograph(image, kind, [int(rng.integers(1 << 31))]))
        reached = psnr(image, after)
        labels[damage] = 1.0 if reached < VISIBLE else 0.0 if reached > HIDDEN else UNKNOWN
        image = after
    if chosen and "compression" not in chosen:
        labels["compression"] = UNKNOWN  # some of the others are saved as JPEG
    if {"darkness", "blur", "rain"} & set(chosen) and "noise" not in chosen:
        labels["noise"] = UNKNOWN  # and some of them are noisy
    if not chosen and rng.random() < 0.5:
        quality, subsample = int(rng.integers(91, 99)), bool(rng.random() < 0.5)
        image = to_uint8(compress(image.astype(np.float32) / 255, "JPEG", quality, subsample=subsample))
    return image, np.float32([labels[name] for name in DAMAGES])


def of_pair(path: Path, damage: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(Image.open(path).convert("RGB"))
    height, width = (int(rng.integers(min(side, 256), min(side, 512) + 1)) for side in image.shape[:2])
    top, left = (
        int(rng.integers((side - size) // 8 + 1)) * 8
        for side, size in zip(image.shape[:2], (height, width), strict=True)
    )
    labels = dict.fromkeys(DAMAGES, 0.0)
    labels["compression"] = UNKNOWN
    if "_input" in path.name:
        labels[damage] = 1.0
        if damage != "noise":
            labels["noise"] = UNKNOWN
    elif damage in ("blur", "darkness"):
        labels["noise"] = UNKNOWN
    return image[top : top + height, left : left + width], np.float32([labels[name] for name in DAMAGES])


def samples(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    clean = [path for folder in args.clean for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    clean = [path for path in clean if min(Image.open(path).size) >= 200]
    pairs = [
        (path, damage)
        for folder in args.pairs
        for path in sorted(folder.rglob("*"))
        for word, damage in OF_PAIRS.items()
        if word in path.parent.name and ("_input" in path.name or "_target" in path.name)
    ]
    for number in range(args.count):
        rng = np.random.default_rng([args.seed, number])
        if rng.random() < 0.25 and pairs:
            path, damage = pairs[rng.integers(len(pairs))]
            name = path.name.split("_input")[0].split("_target")[0]
            picture, labels = of_pair(path, damage, rng)
        else:
            path = clean[rng.integers(len(clean))]
            name = path.name
            picture, labels = damaged(Image.open(path).convert("RGB"), rng)
        yield picture, labels, zlib.crc32(name.encode()) % HELD_OUT == 0


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def make(args: argparse.Namespace) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    parts: list[list[np.ndarray]] = [[], [], [], []]
    started = time.monotonic()
    for number, (picture, labels, held_out) in enumerate(samples(args), 1):
        crops, view = views_of(picture)
        for part, value in zip(parts, (crops, view, labels, np.bool_(held_out)), strict=True):
            part.append(value)
        if number % 200 == 0 or number == args.count:
            print(f"{number} of {args.count}, {time.monotonic() - started:.0f} s", flush=True)
            for name, part in zip(("crops", "view", "labels", "held_out"), parts, strict=True):
                np.save(args.output / f"{name}-{args.seed}-{number:06}.npy", np.stack(part))
                part.clear()


def load(folder: Path) -> tuple[Views, torch.Tensor, torch.Tensor]:
    names = ("crops", "view", "labels", "held_out")
    parts = [
        np.concatenate([np.load(path) for path in sorted(folder.glob(f"{name}-*.npy"))]) for name in names
    ]
    crops, view, labels, held_out = map(torch.from_numpy, parts)
    return Views(crops, view), labels, held_out


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    views, labels, held_out = load(args.samples)
    chosen = (~held_out).nonzero()[:, 0]
    model = Diagnosis()
    if args.init:
        model.load_state_dict({name: value.float() for name, value in load_file(args.init).items()})
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(chosen)} samples")
    steps = args.epochs * (len(chosen) // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=steps)
    started = time.monotonic()
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for batch in chosen[torch.randperm(len(chosen))][: steps // args.epochs * args.batch].view(
            -1, args.batch
        ):
            crops, view = views.crops[batch], views.view[batch]
            keep = torch.randperm(crops.shape[1])[:5]  # fewer at a time
            crops = crops[:, keep]
            if torch.rand(()) < 0.5:
                crops, view = crops.flip(3), view.flip(2)
            logits = model(Views(crops, view))
            target = labels[batch]
            loss = F.binary_cross_entropy_with_logits(logits, target.clamp_min(0), reduction="none")
            loss = loss[target >= 0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}  loss {total / (steps // args.epochs):.4f}",
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        save_file({name: value.half() for name, value in model.state_dict().items()}, args.output)
    test(args)


@torch.no_grad()
def test(args: argparse.Namespace) -> None:
    views, labels, held_out = load(args.samples)
    model = Diagnosis().eval()
    model.load_state_dict({name: value.float() for name, value in load_file(args.output).items()})
    chosen = held_out.nonzero()[:, 0]
    found = torch.cat(
        [probabilities(model, Views(views.crops[each], views.view[each])) for each in chosen.split(64)]
    )
    labels = labels[chosen]
    clean = ((labels == 0) | (labels == UNKNOWN)).all(dim=1) & ((labels == UNKNOWN).sum(dim=1) <= 1)
    sure = found > torch.tensor([SURE.get(name, 1.0) for name in DAMAGES])
    alone = int((~sure[clean].any(dim=1)).sum())
    print(f"{len(chosen)} held out, {int(clean.sum())} of them clean: {alone} left alone")
    print("| damage | sure from | of those that have it | of those that do not | of the clean ones |")
    print("| --- |" + " --- |" * 4)
    for i, name in enumerate(DAMAGES):
        having, others = (sure[labels[:, i] == value, i] for value in (1, 0))
        shares = (
            f"{100 * part.float().mean():.1f}% of {len(part)}" for part in (having, others, sure[clean, i])
        )
        print(f"| {name} | {SURE.get(name)} | " + " | ".join(shares) + " |")
    print("| has, alone | " + " | ".join(DAMAGES) + " | nothing |")
    print("| --- |" + " --- |" * (len(DAMAGES) + 1))
    for i, name in enumerate((*DAMAGES, "nothing")):
        only = clean if name == "nothing" else (labels[:, i] == 1) & ((labels == 1).sum(dim=1) == 1)
        counts = [int(sure[only, j].sum()) for j in range(len(DAMAGES))] + [
            int((~sure[only].any(dim=1)).sum())
        ]
        print(f"| {name} ({int(only.sum())}) | " + " | ".join(map(str, counts)) + " |")


def blocks(args: argparse.Namespace) -> None:
    paths = [path for folder in args.clean for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    photographs = [Image.open(path).convert("RGB") for path in paths]

    def seen(quality: int | None) -> float:
        pixels = [np.asarray(each) for each in photographs]
        if quality is not None:
            pixels = [to_uint8(compress(each.astype(np.float32) / 255, "JPEG", quality)) for each in pixels]
        found = np.array([blockiness(each) for each in pixels]) / CERTAIN
        return float(np.mean(found > SURE["compression"]))

    shares = {quality: seen(quality) for quality in (None, 10, 20, 30, 40, 50, 75, 90)}
    print(f"| {len(paths)} photographs | as they are | " + " | ".join(map(str, list(shares)[1:])) + " |")
    print("| --- |" + " --- |" * len(shares))
    print("| seen as compressed | " + " | ".join(f"{share:.0%}" for share in shares.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    command.add_argument("--clean", nargs="+", type=Path, required=True)
    command.add_argument("--pairs", nargs="*", type=Path, default=[])
    command.add_argument("--count", type=int, default=6000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.set_defaults(run=make)
    command = commands.add_parser("train")
    command.add_argument("samples", type=Path)
    command.add_argument("--epochs", type=int, default=30)
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--rate", type=float, default=3e-3)
    command.add_argument("--init", type=Path, help="weights to go on from")
    command.add_argument("-o", "--output", type=Path, required=True)
    command.set_defaults(run=train)
    command = commands.add_parser("test")
    command.add_argument("samples", type=Path)
    command.add_argument("output", metavar="weights", type=Path)
    command.set_defaults(run=test)
    command = commands.add_parser("blocks")
    command.add_argument("clean", nargs="+", type=Path)
    command.set_defaults(run=blocks)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
