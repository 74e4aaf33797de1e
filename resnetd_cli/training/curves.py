"""Curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any


def draw(rows: Sequence[dict[str, Any]], file: IO[bytes]) -> None:
    """Draw loss, accuracy and rate by epoch, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    for axes, name in ((loss, "loss"), (accuracy, "top1")):
        for split, style in (("train", "--"), ("val", "-")):
            values = [row[f"{split}_{name}"] for row in rows]
            if None not in values:
                axes.plot(epochs, values, style, label=split, marker="." if len(rows) < 40 else None)
        axes.legend(frameon=False)
    rate.plot(epochs, [row["lr"] for row in rows], color="tab:gray")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes, title in ((loss, "loss"), (accuracy, "top-1"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, format="png", dpi=110)
