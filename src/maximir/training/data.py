"""Training photographs: clean ones, or pairs of degraded and clean, in folders or in tar shards.

They are on disk or at remote addresses: see `storage`.

Names say what belongs together. A folder or shard of pairs holds `input/NAME` and `target/NAME`, or
`NAME_input` and `NAME_target`, or (WebDataset's naming) `NAME.input.png` and `NAME.target.png`. Several
inputs may share a target: `NAME_light_input`, `NAME_strong_input`. `NAME_depth` is the scene's depth map.
If such a folder is given as clean photographs, its targets are used.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from maximir.errors import MaximirError, UsageError
from maximir.files import comparable, reason, walk
from maximir.storage import Address, Unreachable, is_address, open_storage

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".avif", ".bmp", ".gif"}
SHARD = ".tar"
NATIVE, FOREIGN = ("L", "B") if sys.byteorder == "little" else ("B", "L")
OTHER_ORDER = {"L": "B", "B": "L", "N": FOREIGN}  # byte orders, as Pillow's raw modes name them
PNG_END = 65_536  # bytes at the end of a PNG to search for EXIF
ROLE = re.compile(r"(?:^|(.*)[._])(input|target|depth)$", re.IGNORECASE)

Place = Path | Address


def place_of(text: str | Path) -> Place:
    """Return the remote address or local path that `text` names."""
    return Address(open_storage(text)) if isinstance(text, str) and is_address(text) else Path(text)


@dataclass(frozen=True)
class ImageFile:
    """A stored image: a file, or a member of a tar shard.

    Attributes:
        path: the file or the shard.
        member: name, first byte and length in the shard.
        known: height and width, if they were read when the shard was listed.
    """

    path: Place
    member: tuple[str, int, int] | None = None
    known: tuple[int, int] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member[0]}"

    @property
    def name(self) -> str:
        """The file name without its folder, or the member's name in the shard."""
        return self.path.name if self.member is None else self.member[0]

    def open(self) -> Image.Image:
        """Open the image without decoding its pixels."""
        if self.member is None and isinstance(self.path, Path):
            return Image.open(self.path)
        return Image.open(io.BytesIO(self.read()))

    def read(self, begin: int = 0) -> bytes:
        """Return the content from byte `begin` on; a negative `begin` counts from the end."""
        if isinstance(self.path, Address):
            _, start, length = self.member or ("", 0, self.path.size())
        else:
            _, start, length = self.member or ("", 0, self.path.stat().st_size)
        skipped = min(begin, length) if begin >= 0 else max(0, length + begin)
        if isinstance(self.path, Address):
            return self.path.read(start + skipped, start + length)
        with self.path.open("rb") as file:
            file.seek(start + skipped)
            return file.read(length - skipped)

    def size(self) -> tuple[int, int]:
        """Return height and width after EXIF rotation, from the header alone.

        Raises:
            MaximirError: the file cannot be read as an image.
        """
        if self.known is not None:
            return self.known
        try:
            with self.open() as image:
                return upright_size(image, lambda: self.read(-PNG_END))
        except Unreachable:
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for bad files
            raise MaximirError(f"{self}: cannot be read as an image ({error})") from error

    def load(self) -> np.ndarray:
        """Return the image as uint8 [H, W, 3], or uint16 if it is a PNG or TIFF of 16 bits per channel.

        Pillow reads 16-bit grey with transparency as 8 bits.

        This uses Pillow instead of `maximir.images`: training needs no other codec, and libvips hangs in
        loader processes that are forked after it was used.

        Raises:
            MaximirError: the file cannot be read as an image, or restoring does not support it either.
        """
        try:
            with self.open() as image:
                refuse(image)
                if image.format == "TIFF" and (why := self._not_the_picture()):
                    raise MaximirError(why)
                low = self._low_bytes(image)
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):  # 16-bit grey
                    return np.repeat(np.asarray(upright).astype(np.uint16)[..., None], 3, axis=-1)
                pixels = np.asarray(upright.convert("RGB"))
                return pixels if low is None else pixels.astype(np.uint16) << 8 | low
        except Unreachable:
            raise
        except Exception as error:
            raise MaximirError(f"{self}: cannot be read as an image ({error})") from error

    def _low_bytes(self, image: Image.Image) -> np.ndarray | None:
        """Return the low bytes of 16-bit RGB, [H, W, 3], or None for 8-bit images.

        Pillow keeps only the high bytes. With the byte order swapped, it returns the low bytes instead.
        """
        given = getattr(image, "tile", [])
        if image.mode not in ("RGB", "RGBA") or not given:
            return None
        tiles = [list(tile) for tile in given]
        for tile in tiles:
            options = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
            kind, _, order = str(options[0]).partition(";16")
            if order not in OTHER_ORDER or kind not in ("RGB", "RGBA"):
                return None
            options = (f"{kind};16{OTHER_ORDER[order]}", *options[1:])
            tile[3] = options if isinstance(tile[3], tuple) else options[0]
        with self.open() as other:
            other.tile = [  # type: ignore[attr-defined]
                type(old)(*new) if hasattr(old, "_fields") else tuple(new)
                for old, new in zip(given, tiles, strict=True)
            ]
            return np.asarray(ImageOps.exif_transpose(other).convert("RGB"))

    def _not_the_picture(self) -> str | None:
        """Return why a TIFF's first page is not the photograph, or None (also if libvips is missing)."""
        try:
            from maximir.images.codecs import raw, tiff
        except (ImportError, OSError):  # libvips is not installed
            return None
        data = self.read()
        if called := raw.name(data):
            return f"is a camera raw file ({called}); export it as a 16-bit TIFF from your raw program"
        return tiff.unfit(data)

    def load_depth(self) -> np.ndarray:
        """Return a grey image as float32 [H, W], divided by its mean, so that its unit does not matter.

        Raises:
            MaximirError: the file cannot be read as an image of one channel, or is empty.
        """
        try:
            with self.open() as image:
                depth = np.asarray(image).astype(np.float32)
            if depth.ndim != 2 or not np.isfinite(depth).all() or depth.min() < 0 or depth.max() == 0:
                raise MaximirError("it must be grey, without negative values and not all zero")
            return depth / depth.mean()
        except Unreachable:
            raise
        except Exception as error:
            raise MaximirError(f"{self}: cannot be read as a depth map ({error})") from error


