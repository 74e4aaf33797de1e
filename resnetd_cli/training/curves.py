"""`curves.png`: loss, accuracy and learning rate as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from resnetd_cli.training.learning_rate import LearningRate
    from resnetd_cli.training.recipe import Recipe

_DOTS_PER_INCH = 110
_STEPS = 1000
"""Steps in an epoch, while the number of images is unknown."""


def draw(rows: Sequence[dict[str, Any]], rates: LearningRate, file: IO[bytes]) -> None:
    """Draw loss and accuracy by epoch and the rate by step, as PNG.

    Args:
        rows: a row for each epoch.
        rates: the rate of each step.
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
    """Draw a recipe's learning rate by step, before the run, as PNG.

    Args:
        recipe: the settings; the number of steps in an epoch does not change the curve.
        file: to write to.
    """
    from resnetd_cli.training.learning_rate import LearningRate

    figure, (axes,) = _figure(1)
    _plot(LearningRate(recipe, _STEPS), axes)
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)


def _figure(columns: int) -> tuple[Any, Sequence[Axes]]:
    """Return a figure and its axes, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * columns, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _plot(rates: LearningRate, axes: Axes) -> None:
    """Plot the rate of the classifier, and that of the rest if it differs."""
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
