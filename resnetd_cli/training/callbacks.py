"""The functions that a training run calls: to report progress, and to ask whether to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetd_cli.datasets.splits import TrainValTest
    from resnetd_cli.datasets.survey import Survey
    from resnetd_cli.results import Failure
    from resnetd_cli.training.monitors import Monitor


@dataclass(frozen=True)
class Callbacks:
    """What a run calls.

    Attributes:
        monitor: called at each step and each epoch.
        note: called with a line for the user.
        should_stop: returns whether the run should stop.
        survey_progress: called in the first pass with the number of images looked at, and of all images.
        unreadable: called with each image that cannot be read.
        surveyed: called with what the first pass found.
        download_bar: returns a tqdm class for download bars; None for no bars.
        began: when the command started, by `time.monotonic`.
        replacing: called just before the run's first files are written.
    """

    monitor: Monitor
    note: Callable[[str], None]
    should_stop: Callable[[], bool]
    survey_progress: Callable[[int, int], object] = lambda done, total: None
    unreadable: Callable[[Failure], object] = lambda failure: None
    surveyed: Callable[[Survey, TrainValTest], object] = lambda survey, divided: None
    download_bar: Callable[[], type[Any] | None] = lambda: None
    began: float = field(default_factory=time.monotonic)
    replacing: Callable[[], object] = lambda: None
