"""The images as a torch data set: read, decoded, augmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetd_cli.errors import InputError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.results import Failure
from resnetd_cli.training.randomness import mixed_seed, seed_cpu

if TYPE_CHECKING:
    import torch

    from resnetd_cli.datasets.examples import Examples
    from resnetd_cli.training.augmentation import Transform
    from resnetd_cli.training.sampling import Key

_DECODING = DecodeOptions()


class ImageDataset:
    """A data set for torch: images by key, prepared for the network.

    Args:
        examples: the images.
        transform: prepares an image.
        seed: of the transform's randomness.
    """

    def __init__(self, examples: Examples, transform: Transform, seed: int) -> None:
        self.examples = examples.to_read()
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int] | Failure:
        import torch

        epoch, position = key
        seed_cpu(mixed_seed(self.seed, epoch, position))
        try:
            image = decode(self.examples.read(position), _DECODING)
        except InputError as error:
            return Failure.of(self.examples.name(position), "", error)
        return torch.as_tensor(self.transform(image)), int(self.examples.labels[position])