@dataclass(frozen=True)
class Scene:
    """One scene: the clean photograph, its degraded versions and its depth map.

    Attributes:
        name: the scene's name, matched by `hold_out` and shown in messages.
    """

    name: str
    target: ImageFile
    inputs: tuple[ImageFile, ...] = ()
    depth: ImageFile | None = None


def upright_size(image: Image.Image, end: Callable[[], bytes]) -> tuple[int, int]:
    """Return height and width of an opened image after EXIF rotation.

    Args:
        end: returns the last bytes of the file.
    """
    refuse(image)
    width, height = image.size
    exif = Image.Exif()
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode all pixels to find EXIF that follows them.
        exif.load(exif_at_the_end(end()))
    elif image.format != "TIFF":  # Pillow rotates TIFFs itself
        exif = image.getexif()
    turned = exif.get(0x0112, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def size_in(data: bytes) -> tuple[int, int] | None:
    """Return height and width of the image in these bytes, or None: `ImageFile.size` then reports it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return upright_size(image, lambda: data[-PNG_END:])
    except Exception:  # Pillow raises many kinds, see `ImageFile.size`
        return None


def exif_at_the_end(png: bytes) -> bytes:
    """Return the EXIF in the last bytes of a PNG, where some programs put it; empty if there is none."""
    at = png.rfind(b"eXIf")
    length = int.from_bytes(png[max(0, at - 4) : max(0, at)], "big")
    end = at + 4 + length
    if at < 4 or zlib.crc32(png[at:end]).to_bytes(4, "big") != png[end : end + 4]:
        return b""
    return png[at + 4 : end]


def refuse(image: Image.Image) -> None:
    """Raise MaximirError for pixel types without a defined white, which restoring refuses too."""
    if image.mode == "F" or (
        image.mode == "I" and image.format != "PNG"
    ):  # older Pillow opens 16-bit PNGs as I
        kind = "float" if image.mode == "F" else "32-bit or signed"
        raise MaximirError(f"{kind} samples are not supported; save it with 8 or 16 bits per channel")


def fit_depth(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a depth map [h, w] to its image's size, [height, width]."""
    return np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR))


