"""Pictures through many restorers on a Ray cluster, by Ray Data.

A row is a group of pictures: small ones together, a large one alone. Actors, each with a model, read and
write the stores themselves, so only names and outcomes travel. When an actor or its node dies, Ray gives its
rows to another, which finds by the records what is done. A group that saw its actor die is done one by one,
and a picture that kills its actor MOST_DEATHS times is set aside.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from maximir.errors import MaximirError, UsageError
from maximir.restoring.batch import Outcome
from maximir.restoring.options import Options
from maximir.restoring.records import Records
from maximir.restoring.stored import Job, restore_files, size_of
from maximir.stores import Address, Item, Store

GROUP_FILES = 32
GROUP_BYTES = 8 * 2**20  # of files: a photograph of some 10 megapixels goes alone
MOST_DEATHS = 3
MOST_BLOCKS = 10_000


class Ledger:
    """Who began what and has not ended it: so it is known who died of what. An actor beside the driver."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """How often this was begun before and not ended."""
        self.begun[name] += 1
        return self.begun[name] - 1

    def end(self, name: str) -> None:
        del self.begun[name]


class Restoring:
    """What an actor does with a batch of one row: {"group": [JSON]} → {"outcomes": [JSON]}."""

    def __init__(
        self,
        weights: Any,
        name: str,
        output: str,
        settings: str,
        overwrite: bool,
        ledger: Any,
        options: Options,
    ) -> None:
        import ray

        from maximir.restoring.restorer import Restorer

        with tempfile.TemporaryDirectory() as folder:  # nodes need not have the file of weights
            path = Path(folder) / name
            path.write_bytes(ray.get(weights))
            self.restorer = Restorer.with_options(path, options)
        self.output, self.settings, self.overwrite = Store(output), settings, overwrite
        self.ledger, self.stores = ledger, {output: self.output}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"outcomes": [json.dumps(list(self.restore(json.loads(row)))) for row in batch["group"]]}

    def restore(self, rows: list[list[Any]]) -> Iterator[list[Any]]:
        """[number, error, notes, seconds, known, size, digest] of each."""
        jobs = {number: self.job(*rest) for number, *rest in rows}
        group = f"group {rows[0][0]}"
        if self.begin(group) == 0:
            yield from self.outcomes(jobs)
        else:
            for number, job in jobs.items():
                if self.begin(str(number)) >= MOST_DEATHS:
                    why = f"killed its process {MOST_DEATHS} times: set aside"
                    yield [number, why, [], 0.0, False, None, None]
                else:
                    yield from self.outcomes({number: job})
                    self.ledger.end.remote(str(number))
        self.ledger.end.remote(group)

    def begin(self, name: str) -> int:
        import ray

        return int(ray.get(self.ledger.begin.remote(name)))

    def outcomes(self, jobs: dict[int, Job]) -> Iterator[list[Any]]:
        todo = list(jobs.values())
        records = Records(self.output, self.settings, resume=True, order=[job.target for job in todo])
        done = restore_files(self.restorer, todo, overwrite=self.overwrite, records=records)
        for number, outcome in zip(jobs, done, strict=True):
            yield [
                number,
                outcome.error,
                outcome.notes,
                outcome.seconds,
                outcome.known,
                outcome.size,
                outcome.digest,
            ]

    def job(self, url: str | None, path: str, size: int, md5: str, target: str) -> Job:
        source: Path | Address = Path(path)
        if url is not None:
            if url not in self.stores:
                self.stores[url] = Store(url)
            source = Address(self.stores[url], path, Item(size, md5))
        return Job(source, Address(self.output, target))


def restore(
    jobs: Sequence[Job],
    output: Store,
    settings: str,
    weights: Path,
    options: Options,
    *,
    address: str,
    overwrite: bool = False,
    actors: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Generator[Outcome, None, None]:
    """Do the jobs on a cluster; each yields its outcome, as they come.

    Args:
        weights: a file; the nodes get its content.
        options: of the `Restorer` in each actor.
        address: of the cluster, as `ray.init` takes it; "local": one on this machine, for this run.
        actors: at most so many; None: as many as there is room for.
        cpus, gpus: what each takes of a node; fractions share it.

    Raises:
        UsageError: Ray is missing, or no cluster is there.
        MaximirError: the cluster fails.
    """
    try:
        import ray
        import ray.data
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise UsageError("--ray needs Ray: pip install 'maximir[ray]'") from error
    if weights.is_dir():
        raise UsageError(f"{weights}: is a folder; `maximir convert` makes the one file that --ray needs")
    for job in jobs:
        if job.problem is not None:
            yield Outcome(job, job.problem, (), 0.0)
    numbers = [number for number, job in enumerate(jobs) if job.problem is None]
    if not numbers:
        return
    connect(ray, address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
        share = {} if gpus == 0 else {"num_gpus": gpus}
        if options.max_bytes is not None:
            share["memory"] = options.max_bytes
        room = int(min(
            ray.cluster_resources().get("CPU", 1) // cpus if cpus else len(numbers),
            ray.cluster_resources().get("GPU", 0) // gpus if gpus else len(numbers),
        ))  # fmt: skip
        rows = [{"group": text} for text in groups(jobs, numbers)]
        most = max(1, min(actors or room, len(rows)))
        outcomes = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
            Restoring,
            fn_constructor_args=(
                ray.put(weights.read_bytes()),
                weights.name,
                output.url,
                settings,
                overwrite,
                ledger,
                options,
            ),
            batch_size=1,
            concurrency=(1, most),
            num_cpus=cpus,
            **share,
        )
        for row in outcomes.iter_rows():
            for number, problem, notes, seconds, known, size, digest in json.loads(row["outcomes"]):
                yield Outcome(
                    jobs[number], problem, tuple(notes), seconds, known, tuple(size) if size else None, digest
                )
    except ray.exceptions.RayError as error:
        raise MaximirError(f"Ray: {first_line(error)}; --ray again goes on where this ended") from error
    finally:
        ray.shutdown()


def connect(ray: Any, address: str) -> None:
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--ray {address}: no cluster answers there ({first_line(error)})") from error


def groups(jobs: Sequence[Job], numbers: Sequence[int]) -> Iterator[str]:
    """As JSON: [number, the source's store or none, its path, size and MD5, the target's path] of each."""
    group: list[list[Any]] = []
    held = 0
    for number in numbers:
        job, size = jobs[number], size_of(jobs[number].source)
        if group and (len(group) == GROUP_FILES or held + size > GROUP_BYTES):
            yield json.dumps(group)
            group, held = [], 0
        held += size
        if isinstance(job.source, Path):
            group.append([number, None, str(job.source.absolute()), size, "", job.target.path])
        else:
            md5 = job.source.item.md5 if job.source.item is not None else ""
            group.append([number, job.source.store.url, job.source.path, size, md5, job.target.path])
    if group:
        yield json.dumps(group)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
