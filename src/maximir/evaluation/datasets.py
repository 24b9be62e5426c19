"""Find the images that `maximir evaluate --data DIR` scores, and match them with their originals.

Images are matched by name alone, by the rules of `layouts`; nothing is decoded. Every image below DIR is in
a case, listed with the reason why not, or counted as ignored: additional files of a dataset (`blur_gamma`),
and everything in a folder `train` below DIR.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from maximir import images
from maximir.errors import MaximirError, UsageError
from maximir.evaluation.layouts import BY_NAME, CLEAN, LAYOUTS, Layout, compiled
from maximir.files import comparable, reason, walk

SUFFIXES = {*images.WRITABLE, *images.NOT_WRITABLE}
BLOCKS = ".mat"
SIDD_BLOCKS = re.compile(r"Validation(Noisy|Gt)BlocksSrgb\.mat", re.IGNORECASE)
TEST_LIST = "RealBlur_{}_test_list.txt"
SPOILT = "its input is left out"  # of a target, which is not counted as another image left out
TRAINING = {"train", "our485"}  # folders of training images; the second is LOL's


@dataclass(frozen=True)
class Source:
    """An image on disk.

    Attributes:
        path: an image file, or a `.mat` file of SIDD's.
        block: index of a block in the `.mat` file, counted through all its images.
    """

    path: Path
    block: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.block is None else f"{self.path}:{self.block}"

    def load(self) -> np.ndarray:
        """Read the pixels: uint8 or uint16 [H, W, 3], upright, without alpha; grey as three equal channels.

        Raises:
            MaximirError: the image cannot be read.
        """
        if self.block is not None:
            blocks = read_blocks(self.path)
            return np.ascontiguousarray(blocks[divmod(self.block, blocks.shape[1])])
        try:
            return images.read(self.path).rgb
        except MaximirError as error:
            raise MaximirError(f"{self}: {error}") from error


@dataclass(frozen=True)
class Case:
    """A degraded image and its original, to be scored.

    Attributes:
        name: the input's path below DIR, `/`-separated and without suffix; unique.
        set: the part of the data that gets its own result; "" if there is only one.
        input: None in a set of clean images, which the caller degrades.
        crop: crop a target larger than the input to its centre.
    """

    name: str
    set: str
    target: Source
    input: Source | None
    crop: bool


@dataclass(frozen=True)
class Found:
    """The images to score.

    Attributes:
        cases: in the order of their paths.
        left_out: (path below DIR, reason) of images that should be in a case but are not: an input, or a
            target without an input.
        beside: the same for targets whose input is in `left_out`, so that no image is counted twice.
        ignored: number of images that are not part of the layout.
        notes: warnings for readers of the scores.
    """

    layout: Layout
    cases: tuple[Case, ...]
    left_out: tuple[tuple[str, str], ...]
    beside: tuple[tuple[str, str], ...]
    ignored: int
    notes: tuple[str, ...] = ()


def find_cases(root: Path, layout: str | None = None, only: Sequence[str] = ()) -> Found:
    """Find the images to score below a folder.

    Args:
        root: DIR.
        layout: name of a layout; None: the one that fits.
        only: shell patterns; keep cases whose name or scene, or its last part, matches one. The scene is the
            common part of input and target: `1400` for `1400_light_input`.

    Raises:
        MaximirError: the folder is missing, unreadable or without images; no layout fits, or several do;
            nothing matches `only`; a `.mat` file is damaged, or SciPy is missing.
        UsageError: unknown layout.
    """
    if layout is not None and layout not in BY_NAME:
        raise UsageError(f"--layout {layout}: unknown layout; choose one of {', '.join(BY_NAME)}")
    everything = list_images(root)
    files = [file for file in everything if TRAINING.isdisjoint(file.lower().split("/")[:-1])]
    if not files:
        instead = " except training images; to score these, name their folder" if everything else ""
        raise UsageError(f"{root}: contains no images{instead}")
    matched = recognise(root, files) if layout is None else match(BY_NAME[layout], files, above(root))
    problems = dict(matched.problems)
    pairs, notes = for_testing(root, matched, problems)
    cases = [(case, pair.scene) for pair in pairs for case in cases_of(root, pair, matched.layout, problems)]
    if not cases:
        first = "".join(f"; {file}: {why}" for file, why in list(problems.items())[:1])
        wanted = f"--layout {matched.layout.name}: {matched.layout.looks}"
        raise UsageError(f"{root}: nothing to score by {wanted}{first}")
    kept = [case for case, scene in cases if not only or fits((case.name, scene), only)]
    if not kept:
        raise UsageError(f"{root}: no image matches {' or '.join(only)}")
    if len({case.set for case in kept}) == 1:
        kept = [replace(case, set="") for case in kept]
    known = {file for pair in pairs for file in (pair.input, pair.target)} | problems.keys()
    ignored = sum(file not in known for file in everything)
    left_out, beside = (
        tuple(sorted((file, why) for file, why in problems.items() if (why == SPOILT) is spoilt))
        for spoilt in (False, True)
    )
    return Found(matched.layout, tuple(kept), left_out, beside, ignored, notes)


def list_images(root: Path) -> list[str]:
    """Return the paths of images below a folder, `/`-separated and sorted; follows links to folders.

    Raises:
        UsageError: the folder is missing.
        MaximirError: it or one below cannot be read.
    """
    if not os.path.isdir(root):
        raise UsageError(f"{root}: is not a folder" if os.path.lexists(root) else f"{root}: no such folder")

    def refuse(error: OSError) -> None:
        raise MaximirError(f"{error.filename}: {reason(error)}") from error

    found = []
    for here, _, names in walk(root, refuse):
        below = here.relative_to(root).as_posix()
        found += [
            name if below == "." else f"{below}/{name}"
            for name in names
            if not name.startswith(".")  # e.g. macOS' files beside each file
            and (os.path.splitext(name)[1].lower() in SUFFIXES or SIDD_BLOCKS.fullmatch(name))
        ]
    return sorted(found)


@dataclass(frozen=True)
class Pair:
    """An input and its target, as paths below DIR; both are the same in a clean set.

    Attributes:
        scene: the common part of their names.
        set: the part of the data, or "".
    """

    input: str
    target: str
    scene: str
    set: str


@dataclass(frozen=True)
class Matched:
    """The images below DIR, matched by a layout.

    Attributes:
        problems: file -> reason why it is in no pair.
        inputs: all files that match as inputs.
    """

    layout: Layout
    pairs: list[Pair]
    problems: dict[str, str]
    inputs: set[str]


Key = tuple[str, ...]  # a rule's number and the text of its common groups, equal for input and target


def match(layout: Layout, files: Sequence[str], names_above: str) -> Matched:
    """Pair inputs and targets by the layout's rules.

    Args:
        names_above: see `above`.
    """
    inputs: dict[str, list[Key]] = {}
    targets: dict[Key, list[str]] = {}
    sets: dict[str, str] = {}
    names = comparable(files)
    for file in files:
        below = stem(names[file])
        for number, rule in enumerate(compiled(layout)):
            path = names_above + below if rule.looks_up else below
            if seen := rule.input.fullmatch(path):
                inputs.setdefault(file, []).append((str(number), *(seen[name] for name in rule.common)))
                sets.setdefault(file, seen["set"] if rule.looks_up else "")
            if seen := rule.target.fullmatch(path):
                targets.setdefault((str(number), *(seen[name] for name in rule.common)), []).append(file)
        if layout is CLEAN:
            inputs[file] = [("", below)]
            targets["", below] = [file]
            sets[file] = f"/{names_above}{file}".split("/")[-2]

    pairs: list[Pair] = []
    problems: dict[str, str] = {}
    spoilt: set[str] = set()  # targets whose inputs are left out
    namesakes = Counter(map(stem, inputs))
    for file, keys in inputs.items():
        key, owners = owners_of(keys, targets, layout.shared)
        if len(owners) == 1 and namesakes[stem(file)] == 1:
            scene = "/".join(filter(None, (part.strip("/") for part in key[1:])))
            pairs.append(Pair(file, owners[0], scene.removeprefix(names_above), sets[file]))
            continue
        spoilt.update(owners)
        problems[file] = "no target"
        if owners:
            problems[file] = "another image has this name"
        if len(owners) > 1:
            problems[file] = f"{len(owners)} targets: {', '.join(owners)}"
    paired = {file for pair in pairs for file in (pair.input, pair.target)}
    for file in {file for group in targets.values() for file in group} - inputs.keys():
        if file in spoilt or not layout.spare:
            problems[file] = SPOILT if file in spoilt else "no input"
    problems = {file: why for file, why in problems.items() if file not in paired}
    return Matched(layout, pairs, problems, set(inputs))


def owners_of(keys: list[Key], targets: dict[Key, list[str]], shared: bool) -> tuple[Key, list[str]]:
    """Return the first of an input's keys that matches targets, and all targets that its keys match.

    Args:
        shared: as in `Layout`; names are shortened at each `_` until they match a target.
    """
    while keys:
        if leading := [key for key in keys if key in targets]:
            return leading[0], sorted({file for key in leading for file in targets[key]})
        keys = [
            (*key[:-1], key[-1].rpartition("_")[0])
            for key in keys
            if shared and "_" in key[-1].rpartition("/")[2]
        ]
    return (), []


def recognise(root: Path, files: Sequence[str]) -> Matched:
    """Match the images by the only layout that fits.

    Raises:
        MaximirError: no layout fits, or several do.
    """
    fitting: list[Matched] = []
    inputs: set[str] = set()
    known: set[str] = set()  # inputs of the layouts that fit
    for layout in LAYOUTS:
        if layout is not CLEAN:
            matched = match(layout, files, above(root))
            inputs |= matched.inputs
            if not known.issuperset(pair.input for pair in matched.pairs):
                fitting.append(matched)
                known |= matched.inputs
    if len(fitting) > 1:
        counts = ", ".join(f"{one.layout.name}: {len(one.pairs)}" for one in fitting)
        raise UsageError(
            f"{root}: holds pairs by several layouts ({counts}); add --layout NAME, or give a folder of one"
        )
    if fitting:
        return fitting[0]
    advice = f"Name pairs input/NAME and target/NAME, or give their layout: --layout {'|'.join(BY_NAME)}"
    if inputs:
        raise UsageError(f"{root}: {min(inputs)} looks like an input, but none has a target. {advice}")
    folders: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, set()).add(unicodedata.normalize("NFC", stem(name)))
    alike: dict[frozenset[str], str] = {}
    for folder, names in folders.items():
        if (other := alike.setdefault(frozenset(names), folder)) != folder:
            raise UsageError(
                f"{root}: {other or '.'} and {folder} hold the same names: which are the originals? {advice}"
            )
    return match(CLEAN, files, above(root))


def above(root: Path) -> str:
    """Return the names of DIR's parent folder and of DIR, each followed by `/`."""
    return "".join(f"{name}/" for name in Path(os.path.abspath(root)).parts[1:][-2:])


