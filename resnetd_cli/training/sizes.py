"""What of a recipe depends on how many images there are."""

from __future__ import annotations

from typing import Any

from resnetd_cli.training.recipe import Recipe

FINETUNE = "finetune"


def fitted(recipe: Recipe, name: str, images: int) -> Recipe:
    """Return a recipe that suits the number of training images, where it is the one for fine-tuning."""
    changes: dict[str, Any] = {}
    if name == FINETUNE:
        changes["epochs"] = max(3, min(recipe.epochs, 20_000 // max(1, images)))
    return recipe.replace(changes)


def within(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe whose batches are no larger than the data set."""
    return recipe.replace({"batch_size": images}) if images < recipe.batch_size else recipe
