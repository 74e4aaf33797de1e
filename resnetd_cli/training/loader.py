"""Batches of images for training and evaluation, loaded by worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from resnetd_cli.training.augmentation import EvaluationTransform, training_transform
from resnetd_cli.training.batch import collate, collate_packed
from resnetd_cli.training.dataset import ImageDataset
from resnetd_cli.training.sampling import BatchSampler, Key, batch_sampler
from resnetd_cli.training.workers import Batches, Workers, prepare_worker

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    from resnetd_cli.datasets.examples import Examples
    from resnetd_cli.datasets.splits import TrainValTest
    from resnetd_cli.results import Preprocessing
    from resnetd_cli.training.recipe import Recipe

EVALUATION_BATCH = 32


@dataclass(frozen=True)
class Loaders:
    """Makes the loaders of one process of a run.

    Attributes:
        data: the images of the run.
        recipe: the settings.
        preprocessing: how the network's images are prepared.
        accelerator: knows which process this is, and how many there are.
        worker_count: number of processes that load images for this one; 0: it loads them itself.
    """

    data: TrainValTest
    recipe: Recipe
    preprocessing: Preprocessing
    accelerator: Accelerator
    worker_count: int

    def sampler(self, first_step: int = 0) -> BatchSampler:
        """Return which images each step sees, from a step on.

        Raises:
            UsageError: there are more processes than images in a step.
        """
        return batch_sampler(self.recipe, len(self.data.train), *self._share, first_step=first_step)

    def training(self, sampler: BatchSampler) -> Batches:
        """Return the batches of the whole run, from the sampler's first step on.

        Raises:
            UsageError: timm has no such augmentation policy.
        """
        transform = training_transform(self.recipe, self.preprocessing)
        return training_loader(ImageDataset(self.data.train, transform, self.recipe.seed), sampler, self._workers)

    def evaluation(self, examples: Examples | None) -> Batches | None:
        """Return this process's share of some images, each once; None if there are none."""
        if examples is None or not len(examples):
            return None
        return evaluation_loader(self._as_predicted(examples), EVALUATION_BATCH, self._workers, *self._share)

    def features(self) -> Batches:
        """Return all training images, each once and without augmentation; every process gets all of them."""
        return evaluation_loader(self._as_predicted(self.data.train), EVALUATION_BATCH, self._workers)

    @property
    def _share(self) -> tuple[int, int]:
        return self.accelerator.process_index, self.accelerator.num_processes

    def _as_predicted(self, examples: Examples) -> ImageDataset:
        return ImageDataset(examples, EvaluationTransform(self.preprocessing), self.recipe.seed)

    @cached_property
    def _workers(self) -> Workers:
        """The worker processes, which share memory if it is large enough for their batches."""
        image = 4 * math.prod(self.preprocessing.input_size)
        batches = (image * self.sampler().micro_batch, image * EVALUATION_BATCH)
        return Workers.fitting(self.worker_count, batches, self.accelerator.num_processes)


def training_loader(images: ImageDataset, sampler: BatchSampler, workers: Workers) -> Batches:
    """Return the batches of a whole run, from the sampler's first step on."""
    return _loader(images, sampler, workers)


def evaluation_loader(
    images: ImageDataset, batch_size: int, workers: Workers, process: int = 0, processes: int = 1
) -> Batches:
    """Return the batches of this process's share of the images, each image once, in order."""
    keys = [(0, position) for position in range(process, len(images), processes)]
    return _loader(images, [keys[at : at + batch_size] for at in range(0, len(keys), batch_size)], workers)


def _loader(images: ImageDataset, batches: Iterable[list[Key]], workers: Workers) -> Batches:
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        images,  # type: ignore[arg-type]  # of keys that are pairs
        batch_sampler=batches,
        num_workers=workers.count,
        collate_fn=collate_packed if workers.by_pipe and workers.count else collate,
        worker_init_fn=prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )
    return Batches(loader)
