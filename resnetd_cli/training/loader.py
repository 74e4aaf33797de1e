"""Batches of images for training and validation, loaded by worker processes.

What is random about an image follows from the run's seed, the epoch and the image alone, and the order of the
images from the seed and the epoch: so a run can go on from any step, with any number of workers, as if it had
never stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import InputError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.preprocess import preprocess
from resnetd_cli.results import Failure, Preprocessing
from resnetd_cli.training.workers import Batches, Workers, begin

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    from resnetd_cli.datasets.base import Examples
    from resnetd_cli.training.recipe import Recipe

_DECODING = DecodeOptions()
Key = tuple[int, int]
"""An epoch, and the position of an image in the examples."""


@dataclass(frozen=True)
class Batch:
    """Some images.

    Attributes:
        images: float32, shape (N, 3, H, W).
        targets: the indices of their classes: int64, shape (N,).
        failures: those that could not be read, which are not among them.
    """

    images: torch.Tensor
    targets: torch.Tensor
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def packed(self) -> Batch:
        """Return it with arrays for tensors, which are sent to other processes as bytes, not as shared memory."""
        images: Any = self.images.numpy()
        targets: Any = self.targets.numpy()
        return Batch(images, targets, self.failures)

    def unpacked(self) -> Batch:
        """Return it with tensors, whatever it holds."""
        import torch

        return Batch(torch.as_tensor(self.images), torch.as_tensor(self.targets), self.failures)


@dataclass(frozen=True)
class Schedule:
    """Which images each step sees: in each epoch all of them once, in random order.

    They are spread evenly, so that no step is much smaller than others: of 97 images, batches of at most 32 are
    24 or 25. So are those of a step over processes, and those of a process over the parts that it runs at once.

    Attributes:
        images: how many there are.
        batch_size: the most that a step sees, over all processes.
        micro_batch: the most that a process runs at once.
        epochs: how many there are.
        seed: of the order.
        process, processes: which share of each step this process has.
        first_step: where the run goes on.
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
        """Updates of the weights in an epoch."""
        return -(-self.images // self.batch_size)

    @property
    def steps(self) -> int:
        """Updates of the weights in all."""
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
        """Return how many images a step sees, over all processes."""
        fewest, more = divmod(self.images, self.steps_per_epoch)
        return fewest + (step % self.steps_per_epoch < more)

    @property
    def micro_batches_per_step(self) -> int:
        """How many batches each process runs before each update."""
        largest_share = -(-self.images_of(0) // self.processes)
        return -(-largest_share // self.micro_batch)

    @property
    def smallest_part(self) -> int:
        """The fewest images that a process runs at once."""
        return self.images_of(-1) // self.processes // self.micro_batches_per_step


class Images:
    """A data set for torch: images by key, prepared for the network.

    Args:
        examples: the images.
        prepare: makes of an upright RGB image what the network reads: float32, shape (3, H, W).
        seed: of what is random about `prepare`.
    """

    def __init__(self, examples: Examples, prepare: Callable[[Image.Image], Any], seed: int) -> None:
        self.examples = examples.to_read()
        self.prepare = prepare
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int] | Failure:
        import torch

        epoch, position = key
        seed_all(mixed_seed(self.seed, epoch, position))
        try:
            image = decode(self.examples.read(position), _DECODING)
        except InputError as error:
            return Failure.of(self.examples.name(position), "", error)
        return torch.as_tensor(self.prepare(image)), int(self.examples.labels[position])


@dataclass(frozen=True)
class Evaluation:
    """The transform of validation, which is that of `predict`."""

    how: Preprocessing

    def __call__(self, image: Image.Image) -> Any:
        """Return the image as the network reads it: float32, shape (3, H, W)."""
        return preprocess(image, self.how)


def augmentation(recipe: Recipe, how: Preprocessing) -> Callable[[Image.Image], Any]:
    """Return the random transform of training, timm's.

    Raises:
        UsageError: timm has no such policy.
    """
    from timm.data.transforms_factory import transforms_imagenet_train

    from resnetd_cli.errors import UsageError

    try:
        transform: Callable[[Image.Image], Any] = transforms_imagenet_train(
            how.input_size[1:],
            scale=recipe.scale,
            ratio=recipe.ratio,
            hflip=recipe.hflip,
            vflip=recipe.vflip,
            color_jitter=recipe.color_jitter or None,
            force_color_jitter=True,  # beside a policy, too
            auto_augment=recipe.auto_augment,
            interpolation=how.interpolation,
            mean=how.mean,
            std=how.std,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        hint = "timm's are such as rand-m7-mstd0.5, augmix-m3 or original"
        raise UsageError(f"timm has no policy {recipe.auto_augment!r}", hint=hint) from error
    return transform


def training_loader(images: Images, schedule: Schedule, workers: Workers) -> Batches:
    """Return the batches of a whole run, from its first step on."""
    return _loader(images, schedule, workers)


def evaluation_loader(
    images: Images, batch_size: int, workers: Workers, process: int = 0, processes: int = 1
) -> Batches:
    """Return the batches of each image once, of this process's share, in order."""
    keys = [(0, position) for position in range(process, len(images), processes)]
    return _loader(images, [keys[at : at + batch_size] for at in range(0, len(keys), batch_size)], workers)


def _loader(images: Images, batches: Iterable[list[Key]], workers: Workers) -> Batches:
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        images,  # type: ignore[arg-type]  # of keys that are pairs
        batch_sampler=batches,
        num_workers=workers.count,
        collate_fn=_collate_packed if workers.by_pipe and workers.count else collate,
        worker_init_fn=begin,
        pin_memory=torch.cuda.is_available(),
    )
    return Batches(loader)


def collate(items: list[tuple[torch.Tensor, int] | Failure]) -> Batch:
    """Make a batch of those that could be read."""
    import torch

    failures = tuple(item for item in items if isinstance(item, Failure))
    read = [item for item in items if not isinstance(item, Failure)]
    images = torch.stack([image for image, _ in read]) if read else torch.empty(0)
    return Batch(images, torch.tensor([target for _, target in read], dtype=torch.int64), failures)


def _collate_packed(items: list[tuple[torch.Tensor, int] | Failure]) -> Batch:
    return collate(items).packed()


def seed_all(seed: int) -> None:
    """Let all that is random follow from a seed: torch's, numpy's and Python's generators."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def mixed_seed(*numbers: int) -> int:
    """Return a seed of 63 bits that follows from numbers; from other numbers, in practice another."""
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1
