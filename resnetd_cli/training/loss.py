"""The loss: cross-entropy with smoothed labels, and distillation from a teacher, as timm's training task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
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
    """Return a network's task: classification, or distillation if there is a teacher.

    The loss is the cross-entropy with smoothed labels. A teacher adds T^2 times the divergence from its answers at
    temperature T (Hinton et al. 2015, arXiv 1503.02531), with the same weight, as in He et al. 2018.

    Args:
        module: the network.
        recipe: the settings.
        teacher: a network of the same classes, or None.
        config: timm's configuration of the network, which says how its images are normalised.
        device: where it runs.
    """
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
    from timm.task import ClassificationTask, LogitDistillationTask
    from torch.nn import CrossEntropyLoss

    smoothing = recipe.label_smoothing
    plain = LabelSmoothingCrossEntropy(smoothing) if smoothing else CrossEntropyLoss()
    criterion = SoftTargetCrossEntropy() if recipe.mixes else plain
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
