"""The classifier (head) of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


def classifier_of(module: nn.Module) -> nn.Module:
    """Return the network's classifier.

    Raises:
        ModelError: it has none of its own.
    """
    from torch import nn

    find: Any = getattr(module, "get_classifier", nn.Identity)
    classifier = find()
    if isinstance(classifier, tuple):  # distilled networks have one for each loss
        classifier = nn.ModuleList(classifier)
    if not list(classifier.parameters()):
        raise ModelError("the network's classifier has no weights of its own", hint="choose another model")
    return classifier  # type: ignore[no-any-return]
