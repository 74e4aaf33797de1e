"""Load the teacher for distillation (`--teacher`), and put its logits in the order of the student's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetd_cli.class_names.matching import match
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.network import load_network

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.models.network import Network


def load_teacher(choice: ModelChoice, classes: Sequence[str], data: str, downloads: Downloads) -> Network:
    """Load the teacher's network.

    Args:
        choice: the teacher.
        classes: names of the student's classes, in order.
        data: name of the data set for errors.
        downloads: whether files may be downloaded.

    Raises:
        UsageError: its classes are not the same.
    """
    teacher = load_network(choice, downloads)
    try:
        order = match(tuple(classes), teacher.class_names).indices
    except DataError:
        order = []
    if sorted(order) != list(range(len(teacher.class_names))):
        message = f"{choice.model} does not have the same classes as {data}"
        raise UsageError(message, hint="finetune it on the same images first, and name its run")
    reorder(teacher.module, order)
    return teacher


def reorder(module: nn.Module, order: Sequence[int]) -> None:
    """Make a network return its logits in another order of its classes.

    Args:
        module: the network.
        order: the current index of each class.
    """
    if list(order) != sorted(order):
        module.register_forward_hook(lambda _, images, logits: logits[:, list(order)])
