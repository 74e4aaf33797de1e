"""The order of the images: which ones each step, process and micro-batch sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.system.wording import counted
from resnetd_cli.training.randomness import mixed_seed
from resnetd_cli.training.recipe import Recipe

Key = tuple[int, int]
"""An epoch, and the position of an image in the examples."""


@dataclass(frozen=True)
class BatchSampler:
    """Yields the images of each step: in each epoch all of them once, in random order.

    They are spread evenly, so that no step is much smaller than others: 97 images in batches of at most 32 are
    batches of 24 or 25. The images of a step are spread over the processes in the same way, and those of a process
    over its micro-batches.

    Attributes:
        images: number of images.
        batch_size: most images in a step, over all processes.
        micro_batch: most images that a process runs at once.
        epochs: number of epochs.
        seed: of the order.
        process, processes: this process's number, and how many share each step.
        first_step: the step to start at, in a resumed run.
    """

    images: int
    batch_size: int
    micro_batch: int
    epochs: int
    seed: int
    process: int = 0
    processes: int = 1
    first_step: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates of the weights in an epoch."""
        return -(-self.images // self.batch_size)

    @property
    def steps(self) -> int:
        """Number of updates of the weights in the whole run."""
        return self.epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield what this process loads for each micro-batch, to the end of the run."""
        import numpy as np
        import torch

        first_epoch, first_step = divmod(self.first_step, self.steps_per_epoch)
        for epoch in range(first_epoch, self.epochs):
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
            order = torch.randperm(self.images, generator=generator).numpy()
            steps = np.array_split(order, self.steps_per_epoch)
            for images in steps[first_step if epoch == first_epoch else 0 :]:
                share = images[self.process :: self.processes]
                for part in np.array_split(share, self.micro_batches_per_step):
                    yield [(epoch, position) for position in part.tolist()]

    def images_of(self, step: int) -> int:
        """Return the number of images in a step, over all processes."""
        fewest, more = divmod(self.images, self.steps_per_epoch)
        return fewest + (step % self.steps_per_epoch < more)

    @property
    def micro_batches_per_step(self) -> int:
        """Number of micro-batches that each process runs before each update."""
        largest_share = -(-self.images_of(0) // self.processes)
        return -(-largest_share // self.micro_batch)

    @property
    def smallest_micro_batch(self) -> int:
        """The fewest images that a process runs at once."""
        return self.images_of(-1) // self.processes // self.micro_batches_per_step


def batch_sampler(
    recipe: Recipe, images: int, process: int = 0, processes: int = 1, *, first_step: int = 0
) -> BatchSampler:
    """Return the sampler of a run.

    Args:
        recipe: the settings.
        images: number of training images.
        process, processes: this process's number, and how many share each step.
        first_step: the step to start at, in a resumed run.

    Raises:
        UsageError: there are more processes than images in a step.
    """
    sampler = BatchSampler(
        images=images,
        batch_size=recipe.batch_size,
        micro_batch=recipe.micro_batch or recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
        process=process,
        processes=processes,
        first_step=first_step,
    )
    if sampler.images_of(-1) < processes:
        message = f"{counted(sampler.images_of(-1), 'image')} in a step for {processes} processes"
        if images < processes:
            raise UsageError(message, reason=Reason.TOO_MANY_PROCESSES)
        raise UsageError(message, reason=Reason.BATCH_BELOW_PROCESSES, details=(2 * processes,))
    return sampler


def check_micro_batches(recipe: Recipe, images: int, processes: int, model: str) -> None:
    """Check that no micro-batch is a single image, from which batch normalisation cannot learn.

    Args:
        recipe: the settings.
        images: number of training images.
        processes: number of processes that share a step.
        model: what to call the network in the error.

    Raises:
        UsageError: one is; the hint names the next larger batch size that avoids it.
    """

    def fits(batch_size: int, micro_batch: int | None) -> bool:
        changed = recipe.replace({"batch_size": batch_size, "micro_batch": micro_batch})
        return batch_sampler(changed, images, processes=processes).smallest_micro_batch > 1

    if fits(recipe.batch_size, recipe.micro_batch):
        return
    larger = next((size for size in range(recipe.batch_size, images + 1) if fits(size, None)), None)
    if larger is None:
        reason = Reason.BATCH_NORM_PER_PROCESS if processes > 1 else Reason.BATCH_NORM
    elif fits(larger, recipe.micro_batch):
        reason = Reason.BATCH_NORM_BATCH_SIZE
    else:
        alone = larger == recipe.batch_size
        reason = Reason.BATCH_NORM_MICRO_BATCH if alone else Reason.BATCH_NORM_BOTH_SIZES
    message = f"{model} cannot learn from one image at a time: its batch normalisation needs two"
    raise UsageError(message, reason=reason, details=(larger,))
