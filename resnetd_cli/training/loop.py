"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from resnetd_cli.datasets.survey import MAX_UNREADABLE
from resnetd_cli.errors import DataError, ModelError
from resnetd_cli.evaluation.metrics import TOP5
from resnetd_cli.training.loader import Batch, Schedule, mixed_seed, seed_all
from resnetd_cli.training.network import evaluating, set_training, unwrapped
from resnetd_cli.training.rates import Rates
from resnetd_cli.training.run_folder import Progress, Row

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from timm.data import Mixup
    from timm.task import TrainingTask

    from resnetd_cli.training.recipe import Recipe
    from resnetd_cli.training.workers import Batches

_COLLECT_STEPS = 20


class Monitor(Protocol):
    """Is told how a run goes."""

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """The first step is about to be made, or the next one, in epochs of so many images."""
        ...

    def step(self, progress: Progress, lr: float) -> None:
        """A step was made, at this rate."""
        ...

    def epoch(self, row: Row, *, is_best: bool) -> None:
        """An epoch ended."""
        ...


@dataclass
class Training:
    """What the loop works with.

    Attributes:
        task: timm's task: the network and its loss.
        optimizer: of the trained parameters.
        rates: the learning rate of each step.
        mixup: timm's, which mixes images and makes soft targets; None for none.
        schedule: which images each step sees.
        fewest_images: that the network learns from at once.
        train, val: their batches; val is None where there is none.
        input_size: of an image: channels, height and width.
        accelerator: devices, precision, processes.
        recipe: the settings.
        progress: how far it is; the loop goes on from there.
        save: keeps a checkpoint; is told whether it is the best so far.
        save_seconds: between checkpoints within an epoch.
        began: when this process began to work on the run, by `time.monotonic`.
        measures_start: whether what the run begins with may be better than what it ends with.
        should_stop: tells whether the run was asked to stop.
        monitor: is told how it goes.
    """

    task: TrainingTask
    optimizer: Any
    rates: Rates
    mixup: Mixup | None
    schedule: Schedule
    fewest_images: int
    train: Batches
    val: Batches | None
    input_size: tuple[int, int, int]
    accelerator: Accelerator
    recipe: Recipe
    progress: Progress
    save: Callable[[bool], None]
    save_seconds: float
    began: float
    measures_start: bool
    should_stop: Callable[[], bool]
    monitor: Monitor

    def __post_init__(self) -> None:
        import torch

        self.sums = torch.zeros(3, dtype=torch.float64, device=self.accelerator.device)
        """Of loss, right answers and images since the last time they were collected."""
        self.unreadable: dict[str, str] = {}
        """Images that could not be read since then, and why."""
        self._before = self.progress.seconds

    @property
    def seconds(self) -> float:
        """Wall time that the run has taken so far, with that of the processes that it was resumed from."""
        return self._before + time.monotonic() - self.began

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in the layout in which convolutions read them fastest."""
        import torch

        return images.contiguous(memory_format=torch.channels_last)

    def mix(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images, mixed if that is wanted, and what the loss takes for targets."""
        import torch
        from timm.data.mixup import mixup_target

        if self.mixup is None:
            return images, targets
        count = len(images)
        if count == 1:
            return images, mixup_target(targets, self.mixup.num_classes, 1.0, self.mixup.label_smoothing)
        if (
            count % 2
        ):  # timm mixes the first with the last, and so on: with the second once more, all have partners
            images, targets = torch.cat([images, images[1:2]]), torch.cat([targets, targets[1:2]])
        mixed, soft = self.mixup(images, targets)
        return mixed[:count], soft[:count]

    def add(self, loss: torch.Tensor, output: torch.Tensor, targets: torch.Tensor) -> None:
        """Count what a batch gave; of mixed images, the larger part is what is right."""
        import torch

        truth = targets.argmax(1) if targets.ndim == 2 else targets
        correct = (output.argmax(1) == truth).sum()
        counted = [loss.double() * len(targets), correct.double(), loss.new_tensor(len(targets)).double()]
        self.sums += torch.stack(counted)


def run(training: Training) -> bool:
    """Train to the end; return False where the run was asked to stop before, and was saved.

    Raises:
        ModelError: the loss is not a number.
        DataError: too many images cannot be read.
    """
    progress, schedule = training.progress, training.schedule
    batches = iter(training.train)
    set_training(unwrapped(training.task.get_trainable_module()), training.recipe)
    training.monitor.begin(training.recipe.epochs, schedule.steps_per_epoch, schedule.images, progress)
    if training.measures_start and not progress.rows:
        _keep(training, {"lr": None, "train_loss": None, "train_top1": None})
    saved = time.monotonic()
    while progress.step < schedule.steps:
        rate = step(training, batches)
        training.monitor.step(progress, rate)
        stop, due = _agreed(training, training.should_stop(), time.monotonic() - saved > training.save_seconds)
        if progress.step % schedule.steps_per_epoch == 0:
            _end_epoch(training, rate)
            saved = time.monotonic()
        elif stop or due:
            _collect(training)
            training.save(False)
            saved = time.monotonic()
        if stop and progress.step < schedule.steps:
            return False
    return True


