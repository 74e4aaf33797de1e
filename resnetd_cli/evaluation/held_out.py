"""Held-out images: those that a model was not trained on, recognised by their pixels.

Names do not matter: a link, a copy, a row of a table and an image in a shard can be the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnetd_cli.compiled import exported_file
from resnetd_cli.datasets.scan import scan_images
from resnetd_cli.errors import DataError, Reason
from resnetd_cli.evaluation.images import LabelledImages
from resnetd_cli.models import trained_on
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.trained_on import Known
from resnetd_cli.pipeline.decode.image import DecodeOptions
from resnetd_cli.system.cpus import usable_cpus
from resnetd_cli.system.threads import Pool
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DECODING = DecodeOptions()


class Separated(NamedTuple):
    """The images to evaluate on.

    Attributes:
        images: the images that are left.
        trained_on: how many of them each model was trained on; None if unknown.
        notes: lines for users.
    """

    images: LabelledImages
    trained_on: list[int | None]
    notes: list[str]


def learnt_by(choice: ModelChoice) -> Known:
    """Look up which images a model was trained on.

    Args:
        choice: the model; with `--weights`, the images that those weights were trained on.

    Raises:
        ModelError: the stored hashes are damaged.
    """
    model = choice.model
    if choice.weights is None and model.is_exported:
        return Known(model.text, exported_file.read_trained_on(Path(model.resolved.location)))
    return trained_on.known(choice)


def separate(
    images: LabelledImages,
    models: Sequence[Known],
    *,
    include: bool = False,
    decoding: DecodeOptions = _DECODING,
    workers: int | None = None,
    looked: Callable[[int], object] = lambda count: None,
) -> Separated:
    """Leave out the images that any of the models was trained on.

    Images that cannot be decoded stay, so that the evaluation reports why.

    Args:
        images: the images. They are decoded, unless nothing is known about the training of any model.
        models: what each model was trained on.
        include: leave none out.
        decoding: limits of decoding.
        workers: threads.
        looked: called with the number of images decoded since its last call.

    Raises:
        DataError: no image is left.
    """
    import numpy as np

    notes = [_unknown(each) for each in models if each.marks is None and each.is_run]
    if all(each.marks is None for each in models):
        return Separated(images, [None] * len(models), notes)
    seen = np.zeros((len(models), len(images)), bool)
    can_be_decoded = np.zeros(len(images), bool)
    # Upright, as training marks images, and also as stored if the model gets them so.
    for ignore_exif in (False, True) if decoding.ignore_exif else (False,):
        way = replace(decoding, ignore_exif=ignore_exif, allow_truncated=False)
        marks, is_marked = _marks(images, way, workers or usable_cpus(), looked)
        can_be_decoded |= is_marked
        for number, each in enumerate(models):
            if each.marks is not None:
                seen[number] |= is_marked & trained_on.contains(each.marks, marks)
    if seen.any():
        notes.append(_in_words(models, seen, include=include))
    if seen.any() and not include:
        images, seen = _left(images, seen, can_be_decoded, models), seen[:, ~seen.any(axis=0)]
    counts = [None if each.marks is None else int(row.sum()) for each, row in zip(models, seen, strict=True)]
    return Separated(images, counts, notes)


def _left(
    images: LabelledImages, seen: NDArray[np.bool_], can_be_decoded: NDArray[np.bool_], models: Sequence[Known]
) -> LabelledImages:
    """Return the images that no model was trained on.

    Raises:
        DataError: none of them can be decoded.
    """
    import numpy as np

    kept = np.logical_not(seen.any(axis=0))
    if not (kept & can_be_decoded).any():
        names = " or ".join(each.model for each, row in zip(models, seen, strict=True) if row.any())
        message = (
            f"{images.location}, {images.split}: {names} was trained on all {counted(len(images), 'image', ',')}"
        )
        raise DataError(message, hint="measure on other images", reason=Reason.ALL_TRAINED_ON)
    return replace(images.select(kept), trained_on=int((~kept).sum()))


def _in_words(models: Sequence[Known], seen: NDArray[np.bool_], *, include: bool) -> str:
    counts = {each.model: int(row.sum()) for each, row in zip(models, seen, strict=True) if row.any()}
    images = counted(seen.shape[1], "image", ",")
    (first, count), *others = counts.items()
    more = "".join(f", {name} on {number:,}" for name, number in others)
    if include:
        return (
            f"{first} was trained on {count:,} of the {images} measured{more}: figures on such images are inflated"
        )
    left_out = int(seen.any(axis=0).sum())
    verb = "is" if left_out == 1 else "are"
    those = f"{count:,} of them{more}" if others else "it" if left_out == 1 else "them"
    return f"{left_out:,} of {images} {verb} left out: {first} was trained on {those}"


def _unknown(model: Known) -> str:
    return (
        f"which images {model.model} was trained on is not known, so none are left out: "
        f"its run's {trained_on.NAME} is not beside it, or there were too many to keep (over {trained_on.MOST:,})"
    )


def _marks(
    images: LabelledImages, decoding: DecodeOptions, workers: int, looked: Callable[[int], object]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the marks of images, (N, 16), and which images have one because they can be decoded."""
    import numpy as np

    with Pool(workers, thread_name_prefix="resnetd-marks") as pool:
        try:
            looks = [scan_images(part, pool, decoding=decoding, looked=looked) for part in images.parts]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    is_marked = [[position not in each.failures for position in range(len(each.marks))] for each in looks]
    return np.concatenate([each.marks for each in looks]), np.concatenate(is_marked)
