"""A picture of images before and after, side by side: one row each, the middle of the image.

python scripts/before_after.py examples restored docs/images/examples.png
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

GAP = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", type=int, default=280, help="side of the square that is shown")
    args = parser.parse_args()

    names = sorted(path.name for path in args.before.iterdir() if (args.after / path.name).is_file())
    step = args.size + GAP
    sheet = Image.new("RGB", (len(names) * step - GAP, 2 * step - GAP), "white")
    for column, name in enumerate(names):
        for row, folder in enumerate((args.before, args.after)):
            image = Image.open(folder / name).convert("RGB")
            left, top = ((side - args.size) // 2 for side in image.size)
            sheet.paste(
                image.crop((left, top, left + args.size, top + args.size)), (column * step, row * step)
            )
    draw = ImageDraw.Draw(sheet)
    for row, word in enumerate(("before", "after")):
        draw.text((5, row * step + 3), word, "white", stroke_fill="black", stroke_width=2, font_size=16)
    sheet.save(args.picture, optimize=True)
    print(f"{args.picture}: {', '.join(names)}")


if __name__ == "__main__":
    main()
