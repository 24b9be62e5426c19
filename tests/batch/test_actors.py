"""What actors do, without a cluster: scripts/kill_cluster.py has one, and kills it."""

import json
import types

import fsspec
import pytest
from test_journal import Inverter
from test_storages import fill, memory, png  # noqa: F401  (a fixture)

from maximir.batch import actors
from maximir.batch.outcome import Outcome
from maximir.batch.plan import Job, plan
from maximir.storage import Address, Item, open_storage


class Actor(actors.Restoring):
    """One that asks its ledger directly, and may be killed by a picture."""

    def __init__(self, ledger):
        self.restorer, self.output = Inverter(), open_storage("memory://out")
        self.settings, self.overwrite, self.storages = "a", False, {}
        self.same_precision = True
        self.counts = ledger
        self.ledger = types.SimpleNamespace(end=types.SimpleNamespace(remote=ledger.end))
        self.deadly = None

    def begin(self, name):
        return self.counts.begin(name)

    def job(self, *row):
        job = super().job(*row)
        if job.source.name == self.deadly:
            object.__setattr__(job, "source", Deadly(job.source.storage, job.source.path, job.source.item))
        return job


class Deadly(Address):
    def read(self, *rest, **options):
        raise Died


class Died(BaseException):
    """As a process does."""


def rows():
    jobs = plan(["memory://in"], "memory://out").jobs
    return jobs, list(actors.groups(jobs, range(len(jobs))))


def test_small_ones_go_together_and_large_ones_alone():
    store, out = open_storage("memory://in"), open_storage("memory://out")
    sizes = [10] * 40 + [9 * 2**20] + [10] * 3
    jobs = [
        Job(Address(store, f"{k}.png", Item(size)), Address(out, f"{k}.png")) for k, size in enumerate(sizes)
    ]
    found = [[row[0] for row in json.loads(text)] for text in actors.groups(jobs, range(len(jobs)))]
    assert found == [list(range(32)), list(range(32, 40)), [40], [41, 42, 43]]


def test_a_picture_that_kills_its_actor_three_times_is_set_aside(memory):  # noqa: F811
    fill("memory://in", 5)
    _, [row] = rows()
    ledger, deaths = actors.Ledger(), 0
    while True:
        actor = Actor(ledger)  # a new one each time, as Ray starts them
        actor.deadly = "02.png"
        try:
            [text] = actor({"group": [row]})["outcomes"]
            break
        except Died:
            deaths += 1
    errors = {number: problem for number, problem, *_ in json.loads(text)}
    assert [errors[k] for k in (0, 1, 3, 4)] == [None] * 4
    assert errors[2] == "killed its process 3 times: set aside"
    assert deaths == 1 + 3  # with its group, and then alone
    assert not fsspec.filesystem("memory").exists("/out/02.png")


def test_a_group_that_goes_to_another_actor_is_not_done_twice(memory):  # noqa: F811
    fill("memory://in", 5)
    _, [row] = rows()
    ledger = actors.Ledger()
    first = Actor(ledger)
    first.deadly = "03.png"
    with pytest.raises(Died):
        first({"group": [row]})
    second = Actor(ledger)
    [text] = second({"group": [row]})["outcomes"]
    assert [outcome[1] for outcome in json.loads(text)] == [None] * 5
    known = sum(outcome[4] for outcome in json.loads(text))  # what the first one had time for
    assert len(second.restorer.seen) == 5 - known


def test_another_meaning_of_auto_is_told_before_work(memory):  # noqa: F811
    fill("memory://in", 2)
    _, [row] = rows()
    actor = Actor(actors.Ledger())
    actor.same_precision = False
    assert actor({"group": [row]})["outcomes"] == ["null"] and not actor.restorer.seen


def test_outcomes_travel_as_json(memory):  # noqa: F811
    fill("memory://in", 1)
    [job], _ = rows()
    outcome = Outcome(job, None, ("a note",), 1.5, False, (4, 5), "digest", "bf16")
    assert actors.outcome_from(job, *json.loads(json.dumps(actors.fields_of(outcome)))) == outcome
