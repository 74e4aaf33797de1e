"""How far two forms of one model agree on the same images (torch and ONNX, fp32 and int8), and which is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from resnetd_cli.classifier import Classifier
from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Agreement, Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TURN = 32
"""Images that the forms answer in turn, so that both run under the same conditions and memory stays constant."""


def measure_agreement(
    reference: Classifier,
    candidate: Classifier,
    sources: Iterable[Source],
    *,
    on_failure: Callable[[Failure], None] = lambda _: None,
) -> Agreement:
    """Run two forms of a model on the same images.

    Args:
        reference: the form to compare with.
        candidate: the form to judge; it has the same classes.
        sources: the images.
        on_failure: called with each image that cannot be read.

    Raises:
        InputError: none could be read.
    """
    import numpy as np

    agreed: list[bool] = []
    differences: list[float] = []
    seconds = [0.0, 0.0]
    is_warm = False
    iterator = iter(sources)
    while turn := list(islice(iterator, _TURN)):
        if not is_warm:  # the first run takes longer, and would spoil the timing
            _answer(reference, turn)
            _answer(candidate, turn)
            is_warm = True
        expected, seconds[0] = _answer(reference, turn, seconds[0])
        given, seconds[1] = _answer(candidate, turn, seconds[1])
        for one, other in zip(expected, given, strict=True):
            if isinstance(one, Failure):
                on_failure(one)
            elif isinstance(other, Failure):
                on_failure(other)
            else:
                agreed.append(bool(one.argmax() == other.argmax()))
                differences.append(float(np.abs(one - other).max()))
    if not agreed:
        raise InputError(ErrorKind.EMPTY, "no image to compare with", reason=Reason.NO_IMAGE_TO_VERIFY)
    return Agreement(
        images=len(agreed),
        top1_agreement=sum(agreed) / len(agreed),
        largest_difference=max(differences),
        mean_difference=sum(differences) / len(differences),
        speed_up=seconds[0] / seconds[1],
    )


def _answer(
    classifier: Classifier, turn: list[Source], seconds: float = 0.0
) -> tuple[list[NDArray[np.float32] | Failure], float]:
    """Return a form's answers, and its total seconds with these."""
    began = time.perf_counter()
    answers = list(classifier.probabilities(turn))
    return answers, seconds + time.perf_counter() - began
