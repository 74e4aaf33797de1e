"""Comparing two models on the same labelled images, by McNemar's exact test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from resnetd_cli.errors import DataError
from resnetd_cli.evaluation.records import Evaluated


@dataclass(frozen=True)
class Comparison:
    """Two models on the images that both answered.

    Attributes:
        images: how many both answered.
        both: images that both have right.
        only_first: images that only the first has right.
        only_second: images that only the second has right.
        neither: images that both have wrong.
        p: the two-sided p-value of McNemar's exact test.
    """

    images: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def compare_models(first: Evaluated, second: Evaluated) -> Comparison:
    """Compare two models that were evaluated on the same images.

    Raises:
        DataError: there is no image that both answered.
    """
    import numpy as np

    shared = (first.verdict >= 0) & (second.verdict >= 0)
    if not shared.any():
        raise DataError("there is no image that both models answered", hint="the lines above say why")
    cells = np.bincount(2 * first.verdict[shared] + second.verdict[shared], minlength=4)
    neither, only_second, only_first, both = map(int, cells)
    p = mcnemar(only_first, only_second)
    return Comparison(int(shared.sum()), both, only_first, only_second, neither, p)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is the probability that two equally good models differ at least as much on the images that only one of them
    has right.

    Args:
        only_first: images that only the first has right.
        only_second: images that only the second has right.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    ways = total = 1
    for chosen in range(1, least + 1):
        ways = ways * (n - chosen + 1) // chosen
        total += ways
    return min(1.0, 2 * total / (1 << n))
