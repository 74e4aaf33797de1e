"""A linear probe: a classifier fitted to the features of a frozen network, the best start for fine-tuning.

Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features" (arXiv 2202.10054): the first gradients of a
random classifier spoil the features; those of a fitted one do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from resnetd_cli.training.head import classifier_of
from resnetd_cli.training.train_mode import evaluating

if TYPE_CHECKING:
    import torch
    from torch import nn

    from resnetd_cli.training.batch import Batch

_ITERATIONS = 200
L2 = 1e-2
"""Weight of the L2 penalty next to the mean cross-entropy, on features scaled to a mean square of 1."""


def features(
    module: nn.Module, loader: Iterable[Batch], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of each image and of its mirror image, and their targets.

    Returns:
        float32, shape (2 N, D), and int64, shape (2 N,).
    """
    import torch

    network: Any = module
    rows, targets = [], []
    with evaluating(module):
        for batch in loader:
            if not len(batch):
                continue
            images = batch.images.to(device)
            for view in (images, images.flip(3)):
                pooled = network.forward_head(network.forward_features(view), pre_logits=True)
                rows.append(pooled.float().cpu())
                targets.append(batch.targets)
    # Copies: tensors of inference mode cannot be used where gradients are computed.
    return torch.cat(rows).clone(), torch.cat(targets).clone()


def fit(rows: torch.Tensor, targets: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of a logistic regression with an L2 penalty.

    Args:
        rows: features: float32, shape (N, D).
        targets: int64, shape (N,).
        classes: number of classes.

    Returns:
        weight, float32, shape (C, D), and bias, float32, shape (C,).
    """
    import torch
    from torch.nn.functional import cross_entropy

    mean = rows.mean(0)
    scale = (rows - mean).square().mean().sqrt().clamp_min(1e-12)
    scaled = (rows - mean) / scale
    weight = torch.zeros(classes, rows.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(scaled @ weight.T + bias, targets) + L2 * weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = (weight / scale).detach()
    return fitted, (bias - fitted @ mean).detach()


def fit_classifier(module: nn.Module, loader: Iterable[Batch], device: torch.device) -> bool:
    """Fit a network's classifier to its features; return False if it is not linear in the pooled features."""
    import torch
    from torch import nn

    classifier = classifier_of(module)
    if not isinstance(classifier, nn.Linear):
        return False
    rows, targets = features(module, loader, device)
    if rows.shape[1:] != (classifier.in_features,) or classifier.bias is None:
        return False
    weight, bias = fit(rows, targets, classifier.out_features)
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return True
