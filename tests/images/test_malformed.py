"""Files damaged in all kinds of ways are read or refused: never a crash, a hang, or any other error."""

import functools
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest

from helpers.malformed import attempt, malformed, originals, raws
from helpers.watched import CRASH, HANG, UNTYPED, watch
from maximir import images


@pytest.mark.parametrize("cases", [600, pytest.param(2_000, marks=pytest.mark.slow)])
def test_thousands_of_malformed_files(cases):
    work = functools.partial(attempt, most_pixels=4_000_000)
    counts: Counter[str] = Counter()
    for verdict in watch(work, range(cases), memory=8 << 30):
        assert not verdict.bad, f"seed {verdict.case}, {malformed(verdict.case)[0]}: {verdict.outcome}"
        counts[verdict.outcome.split(":")[0]] += 1
    for name in originals():  # the damage must neither spare nor ruin all files of a kind
        assert counts[f"refused {name}"] > 3, name
    assert counts.total() == cases
    assert sum(n for kind, n in counts.items() if kind.startswith("read")) > cases // 10


def test_malformed_raw_files():
    pytest.importorskip("rawpy")
    work = functools.partial(attempt, most_pixels=4_000_000, whole=raws)
    counts: Counter[str] = Counter()
    for verdict in watch(work, range(200), memory=8 << 30):
        assert not verdict.bad, f"seed {verdict.case}: {verdict.outcome}"
        counts[verdict.outcome.split(":")[0].split()[0]] += 1
    assert counts["read"] > 40 and counts["refused"] > 40


def test_the_originals_are_whole():
    for name, data in originals().items():
        assert images.decode(data).rgb.shape[2] == 3, name


def test_damage_is_the_same_from_the_same_number():
    assert malformed(1234) == malformed(1234) != malformed(1234 + len(originals()))


def misbehave(how: str) -> str:
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(60)
    if how == "raise":
        raise RuntimeError("no MaximirError")
    if how == "take":
        np.ones(200 << 20, np.uint8)
    return "fine"


@pytest.mark.slow
def test_the_watch_sees_everything():
    cases = ["fine", "crash", "fine", "hang", "raise", "take", "fine"]
    verdicts = list(watch(misbehave, cases, seconds=0.5))
    starts = ["fine", CRASH, "fine", HANG, UNTYPED, "fine", "fine"]
    assert [v.case for v in verdicts] == cases
    assert all(v.outcome.startswith(start) for v, start in zip(verdicts, starts, strict=True))
    assert "SIGSEGV" in verdicts[1].outcome and "no MaximirError" in verdicts[4].outcome
    assert verdicts[5].peak > 190 << 20 > 50 << 20 > verdicts[6].peak


@pytest.mark.parametrize("limit", [1 << 30])
def test_the_watch_limits_memory(limit):
    [verdict] = watch(misbehave, ["take"], memory=limit)
    assert verdict.outcome == "fine" or "MemoryError" in verdict.outcome
