"""Plans: map images to results before any image is read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from maximir import images
from maximir.batch.journal import FILE, FOLDER, LONGEST_NAME, FileJournal, Journal, ObjectJournal
from maximir.batch.neighbours import LeftAlone, is_in_cloud
from maximir.errors import MaximirError, UsageError
from maximir.files import is_system_folder
from maximir.restoring import extent
from maximir.storage import Address, Folder, Storage, is_address, local_path, open_storage, redact

PICTURE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,4}")  # what the name of a file of pictures ends in
FALLBACK_SUFFIX = ".png"  # for images of formats that can be read but not written
RAW_SUFFIX = ".tif"  # for camera raw files


HAS_CLOUD_FLAGS = hasattr(os.stat_result, "st_file_attributes") or hasattr(os.stat_result, "st_flags")


@dataclass(frozen=True)
class Job:
    """One image to restore; `problem` is why it cannot be restored, if that is known in advance."""

    source: Address
    target: Address
    problem: str | None = None


@dataclass(frozen=True)
class Plan:
    """The jobs of a run.

    Attributes:
        output: where the results go; for one result with a name of its own, the folder that holds it.
        shared: several processes may write there, which takes an `ObjectJournal`.
        to_file: the result is one file, named by the user: no journal.
        left_alone: files beside the photographs.
    """

    jobs: Sequence[Job]
    output: Storage
    shared: bool = False
    to_file: bool = False
    left_alone: LeftAlone = field(default_factory=LeftAlone)

    def open_journal(self, settings: str, *, resume: bool) -> Journal:
        """Open the journal of the output.

        Raises:
            UsageError: to resume in a folder where another run writes, or where there is one file.
            MaximirError: the journal cannot be read or written.
        """
        if self.to_file:
            if resume:
                raise UsageError("--resume needs a folder: give one as --output")
            return Journal(settings)
        targets = [job.target for job in self.jobs if job.problem is None]
        if self.shared or (folder := self.output.local("")) is None:
            return ObjectJournal(self.output, settings, resume=resume, targets=targets)
        return FileJournal(folder, settings, resume=resume, targets=targets)

    def has_journal(self) -> bool:
        """Return True if there may be entries of an earlier run."""
        folder = self.output.local("")
        return self.shared or folder is None or (folder / FILE).exists()


def plan(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    shard: str | None = None,
    shared: bool = False,
    report: Path | None = None,
    may_be_empty: bool = False,
) -> Plan:
    """Map each input file to its result.

    A file goes into the output folder under its own name (or is written to `output` itself, if that is
    named like an image and there is one input); a folder's files keep their places below it. Images of
    formats that cannot be written become PNGs, and camera raw files TIFFs.

    Args:
        inputs: images and folders, as paths or addresses.
        output: a folder or address for the results, or the path of one file.
        report: the run's own report, which is no input.
        shard: "i/n": only the i-th of n parts.
        may_be_empty: a plan of no jobs is no error.
        shared: other processes write into `output` too. So they do with a shard, and behind an address.

    Raises:
        UsageError: no inputs, an output that is an input, two inputs for one output, a shard that is none, or
            an address that cannot be opened or listed.
    """
    places = given_places(inputs)
    out = local_path(os.fspath(output))
    if not out:
        raise UsageError("the output is empty; give a folder or a file")
    shared = shared or shard is not None or any(map(is_address, [*places, out]))
    if not is_address(out):  # a folder where several did a part each stays like that
        shared = shared or (Path(out) / FOLDER).is_dir()
    to_file = names_a_file(out, places)
    if to_file and shared:
        raise UsageError(f"{redact(out)}: is named like one image; give a folder for the results")
    storage = open_storage(Path(out).parent if to_file else out)
    jobs: dict[Address, Job] = {}
    left_alone = LeftAlone(report=report)
    for given in places:
        # Shells expand DIR/* to all that is in a folder; the only input is meant.
        chosen = len(places) == 1
        for source, place, problem in find_sources(given, storage, left_alone, chosen=chosen):
            if problem is None and not to_file:
                problem = why_no_file(result_name(place), storage)
            if problem is not None:
                jobs[source] = Job(source, Address(storage), problem)
                continue
            target = Address(storage, Path(out).name if to_file else result_name(place))
            if source.is_same_file(target):
                raise UsageError(f"{source}: input and output are the same file; choose another output")
            other = jobs.get(target)
            if other is None:
                jobs[target] = Job(source, target)
                continue
            if source.is_same_file(other.source):  # given twice
                continue
            if (source.name == target.name) == (other.source.name == target.name):
                raise UsageError(
                    f"{other.source} and {source} would both become {target}; restore a folder that both are "
                    "in, or one after the other into different folders"
                )
            loser, winner = other.source, source  # prefer the source that already has the target's name
            if source.name != target.name:
                loser, winner = winner, loser
            jobs[target] = Job(winner, target)
            jobs[loser] = Job(loser, target, f"would become {target}, as {winner.name} does")
    if not jobs and not may_be_empty:
        raise nothing_in(places, left_alone)
    found = list(jobs.values())
    return Plan(found if shard is None else select_shard(found, shard), storage, shared, to_file, left_alone)


def given_places(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the inputs as local paths or addresses.

    Raises:
        UsageError: there is none, or an empty one.
    """
    places = [local_path(os.fspath(name)) for name in inputs]
    if not places:
        raise UsageError("there is no INPUT; give files or folders")
    if "" in places:
        raise UsageError("an INPUT is empty; give files or folders")
    return places


