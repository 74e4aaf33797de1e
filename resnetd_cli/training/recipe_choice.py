"""Which recipe a run uses: the named one, with the user's changes, adapted to the number of training images.

The defaults of fine-tuning depend on it: epochs, batch size, warm-up and batch-norm statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.system.wording import counted
from resnetd_cli.training import ineffective
from resnetd_cli.training.plan import FINETUNE, RecipeChoice
from resnetd_cli.training.recipe import Recipe, load_recipe

_DEFAULT = "bag-of-tricks"
_ADAPTIVE = "finetune"
"""The recipe whose epochs, batch size and batch normalisation depend on the number of images."""
_STEPS = ((500, 120), (2_000, 250))
"""Number of steps in fine-tuning, for up to this many training images."""
_EPOCHS = ((20_000, 5), (math.inf, 3))
"""Number of epochs for more images."""
_KEEP_STATISTICS = 20_000
"""Up to this many images, the pretrained batch-norm statistics are better than those of the user's batches."""
_WARM_UP = 0.1
"""Share of the epochs."""
_STEPS_PER_EPOCH = 7
"""Batches are made smaller to reach this: with fewer steps an epoch, training would take a great many epochs."""
_SMALLEST_BATCH = 4


def recipe_name(choice: RecipeChoice, command: str) -> str:
    """Return the name of the recipe, or its file."""
    return choice.name or (_ADAPTIVE if command == FINETUNE else _DEFAULT)


def asked_recipe(
    choice: RecipeChoice,
    command: str,
    *,
    has_teacher: bool = False,
    processes: int = 1,
    base: Recipe | None = None,
) -> Recipe:
    """Return the recipe that the user asked for, before it is adapted to the images.

    Args:
        choice: the recipe and the changes to it.
        command: `finetune` or `train`.
        has_teacher: the answers of another model are learnt as well.
        processes: number of training processes.
        base: the recipe without the changes, if it is already loaded.

    Raises:
        UsageError: there is no such recipe, a setting that the user asked for would have no effect, or there are
            more processes than images in a step.
    """
    name, changes = recipe_name(choice, command), choice.changes
    recipe = (base or load_recipe(name)).replace(changes)
    if name == _ADAPTIVE or "epochs" in changes:
        recipe = with_warmup(recipe, changes, None if name == _ADAPTIVE else recipe.warmup_epochs)
    ineffective.check(changes, ineffective.Asked(recipe, has_teacher, processes))
    if recipe.batch_size < processes:
        message = f"{counted(recipe.batch_size, 'image')} in a step for {processes} processes"
        raise UsageError(message, reason=Reason.BATCH_BELOW_PROCESSES, details=(2 * processes,))
    return recipe


def adapted_recipe(
    recipe: Recipe, choice: RecipeChoice, command: str, images: int, note: Callable[[str], None]
) -> Recipe:
    """Return a recipe adapted to the number of training images.

    Args:
        recipe: as returned by `asked_recipe`.
        choice: what the user asked for.
        command: `finetune` or `train`.
        images: number of training images.
        note: called with a line for the user about each setting that was adapted or looks wrong.
    """
    if recipe_name(choice, command) == _ADAPTIVE:
        recipe = adapted_to(recipe, images, choice.changes)
    evened = with_even_batches(recipe, images)
    if "batch_size" in choice.changes and evened != recipe:
        steps = counted(math.ceil(images / evened.batch_size), "step", ",")
        note(f"{images:,} images, spread evenly, make {steps} of at most {evened.batch_size:,} per epoch")
    if evened.warmup_epochs >= evened.epochs:
        note(f"the learning rate only rises: warmup_epochs={evened.epochs / 10:g} would shorten the warm-up")
    return evened


def with_warmup(recipe: Recipe, changes: Mapping[str, Any], most: float | None = None) -> Recipe:
    """Return a recipe whose warm-up is a tenth of its epochs, unless the user asked for another.

    Args:
        recipe: the settings.
        changes: the settings that the user asked for.
        most: upper limit of the warm-up, in epochs; None: no limit.
    """
    epochs = _WARM_UP * recipe.epochs
    return recipe.replace({"warmup_epochs": epochs if most is None else min(epochs, most), **changes})


def adapted_to(recipe: Recipe, images: int, changes: Mapping[str, Any]) -> Recipe:
    """Return the fine-tuning recipe with epochs, batch size and batch-norm mode for this many training images.

    Args:
        recipe: the settings.
        images: number of training images.
        changes: the settings that the user asked for, which are kept.
    """
    batch_size = changes.get(
        "batch_size", max(_SMALLEST_BATCH, min(recipe.batch_size, images // _STEPS_PER_EPOCH))
    )
    epochs = next((epochs for most, epochs in _EPOCHS if images <= most), 1)
    for most, steps in _STEPS:
        if images <= most:
            epochs = math.ceil(steps / math.ceil(images / batch_size))
            break
    epochs = changes.get("epochs", epochs)
    statistics = "freeze" if images <= _KEEP_STATISTICS else "update"
    adapted = {"epochs": epochs, "batch_norm": statistics, "batch_size": batch_size}
    return with_warmup(recipe.replace({**adapted, **changes}), changes)


def with_even_batches(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe whose batch size is that of an epoch's images spread evenly over its steps.

    The learning rate scales with the batch size, so it must be the size of the batches as they are: 96 images in
    batches of at most 64 are 2 batches of 48.
    """
    return recipe.replace({"batch_size": math.ceil(images / math.ceil(images / recipe.batch_size))})
