"""Turn a model's logits into probabilities (softmax, sigmoid, temperature) and named top-k classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetd_cli.errors import ModelError
from resnetd_cli.results import Prediction, shortest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.class_names.shipped import ClassNames


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of logits, along the last axis: float32, the same shape.

    The sum is computed in float64, which keeps its accuracy for 21,843 classes.
    """
    import numpy as np

    powers = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sigmoid of each logit: float32, the same shape."""
    import numpy as np

    values = logits.astype(np.float64)
    powers = np.exp(-np.abs(values))
    probabilities: NDArray[np.float32] = (np.where(values < 0, powers, 1) / (1 + powers)).astype(np.float32)
    return probabilities


def probabilities(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities of logits divided by a temperature: float32, the same shape.

    Classes are mutually exclusive, so their probabilities add up to 1 (softmax). A model with a single output is
    a binary classifier: its probability is the sigmoid, as in the binary cross-entropy it was trained with.

    Raises:
        ModelError: the logits are not finite.
    """
    import numpy as np

    scaled = logits if temperature == 1 else logits / np.float32(temperature)
    values = sigmoid(scaled) if scaled.shape[-1] == 1 else softmax(scaled)
    if np.isnan(values).any():
        raise ModelError("the model's answer is not a number", hint="its weights are damaged")
    return values


def top_k(
    logits: NDArray[np.float32],
    names: ClassNames,
    k: int,
    min_probability: float = 0.0,
    temperature: float = 1.0,
) -> tuple[Prediction, ...]:
    """Return the k most probable classes of one image, most probable first; ties by class index.

    Args:
        logits: float32, shape (C,).
        names: the C class names.
        k: the number of classes to return, at most C.
        min_probability: leave out classes below this probability.
        temperature: the logits are divided by it.

    Raises:
        ModelError: the logits are not finite.
        ValueError: k is less than 1.
    """
    import numpy as np

    if k < 1:
        raise ValueError(f"top_k is {k}, not 1 or more")
    values = probabilities(logits, temperature)
    order = np.argsort(-values, kind="stable")[:k]
    return tuple(
        Prediction(
            rank, index, names.ids[index], names.names[index], shortest(values[index]), names.senses.get(index)
        )
        for rank, index in enumerate(order.tolist(), start=1)
        if values[index] >= min_probability
    )