def list_images(place: Place) -> list[tuple[str, ImageFile]]:
    """Return the sorted names and files of all images in a folder or tar shard.

    Names have no suffix and `/` between folders. Shards below a folder are listed too; links to folders
    are followed, as in restoring.

    Raises:
        UsageError: `place` is missing or no folder.
        MaximirError: it cannot be read, a shard is damaged, or there is no image.
    """
    if place.suffix == SHARD and place.is_file():
        found = list_shard(place)
    elif place.is_dir():
        found = []
        for name, path in files_below(place):
            if is_image(path):
                found.append((str(PurePosixPath(name).with_suffix("")), ImageFile(path)))
            elif path.suffix == SHARD and not path.name.startswith("."):
                found.extend(list_shard(path))
    else:
        if place.is_file():
            raise UsageError(f"{place}: is a file; give its folder")
        raise UsageError(f"{place}: no such folder (or .tar shard) of training images")
    if not found:
        raise MaximirError(f"{place}: no images in it ({', '.join(sorted(SUFFIXES))})")
    names = comparable(name for name, _ in found)
    return sorted(((names[name], image) for name, image in found), key=lambda item: (item[0], str(item[1])))


def files_below(place: Place) -> Iterator[tuple[str, Place]]:
    if isinstance(place, Address):
        for address, _ in place.files():
            yield address.path.removeprefix(place.path).lstrip("/"), address
        return
    for here, _, names in walk(place, unreadable):
        for name in names:
            yield (here / name).relative_to(place).as_posix(), here / name


def unreadable(error: OSError) -> None:
    raise MaximirError(f"{error.filename}: {reason(error)}") from error


