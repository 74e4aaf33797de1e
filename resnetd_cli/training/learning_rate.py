"""The learning rate of each step: a linear warm-up, then the recipe's schedule (cosine, step, poly, constant).

The classifier (head) learns at this rate, the backbone at a share of it, `backbone_lr`. Warm-up, cosine and poly
equal timm's schedulers, updated each step; a step schedule lowers the rate exactly where the recipe says, one step
later than timm's. No torch here: `--print-recipe --plot` draws the rates before a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

_EXACT = 1e-9
"""Tolerance in steps: shares of a run, such as 0.07 of 100 steps, are not whole numbers in floating point."""
_POINTS = 1000
"""The most points of a drawn curve."""


@dataclass(frozen=True)
class LearningRate:
    """The learning rate in each step of a run.

    Attributes:
        recipe: the settings.
        steps_per_epoch: number of updates of the weights in an epoch.
    """

    recipe: Recipe
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Number of updates of the weights in the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    def at(self, step: int) -> float:
        """Return the classifier's rate in a step, counted from 0."""
        peak, warmup = self.recipe.peak_lr, self.recipe.warmup_epochs * self.steps_per_epoch
        if step < warmup:
            return peak * (1 + step) / (1 + warmup)  # a first step at zero would be lost
        return peak * self._left(step, (step - warmup) / (self.steps - warmup))

    def _left(self, step: int, done: float) -> float:
        """Return the share of the highest rate that is left.

        Args:
            step: counted from 0.
            done: share of the steps after the warm-up that come before it.
        """
        recipe = self.recipe
        if recipe.schedule == "step":
            falls = sum(share * self.steps <= step + _EXACT for share in recipe.step_at)
            return recipe.step_factor**falls
        if recipe.schedule == "cosine":
            falling = (1 + math.cos(math.pi * done)) / 2
        elif recipe.schedule == "poly":
            falling = (1 - done) ** recipe.poly_power
        else:
            return 1.0
        return recipe.final_lr + (1 - recipe.final_lr) * falling

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the rates of the head and of the backbone for a step, and return the head's.

        Args:
            optimizer: its groups carry `lr_scale`, their share of the rate: see `optimizer.parameter_groups`.
            step: counted from 0.
        """
        rate = self.at(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        return rate

    def curve(self) -> tuple[list[float], list[float]]:
        """Return points of the curve: epochs, with fractions, and the rates of the steps that start there.

        They are spread evenly from the first step to the last.
        """
        count = min(self.steps, _POINTS)
        steps = [round(number * (self.steps - 1) / max(1, count - 1)) for number in range(count)]
        return [step / self.steps_per_epoch for step in steps], [self.at(step) for step in steps]