def step(training: Training, batches: Iterator[Batch]) -> float:
    """Update the weights once, and return the rate at which the classifier learnt."""
    rate = training.rates.at(training.progress.step)
    for group in training.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    task, schedule, accelerator = training.task, training.schedule, training.accelerator
    for left in reversed(range(schedule.micro_batches_per_step)):
        batch = next(batches)
        # Here, for loading the images may have used the generators.
        seed_all(mixed_seed(schedule.seed, -1, training.progress.step, schedule.process, left))
        # Several processes add up their gradients once, after the last part.
        with accelerator.no_sync(task.get_trainable_module()) if left else nullcontext():
            _backward(training, batch)
    if training.recipe.clip_grad is not None:
        accelerator.clip_grad_norm_(task.get_clip_parameters(), training.recipe.clip_grad)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.progress.step += 1
    task.update_ema(training.progress.step)
    is_cheap = accelerator.device.type == "cpu" and schedule.processes == 1
    if is_cheap or training.progress.step % _COLLECT_STEPS == 0:  # elsewhere it makes the device wait
        _collect(training)
    return rate


def _backward(training: Training, batch: Batch) -> None:
    """Add the gradients of a part of a step, as its share of the mean over all images."""
    import torch

    training.unreadable.update({failure.input: failure.message for failure in batch.failures})
    device = training.accelerator.device
    if len(batch) < training.fewest_images:  # the others could not be read
        if training.schedule.processes > 1:  # the others wait for its gradients
            nothing = torch.zeros(2, *training.input_size).to(device)
            training.accelerator.backward(training.task.get_trainable_module()(nothing).sum() * 0)
        return
    images, targets = training.prepare(batch.images.to(device)), batch.targets.to(device)
    mixed, soft = training.mix(images, targets)
    result = training.task(mixed, soft)
    share = len(batch) * training.schedule.processes / training.schedule.images_of(training.progress.step)
    training.accelerator.backward(result["loss"] * share)
    training.add(result["loss"].detach(), result["output"].detach(), soft)


def _end_epoch(training: Training, rate: float) -> None:
    """Measure the weights, keep them, and tell. `rate`: that of the last step."""
    progress = training.progress
    _collect(training)
    if not math.isfinite(progress.loss):
        raise ModelError("the loss is not a number any more", hint="a lower --lr may help, or --set clip_grad=1")
    if len(progress.unreadable) > MAX_UNREADABLE * training.schedule.images:
        count, (first, reason) = len(progress.unreadable), next(iter(progress.unreadable.items()))
        raise DataError(
            f"{count} of {training.schedule.images} images cannot be decoded, the first is {first}: {reason}",
            hint=f"repair or remove them: up to {MAX_UNREADABLE:.0%} of a split is left out",
        )
    trained = {
        "lr": rate,
        "train_loss": progress.loss / max(1, progress.seen),
        "train_top1": progress.correct / max(1, progress.seen),
    }
    progress.loss, progress.correct, progress.seen = 0.0, 0, 0
    _keep(training, trained)


def _keep(training: Training, trained: dict[str, Any]) -> None:
    """Measure the weights and keep them: as the best, if they are."""
    progress = training.progress
    val = {f"val_{name}": value for name, value in measure(training, training.val).items()}
    row: Row = {"epoch": progress.step // training.schedule.steps_per_epoch, "step": progress.step}
    row |= {**trained, **val, "seconds": round(training.seconds, 1)}
    best = progress.best
    progress.rows.append(row)
    is_best = best is None or _rank(row) >= _rank(best)
    if is_best:
        progress.best_epoch = row["epoch"]
    training.save(is_best)
    training.monitor.epoch(row, is_best=is_best)


def _rank(row: Row) -> tuple[float, float, int]:
    """Return what makes an epoch better than others: without validation, being later."""
    if row["val_top1"] is None:
        return (0.0, 0.0, row["epoch"])
    return (row["val_top1"], -row["val_loss"], 0)


def measure(training: Training, loader: Batches | None) -> dict[str, float | None]:
    """Return mean cross-entropy, and top-1 and top-5 accuracy, 0 to 1, of the weights that would be kept.

    Top-5 of five classes or fewer says nothing: it is None.
    """
    if loader is None:
        return {"loss": None, "top1": None, "top5": None}
    task, accelerator = training.task, training.accelerator
    network: Any = unwrapped(task.get_eval_model(ema=task.has_ema()))
    evaluator = task.create_evaluator()
    with evaluating(network), accelerator.autocast():
        for batch in loader:
            training.unreadable.update({failure.input: failure.message for failure in batch.failures})
            if len(batch):
                images = training.prepare(batch.images.to(accelerator.device))
                evaluator.update(network(images), batch.targets.to(accelerator.device))
    figures = evaluator.compute(distributed=training.schedule.processes > 1)
    top5 = figures["top5"] / 100 if network.num_classes > TOP5 else None
    return {"loss": figures["loss"], "top1": figures["top1"] / 100, "top5": top5}


def _collect(training: Training) -> None:
    """Add to the progress what all processes saw since the last time."""
    from accelerate.utils import gather_object

    progress = training.progress
    sums = training.accelerator.reduce(training.sums, "sum")
    loss, correct, seen = sums.tolist()
    progress.loss += loss
    progress.correct += int(correct)
    progress.seen += int(seen)
    progress.images_seen += int(seen)
    training.sums.zero_()
    found = list(training.unreadable.items())
    progress.unreadable.update(gather_object(found) if training.schedule.processes > 1 else found)
    training.unreadable.clear()


def _agreed(training: Training, stop: bool, due: bool) -> tuple[bool, bool]:
    """Return what any of the processes wants: to stop, or to save, which is the first one's to say."""
    if training.schedule.processes == 1:
        return stop, due
    import torch

    accelerator = training.accelerator
    wishes = torch.tensor([stop, due and accelerator.is_main_process], device=accelerator.device).float()
    agreed = accelerator.reduce(wishes, "sum").tolist()
    return agreed[0] > 0, agreed[1] > 0
