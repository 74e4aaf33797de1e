"""What of a recipe depends on how many images there are."""

from __future__ import annotations

import math

from resnetd_cli.training.recipe import Recipe

FINETUNE = "finetune"
_STEPS = ((500, 120), (2_000, 250))
"""Updates of the weights that fine-tuning takes, up to so many training images."""
_EPOCHS = ((20_000, 5), (math.inf, 3))
"""And beyond them, how often it sees each."""
_KEEP_STATISTICS = 20_000
"""Training images up to which batches tell less of their distribution than what the network has seen before."""
_WARM_UP = 0.1


def finetuning(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe for fine-tuning as it suits a number of training images."""
    epochs = next((epochs for most, epochs in _EPOCHS if images <= most), 1)
    for most, steps in _STEPS:
        if images <= most:
            epochs = math.ceil(steps / max(1, images // recipe.batch_size))
            break
    statistics = "freeze" if images <= _KEEP_STATISTICS else "update"
    return recipe.replace({"epochs": epochs, "warmup_epochs": _WARM_UP * epochs, "batch_norm": statistics})


def within(recipe: Recipe, images: int, processes: int = 1) -> Recipe:
    """Return a recipe whose batches are no larger than the data set.

    Raises:
        UsageError: there are fewer images than processes.
    """
    if images >= recipe.batch_size:
        return recipe
    return recipe.replace({"batch_size": images // processes * processes})
