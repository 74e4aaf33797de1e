"""The images of a run: found, looked at once (the first pass), and split into train, val and test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from resnetd_cli.datasets.examples import TEST, VAL
from resnetd_cli.datasets.groups import grouped_by
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.datasets.scan import Sharing
from resnetd_cli.datasets.splits import DEFAULT_FRACTION, TrainValTest, split_dataset
from resnetd_cli.datasets.survey import Survey, survey
from resnetd_cli.errors import UsageError
from resnetd_cli.models import trained_on
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.plan import FINETUNE, DataChoice, Plan
from resnetd_cli.training.processes import cpus_per_process

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.datasets.examples import Dataset


class RunData(NamedTuple):
    """The images of a run.

    Attributes:
        divided: train, val and test.
        survey: what the first pass found.
        split_seed: seed of the split; None: the data set has its own.
    """

    divided: TrainValTest
    survey: Survey
    split_seed: int | None


def find_images(plan: Plan, seed: int, callbacks: Callbacks) -> RunData:
    """Find the images, look at each, and split them.

    Args:
        plan: what the user asked for.
        seed: the recipe's, for the split.
        callbacks: how to report.

    Raises:
        UsageError: an option would have no effect on these images.
        DataError: see `open_dataset`, `survey` and `split_dataset`.
    """
    choice = plan.data
    dataset = open_dataset(choice.location, offline=plan.runtime.offline)
    if choice.group_by is not None:
        dataset = grouped_by(dataset, choice.group_by)
    found = survey(
        dataset,
        workers=cpus_per_process(),
        progress=callbacks.survey_progress,
        tell=callbacks.unreadable,
        sharing=_sharing(),
    )
    has_splits = _check_splits(choice, found.dataset)
    seed = seed if choice.split_seed is None else choice.split_seed
    fraction = DEFAULT_FRACTION if choice.val_share is None else choice.val_share
    divided = split_dataset(found.dataset, fraction=fraction, seed=seed)
    callbacks.surveyed(found, divided)
    return RunData(divided, found, None if has_splits else seed)


def _check_splits(choice: DataChoice, dataset: Dataset) -> bool:
    """Return whether the data set has val or test; then it is not split, and settings of the split have no effect.

    Raises:
        UsageError: there is such a setting.
    """
    given = sorted(dataset.splits.keys() & {VAL, TEST})
    for what, value in (("a share for val", choice.val_share), ("a seed for the split", choice.split_seed)):
        if value is not None and given:
            message = f"{what} would have no effect: {choice.location} has {' and '.join(given)} of its own"
            raise UsageError(message, hint="leave it out")
    return bool(given)


def _sharing() -> Sharing:
    """Return how the processes of this run share the first pass."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    return Sharing(state.process_index, state.num_processes, lambda own: gather_object([own]))


def marks_trained_on(plan: Plan, divided: TrainValTest, note: Callable[[str], None]) -> NDArray[np.uint8] | None:
    """Return the marks of all images that the model will have been trained on; None if there are too many to keep.

    These are the images of this run and of the earlier runs that its weights come from. What the teacher and other
    people's models were trained on is not known.
    """
    marks = trained_on.together(divided.train.known_marks(), *_marks_before(plan, note))
    if len(marks) <= trained_on.MOST:
        return marks
    message = f"{len(marks):,} images are trained on, and marks of {trained_on.MOST:,} are kept at the most"
    note(f"{message}: the model will not know them again when it is evaluated")
    return None


def _marks_before(plan: Plan, note: Callable[[str], None]) -> Iterator[NDArray[np.uint8]]:
    """Yield the marks of the images that the starting weights were trained on, if they are known."""
    if plan.command != FINETUNE:
        return
    known = trained_on.known(plan.network.model_choice)
    if known.marks is not None:
        yield known.marks
    elif known.is_run:
        note(f"{known.model} does not say which images it was trained on: they will count as new")
