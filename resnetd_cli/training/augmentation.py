"""How images are prepared: random crops, flips and colours for training; as in `predict` for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.preprocess import preprocess
from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

    from resnetd_cli.training.recipe import Recipe

Transform = Callable[["Image.Image"], Any]
"""Turns an upright RGB image into what the network reads: float32, shape (3, H, W)."""


@dataclass(frozen=True)
class EvaluationTransform:
    """The transform of validation, which is that of `predict`."""

    how: Preprocessing

    def __call__(self, image: Image.Image) -> Any:
        """Return the image as the network reads it: float32, shape (3, H, W)."""
        return preprocess(image, self.how)


def training_transform(recipe: Recipe, how: Preprocessing) -> Transform:
    """Return timm's random transform for training.

    Raises:
        UsageError: timm has no such augmentation policy.
    """
    from timm.data.transforms_factory import transforms_imagenet_train

    try:
        transform: Transform = transforms_imagenet_train(
            how.input_size[1:],
            scale=recipe.scale,
            ratio=recipe.ratio,
            hflip=recipe.hflip,
            vflip=recipe.vflip,
            color_jitter=recipe.color_jitter or None,
            force_color_jitter=True,  # with a policy as well
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
