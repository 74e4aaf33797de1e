"""Small data sets that a small network learns in seconds, and how tests train it in their own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.monitors import Monitors
from resnetd_cli.training.plan import DataChoice, NetworkChoice, Output, Plan, RecipeChoice, TrainingRuntime
from resnetd_cli.training.run import execute

COLOURS = {"blue": (40, 60, 200), "green": (60, 180, 60), "red": (200, 50, 40)}
NETWORK = "test_resnet"
"""The smallest of timm's ResNets: half a million parameters."""


def write_colours(folder: Path, per_class: int, *, seed: int = 0, size: int = 32) -> Path:
    """Write noisy images of one colour each, in a folder for each colour."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            noise = generator.normal(0, 60, (size, size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


QUICK = {
    "epochs": 4,
    "batch_size": 12,
    "lr": 0.05,
    "warmup_epochs": 1,
    "mixup": 0.2,
    "ema_decay": 0.5,
    "hflip": 0.5,
}


_PLACES = {
    "data": ("data", "location"),
    "recipe": ("recipe", "name"),
    "changes": ("recipe", "changes"),
    **{name: ("data", name) for name in ("val_share", "group_by", "split_seed")},
    **{name: ("network", name) for name in ("model", "weights", "image_size", "teacher")},
    **{name: ("output", name) for name in ("folder", "resume", "overwrite")},
    **{name: ("runtime", name) for name in ("device", "workers", "save_seconds", "offline")},
}
"""Where a plan has the option of a name: its group, and the name there."""


def change(plan: Plan, **options: Any) -> Plan:
    """Return a plan with some options changed, whichever group they are in."""
    for option, value in options.items():
        if option in _PLACES:
            group, name = _PLACES[option]
            plan = replace(plan, **{group: replace(getattr(plan, group), **{name: value})})
        else:
            plan = replace(plan, **{option: value})
    return plan


def make_plan(command: str, data: str, folder: Path, model: str | None = None, **options: Any) -> Plan:
    """Return a plan with some options."""
    plan = Plan(
        command=command,
        data=DataChoice(data),
        network=NetworkChoice(model),
        recipe=RecipeChoice(),
        output=Output(folder),
        runtime=TrainingRuntime(save_seconds=300.0),
    )
    return change(plan, **options)


class Log(Monitors):
    """Remembers what a run reports, and stops it after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.steps: list[tuple[int, float]] = []
        self.epochs: list[tuple[int, bool]] = []

    def step(self, progress: Any, lr: float) -> None:
        self.steps.append((progress.step, lr))

    def epoch(self, row: Any, *, is_best: bool) -> None:
        self.epochs.append((row["epoch"], is_best))

    def should_stop(self) -> bool:
        return bool(self.steps) and self.steps[-1][0] == self.stop_after


def carry_out(plan: Plan, log: Log | None = None, note: Callable[[str], None] = lambda _: None) -> Any:
    log = log or Log()
    return execute(plan, Callbacks(monitor=log, note=note, should_stop=log.should_stop))
