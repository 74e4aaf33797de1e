"""What runs a network: the protocol, and the one table of engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENGINES = ("auto", "onnx", "torch")
FP32 = "fp32"
INT8 = "int8"
TORCH_PRECISIONS = ("fp16", "bf16")
"""Those that only the torch engine has."""
PRECISIONS = (FP32, INT8, *TORCH_PRECISIONS)
LAYER_POOLED = "pooled"
LAYER_LOGITS = "logits"


@dataclass(frozen=True)
class Wanted:
    """The outputs that an engine computes.

    Attributes:
        logits: compute the logits. Without them, a network needs no classifier.
        layer: the features to compute: `pooled`, `logits`, on torch also a stage of the network by its name; None
            for no features.
    """

    logits: bool = True
    layer: str | None = None


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch of N images.

    Attributes:
        logits: float32, shape (N, C); None where they were not asked for.
        features: float32, shape (N, D); None where they were not asked for.
    """

    logits: NDArray[np.float32] | None
    features: NDArray[np.float32] | None


class Engine(Protocol):
    """Runs one network. Safe to call from several threads at once."""

    name: str
    """`onnx` or `torch`."""
    classes: int
    """How many classes the network tells apart; 0 for one without a classifier."""

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the network on float32 images of shape (N, 3, H, W)."""
        ...
