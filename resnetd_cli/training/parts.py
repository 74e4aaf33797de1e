"""Timm's parts that a recipe asks for: the task with its loss, mixup and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError, first_line
from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from timm.data import Mixup
    from timm.task import TrainingTask
    from torch import nn


def make_task(
    module: nn.Module,
    recipe: Recipe,
    *,
    teacher: nn.Module | None,
    config: Mapping[str, Any],
    device: torch.device,
) -> TrainingTask:
    """Return a network's task: classification, or distillation where there is a teacher.

    The loss is the cross-entropy, with smoothed labels; a teacher adds T^2 times the divergence from its answers
    at temperature T (Hinton et al. 2015, arXiv 1503.02531), with the same weight, as in He et al. 2018.

    Args:
        module: the network.
        recipe: the settings.
        teacher: a network of the same classes, or None.
        config: timm's configuration of the network, for the mean and deviation that its images have.
        device: where it runs.
    """
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
    from timm.task import ClassificationTask, LogitDistillationTask
    from torch.nn import CrossEntropyLoss

    smoothing = recipe.label_smoothing
    plain = LabelSmoothingCrossEntropy(smoothing) if smoothing else CrossEntropyLoss()
    criterion = SoftTargetCrossEntropy() if _mixes(recipe) else plain
    if teacher is None:
        return ClassificationTask(module, criterion, device=device, verbose=False)
    module.pretrained_cfg = dict(config)  # type: ignore[assignment]
    return LogitDistillationTask(
        module,
        teacher.to(device),
        criterion,
        temperature=recipe.teacher_temperature,
        device=device,
        verbose=False,
    )


def make_mixup(recipe: Recipe, classes: int) -> Mixup | None:
    """Return what mixes a batch of images and gives it soft targets; None where nothing is to be mixed."""
    from timm.data import Mixup

    if not _mixes(recipe):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )


def make_optimizer(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Return timm's optimiser of the groups of parameters.

    Raises:
        UsageError: timm has none of this name, or it cannot be used.
    """
    from timm.optim import create_optimizer_v2

    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups,
            recipe.optimizer,
            lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
    except (AssertionError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        message = f"timm has no optimiser {recipe.optimizer!r} that could be used: {first_line(error)}"
        raise UsageError(message, hint="sgd, adamw, lamb and others of timm.optim.list_optimizers()") from error
    if getattr(optimizer, "is_second_order", False):
        message = f"{recipe.optimizer} needs second derivatives, which are not computed"
        raise UsageError(message, hint="--set optimizer=adamw")
    return optimizer


def _mixes(recipe: Recipe) -> bool:
    return bool(recipe.mixup or recipe.cutmix)
