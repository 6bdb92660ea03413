"""Plots of an evaluation, as PNG bytes: differences with intervals, and the spread of seeds."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from finetune.compare import Compared, Spread

matplotlib.use("Agg")
_WIDTH = 9.0
_GOOD, _BAD, _PLAIN = "#1a7f37", "#b42318", "#57606a"


def differences(compared: Sequence[Compared]) -> bytes:
    """One line a measure: candidate minus base in points (per cent for perplexity), its interval,
    and how far left it may reach."""
    rows = list(reversed(compared))
    figure, axes = _figure(len(rows))
    for y, c in enumerate(rows):
        colour = _GOOD if c.low > 0 else _BAD if c.high < 0 else _PLAIN
        axes.plot([100 * c.low, 100 * c.high], [y, y], color=colour, linewidth=2)
        axes.plot(100 * c.difference, y, "o", color=colour)
        if c.purpose in ("part", "general"):
            axes.plot(-100 * c.margin, y, "|", color=_BAD, markersize=12)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{c.label} ({c.n})" for c in rows])
    axes.set_xlabel("candidate minus base, points; | how far it may fall")
    return _png(figure)


def spread(spreads: Sequence[Spread]) -> bytes:
    """One line a measure: each run a point, the mean a bar."""
    rows = list(reversed(spreads))
    figure, axes = _figure(len(rows))
    for y, s in enumerate(rows):
        axes.plot(s.runs, [y] * len(s.runs), "o", color=_PLAIN, alpha=0.6)
        axes.plot(s.mean, y, "|", color="black", markersize=14)
    axes.set_yticks(range(len(rows)), [s.label for s in rows])
    axes.set_xlabel("by seed")
    return _png(figure)


def _figure(rows: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.34 * rows), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
