"""Memory that is left, by made-up control groups."""

import pytest

from maximir.engine import machine

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 20 GB: call it with the process's line, and files by name."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "self")
    memory = type("Memory", (), {"available": 20 * GB})
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory)

    def make(line, files):
        (tmp_path / "self").write_text(f"5:cpu,cpuacct:/elsewhere\n{line}\n", "utf-8")
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", "utf-8")

    return make


def unified(group, maximum="max", high="max", used=GB, cache=0):
    """Files of a group of version 2."""
    values = {"max": maximum, "high": high, "current": used, "stat": f"inactive_file {cache}\nslab 7"}
    return {f"{group}/memory.{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("made", "room"),
    [
        (unified("a/b/c"), 20 * GB),
        (unified("a/b/c", 3 * GB), 2 * GB),
        (unified("a/b/c", 3 * GB, cache=GB // 2), 2.5 * GB),
        (unified("a/b/c", high=3 * GB), 2 * GB),
        (unified("a/b/c") | unified("a", 3 * GB, used=2 * GB), GB),  # two levels above
        (unified("a/b/c") | unified("a/b", high=3 * GB), 2 * GB),
        (unified("a/b/c", 9 * GB) | unified("a/b", 4 * GB, 3 * GB, 2.5 * GB), 8 * GB),  # no whole number
        (unified("a/b/c", 3 * GB, used=4 * GB), 0),  # more than the limit, which was lowered meanwhile
        (unified("a/b", 3 * GB), 2 * GB),  # the group itself cannot be seen
        (unified("other", 3 * GB), 20 * GB),
    ],
)
def test_the_fullest_group_up_to_the_root_counts(made, room, groups):
    groups("0::/a/b/c", made)
    assert machine.available() == room


@pytest.mark.parametrize("path", ["/", "/../.."])
def test_the_root_group_of_a_container(path, groups):
    groups(f"0::{path}", unified(".", 3 * GB))
    assert machine.available() == 2 * GB


@pytest.mark.parametrize("group", ["docker/abc", "docker", ""])
def test_version_1(group, groups):
    files = {
        "limit_in_bytes": 3 * GB,
        "usage_in_bytes": GB,
        "stat": "total_active_file 5000",
        "soft_limit_in_bytes": 5,
    }
    made = {f"memory/{group}/memory.{name}": value for name, value in files.items()}
    groups("9:memory:/docker/abc", made)
    assert machine.available() == 2 * GB + 5000


def test_no_control_groups(groups):
    assert machine.available() == 20 * GB
