"""The first weights of a new classifier (head): zero, random, or fitted to the features of the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.training import linear_probe
from resnetd_cli.training.head import classifier_of
from resnetd_cli.training.randomness import seed_all

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from resnetd_cli.training.batch import Batch
    from resnetd_cli.training.network import TrainableNetwork
    from resnetd_cli.training.recipe import Recipe


def init_head(
    network: TrainableNetwork,
    recipe: Recipe,
    accelerator: Accelerator,
    features: Callable[[], Iterable[Batch]],
    note: Callable[[str], None],
) -> None:
    """Give the classifier its first weights, the same in all processes.

    Random weights are those that the network was given when it was built.

    Args:
        network: the network, on its device.
        recipe: `head` says which weights.
        accelerator: devices and processes.
        features: returns a loader of all training images.
        note: called with a line for the user.

    Raises:
        UsageError: the classifier cannot be fitted.
    """
    if recipe.head == "zero":
        for tensor in classifier_of(network.module).parameters():
            tensor.data.zero_()
    elif recipe.head == "probe":
        if accelerator.is_main_process:
            seed_all(recipe.seed)
            if not linear_probe.fit_classifier(network.module, features(), accelerator.device):
                reason = "it is not linear in pooled features"
                message = f"the classifier of {network.name} cannot be fitted: {reason}"
                raise UsageError(message, reason=Reason.OTHER_SETTING, details=("head=zero or random",))
            note("the classifier starts out fitted to the features")
        _send_to_all(classifier_of(network.module), accelerator)


def _send_to_all(classifier: nn.Module, accelerator: Accelerator) -> None:
    """Copy the first process's weights to the others."""
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        for tensor in classifier.parameters():
            broadcast(tensor.data, from_process=0)
