"""Draw a sheet of images before and after restoration, for one or several tasks.

python scripts/before_after.py sheet.webp --task denoise night.png --task derain street.jpg more/
python scripts/before_after.py docs/images/examples.png --task denoise examples --crop 280 --stack --columns 3

Each --task takes a model's name, a task or a file of weights, then images and folders of images. Each image
is restored whole, and shown scaled down, or cropped to its centre at full size.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from maximir import Restorer
from maximir.training.data import ImageFile, list_images

GAP = 6


def find(place: Path) -> list[ImageFile]:
    return [image for _, image in list_images(place)] if place.is_dir() else [ImageFile(place)]


def view(image: Image.Image, width: int, crop: int | None) -> Image.Image:
    """Crop the central `crop` × `crop` pixels, or shrink the whole image to at most `width`."""
    if crop is None:
        height = round(image.height * min(1, width / image.width))
        return image.resize((min(width, image.width), height), Image.Resampling.LANCZOS)
    w, h = (min(side, crop) for side in image.size)
    left, top = (image.width - w) // 2, (image.height - h) // 2
    return image.crop((left, top, left + w, top + h))


def label(image: Image.Image, text: str) -> None:
    ImageDraw.Draw(image).text((5, 3), text, "white", stroke_fill="black", stroke_width=2, font_size=16)


def line_up(images: list[Image.Image], *, down: bool) -> Image.Image:
    """Place images side by side, or below each other, with gaps."""
    step = [0, 0]
    size = [max(image.width for image in images), max(image.height for image in images)]
    size[down] = sum(image.size[down] + GAP for image in images) - GAP
    sheet = Image.new("RGB", tuple(size), "white")
    for image in images:
        sheet.paste(image, tuple(step))
        step[down] += image.size[down] + GAP
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sheet", type=Path, help=".png or .webp")
    parser.add_argument(
        "--task", nargs="+", action="append", required=True, metavar=("MODEL", "IMAGE"), help="see above"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--width", type=int, default=480, help="maximum width of an image")
    parser.add_argument("--crop", type=int, help="show a central square of this side instead")
    parser.add_argument("--stack", action="store_true", help="place after below before, not beside it")
    parser.add_argument("--columns", type=int, default=1, help="images per row of the sheet")
    args = parser.parse_args()

    tiles = []
    for model, *places in args.task:
        restorer = Restorer(model, precision=args.precision)
        for image in [image for place in places for image in find(Path(place))]:
            before = Image.fromarray(image.load())
            views = [view(picture, args.width, args.crop) for picture in (before, restorer(before))]
            name = "/".join(Path(str(image)).parts[-2:])
            after = f"after: {model}" if len(args.task) > 1 else "after"
            for picture, text in zip(views, (f"before: {name}", after), strict=True):
                label(picture, text)
            tiles.append(line_up(views, down=args.stack))
            print(f"{model}: {image}", flush=True)
    if not tiles:
        parser.error("no images: give some after the --task")
    rows = [tiles[first : first + args.columns] for first in range(0, len(tiles), args.columns)]
    sheet = line_up([line_up(row, down=False) for row in rows], down=True)
    sheet.save(args.sheet, optimize=True, quality=90, method=6)
    print(f"{args.sheet}: {sheet.width} x {sheet.height}, {args.sheet.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
