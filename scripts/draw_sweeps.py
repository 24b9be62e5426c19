"""Draw the two sweeps for docs/performance.md. Needs matplotlib (pip install '.[docs]').

python scripts/draw_sweeps.py docs/images/sweeps.png
"""

import sys

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

SIDE, WINDOW = 16, 4  # rows and columns of a small image, and of a window (16 or 8 in the network)
STRIDE = SIDE // WINDOW
STRIP, ONE_WINDOW, HALO = "#b9d4ee", "#1f5fa8", "#f2c58c"


def panel(
    axes: Axes, title: str, strip: set[int], window: set[tuple[int, int]], halo: set[int] = frozenset()
) -> None:
    for row in range(SIDE):
        for column in range(SIDE):
            colour = "white"
            if row in strip:
                colour = STRIP
            if row in halo:
                colour = HALO
            if (row, column) in window:
                colour = ONE_WINDOW
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="#999999", linewidth=0.4)
            )
    axes.set(xlim=(0, SIDE), ylim=(SIDE, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)


figure, (block, grid, rows) = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
panel(
    block,
    "block sweep\na strip: s neighbouring rows",
    set(range(WINDOW, 2 * WINDOW)),
    {(WINDOW + i, 2 * WINDOW + j) for i in range(WINDOW) for j in range(WINDOW)},
)
panel(
    grid,
    "grid sweep\na strip: rows r, r + H/s, r + 2H/s, …",
    {1 + i * STRIDE for i in range(WINDOW)},
    {(1 + i * STRIDE, 2 + j * STRIDE) for i in range(WINDOW) for j in range(WINDOW)},
)
panel(
    rows,
    "row sweep (convolutions)\na strip: rows, and a halo on each side",
    set(range(5, 9)),
    set(),
    {3, 4, 9, 10},
)
figure.supxlabel(
    "Light: the rows that one strip reads. Dark: one of its windows, which one P x P matrix mixes. "
    "No window leaves its strip, so strips are exact.",
    fontsize=9,
)
figure.savefig(sys.argv[1], dpi=110, bbox_inches="tight")
