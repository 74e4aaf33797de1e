"""timm's optimiser, and its parameter groups: weight decay, and the learning rates of head and backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import Reason, UsageError, first_line
from resnetd_cli.training.head import classifier_of
from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trained parameters in groups: with and without weight decay, of the head and of the backbone.

    `lr_scale` is a group's share of the learning rate: 1 for the head, `backbone_lr` for the backbone. A backbone
    that does not learn gets no gradients: none are computed, and none count in gradient clipping.
    """
    from timm.optim import param_groups_weight_decay

    head = {id(parameter) for parameter in classifier_of(module).parameters()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in head or recipe.trains_backbone)
    never = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()  # type: ignore[operator]
    groups = param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=never)
    return [
        {**group, "params": parameters, "lr_scale": scale}
        for group in groups
        for scale, is_head in ((recipe.backbone_lr, False), (1.0, True))
        if (parameters := [p for p in group["params"] if (id(p) in head) is is_head])
    ]


def make_optimizer(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Return timm's optimiser of some parameter groups.

    Raises:
        UsageError: timm has no such optimiser, or it cannot be used.
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
        raise UsageError(message, reason=Reason.OTHER_SETTING, details=("optimizer=adamw",))
    return optimizer
