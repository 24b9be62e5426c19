"""The command in this process, and the results that it leaves."""

import sys

import pytest

from maximir import cli
from maximir.batch import journal


def maximir(*arguments, expect=0):
    """Run the command in this process; its exit code must be `expect`."""
    sys_argv, sys.argv = sys.argv, ["maximir", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as done:
            cli.main()
    finally:
        sys.argv = sys_argv
    assert (done.value.code or 0) == expect


def files(folder):
    """All but the journal, which is hidden."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != journal.FILE
    )
