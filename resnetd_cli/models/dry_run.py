"""Find out which image and batch sizes a network accepts, by dry runs on torch's meta device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.system.deadline import Deadline

if TYPE_CHECKING:
    from torch import nn

_LARGER = 128
"""How many pixels larger than the requested size to search: enough for a multiple of any patch size."""
_SECONDS = 5.0
"""Time limit of that search."""


def refuse_size(architecture: str, arguments: Mapping[str, Any], config: Mapping[str, Any], side: int) -> None:
    """Report that a network does not accept an image size, with the next larger size that it accepts.

    Args:
        architecture: timm's name for the network.
        arguments: further arguments for `timm.create_model`.
        config: timm's pretrained configuration.
        side: side of the square images, in pixels.

    Raises:
        UsageError: the hint names the next larger size.
    """
    own = tuple(config.get("input_size") or (3, 224, 224))
    is_fixed = bool(config.get("fixed_input_size"))

    @cache
    def of_any_size() -> nn.Module:
        return _build(architecture, arguments)

    def would_take(size: tuple[int, int]) -> bool:
        if is_fixed:
            return _runs(lambda: _build(architecture, {**arguments, "img_size": size}), size)
        return _runs(of_any_size, size)

    if not would_take(own[1:]):  # dry runs do not work with this network, so nothing is known
        return
    smallest, too_small, deadline = own[1], side, Deadline(_SECONDS)
    for size in range(side + 1, side + _LARGER + 1):
        if deadline.passed:
            break
        if size % 8 and size % 7:  # patches have 7, 8, 14, 16 or more pixels
            continue
        if would_take((size, size)):
            smallest = size
            break
        too_small = size
    while smallest - too_small > 1 and not is_fixed and not deadline.passed:  # convolutions take any larger size
        middle = (smallest + too_small) // 2
        smallest, too_small = (middle, too_small) if would_take((middle, middle)) else (smallest, middle)
    raise UsageError(
        f"{architecture} does not take images of {side} pixels",
        reason=Reason.SIZE_NOT_TAKEN,
        details=(smallest,),
    )


def takes(module: nn.Module, size: tuple[int, int]) -> bool:
    """Return whether a network in evaluation mode accepts an image of this height and width."""
    return _runs(lambda: copy.deepcopy(module), size)


def learns_from(
    module: nn.Module, images: int, size: tuple[int, int], prepare: Callable[[nn.Module], None]
) -> bool:
    """Return whether a network can train on a batch of this size; normalisation may need more than one image.

    Args:
        module: the network.
        images: the batch size.
        size: height and width.
        prepare: puts a network in training mode.
    """

    def build() -> nn.Module:
        twin = copy.deepcopy(module)
        prepare(twin)
        return twin

    return _runs(build, size, images)


def _build(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    import timm
    import torch

    with torch.device("meta"):
        module: nn.Module = timm.create_model(architecture, pretrained=False, **arguments)
    return module.eval()


def _runs(build: Callable[[], nn.Module], size: tuple[int, int], images: int = 1) -> bool:
    import torch

    try:
        module = build().to("meta")
        with torch.no_grad():
            module(torch.empty(images, 3, *size, device="meta"))
    except Exception:  # networks raise many types
        return False
    return True