def is_image(path: PurePath | Address) -> bool:
    """Return True if the name is an image's, and not that of a file which macOS leaves beside each image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_shard(path: Place) -> list[tuple[str, ImageFile]]:
    """Return the names of the images in a shard, and where each is stored.

    A shard at a remote address is read once from beginning to end, image sizes included: reading each
    header later would cost one request per image.
    """
    found = []
    try:
        with path.open("rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as shard:
                for member in shard:
                    if member.isfile() and is_image(PurePosixPath(member.name)):
                        image = ImageFile(path, (member.name, member.offset_data, member.size))
                        if isinstance(path, Address):
                            file.seek(member.offset_data)
                            image = replace(image, known=size_in(file.read(member.size)))
                        found.append((member.name.removeprefix("./").rsplit(".", 1)[0], image))
                end = shard.offset
            file.seek(end)
            if file.read(512) != bytes(512):  # tarfile takes a broken header after the first for the end
                raise tarfile.ReadError(f"broken off or damaged at byte {end}")
        return found
    except MaximirError:
        raise
    except (tarfile.TarError, OSError, EOFError) as error:
        raise MaximirError(f"{path}: cannot be read as an uncompressed tar shard ({error})") from error


def role(name: str) -> tuple[str, str]:
    """Return the scene's name and the image's role in it: "input", "target", "depth" or ""."""
    *folders, last = name.split("/")
    part = ""
    if match := ROLE.match(last):
        last, part = match[1] or "", match[2].lower()
    for k in reversed(range(len(folders))):
        if folders[k].lower() in (part or "input", part or "target", part or "depth"):
            part = folders.pop(k).lower()
            break
    return "/".join(filter(None, (*folders, last))), part


def find_scenes(places: Sequence[Place]) -> list[Scene]:
    """Return the clean photographs in folders and shards, with their depth maps where there are any."""
    scenes = []
    for place in places:
        images = [(*role(name), image) for name, image in list_images(place)]
        depths = {name: image for name, part, image in images if part == "depth"}
        scenes += [
            Scene(name, image, depth=depths.get(name))
            for name, part, image in images
            if part in ("", "target")
        ]
        if not any(part in ("", "target") for _, part, _ in images):
            raise MaximirError(f"{place}: holds inputs only, no clean photographs")
    return scenes


def find_pairs(places: Sequence[Place]) -> list[Scene]:
    """Return the pairs in folders, shards and lists, one scene per target.

    Args:
        places: folders or `.tar` shards named as in the module's docstring; or `.txt` lists with two paths
            per line, degraded and clean, separated by a tab (relative to the list's folder).

    Raises:
        MaximirError: a file has no partner, or a line of a list is not a pair; the message names it.
    """
    return [
        scene
        for place in places
        for scene in (listed_pairs(place) if place.suffix == ".txt" else named_pairs(place))
    ]


def listed_pairs(path: Place) -> list[Scene]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MaximirError(f"{path}: the list of pairs cannot be read ({error})") from error
    inputs: dict[Place, list[ImageFile]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        named = [place_of(name) for name in map(str.strip, line.split("\t"))]
        files = [name if isinstance(name, Address) else path.parent / str(name) for name in named]
        if len(files) != 2:
            raise MaximirError(f"{path}, line {number}: must be two paths with a tab between them")
        for file in files:
            if isinstance(file, Path) and not file.is_file():  # remote files: when their size is read
                raise MaximirError(f"{path}, line {number}: {file} does not exist")
        inputs.setdefault(files[1], []).append(ImageFile(files[0]))
    if not inputs:
        raise MaximirError(f"{path}: the list of pairs is empty")
    return [
        Scene(role(target.stem)[0] or target.parent.name, ImageFile(target), tuple(images))
        for target, images in inputs.items()
    ]


def named_pairs(place: Place) -> list[Scene]:
    parts: dict[str, dict[str, ImageFile]] = {"input": {}, "target": {}, "depth": {}, "": {}}
    for name, image in list_images(place):
        scene, part = role(name)
        if part and (other := parts[part].setdefault(scene, image)) is not image:
            raise MaximirError(f"{other} and {image}: both are the {part} of one scene, {scene}")
    inputs: dict[str, list[ImageFile]] = {name: [] for name in parts["target"]}
    for name, image in parts["input"].items():
        owner = name
        while owner not in inputs:  # 1400_light_input belongs to 1400_target
            if "_" not in owner.rpartition("/")[2]:
                raise MaximirError(f"{image}: has no partner, a target of the same name")
            owner = owner.rpartition("_")[0]
        inputs[owner].append(image)
    for name, found in inputs.items():
        if not found:
            raise MaximirError(f"{parts['target'][name]}: has no partner, an input of the same name")
    if not inputs:
        raise MaximirError(
            f"{place}: holds no pairs; they are input/NAME and target/NAME, or NAME_input and NAME_target"
        )
    return [
        Scene(name, parts["target"][name], tuple(found), parts["depth"].get(name))
        for name, found in inputs.items()
    ]


def split(scenes: Iterable[Scene], hold_out: Sequence[str]) -> tuple[list[Scene], list[Scene]]:
    """Split scenes into those to train on and those held out: their names match a shell pattern."""
    train: list[Scene] = []
    held_out: list[Scene] = []
    for scene in scenes:
        names = {scene.name, scene.name.rsplit("/", 1)[-1]}
        matched = any(fnmatchcase(name, pattern) for name in names for pattern in hold_out)
        (held_out if matched else train).append(scene)
    return train, held_out


def check_pairs(scenes: Sequence[Scene], report: Callable[[str], None]) -> list[Scene]:
    """Return the usable scenes; unreadable files are reported and left out.

    Raises:
        MaximirError: the sizes within a pair differ, so the pairing is wrong and other pairs may be too.
    """
    usable = []
    for scene in scenes:
        sizes = {image: readable_size(image, report) for image in (scene.target, *scene.inputs)}
        target = sizes.pop(scene.target)
        inputs = tuple(image for image, size in sizes.items() if size is not None)
        if target is None or not inputs:
            continue
        for image in inputs:
            if (size := sizes[image]) is not None and size != target:
                raise MaximirError(
                    f"{image}: is {size[1]} x {size[0]} pixels, but its target {scene.target} is "
                    f"{target[1]} x {target[0]}"
                )
        usable.append(replace(scene, inputs=inputs))
    return usable


def readable_size(image: ImageFile, report: Callable[[str], None]) -> tuple[int, int] | None:
    try:
        return image.size()
    except Unreachable:
        raise
    except MaximirError as error:
        report(f"skipped {error}")
        return None
