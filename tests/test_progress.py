"""The time that is left."""

import re

import pytest

from maximir import progress
from maximir.progress import WorkProgress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def left(capsys) -> float | None:
    """What the last line says."""
    found = re.search(r"\((\d+) s left\)$", capsys.readouterr().err.strip())
    return float(found[1]) if found else None


def test_the_rest_takes_as_long_by_weight_as_what_was_done(capsys):
    with WorkProgress(3, 600) as work:
        work.succeed("a", 100, 2.0)
        assert left(capsys) == 10
        work.succeed("b", 200, 6.0)
        assert left(capsys) == 8  # 8 seconds for 300, and 300 are left
        work.succeed("c", 300, 6.0)
        assert left(capsys) is None


def test_what_was_done_before_or_failed_is_no_measure(capsys):
    with WorkProgress(103, 1030) as work:
        for _ in range(99):
            work.succeed("known", 10, None)
            assert left(capsys) is None
        work.fail("broken", 10)
        work.succeed("new", 10, 4.0)
        assert left(capsys) == 8


def test_where_nothing_is_computed_the_clock_tells(capsys, clock):
    with WorkProgress(4, 4) as work:
        for rest in (9, 6, 3):
            clock.now += 3
            work.succeed("scored", 1, 0.0)
            assert left(capsys) == rest
