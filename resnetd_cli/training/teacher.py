"""The teacher of a distillation: a network of the same classes, its answers in the order of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnetd_cli.class_names.matching import match
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.network import load_network

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.models.network import Network


def load_teacher(
    model: str, classes: Sequence[str], data: str, *, offline: bool, progress: type[Any] | None
) -> Network:
    """Load the teacher's network.

    Args:
        model: the teacher's MODEL.
        classes: the names of the classes, in our order.
        data: what to call the data set in errors.
        offline: use only files on this machine.
        progress: a tqdm class for downloads.

    Raises:
        UsageError: its classes are not the same.
    """
    teacher = load_network(ModelChoice.of(model), Downloads(offline, lambda: progress))
    try:
        order = match(tuple(classes), teacher.class_names).indices
    except DataError:
        order = []
    if sorted(order) != list(range(len(teacher.class_names))):
        message = f"{model} does not tell the same classes apart as {data}"
        raise UsageError(message, hint="finetune it on the same images first, and name its run")
    reorder(teacher.module, order)
    return teacher


def reorder(module: nn.Module, order: Sequence[int]) -> None:
    """Make a network return its logits in another order of its classes.

    Args:
        module: the network.
        order: the present index of each class.
    """
    if list(order) != sorted(order):
        module.register_forward_hook(lambda _, images, logits: logits[:, list(order)])
