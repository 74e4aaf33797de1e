"""`loader_for`: a `Loader` from options side by side, so that tests need not build its groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from resnetd_cli.loading import Loader
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.engines.base import Wanted
from resnetd_cli.pipeline.options import Runtime


def loader_for(
    model: str = "resnet50d",
    *,
    weights: str | Path | None = None,
    image_size: str | int = "train",
    class_names: str | None = None,
    offline: bool = False,
    note: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Loader:
    """Return a loader. The other options are fields of `Wanted` and `Runtime`."""
    wanted = {field.name: options.pop(field.name) for field in fields(Wanted) if field.name in options}
    return Loader(
        ModelChoice.of(model, weights, image_size),
        class_names=class_names,
        wanted=Wanted(**wanted),
        runtime=Runtime(**options),
        downloads=Downloads(offline),
        note=note,
    )
