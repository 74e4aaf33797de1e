"""What the engines of compiled graphs share: which outputs a run computes, and what is wrong with a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from resnetd_cli.errors import ModelError
from resnetd_cli.pipeline.engines.base import LAYER_LOGITS, LAYER_POOLED, Outputs, Wanted
from resnetd_cli.system.memory import is_shortage
from resnetd_cli.system.wording import short_reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AGAIN = "export or compile it again"


def output_names(wanted: Wanted, classes: int) -> list[str]:
    """Return the names of the graph's outputs to compute."""
    names = ["logits"] if classes and (wanted.logits or wanted.layer == LAYER_LOGITS) else []
    return [*names, "features"] if wanted.layer == LAYER_POOLED else names


def checked(given: Mapping[str, NDArray[np.float32]], layer: str | None, classes: int, images: int) -> Outputs:
    """Return what a graph computed for a number of images.

    Raises:
        ModelError: an output has the wrong shape.
    """
    logits = given.get("logits")
    if not all(array.ndim >= 2 and len(array) == images for array in given.values()) or (
        logits is not None and logits.shape[1] != classes
    ):
        raise ModelError("the model's graph returns outputs of the wrong shape", hint=_AGAIN)
    return Outputs(logits, logits if layer == LAYER_LOGITS else given.get("features"))


def run_error(error: Exception) -> Exception:
    """Return the error for a run that failed: libraries raise many types."""
    if is_shortage(error):
        return MemoryError()
    return ModelError(f"the model's graph cannot be run: {short_reason(error)}", hint=_AGAIN)
