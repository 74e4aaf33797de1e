"""What the user asked of `finetune` or `train`: the plan of a training run, in groups of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice

FINETUNE, TRAIN = "finetune", "train"
"""The two commands: start from trained weights, or from random ones."""


@dataclass(frozen=True)
class DataChoice:
    """Which images to train on, and how to split them.

    Attributes:
        location: where the labelled images are.
        val_share: share of the images for validation, if the data set has no split of its own; None: the default.
        group_by: a regular expression for images' names: images in which it finds the same text stay together.
        split_seed: seed of the split; None: the recipe's seed.
    """

    location: str
    val_share: float | None = None
    group_by: str | None = None
    split_seed: int | None = None


@dataclass(frozen=True)
class NetworkChoice:
    """Which network to start from, and which one to learn from.

    Attributes:
        model: the MODEL to start from, or to build with random weights; None: the default model.
        weights: a checkpoint that replaces the model's own weights.
        image_size: `train`, `test` or pixels, as for `predict`; None: `train`.
        teacher: a MODEL of the same classes whose answers are learnt as well.
    """

    model: str | None = None
    weights: Path | None = None
    image_size: str | None = None
    teacher: str | None = None

    @cached_property
    def model_choice(self) -> ModelChoice:
        """The network to start from: the MODEL, its weights and its image size."""
        return ModelChoice.of(self.model or DEFAULT_MODEL, self.weights, self.image_size or "train")

    @cached_property
    def teacher_choice(self) -> ModelChoice | None:
        """The network to learn from."""
        return None if self.teacher is None else ModelChoice.of(self.teacher)


@dataclass(frozen=True)
class RecipeChoice:
    """Which recipe to train with.

    Attributes:
        name: the name of a shipped recipe, or a YAML file; None: the command's default.
        changes: settings that replace the recipe's.
    """

    name: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """Where the run is written.

    Attributes:
        folder: the run's folder.
        resume: continue the run in the folder, if there is one.
        overwrite: replace the run in the folder.
    """

    folder: Path
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingRuntime:
    """What the run uses of this machine.

    Attributes:
        save_seconds: longest time between checkpoints; one is written at the end of each epoch anyway.
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: processes that load images, for each training process; None: chosen to suit the machine.
        offline: use only files on this machine.
    """

    save_seconds: float
    device: str = "auto"
    workers: int | None = None
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the user asked for.

    Attributes:
        command: `finetune` or `train`.
        data: the images.
        network: the network to start from.
        recipe: the settings of training.
        output: the folder to write to.
        runtime: device, processes and checkpoints.
        seeds: train this many times, each with another seed; None: once, or as often as the run being resumed.
        arguments: the command line, recorded in `run.json`.
    """

    command: str
    data: DataChoice
    network: NetworkChoice
    recipe: RecipeChoice
    output: Output
    runtime: TrainingRuntime
    seeds: int | None = None
    arguments: Sequence[str] = ()
