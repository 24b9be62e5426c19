"""The simulation of a cluster against what can be reckoned by hand."""

import json
import math

import pytest

from maximir import cluster as clusters
from maximir.cluster import Cluster, Kind, best, fewest, read_sample, simulate
from maximir.errors import UsageError

FREE = Cluster(  # nothing but computing takes time
    bandwidth=1e15, link=1e15, latency=0, listing=1e12, handing=0, start=0, losses=0
)
ONE = [Kind(1_000_000, 1, 2.0)]


def with_(**changes):
    return Cluster(**{**FREE.__dict__, **changes})


@pytest.mark.parametrize("workers", [1, 4, 30])
@pytest.mark.parametrize("images", [300, 60_000])  # alone, and in portions
def test_computing_is_shared_out(workers, images):
    outcome = simulate(ONE, images, workers, FREE)
    assert outcome.seconds == pytest.approx(2 * images / workers, rel=0.005)
    assert outcome.busy == pytest.approx(1, rel=0.005)
    assert (outcome.again, outcome.limit) == (0, "computing")


@pytest.mark.parametrize(
    ("changes", "seconds", "limit"),
    [
        ({"bandwidth": 1e6, "read": 3e6, "written": 1e6}, 3000, "the store's bandwidth"),
        ({"bandwidth": 1e6, "read": 1e6, "written": 3e6}, 3000, "the store's bandwidth"),
        ({"link": 1e4, "read": 1e6, "written": 1e5}, 1000, "the workers' links"),
        ({"latency": 100.0}, 1000, "the workers' links"),
        ({"listing": 0.5}, 2000, "listing"),
        ({"handing": 1.5}, 1500, "the driver"),
        ({"start": 5000.0}, 5020, "the start of workers"),
    ],
)
def test_what_is_narrow_sets_the_pace(changes, seconds, limit):
    outcome = simulate(ONE, 1000, 100, with_(**changes))
    assert outcome.seconds == pytest.approx(seconds, rel=0.12)
    assert outcome.seconds >= seconds
    assert outcome.limit == limit


def test_lines_overlap():
    """Reading, computing and writing of different photographs take the time of the slowest."""
    slow = with_(link=1e6, read=1.9e6, written=1.9e6)
    assert simulate(ONE, 500, 1, slow).seconds == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("shards", [False, True])
def test_losses_cost_what_theory_says(shards):
    """A task of s seconds, begun anew at each loss (rate r, d seconds until it goes on), takes
    (1/r + d)(exp(r·s) - 1) on average."""
    rate, back, images = 100 / 3600, 30.0, 4000
    kinds = [Kind(1_000_000, 1, 40.0)]
    cluster = with_(losses=rate * 3600, back=back, shards=shards, ahead=1)
    expected = images * (1 / rate + back) * (math.exp(rate * 40) - 1)
    outcome = simulate(kinds, images, 1, cluster)
    assert outcome.seconds == pytest.approx(expected, rel=0.05)
    assert outcome.again == pytest.approx(images * (math.exp(rate * 40) - 1), rel=0.06)


def test_nothing_is_lost_with_workers_that_die():
    """What is done and paid for: each photograph counts once, whoever died over it."""
    cluster = with_(losses=20.0, back=10.0, latency=0.2, link=1e6)
    outcome = simulate(ONE, 2000, 20, cluster)
    assert outcome.again > 0
    assert outcome.busy * outcome.worker_seconds == pytest.approx(2 * 2000)
    assert 200 < outcome.seconds < 300


def test_portions_hardly_matter(monkeypatch):
    cluster = Cluster(losses=0.5, bandwidth=2e8)
    kinds = [Kind(1_000_000, 2, 1.0), Kind(12_000_000, 1, 9.0)]
    coarse = simulate(kinds, 40_000, 50, cluster)
    monkeypatch.setattr(clusters, "PORTIONS", 40_000)
    fine = simulate(kinds, 40_000, 50, cluster)
    assert coarse.seconds == pytest.approx(fine.seconds, rel=0.02)


def test_the_same_seed_gives_the_same():
    cluster = Cluster(losses=1.0)
    outcomes = [simulate(ONE, 5000, 10, cluster, seed) for seed in (1, 1, 2)]
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_shares_of_equal_number_wait_for_the_longest():
    free, shared = (simulate(ONE, 5000, 50, with_(shards=shards)) for shards in (False, True))
    assert shared.seconds > 1.1 * free.seconds
    assert shared.worker_seconds == pytest.approx(free.worker_seconds, rel=0.01)  # each pays for its own


def test_workers_that_never_get_anything_done_are_an_error():
    with pytest.raises(UsageError, match="lost before"):
        simulate([Kind(1, 1, 3600.0)], 50, 2, with_(losses=100.0))
    with pytest.raises(UsageError, match="lost before"):  # writing takes longer than they live
        simulate([Kind(24_000_000, 1, 24.0)], 1_000_000, 7, Cluster(bandwidth=1e5))


def test_the_best_number_and_the_fewest():
    cluster = with_(bandwidth=1e7, read=1e6, written=1e6)  # 20 workers' worth of it
    outcomes = [simulate(ONE, 2000, workers, cluster) for workers in (1, 5, 10, 20, 40)]
    assert best(outcomes).workers == 20
    assert fewest(ONE, 2000, 405, cluster).workers == 10
    assert fewest(ONE, 2000, 150, cluster) is None


def test_a_report_is_a_sample(tmp_path):
    report = tmp_path / "run.jsonl"
    lines = [{"run": "maximir restore"}]
    lines += [{"status": "restored", "height": 10, "width": n, "seconds": n / 10} for n in range(1, 301)]
    lines += [{"status": "failed", "height": None, "width": None, "seconds": 0.0}]
    report.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kinds = read_sample(report)
    assert len(kinds) == clusters.KINDS
    assert clusters.means(kinds) == pytest.approx((1505e-6, 15.05), rel=0.001)
    for text, words in [
        ("{}\n", "no photograph"),
        ("{}\nnothing", "line 2"),
        ('{"status": "restored"}', "line 1"),
    ]:
        report.write_text(text)
        with pytest.raises(UsageError, match=words):
            read_sample(report)
    with pytest.raises(UsageError, match="no such file"):
        read_sample(tmp_path / "none")
