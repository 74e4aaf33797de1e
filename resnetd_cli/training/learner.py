"""The learner: the network with its loss, optimiser and mixup, and the moving average of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from resnetd_cli.evaluation.metrics import TOP5
from resnetd_cli.models import dry_run
from resnetd_cli.training.dropout import set_dropout
from resnetd_cli.training.learning_rate import LearningRate
from resnetd_cli.training.loss import make_task
from resnetd_cli.training.mixup import make_mixup, mix
from resnetd_cli.training.optimizer import make_optimizer, parameter_groups
from resnetd_cli.training.sampling import BatchSampler, check_micro_batches
from resnetd_cli.training.train_mode import evaluating, set_train_mode, unwrapped

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn

    from resnetd_cli.training.batch import Batch
    from resnetd_cli.training.network import TrainableNetwork
    from resnetd_cli.training.recipe import Recipe


class Answers(NamedTuple):
    """The network's answers to a micro-batch.

    Attributes:
        loss: the mean loss.
        logits: shape (N, C).
        targets: the indices of the classes, shape (N,), or soft targets, shape (N, C).
    """

    loss: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor


class Learner:
    """Everything that learns in a run: all that a checkpoint keeps of the weights.

    Args:
        network: the network, on its device.
        recipe: the settings.
        accelerator: device, precision, processes.
        sampler: which images each step sees.
        fewest_images: the fewest images that the network can learn from at once.
        teacher: a network whose answers are learnt as well.
        checkpoint: the tensors of the checkpoint being resumed; empty for a new run.

    Raises:
        UsageError: the recipe asks for something that timm or the network does not have.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        recipe: Recipe,
        accelerator: Accelerator,
        sampler: BatchSampler,
        *,
        fewest_images: int,
        teacher: nn.Module | None = None,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.accelerator, self.sampler = recipe, accelerator, sampler
        self._fewest_images = fewest_images
        self._input_size = network.preprocessing.input_size
        self.rate = LearningRate(recipe, sampler.steps_per_epoch)
        self._mixup = make_mixup(recipe, network.config["num_classes"])
        set_dropout(network.module, recipe)
        groups = parameter_groups(network.module, recipe)
        self.task = make_task(
            network.module, recipe, teacher=teacher, config=network.config, device=accelerator.device
        )
        if recipe.ema_decay is not None:
            self.task.setup_ema(decay=recipe.ema_decay, use_warmup=True)
        optimizer = make_optimizer(groups, recipe)
        if checkpoint:
            self._restore(optimizer, checkpoint)
        self.task.trainable_module = accelerator.prepare_model(network.module)
        self._optimizer: Any = accelerator.prepare_optimizer(optimizer)
        set_train_mode(unwrapped(self.task.get_trainable_module()), recipe)

    def apply_rate(self, step: int) -> float:
        """Set the learning rates of a step, and return that of the head."""
        return self.rate.apply(self._optimizer, step)

    def accumulating(self) -> AbstractContextManager[Any]:
        """Let processes keep their gradients to themselves: they add them up once, after the last micro-batch."""
        return self.accelerator.no_sync(self.task.get_trainable_module())  # type: ignore[no-any-return]

    def backward(self, batch: Batch, step: int) -> Answers | None:
        """Add the gradients of a micro-batch, weighted so that each image counts the same in its step.

        Returns:
            None if there were too few images to learn from, as others could not be read.
        """
        import torch

        device, processes = self.accelerator.device, self.sampler.processes
        if len(batch) < self._fewest_images:
            if processes > 1:  # the other processes wait for gradients
                nothing = torch.zeros(2, *self._input_size).to(device)
                self.accelerator.backward(self.task.get_trainable_module()(nothing).sum() * 0)
            return None
        images, targets = _channels_last(batch.images.to(device)), batch.targets.to(device)
        mixed, soft = mix(self._mixup, images, targets)
        result = self.task(mixed, soft)
        share = len(batch) * processes / self.sampler.images_of(step)
        self.accelerator.backward(result["loss"] * share)
        return Answers(result["loss"].detach(), result["output"].detach(), soft)

    def update(self, step: int) -> None:
        """Update the weights with the gradients, and their moving average. `step`: counted from 1."""
        if self.recipe.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.task.get_clip_parameters(), self.recipe.clip_grad)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.task.update_ema(step)

    def measure(self, batches: Iterable[Batch] | None, unreadable: dict[str, str]) -> dict[str, float | None]:
        """Return the loss and the top-1 and top-5 accuracy (0 to 1) of the weights that would be kept.

        Top-5 is None for five classes or fewer, where it means nothing.

        Args:
            batches: this process's share of the images; None: there are none.
            unreadable: images that could not be read are added to it, with the reason.
        """
        if batches is None:
            return {"loss": None, "top1": None, "top5": None}
        network: Any = self._kept_module()
        evaluator = self.task.create_evaluator()
        device = self.accelerator.device
        with evaluating(network), self.accelerator.autocast():
            for batch in batches:
                unreadable.update({failure.input: failure.message for failure in batch.failures})
                if len(batch):
                    images = _channels_last(batch.images.to(device))
                    evaluator.update(network(images), batch.targets.to(device))
        figures = evaluator.compute(distributed=self.sampler.processes > 1)
        top5 = figures["top5"] / 100 if network.num_classes > TOP5 else None
        return {"loss": figures["loss"], "top1": figures["top1"] / 100, "top5": top5}

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return the weights that would be kept: their moving average, if there is one."""
        return self._kept_module().state_dict()

    def state(self) -> dict[str, Any]:
        """Return the tensors of a checkpoint."""
        tensors = {**self.task.get_checkpoint_state(), "optimizer": self._optimizer.state_dict()}
        if self.task.has_ema():
            tensors |= self.task.get_checkpoint_state(ema=True)
        if self.accelerator.scaler is not None:
            tensors["scaler"] = self.accelerator.scaler.state_dict()
        return tensors

    def load_weights(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the weights of a checkpoint, to measure them."""
        ema = self.task.has_ema()
        self.task.load_checkpoint_state(checkpoint["state_dict_ema" if ema else "state_dict"], ema=ema)

    def _restore(self, optimizer: torch.optim.Optimizer, checkpoint: Mapping[str, Any]) -> None:
        """Take the whole state of a checkpoint, to continue from it."""
        self.task.load_checkpoint_state(checkpoint["state_dict"])
        if self.task.has_ema():
            self.task.load_checkpoint_state(checkpoint["state_dict_ema"], ema=True)
        optimizer.load_state_dict(checkpoint["optimizer"])
        if checkpoint.get("scaler") and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint["scaler"])

    def _kept_module(self) -> nn.Module:
        return unwrapped(self.task.get_eval_model(ema=self.task.has_ema()))


def fewest_images(network: TrainableNetwork, recipe: Recipe, images: int, processes: int) -> int:
    """Return the fewest images that a network can learn from at once: two, if its batch normalisation needs them.

    Args:
        network: the network.
        recipe: the settings.
        images: number of training images.
        processes: number of training processes.

    Raises:
        UsageError: the micro-batches have fewer.
    """
    size = network.preprocessing.input_size[1:]

    def learns_from(count: int) -> bool:
        return dry_run.learns_from(network.module, count, size, lambda module: set_train_mode(module, recipe))

    if learns_from(1) or not learns_from(2):  # one that cannot be tried fails with its own error in training
        return 1
    check_micro_batches(recipe, images, processes, network.name)
    return 2


def to_device(module: nn.Module, device: torch.device) -> None:
    """Move a network to its device, in the layout in which convolutions are fastest (channels last)."""
    import torch

    module.to(device)
    with suppress(RuntimeError):  # networks with weights of five dimensions
        module.to(memory_format=torch.channels_last)


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    import torch

    return images.contiguous(memory_format=torch.channels_last)
