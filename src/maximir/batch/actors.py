"""Restore images on a Ray cluster with Ray Data.

A row is a group of images: small ones together, a large one alone. Each actor has a model and reads and
writes the storage itself: only addresses and outcomes travel. When an actor or its node dies, Ray gives its
rows to another actor, which finds finished images in the journal. A group whose actor died is retried image
by image, and an image that kills its actor MOST_DEATHS times is set aside.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maximir.batch.journal import ObjectJournal, settings_of
from maximir.batch.outcome import Outcome
from maximir.batch.plan import Job, Plan, file_size
from maximir.batch.restore import restore_jobs
from maximir.errors import MaximirError, UsageError
from maximir.models.cards import ModelCard
from maximir.restoring.links import Link
from maximir.restoring.options import Options
from maximir.storage import Address, Item, open_storage

if TYPE_CHECKING:
    import numpy as np

GROUP_FILES = 32
GROUP_BYTES = 8 * 2**20  # of files: a photograph of about 10 megapixels is a group of its own
MOST_DEATHS = 3
MOST_BLOCKS = 10_000


class Ledger:
    """Counts jobs that started and never finished, to find those that kill actors. Runs beside the driver."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Count a start; return how many earlier starts never ended."""
        self.begun[name] += 1
        return self.begun[name] - 1

    def end(self, name: str) -> None:
        del self.begun[name]


class Restoring:
    """Restores a batch of one row in an actor: {"group": [JSON]} → {"outcomes": [JSON]}.

    null: the precision "auto" differs between this node and the driver, and nothing was restored.
    """

    max_bytes: int | None = None
    mask: np.ndarray | None = None

    def __init__(
        self,
        links: Sequence[tuple[Any, str, str, str, float]],
        precision: str,
        options: Options,
        mask: np.ndarray | None,
        output: str,
        settings: str,
        overwrite: bool,
        ledger: Any,
    ) -> None:
        import ray

        from maximir.restoring.opening import restorer_of

        with tempfile.TemporaryDirectory() as folder:  # nodes need not have the weights files
            local: list[Link] = []
            for weights, suffix, name, task, strength in links:
                path = Path(folder) / f"{len(local)}{suffix}"
                path.write_bytes(ray.get(weights))
                local.append(Link(ModelCard(name, task, "yours", path), strength))
            self.restorer = restorer_of(local, options)
        self.same_precision = self.restorer.precision == precision
        self.output, self.settings, self.overwrite = open_storage(output), settings, overwrite
        self.ledger, self.max_bytes, self.mask = ledger, options.max_bytes, mask
        self.storages = {output: self.output}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        if not self.same_precision:
            return {"outcomes": [json.dumps(None)] * len(batch["group"])}
        return {"outcomes": [json.dumps(list(self.restore(json.loads(row)))) for row in batch["group"]]}

    def restore(self, rows: list[list[Any]]) -> Iterator[list[Any]]:
        """Yield [number, fields of the outcome without its job] for each image."""
        jobs = {number: self.job(*rest) for number, *rest in rows}
        group = f"group {rows[0][0]}"
        if self.begin(group) == 0:
            yield from self.outcomes(jobs)
        else:
            for number, job in jobs.items():
                if self.begin(str(number)) >= MOST_DEATHS:
                    why = f"killed its process {MOST_DEATHS} times: set aside"
                    yield [number, *fields_of(Outcome(job, why))]
                else:
                    yield from self.outcomes({number: job})
                    self.ledger.end.remote(str(number))
        self.ledger.end.remote(group)

    def begin(self, name: str) -> int:
        import ray

        return int(ray.get(self.ledger.begin.remote(name)))

    def outcomes(self, jobs: dict[int, Job]) -> Iterator[list[Any]]:
        todo = list(jobs.values())
        targets = [job.target for job in todo]
        journal = ObjectJournal(self.output, self.settings, resume=True, targets=targets)
        done = restore_jobs(
            todo,
            self.restorer,
            journal,
            mask=self.mask,
            overwrite=self.overwrite,
            max_bytes=self.max_bytes,
        )
        for number, outcome in zip(jobs, done, strict=True):
            yield [number, *fields_of(outcome)]

    def job(self, url: str, path: str, size: int, md5: str, target: str) -> Job:
        if url not in self.storages:
            self.storages[url] = open_storage(url)
        item = Item(size, md5) if md5 or self.storages[url].local("") is None else None
        return Job(Address(self.storages[url], path, item), Address(self.output, target))


