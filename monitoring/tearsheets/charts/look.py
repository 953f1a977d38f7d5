"""Colours and style of every chart, as the page has them."""

from __future__ import annotations

from typing import Final

GROUND: Final = "#181e24"
PAGE: Final = "#101418"
EDGE: Final = "#2b343d"
TEXT: Final = "#e6ebf0"
SOFT: Final = "#9aa7b4"
GOOD: Final = "#4cc38a"
BAD: Final = "#f2756b"
WARN: Final = "#e8b44a"
BLUE: Final = "#6cabf0"
HUES: Final = (
    "#6cabf0", "#4cc38a", "#e8b44a", "#c78df2", "#f2756b", "#5fd0d6", "#f29ac0", "#a9c25d",
)  # fmt: skip
OTHERS: Final = "#6b7885"
WIDE: Final = (10.0, 3.6)
NARROW: Final = (4.6, 3.5)
"""Inches of a usual chart on the page, and on a phone."""
NARROW_BELOW: Final = 6.0
STYLE: Final = {
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": EDGE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": TEXT,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "aifap",
    "svg.fonttype": "path",
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}
PAGE_STYLE: Final = STYLE | {"savefig.facecolor": PAGE, "figure.facecolor": PAGE}
