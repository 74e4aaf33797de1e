"""Checkpoints: written at the end of each epoch and every `--save-seconds`, read by `--resume`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.errors import OutputError, Reason, UsageError, innermost
from resnetd_cli.models import pickles
from resnetd_cli.system.files import PARTIAL, open_atomic, write_error
from resnetd_cli.training.progress import Progress

if TYPE_CHECKING:
    from resnetd_cli.training.run_folder import RunFolder

_FORMAT = 2
"""Format 1 divided epochs into other steps, so a run cannot be resumed from it."""


def save(folder: RunFolder, progress: Progress, tensors: Mapping[str, Any], *, is_best: bool) -> None:
    """Write the checkpoint that a run is resumed from; the previous one stays until this one is complete.

    Args:
        folder: of the run.
        progress: how far the run is.
        tensors: the state of everything that learns.
        is_best: the weights are the best so far, and are kept as such.

    Raises:
        OutputError: there is no room, or no permission.
    """
    try:
        with open_atomic(folder.last) as file:
            _save({"format": _FORMAT, "progress": progress.to_record(), **tensors}, file)
        if is_best:
            keep_as_best(folder)
    except OutputError as error:
        error.hint, error.reason = None, Reason.CHECKPOINT_NOT_WRITTEN
        raise


def keep_as_best(folder: RunFolder) -> None:
    """Keep the last checkpoint as the best one as well.

    Raises:
        OutputError: there is no room, or no permission.
    """
    link = folder.best.with_name(f"{folder.best.name}{PARTIAL}")
    try:
        link.unlink(missing_ok=True)
        try:
            os.link(folder.last, link)
        except OSError:  # a file system without links
            link.write_bytes(folder.last.read_bytes())
        link.replace(folder.best)
    except OSError as error:
        raise write_error(folder.best, error) from error


def load(path: Path) -> tuple[Progress, dict[str, Any]] | None:
    """Return a checkpoint's progress and tensors; None if there is no such file.

    Raises:
        UsageError: it is damaged, or of another version.
    """
    import torch

    if not path.is_file():
        return None
    try:
        pickles.check(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != _FORMAT:
            raise UsageError(f"{path} was written by another version of resnetd", reason=Reason.RUN_DAMAGED)
        return Progress.from_record(content.pop("progress")), content
    except UsageError:
        raise
    except Exception as error:  # torch raises errors of any kind on a file that it cannot read
        raise UsageError(f"{path} is damaged", reason=Reason.RUN_DAMAGED) from error


def _save(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write with torch, and raise an `OSError` unchanged: torch would turn it into another error."""
    import torch

    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(refused := innermost(error), OSError):
            raise refused from error
        raise
