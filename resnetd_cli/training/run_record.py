"""What a run was started with: `run.json`, `recipe.yaml`, `split.csv` and `trained-on.npy`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.split_table import write_split
from resnetd_cli.datasets.splits import TrainValTest
from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.models import trained_on
from resnetd_cli.system.files import open_atomic_text
from resnetd_cli.training.recipe import Recipe, parse
from resnetd_cli.training.run_folder import FORMAT, SPLIT, RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RunRecord:
    """What a run was started with.

    Attributes:
        recipe: adapted to the images.
        facts: everything else: the content of `run.json`.
    """

    recipe: Recipe
    facts: Mapping[str, Any]


def write(folder: RunFolder, record: RunRecord, data: TrainValTest, marks: NDArray[np.uint8] | None) -> None:
    """Record a new run before it starts, in place of any run in the folder.

    Args:
        folder: of the run.
        record: what it starts with.
        data: its images.
        marks: of all images that the model will have been trained on; None: they are not kept.
    """
    folder.replace()
    folder.write_text(folder.recipe.name, record.recipe.to_yaml())
    _write_images(folder, data, marks)
    folder.write_json(folder.facts.name, {"format": FORMAT, **record.facts})


def read(folder: RunFolder) -> RunRecord | None:
    """Return what the run in a folder was started with; None if there is no run.

    Raises:
        UsageError: it cannot be read.
    """
    if not folder.facts.is_file():
        return None
    try:
        facts = json.loads(folder.facts.read_text(encoding="utf-8"))
        if facts.pop("format") != FORMAT:
            raise ValueError
        return RunRecord(parse(folder.recipe.read_text(encoding="utf-8"), str(folder.recipe)), facts)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{folder.facts} is damaged", reason=Reason.RUN_DAMAGED) from error


def add_start(
    folder: RunFolder, start: Mapping[str, Any], data: TrainValTest, marks: NDArray[np.uint8] | None
) -> None:
    """Record a resumption as another start; and the images, as `write` does, if an older version did not.

    Args:
        folder: of the run.
        start: what it runs on now, from `provenance.describe_start`.
        data: its images.
        marks: as for `write`.
    """
    if not (folder.path / SPLIT).exists():
        _write_images(folder, data, marks)
    facts = json.loads(folder.facts.read_text(encoding="utf-8"))
    folder.write_json(folder.facts.name, {**facts, "starts": [*facts.get("starts", ()), start]})


def end_start(folder: RunFolder, seconds: float) -> None:
    """Record the wall time of the run's latest start, which ends now."""
    facts = json.loads(folder.facts.read_text(encoding="utf-8"))
    facts["starts"][-1]["seconds"] = round(seconds, 1)
    folder.write_json(folder.facts.name, facts)


def _write_images(folder: RunFolder, data: TrainValTest, marks: NDArray[np.uint8] | None) -> None:
    if marks is not None:
        trained_on.write(folder.path, marks)
    with open_atomic_text(folder.path / SPLIT) as file:
        write_split(data, file)
