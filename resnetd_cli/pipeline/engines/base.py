"""The protocol that every engine implements, and its options and outputs. `table.py` lists the engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUTO = "auto"
FP32 = "fp32"
INT8 = "int8"
BF16 = "bf16"
FP16 = "fp16"
LAYER_POOLED = "pooled"
LAYER_LOGITS = "logits"


def graph_precision(precision: str) -> str:
    """Return the precision of the compiled graph that runs in a precision: bf16 runs the fp32 graph."""
    return FP32 if precision == BF16 else precision


@dataclass(frozen=True)
class Wanted:
    """The outputs that an engine computes.

    Attributes:
        logits: compute the logits. Without them, a network needs no classifier.
        layer: the layer to take features from: `pooled`, `logits`, or on torch a stage's name; None for no
            features.
    """

    logits: bool = True
    layer: str | None = None


@dataclass(frozen=True)
class Outputs:
    """What a network computes for a batch of N images.

    Attributes:
        logits: float32, shape (N, C); None if not requested.
        features: float32, shape (N, D); None if not requested.
    """

    logits: NDArray[np.float32] | None
    features: NDArray[np.float32] | None


class Engine(Protocol):
    """Runs one network. Safe to call from several threads at once."""

    name: str
    """Its name in the table of engines."""
    classes: int
    """Number of classes; 0 if the network has no classifier."""
    batch_size: int
    """Default batch size."""

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the network on float32 images of shape (N, 3, H, W)."""
        ...


class GraphEngine(Engine, Protocol):
    """An engine that runs a compiled graph."""

    input_size: tuple[Any, ...]
    """Channels, height and width of the images; text or None for a side of any length."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs a model.

    Attributes:
        wanted: the outputs to compute.
        threads: threads that one call of `run` may use; None for all cores.
        precision: one of the precisions in the engine's table entry.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        size: height and width of the images; None for any.
        optimised: the graph was already optimised by ONNX Runtime for this machine.
        keep: where to write the graph as ONNX Runtime optimises it for this machine.
    """

    wanted: Wanted = Wanted()
    threads: int | None = None
    precision: str = FP32
    device: str = "auto"
    size: tuple[int, int] | None = None
    optimised: bool = False
    keep: Path | None = None
