"""Training and evaluation mode of a network: what is frozen stays in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resnetd_cli.training.head import classifier_of

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.training.recipe import Recipe


def set_train_mode(module: nn.Module, recipe: Recipe) -> None:
    """Put a network in training mode; what is frozen stays in evaluation mode."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if recipe.freeze:
        module.eval()
        classifier_of(module).train()
        return
    module.train()
    if recipe.batch_norm == "freeze":
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, without gradients, for the duration of the context."""
    import torch

    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for layer, was_training in modes:
            layer.training = was_training


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network without the wrapper that several processes put around it."""
    from timm.utils import unwrap_model

    return unwrap_model(module)  # type: ignore[no-any-return]
