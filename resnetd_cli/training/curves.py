"""Curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from resnetd_cli.training.rates import Rates
    from resnetd_cli.training.recipe import Recipe

_DOTS_PER_INCH = 110
_STEPS = 1000
"""Of an epoch, where they are not known."""


def draw(rows: Sequence[dict[str, Any]], rates: Rates, file: IO[bytes]) -> None:
    """Draw loss and accuracy by epoch and the rate by step, as PNG.

    Args:
        rows: of the epochs.
        rates: of the steps.
        file: to write to.
    """
    from matplotlib.ticker import PercentFormatter

    figure, (loss, accuracy, rate) = _figure(3)
    epochs = [row["epoch"] for row in rows]
    for axes, name in ((loss, "loss"), (accuracy, "top1")):
        for split, style in (("train", "--"), ("val", "-")):
            values = [row[f"{split}_{name}"] for row in rows]
            if None not in values:
                axes.plot(epochs, values, style, label=split, marker="." if len(rows) < 40 else None)
        axes.legend(frameon=False)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    _by_epoch(loss, "loss")
    _by_epoch(accuracy, "top-1")
    _plot(rates, rate)
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)


def draw_rates(recipe: Recipe, file: IO[bytes]) -> None:
    """Draw the rate by step of a recipe before it is run, as PNG.

    Args:
        recipe: the settings; how many steps an epoch has does not change the curve.
        file: to write to.
    """
    from resnetd_cli.training.rates import Rates

    figure, (axes,) = _figure(1)
    _plot(Rates(recipe, _STEPS), axes)
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)


def _figure(columns: int) -> tuple[Any, Sequence[Axes]]:
    """Return a picture and its axes, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * columns, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _plot(rates: Rates, axes: Axes) -> None:
    """Plot the rate of the classifier, and of the rest where that has another."""
    recipe = rates.recipe
    epochs, values = rates.curve()
    marker = "." if len(epochs) == 1 else None
    axes.plot(epochs, values, color="tab:gray", marker=marker, label="classifier")
    if recipe.backbone_lr != 1 and not recipe.freeze:
        rest = [recipe.backbone_lr * value for value in values]
        axes.plot(epochs, rest, ":", color="tab:gray", marker=marker, label="the rest")
        axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    _by_epoch(axes, "learning rate")


def _by_epoch(axes: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