def stem(file: str) -> str:
    """Return the path without suffix."""
    return os.path.splitext(file)[0]


def fits(names: Iterable[str], patterns: Sequence[str]) -> bool:
    either = {form for name in names for form in (name, name.rpartition("/")[2])}
    return any(fnmatchcase(name, pattern) for name in either for pattern in patterns)


def cases_of(root: Path, pair: Pair, layout: Layout, problems: dict[str, str]) -> list[Case]:
    """Return the pair's case, or all cases in two `.mat` files; add a problem if these do not match."""
    name, input, target = stem(pair.input), root / pair.input, root / pair.target
    if not pair.input.lower().endswith(BLOCKS):
        source = None if layout is CLEAN else Source(input)
        return [Case(name, pair.set, Source(target), source, layout.crop)]
    _, shape = find_blocks(input)
    _, other = find_blocks(target)
    if shape != other:
        problems[pair.input] = f"its blocks are {shape}, those of {pair.target} are {other}"
        problems[pair.target] = SPOILT
        return []
    scenes, blocks = shape[:2]
    return [
        Case(
            f"{name}/{scene + 1:04d}_{block + 1:02d}",  # as results of SIDD are usually saved
            pair.set,
            Source(target, scene * blocks + block),
            Source(input, scene * blocks + block),
            layout.crop,
        )
        for scene in range(scenes)
        for block in range(blocks)
    ]