def nothing_in(places: Sequence[str], left_alone: LeftAlone) -> UsageError:
    """Return the error for inputs without a photograph; it names what was left alone."""
    also = "".join(f"; {line}" for line in left_alone.lines())
    return UsageError(f"no files in {', '.join(str(open_storage(place)) for place in places)}{also}")


def largest_file(max_bytes: int | None) -> int:
    """Return how many bytes a file may have if the memory budget is `max_bytes`; None: no budget."""
    return min(images.MAX_BYTES, max_bytes or images.MAX_BYTES)


def names_a_file(output: str, inputs: Sequence[str]) -> bool:
    """Return True if the output is one file rather than a folder.

    Raises:
        UsageError: it is named like an image that cannot be written, or there are several inputs for it.
    """
    is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    suffix = "" if is_folder else Path(output).suffix.lower()
    if is_address(output):
        return suffix in images.WRITABLE
    one = len(inputs) == 1 and not os.path.isdir(inputs[0])
    if suffix in images.NOT_WRITABLE:
        raise UsageError(f"{output}: cannot write {suffix}; use one of {' '.join(images.WRITABLE)}")
    if one and PICTURE_SUFFIX.fullmatch(suffix) and suffix not in images.WRITABLE:
        raise UsageError(  # a folder of this name would be a surprise
            f"{output}: cannot write {suffix}; use one of {' '.join(images.WRITABLE)}, "
            "or make that folder first if it is one"
        )
    if suffix in images.WRITABLE and not one:
        raise UsageError(f"{output}: is named like one image, but the inputs are a folder or several files")
    return suffix in images.WRITABLE


def find_sources(
    given: str, output: Storage | None, left_alone: LeftAlone, *, chosen: bool
) -> Iterator[tuple[Address, str, str | None]]:
    """Yield the photographs of an input: (source, its path below the input, why it cannot be restored).

    Args:
        output: skipped, if it is below the input.
        left_alone: gets the files that are no photographs by their names.
        chosen: the input itself is taken whatever its name.
    """
    if not is_address(given) and not os.path.isdir(given):
        if not chosen and (left_alone.is_report(Path(given)) or left_alone.take(Path(given).name)):
            return
        yield Address(Folder(Path(given).parent), Path(given).name), Path(given).name, None
        return
    if not chosen and not is_address(given) and is_system_folder(Path(given).name):
        return
    storage = open_storage(given)
    try:
        item = storage.item()
    except MaximirError as error:
        raise UsageError(str(error)) from error
    if item is not None:
        source = Address(storage, "", item)
        yield source, source.name, None
        return
    for source, problem in storage.files(leave_out=output):
        if left_alone.is_report(source.local) or left_alone.take(source.place):
            continue
        if problem is None and HAS_CLOUD_FLAGS and (path := source.local) is not None:
            with contextlib.suppress(OSError):
                if is_in_cloud(path.stat()):
                    left_alone.add_in_cloud("a cloud", source.name)
                    continue
        yield source, source.place, problem


def why_no_file(place: str, output: Storage) -> str | None:
    """Return why no file on the output's disk can have this path; None if one can, or it is no disk."""
    if output.local("") is None:
        return None
    if PurePath(place).is_absolute() or {"", ".", ".."} & {*place.split("/"), *PurePath(place).parts}:
        return "its name contains an empty part, . or .., so the result would be outside the output"
    if os.name == "posix" and max(len(os.fsencode(part)) for part in place.split("/")) > LONGEST_NAME:
        return f"its result's name would be longer than {LONGEST_NAME} bytes"
    return None


def result_name(path: str) -> str:
    """Return the path of the result: the same, or with .png (of a camera raw file, .tif) appended."""
    if path.lower().endswith(images.WRITABLE):
        return path
    return path + (RAW_SUFFIX if path.lower().endswith(images.RAW) else FALLBACK_SUFFIX)


def select_shard(jobs: Sequence[Job], shard: str) -> list[Job]:
    """Return the jobs of shard "i/n", by the hash of the result's path, which is the same on every machine.

    Raises:
        UsageError: `shard` has another form, or i is not from 1 to n.
    """
    parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard, re.ASCII)
    number, count = map(int, parts.groups()) if parts else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"a shard is i/n with i from 1 to n, as 3/16; not {shard!r}")
    return [job for job in jobs if shard_number(job.target.path, count) == number]


def shard_number(path: str, count: int) -> int:
    """Return the shard of a result, 1 … count."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8]) % count + 1


def estimate_jobs(jobs: Sequence[Job]) -> dict[Job, int]:
    """Estimate the work of each job: pixels on a disk, bytes elsewhere, where headers cost requests."""
    paths = [path for job in jobs if (path := job.source.local) is not None]
    pixels = dict(zip(paths, extent.estimate_work(paths), strict=True)) if paths else {}
    return {job: pixels[path] if (path := job.source.local) else max(1, file_size(job)) for job in jobs}


def file_size(job: Job) -> int:
    """Return the size of the source in bytes; 0 if unknown."""
    try:
        return job.source.size()
    except (OSError, ValueError, MaximirError):
        return 0
