"""Small inputs to begin with: python fuzz/seeds.py FOLDER → FOLDER/decode, FOLDER/forms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers import kept, malformed
from maximir import images

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


if __name__ == "__main__":
    small = [data for data in malformed.originals().values() if len(data) < 20_000]
    seeds = {
        "decode": small + told("<") + told(">"),
        "forms": list(map(form, DISPOSITIONS)),
    }
    for name, inputs in seeds.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed{number:02d}").write_bytes(data)