def for_testing(root: Path, matched: Matched, problems: dict[str, str]) -> tuple[list[Pair], tuple[str, ...]]:
    """Keep the pairs for testing: of RealBlur as released, those in the list of test images beside it.

    Adds listed images that are missing to the problems. Without a list, keeps all pairs and adds a note.
    """
    if matched.layout.name != "realblur":
        return matched.pairs, ()
    notes: dict[str, None] = {}
    kept = []
    unseen: dict[tuple[Path, str], dict[str, str] | None] = {}
    for pair in matched.pairs:
        path = Path(os.path.abspath(root), pair.input)  # .../RealBlur-J.../scene230/blur/blur_7.png
        place = (path.parents[2], pair.set)
        if place not in unseen:
            unseen[place] = read_test_lists(*place)
        listed, released = unseen[place], path.parent.name.lower() == "blur"
        if listed is None and released:
            names = " or ".join(TEST_LIST.format(letter) for letter in letters(pair.set))
            notes[f"without {names} all pairs of {place[0].name} count, including those for training"] = None
        view = "/".join((*path.parts[-3:-1], path.stem))
        if listed is None or not released or listed.pop(view, ""):
            kept.append(pair)
    for listed in unseen.values():
        problems.update(dict.fromkeys((listed or {}).values(), "in the list of test images, but missing"))
    return kept, tuple(notes)


def letters(part: str) -> str:
    """Return "J" or "R" for RealBlur-J or -R; both if the part is unknown."""
    return part[-1:].upper() or "JR"


