"""What an engine is: the protocol, and how one is asked to run a model. `table.py` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUTO = "auto"
FP32 = "fp32"
INT8 = "int8"
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
    """As in the table of engines."""
    classes: int
    """How many classes the network has; 0 without a classifier."""
    batch_size: int
    """How many images to run at once, unless the user chooses."""

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the network on float32 images of shape (N, 3, H, W)."""
        ...


class GraphEngine(Engine, Protocol):
    """An engine that runs a compiled graph."""

    input_size: tuple[Any, ...]
    """Channels, height and width of the images; text or None where any size works."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run a model.

    Attributes:
        wanted: the outputs to compute.
        threads: threads that one call of `run` may use; None for all cores.
        precision: as in the engine's entry in the table.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        size: height and width of the images; None for any.
        optimised: the graph is the one that ONNX Runtime optimised for this machine.
    """

    wanted: Wanted = Wanted()
    threads: int | None = None
    precision: str = FP32
    device: str = "auto"
    size: tuple[int, int] | None = None
    optimised: bool = False
