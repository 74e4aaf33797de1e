"""What of a recipe depends on how many images there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from resnetd_cli.errors import UsageError
from resnetd_cli.system.wording import counted
from resnetd_cli.training.loader import Schedule
from resnetd_cli.training.recipe import Recipe

FINETUNE = "finetune"
_STEPS = ((500, 120), (2_000, 250))
"""Updates of the weights that fine-tuning takes, up to so many training images."""
_EPOCHS = ((20_000, 5), (math.inf, 3))
"""And beyond them, how often it sees each."""
_KEEP_STATISTICS = 20_000
"""Training images up to which batches tell less of their distribution than what the network has seen before."""
_WARM_UP = 0.1
_STEPS_PER_EPOCH = 7
"""At least, and batches are the smaller for it: with fewer, so many updates would take a great many epochs."""
_SMALLEST_BATCH = 4


def warming_up(recipe: Recipe, changes: Mapping[str, Any], most: float | None = None) -> Recipe:
    """Return a recipe with the warm-up that suits its epochs.

    Args:
        recipe: the settings.
        changes: settings that the user wants, whatever suits.
        most: epochs of it, whatever suits; None for any.
    """
    suits = _WARM_UP * recipe.epochs
    return recipe.replace({"warmup_epochs": suits if most is None else min(suits, most), **changes})


def finetuning(recipe: Recipe, images: int, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe for fine-tuning as it suits a number of training images.

    Args:
        recipe: the settings.
        images: how many there are.
        changes: settings that the user wants, whatever suits.
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
    fitted = {"epochs": epochs, "batch_norm": statistics, "batch_size": batch_size}
    return warming_up(recipe.replace({**fitted, **changes}), changes)


def even(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe whose batches are no larger than those that an epoch is spread over evenly.

    So the batch is the one by which the rate is scaled: 96 images in batches of at most 64 are 2 of 48.
    """
    return recipe.replace({"batch_size": math.ceil(images / math.ceil(images / recipe.batch_size))})


def schedule(
    recipe: Recipe, images: int, process: int = 0, processes: int = 1, *, first_step: int = 0
) -> Schedule:
    """Return which images each step sees.

    Args:
        recipe: the settings.
        images: how many there are.
        process, processes: which share of each step is meant.
        first_step: where the run is resumed.

    Raises:
        UsageError: there are more processes than images in a step.
    """
    found = Schedule(
        images=images,
        batch_size=recipe.batch_size,
        micro_batch=recipe.micro_batch or recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
        process=process,
        processes=processes,
        first_step=first_step,
    )
    if found.images_of(-1) < processes:
        larger = [f"--batch-size {2 * processes}"] if images >= processes else []
        message = f"{counted(found.images_of(-1), 'image')} in a step for {processes} processes"
        raise UsageError(message, hint=" or ".join([*larger, "fewer --processes"]))
    return found


def check_parts(recipe: Recipe, images: int, processes: int, model: str) -> None:
    """Make sure that no process is given a single image at a time, from which batch normalisation cannot learn.

    Args:
        recipe: the settings.
        images: how many there are.
        processes: how many share a batch.
        model: what to call the network.

    Raises:
        UsageError: one is; the hint names the next larger batch that is divided well.
    """

    def fits(batch_size: int, micro_batch: int | None) -> bool:
        changed = recipe.replace({"batch_size": batch_size, "micro_batch": micro_batch})
        return schedule(changed, images, processes=processes).smallest_part > 1

    if fits(recipe.batch_size, recipe.micro_batch):
        return
    hints = ["--set batch_norm=freeze"]
    larger = next((size for size in range(recipe.batch_size, images + 1) if fits(size, None)), None)
    if larger is None:
        hints += ["fewer --processes"] if processes > 1 else []
    else:
        ways = [f"--batch-size {larger}"] if larger > recipe.batch_size else []
        ways += [] if fits(larger, recipe.micro_batch) else ["--set micro_batch=null"]
        hints.insert(0, " ".join(ways))
    message = f"{model} cannot learn from one image at a time: its batch normalisation needs two"
    raise UsageError(message, hint=", or ".join(hints))
