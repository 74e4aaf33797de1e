"""The learning rate of each step: a linear warm-up, then the fall that the recipe asks for.

Without torch, so that a recipe's rates can be drawn before it is run. Warm-up, cosine and poly are those of timm's
schedulers by update; a step falls where it is asked to, one update later than timm's multi-step schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from resnetd_cli.training.recipe import Recipe

_EXACT = 1e-9
"""Of a step: shares of a run such as 0.07 of 100 steps are not whole numbers in floating point."""


@dataclass(frozen=True)
class Rates:
    """The classifier's learning rate in each step of a run.

    Attributes:
        recipe: the settings.
        steps_per_epoch: updates of the weights in an epoch.
    """

    recipe: Recipe
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Updates of the weights in all."""
        return self.recipe.epochs * self.steps_per_epoch

    def at(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        peak, warmup = self.recipe.peak_lr, self.recipe.warmup_epochs * self.steps_per_epoch
        if step < warmup:
            return peak * (1 + step) / (1 + warmup)  # a first step at zero would be lost
        return peak * self._left(step, (step - warmup) / (self.steps - warmup))

    def _left(self, step: int, done: float) -> float:
        """Return the share of the highest rate that is left.

        Args:
            step: counted from 0.
            done: the share of the run since the warm-up that lies before it.
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

    def curve(self, points: int = 1000) -> tuple[list[float], list[float]]:
        """Return the epochs, with their fractions, at which steps begin and the rates of these steps.

        Args:
            points: at most so many, evenly spread from the first step to the last.
        """
        count = min(self.steps, points)
        steps = [round(number * (self.steps - 1) / max(1, count - 1)) for number in range(count)]
        return [step / self.steps_per_epoch for step in steps], [self.at(step) for step in steps]
