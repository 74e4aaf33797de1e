"""The table of the ResNet-D models: size, accuracy, preprocessing and licence of each set of trained weights."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from resnetd_cli.results import Preprocessing

_TABLE = Path(__file__).parent / "resnetd-models.csv"
_COLUMNS: dict[str, Any] = {
    "default": "True".__eq__,
    **dict.fromkeys(("train_size", "test_size"), int),
    **dict.fromkeys(("params_m", "train_crop", "gmacs_train", "top1_train", "top5_train"), float),
    **dict.fromkeys(("test_crop", "gmacs_test", "top1_test", "top5_test"), float),
    **dict.fromkeys(("mean", "std"), lambda text: tuple(map(float, text.split("/")))),
}
"""Parsers of the columns that are not text."""
_STAGES = {
    "resnet18d": ("basic", (2, 2, 2, 2)),
    "resnet26d": ("bottleneck", (2, 2, 2, 2)),
    "resnet34d": ("basic", (3, 4, 6, 3)),
    "resnet50d": ("bottleneck", (3, 4, 6, 3)),
    "resnet101d": ("bottleneck", (3, 4, 23, 3)),
    "resnet152d": ("bottleneck", (3, 8, 36, 3)),
    "resnet200d": ("bottleneck", (3, 24, 36, 3)),
}


@dataclass(frozen=True)
class SizeFacts:
    """Facts about a set of trained weights at one image size.

    Attributes:
        preprocessing: how images are prepared.
        gmacs: multiply-adds per image, in billions.
        top1, top5: ImageNet-1k accuracy, in percent.
    """

    preprocessing: Preprocessing
    gmacs: float
    top1: float
    top5: float

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.preprocessing.input_size[1]


@dataclass(frozen=True)
class TableEntry:
    """Facts about one set of trained weights.

    Attributes:
        name: timm's name for architecture and weights: `resnet50d.ra2_in1k`.
        default: the architecture's bare name stands for these weights.
        params_m: parameters, in millions.
        train: facts at the training size.
        test: facts at the larger size that timm recommends for testing.
        license: SPDX identifier.
        hub_id: repository on the Hugging Face hub.
        record: its row of the table, by column, as `list-models` writes it.
    """

    name: str
    default: bool
    params_m: float
    train: SizeFacts
    test: SizeFacts
    license: str
    hub_id: str
    record: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The name without its weights: `resnet50d`."""
        return self.name.partition(".")[0]

    @property
    def block(self) -> str:
        """The kind of its residual blocks: `basic` or `bottleneck`."""
        return _STAGES[self.architecture][0]

    @property
    def stages(self) -> tuple[int, ...]:
        """The number of blocks in each of its four stages."""
        return _STAGES[self.architecture][1]


@lru_cache
def entries() -> tuple[TableEntry, ...]:
    """Return the table: seven models, fifteen sets of weights."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(map(_entry, csv.DictReader(file)))


def find_entry(name: str) -> TableEntry | None:
    """Return the table's row for a full name or a bare architecture."""
    fitting = (
        entry for entry in entries() if name == entry.name or (entry.default and name == entry.architecture)
    )
    return next(fitting, None)


def _entry(row: dict[str, str]) -> TableEntry:
    cells = {"name": row.pop("model"), **row}
    record = {column: _COLUMNS.get(column, str)(text) for column, text in cells.items()}
    kept = {key: record[key] for key in ("name", "default", "params_m", "license", "hub_id")}
    return TableEntry(**kept, train=_at_size("train", record), test=_at_size("test", record), record=record)


def _at_size(which: str, record: Mapping[str, Any]) -> SizeFacts:
    preprocessing = Preprocessing(
        input_size=(3, record[f"{which}_size"], record[f"{which}_size"]),
        crop_pct=record[f"{which}_crop"],
        crop_mode="center",
        interpolation=record["interpolation"],
        mean=record["mean"],
        std=record["std"],
    )
    return SizeFacts(preprocessing, record[f"gmacs_{which}"], record[f"top1_{which}"], record[f"top5_{which}"])