def read_test_lists(folder: Path, part: str) -> dict[str, str] | None:
    """Read the lists of test images: `scene230/blur/blur_7` -> the whole path. None: there is no list.

    A line holds a target, a space and its input, ending in `scene230/gt/gt_7.png scene230/blur/blur_7.png`.

    Args:
        folder: of the scenes; the lists are in it or beside it.
        part: RealBlur-J or RealBlur-R, or "" if unknown.

    Raises:
        MaximirError: a list cannot be read.
    """
    places = [
        place / TEST_LIST.format(letter) for place in (folder, folder.parent) for letter in letters(part)
    ]
    lists = [place for place in places if place.is_file()]
    try:
        text = "\n".join(place.read_text("utf-8", errors="replace") for place in lists)
    except OSError as error:
        raise MaximirError(f"{error.filename}: {reason(error)}") from error
    entries = re.findall(r"(\S*?(scene[^/\s]+/blur/blur_\d+)\.\w+)", text)
    return {view: path for path, view in entries} if lists else None


def scipy_io() -> Any:
    try:
        import scipy.io  # only these files need it
    except ImportError as error:
        raise MaximirError("reading .mat files needs SciPy: pip install 'maximir[evaluate]'") from error
    return scipy.io


def find_blocks(path: Path) -> tuple[str, tuple[int, ...]]:
    """Return name and shape [scenes, blocks, H, W, 3] of the blocks in a `.mat` file, from its headers.

    Raises:
        MaximirError: the file cannot be read, has no such blocks, or SciPy is missing.
    """
    matlab = scipy_io()
    try:
        variables = matlab.whosmat(path)
    except Exception as error:  # SciPy raises many types for bad files
        raise MaximirError(f"{path}: cannot be read as a .mat file ({error})") from error
    for name, shape, kind in variables:
        if len(shape) == 5 and shape[-1] == 3 and kind == "uint8":
            return name, shape
    raise MaximirError(f"{path}: has no blocks of images, uint8 [scenes, blocks, height, width, 3]")


@lru_cache(maxsize=2)  # both files of SIDD's validation; 240 MiB each
def read_blocks(path: Path) -> np.ndarray:
    """Read the blocks of a `.mat` file, [scenes, blocks, H, W, 3], once for all blocks.

    Raises:
        MaximirError: as `find_blocks`.
    """
    name, _ = find_blocks(path)
    try:
        return np.asarray(scipy_io().loadmat(path, variable_names=[name])[name])
    except Exception as error:
        raise MaximirError(f"{path}: cannot be read as a .mat file ({error})") from error


Problems = list[tuple[str, str]]  # (file or case, problem)


def match_restored(found: Found, folder: Path) -> tuple[dict[str, Path], Problems, Problems]:
    """Match the files in a folder of restored images with the cases.

    A file matches a case if its path below the folder, without suffix, is the case's name or the end of it,
    with or without one of the folders in it: `Rain100H/1.png` matches `test/Rain100H/input/1`. A file that
    matches several cases, and is the full name of none, matches none.

    Returns:
        Files by the cases' names; cases with no file or several; and files that match no case.

    Raises:
        MaximirError: the folder is missing or cannot be read.
    """
    names = {case.name for case in found.cases}
    owners: dict[str, set[str]] = {}
    for case in found.cases:
        for form in forms(case):
            for spelling in {form, unicodedata.normalize("NFC", form)}:
                owners.setdefault(spelling, set()).add(case.name)
    files: dict[str, list[str]] = {}
    missing, beside = [], []
    for file in list_images(folder):
        name = stem(file)
        fitting = {name} if name in names else owners.get(name, set())
        fitting = fitting or owners.get(unicodedata.normalize("NFC", name), set())
        if len(fitting) == 1:
            files.setdefault(next(iter(fitting)), []).append(file)
        else:
            beside.append(
                (file, f"could be any of {len(fitting)} cases" if fitting else "belongs to no case")
            )
    if any(case.input is not None and case.input.block is not None for case in found.cases):
        why = "is not an image: save its blocks as images, NNNN_NN.png"
        beside += [(str(path.relative_to(folder)), why) for path in sorted(folder.rglob("*.mat"))]
    restored = {}
    for case in found.cases:
        own = files.get(case.name, [])
        if len(own) == 1:
            restored[case.name] = folder / own[0]
        else:
            missing.append((case.name, f"{len(own)} files: {', '.join(own)}" if own else "not restored"))
    return restored, missing, beside


def forms(case: Case) -> set[str]:
    """Return the accepted names of a restored image: see `match_restored`."""
    parts = case.name.split("/")
    suffix = (case.input or case.target).path.suffix
    if suffix.lower() in images.NOT_WRITABLE:
        parts[-1] += suffix  # `maximir restore` writes x.bmp as x.bmp.png
    wholes = [parts] + [parts[:k] + parts[k + 1 :] for k in range(len(parts) - 1)]
    return {"/".join(whole[k:]) for whole in wholes for k in range(len(whole))}
