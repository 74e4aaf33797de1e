"""Mixup and CutMix: mixed images with soft targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from timm.data import Mixup


def make_mixup(recipe: Recipe, classes: int) -> Mixup | None:
    """Return timm's mixer for batches; None if the recipe mixes nothing."""
    from timm.data import Mixup

    if not recipe.mixes:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )


def mix(mixup: Mixup | None, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mixed images, and soft targets for the loss; both unchanged if nothing is to be mixed."""
    import torch
    from timm.data.mixup import mixup_target

    if mixup is None:
        return images, targets
    count = len(images)
    if count == 1:
        return images, mixup_target(targets, mixup.num_classes, 1.0, mixup.label_smoothing)
    if (
        count % 2
    ):  # timm mixes the first image with the last, and so on: with the second repeated, all have partners
        images, targets = torch.cat([images, images[1:2]]), torch.cat([targets, targets[1:2]])
    mixed, soft = mixup(images, targets)
    return mixed[:count], soft[:count]
