"""Dropout before the classifier and stochastic depth, set to what the recipe asks for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from resnetd_cli.training.head import classifier_of
from resnetd_cli.training.ineffective import refuse

if TYPE_CHECKING:
    import torch
    from torch import nn

    from resnetd_cli.training.recipe import Recipe


def set_dropout(module: nn.Module, recipe: Recipe) -> None:
    """Set a network's dropout and stochastic depth to the recipe's, and switch off its own.

    Dropout is applied right before the layers that return the logits, where timm's networks have theirs. Theirs is
    not used: some networks have none, and in others it would be inactive with a frozen backbone.

    Args:
        module: the network, built with the recipe's stochastic depth.
        recipe: the settings.

    Raises:
        UsageError: the network has no place for it.
    """
    from torch import nn

    classifier, classes = classifier_of(module), module.num_classes
    outputs = [
        layer
        for layer in classifier.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and len(layer.weight) == classes
    ]
    if recipe.drop_rate and not outputs:
        refuse("drop_rate", "the classifier does not end in a layer of the classes")
    has_depth = False
    for layer in module.modules():
        has_depth |= bool(getattr(layer, "drop_prob", 0))
        if not recipe.drop_path and hasattr(layer, "drop_prob"):
            layer.drop_prob = 0.0  # type: ignore[assignment]
        if isinstance(getattr(layer, "drop_rate", None), float):
            layer.drop_rate = 0.0  # type: ignore[assignment]
        if not {*layer.children()}.isdisjoint({classifier, *outputs}):
            for sibling in layer.children():
                if isinstance(sibling, nn.Dropout):
                    sibling.p = 0.0
    if recipe.drop_path and not has_depth:
        refuse("drop_path", "the network has no stochastic depth")
    for layer in outputs if recipe.drop_rate else ():
        layer.register_forward_pre_hook(partial(_drop, recipe.drop_rate))


def _drop(rate: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    from torch.nn.functional import dropout

    return dropout(inputs[0], rate, layer.training), *inputs[1:]
