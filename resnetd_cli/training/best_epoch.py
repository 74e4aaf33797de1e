"""Which epoch is the best, and of several seeds which run: the one whose weights become the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resnetd_cli.training.progress import EpochRow


def is_best(row: EpochRow, best: EpochRow | None) -> bool:
    """Return whether an epoch is at least as good as the best one so far.

    Higher accuracy on val is better, then lower loss. Without val, the last epoch is the best.
    """
    return best is None or row["val_top1"] is None or _rank(row) >= _rank(best)


def _rank(row: EpochRow) -> tuple[float, float]:
    return row["val_top1"], -row["val_loss"]


def best_run(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the best of several runs by the same rule; the first if they are equal or there is no val.

    Args:
        runs: each with its figures on `val`, or None in their place.
    """
    return max(runs, key=lambda run: (run["val"]["top1"], -run["val"]["loss"]) if run["val"] else (0.0, 0.0))
