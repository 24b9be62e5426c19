"""Write the table of kept metadata into docs/files.md, from files made and read for it.

    python scripts/metadata.py

`tests/images/test_metadata.py` fails if the table there is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from helpers.kept import table  # noqa: E402

BEGIN, END = "<!-- scripts/metadata.py -->\n", "<!-- end -->\n"


def main() -> None:
    page = ROOT / "docs" / "files.md"
    head, rest = page.read_text().split(BEGIN)
    page.write_text(head + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
