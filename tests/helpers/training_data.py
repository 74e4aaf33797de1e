"""Small data sets that a small network learns in seconds, and how tests train it in their own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnetd_cli.training.monitors import Several
from resnetd_cli.training.plan import Plan, Surroundings, execute

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


class Log(Several):
    """Remembers what a run tells, and stops it after a step."""

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
    return execute(plan, Surroundings(monitor=log, note=note, should_stop=log.should_stop))
