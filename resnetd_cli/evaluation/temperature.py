"""Temperature scaling (Guo et al. 2017): fitting a temperature, and storing it with a model.

Logits are divided by the temperature before softmax so that probabilities match accuracy. The order is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.compiled import bundles, exported_file
from resnetd_cli.errors import CacheError, DataError
from resnetd_cli.models import checkpoints, config_json
from resnetd_cli.models.names import Kind, ModelChoice, is_exported
from resnetd_cli.results import LEAST_TEMPERATURE, MOST_TEMPERATURE, FittedTemperature, with_temperature
from resnetd_cli.system.files import check_writable, open_atomic
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 256
"""Number of images whose logits are in memory as float64 at once."""
_STEPS = 100
_EXACT = 1e-10


def fit_temperature(logits: NDArray[np.float32], actual: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the negative log-likelihood.

    The loss is convex in 1 / temperature. Newton's method finds the zero of its slope, with bisection
    where a step leaves the bounds.

    Args:
        logits: shape (N, C).
        actual: the class of each image, shape (N,).

    Raises:
        DataError: no temperature fits these images.
    """
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if _slope(logits, actual, high)[0] <= 0:
        message = f"of {counted(len(actual), 'image')}, too few are classified wrongly to fit a temperature"
        raise DataError(message, hint="fit it on more images, or harder ones")
    if _slope(logits, actual, low)[0] >= 0:
        message = "the model is no better than chance on these images: no temperature can help"
        raise DataError(message, hint="check that the classes are the model's")
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(logits, actual, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        following = inverse - slope / curvature if curvature > 0 else math.inf
        if not low < following < high:
            following = math.sqrt(low * high)
        done = abs(following - inverse) <= _EXACT * inverse
        inverse = following
        if done:
            break
    return 1 / inverse


def _slope(logits: NDArray[np.float32], actual: NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """Return the first and second derivatives of the mean loss with respect to 1 / temperature."""
    import numpy as np

    slope = curvature = 0.0
    for start in range(0, len(actual), _ROWS):
        rows = logits[start : start + _ROWS].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        powers = np.exp(inverse * rows)
        powers /= powers.sum(axis=1, keepdims=True)
        mean = (powers * rows).sum(axis=1)
        slope += float((mean - rows[np.arange(len(rows)), actual[start : start + _ROWS]]).sum())
        curvature += float(((powers * rows**2).sum(axis=1) - mean**2).sum())
    return slope / len(actual), curvature / len(actual)


def temperature_file(choice: ModelChoice) -> Path | None:
    """Return the file that stores a MODEL's temperature; None if it has no such file.

    Raises:
        UnknownModel: there is no such model.
        OutputError: it cannot be written.
    """
    if choice.weights is not None:
        return None
    model = choice.model.resolved
    file = Path(model.location)
    if model.kind is not Kind.EXPORTED:
        if model.kind is not Kind.FOLDER or model.file or not config_json.keeps_temperature(file):
            return None
        file /= config_json.NAME
    if file.is_file():
        check_writable(file, overwrite=True)
    return file


def store_temperature(file: Path, new: FittedTemperature, *, note: Callable[[str], None] = lambda _: None) -> None:
    """Store a temperature in the file that `temperature_file` returned, and in the bundles compiled from it.

    Args:
        file: an exported file, or a folder's `config.json`.
        new: the temperature, and what it was fitted to.
        note: called with a line for the user.

    Raises:
        ModelError, WeightsError: the model has changed.
        OutputError: it cannot be written.
    """
    if is_exported(file.name):
        card, marks = exported_file.read_file(file)
        if new.fits(card.preprocessing, card.precision):
            card = replace(card, temperature=new.temperature)
        else:
            card = replace(card, temperatures=with_temperature(card.temperatures, new))
        with open_atomic(file) as stream:
            exported_file.write_file(file, card, stream, marks)
        return
    # Found first: once the file has changed, they no longer match it.
    compiled = bundles.made_from(file)
    config_json.write_temperature(file.parent, new)
    weights = checkpoints.find(file.parent)
    for bundle in compiled:
        # A bundle of other weights in this folder's network gets no temperature, only the new stamp.
        is_own = bundle.is_from(weights)
        temperatures = with_temperature(bundle.card.temperatures, new) if is_own else ()
        card = replace(bundle.card, temperatures=temperatures)
        try:
            bundles.describe_anew(bundle, card, file)
        except CacheError as error:
            note(error.message)