def restore(
    planned: Plan,
    links: Sequence[Link],
    options: Options,
    *,
    address: str,
    mask: np.ndarray | None = None,
    overwrite: bool = False,
    actors: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Generator[Outcome, None, None]:
    """Restore the planned images on a cluster; yield outcomes as they arrive.

    Args:
        links: the model or the chain; the weights are sent to the nodes.
        options: of the restorer in each actor.
        mask: from `prepare_mask`, for each image.
        address: the cluster, as for `ray.init`; "local" starts one on this machine for this run.
        actors: the maximum; None: as many as fit.
        cpus, gpus: resources per actor; fractions share one.

    Raises:
        UsageError: Ray is missing, the cluster does not answer, or the output is not writable.
        MaximirError: the cluster fails.
    """
    if find_spec("ray") is None:
        raise UsageError("--ray needs Ray: pip install 'maximir[ray]'")
    import torch

    from maximir.restoring.opening import restorer_of

    for weights in (link.model.path for link in links):
        if weights.is_dir():
            raise UsageError(f"{weights}: is a folder; `maximir convert` makes the one file that --ray needs")
    # Checks the options before the cluster starts, and fixes the meaning of "auto" for all nodes.
    device = options.device if gpus and torch.cuda.is_available() else "cpu"
    here = restorer_of(links, dataclasses.replace(options, device=device))
    planned.output.check_writable()
    settings = settings_of(here, mask)
    return generate(
        planned, links, options, mask, here.precision, settings, address, overwrite, actors, cpus, gpus
    )


def generate(
    planned: Plan,
    links: Sequence[Link],
    options: Options,
    mask: np.ndarray | None,
    precision: str,
    settings: str,
    address: str,
    overwrite: bool,
    actors: int | None,
    cpus: float,
    gpus: float,
) -> Generator[Outcome, None, None]:
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    jobs = planned.jobs
    for job in jobs:
        if job.problem is not None:
            yield Outcome(job, job.problem)
    numbers = [number for number, job in enumerate(jobs) if job.problem is None]
    if not numbers:
        return
    connect(ray, address)
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    try:
        context.enable_progress_bars = False
        logger.setLevel(logging.ERROR)
        driver = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=driver).remote()
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
                [
                    (ray.put(model.path.read_bytes()), model.path.suffix, model.name, model.task, strength)
                    for model, strength in links
                ],
                precision,
                options,
                mask,
                planned.output.url,
                settings,
                overwrite,
                ledger,
            ),
            batch_size=1,
            concurrency=(1, most),
            num_cpus=cpus,
            **share,
        )
        for row in outcomes.iter_rows():
            if (found := json.loads(row["outcomes"])) is None:
                raise UsageError(
                    "--precision auto means something else on a node than here; give --precision fp32 or bf16"
                )
            for number, *fields in found:
                yield outcome_from(jobs[number], *fields)
    except ray.exceptions.RayError as error:
        raise MaximirError(f"Ray: {first_line(error)}; run with --ray again to continue") from error
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
        ray.shutdown()


def fields_of(outcome: Outcome) -> list[Any]:
    return [getattr(outcome, field.name) for field in dataclasses.fields(Outcome)[1:]]


def outcome_from(job: Job, *fields: Any) -> Outcome:
    """Invert `fields_of` after JSON, which has lists instead of tuples."""
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in fields]
    return Outcome(job, *values)


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
    """Yield groups as JSON lists of [number, storage URL, path, size and MD5 of the source, target path]."""
    group: list[list[Any]] = []
    held = 0
    for number in numbers:
        job, size = jobs[number], file_size(jobs[number])
        if group and (len(group) == GROUP_FILES or held + size > GROUP_BYTES):
            yield json.dumps(group)
            group, held = [], 0
        held += size
        source = job.source
        md5 = source.item.md5 if source.item is not None else ""
        group.append([number, source.storage.url, source.path, size, md5, job.target.path])
    if group:
        yield json.dumps(group)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
