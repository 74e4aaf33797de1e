"""What of a recipe depends on how many images there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from resnetd_cli.errors import UsageError
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
"""At least, and batches are the smaller for it: what fills no batch is not learnt from."""
_SMALLEST_BATCH = 4


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
            epochs = math.ceil(steps / max(1, images // batch_size))
            break
    epochs = changes.get("epochs", epochs)
    statistics = "freeze" if images <= _KEEP_STATISTICS else "update"
    fitted = {
        "epochs": epochs,
        "warmup_epochs": _WARM_UP * epochs,
        "batch_norm": statistics,
        "batch_size": batch_size,
    }
    return recipe.replace({**fitted, **changes})


def within(recipe: Recipe, images: int, processes: int = 1) -> Recipe:
    """Return a recipe whose batches are no larger than the data set.

    Raises:
        UsageError: there are fewer images than processes.
    """
    if images >= recipe.batch_size:
        return recipe
    if images < processes:
        raise UsageError(f"{images} images for {processes} processes", hint="take fewer --processes")
    return recipe.replace({"batch_size": images // processes * processes})


def check_parts(recipe: Recipe, processes: int, images: int, model: str) -> None:
    """Make sure that no process is given a single image at a time, from which batch normalisation cannot learn.

    Args:
        recipe: the settings.
        processes: how many share a batch.
        images: how many there are.
        model: what to call the network.

    Raises:
        UsageError: one is; the hint names the next larger batch that is divided well.
    """
    if _smallest_part(recipe.batch_size, recipe.micro_batch, processes) > 1:
        return
    hints = ["--set batch_norm=freeze"]
    micro_batch = None if recipe.micro_batch == 1 else recipe.micro_batch
    sizes = range(recipe.batch_size, images + 1, processes)
    fits = next((size for size in sizes if _smallest_part(size, micro_batch, processes) > 1), None)
    if fits is None:
        hints += ["fewer --processes"] if processes > 1 else []
    elif fits == recipe.batch_size:
        hints.insert(0, "--set micro_batch=null")
    else:
        hints.insert(0, f"--batch-size {fits}")
    message = f"{model} cannot learn from one image at a time: its batch normalisation needs two"
    raise UsageError(message, hint=", or ".join(hints))


def _smallest_part(batch_size: int, micro_batch: int | None, processes: int) -> int:
    """Return the fewest images that a process runs at once."""
    share = batch_size // processes
    part = min(micro_batch or share, share)
    return share % part or part
