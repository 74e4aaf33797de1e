"""A batch of images and the indices of their classes, as a loader returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.results import Failure

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """N images.

    Attributes:
        images: float32, shape (N, 3, H, W).
        targets: the indices of their classes: int64, shape (N,).
        failures: images that could not be read, which are left out.
    """

    images: torch.Tensor
    targets: torch.Tensor
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def packed(self) -> Batch:
        """Return it with arrays in place of tensors: they go to other processes as bytes, not as shared memory."""
        images: Any = self.images.numpy()
        targets: Any = self.targets.numpy()
        return Batch(images, targets, self.failures)

    def unpacked(self) -> Batch:
        """Return it with tensors, if it is packed."""
        import torch

        return Batch(torch.as_tensor(self.images), torch.as_tensor(self.targets), self.failures)


def collate(items: list[tuple[torch.Tensor, int] | Failure]) -> Batch:
    """Make a batch of the images that could be read."""
    import torch

    failures = tuple(item for item in items if isinstance(item, Failure))
    read = [item for item in items if not isinstance(item, Failure)]
    images = torch.stack([image for image, _ in read]) if read else torch.empty(0)
    return Batch(images, torch.tensor([target for _, target in read], dtype=torch.int64), failures)


def collate_packed(items: list[tuple[torch.Tensor, int] | Failure]) -> Batch:
    """Make a packed batch of the images that could be read."""
    return collate(items).packed()
