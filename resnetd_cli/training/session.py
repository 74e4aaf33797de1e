"""A run from its beginning, or from where it stopped, to the model that it leaves behind."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.base import Examples
from resnetd_cli.datasets.splits import Divided
from resnetd_cli.errors import UsageError
from resnetd_cli.models import rehearsal
from resnetd_cli.training import effects, loop, network, parts, probe, provenance, sizes
from resnetd_cli.training.loader import (
    Evaluation,
    Images,
    Schedule,
    augmentation,
    evaluation_loader,
    seed_all,
    training_loader,
)
from resnetd_cli.training.network import Start
from resnetd_cli.training.rates import Rates
from resnetd_cli.training.recipe import Recipe
from resnetd_cli.training.run_folder import Progress, RunFolder
from resnetd_cli.training.workers import Batches, Workers, watched

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from timm.task import TrainingTask
    from torch import nn

    from resnetd_cli.training.loop import Monitor

SAVE_SECONDS = 300.0
"""Between checkpoints within an epoch; one is kept at the end of each anyway."""
_EVALUATION_BATCH = 32


@dataclass(frozen=True)
class Session:
    """A run.

    Attributes:
        folder: where it is kept.
        data: what it is trained and measured with.
        recipe: the settings.
        start: makes the network that it begins with, and tells how its images are prepared.
        facts: what it is trained from, for the summary.
        is_begun: the folder holds the recipe and the facts already.
        left_out: images that could not be read in the first pass, and why.
        trained_on: the marks of all images that the model will have been trained on; None: they are not kept.
        teacher: a network whose answers are learnt, too.
        workers: processes that load images.
        accelerator: devices, precision, processes.
        save_seconds: between checkpoints within an epoch.
        should_stop: tells whether the run was asked to stop.
        monitor: is told how it goes.
        note: is told what is worth knowing.
        arguments: the command line, which the run's record quotes.
        began: when the command started, by `time.monotonic`.
    """

    folder: RunFolder
    data: Divided
    recipe: Recipe
    start: Start
    facts: dict[str, Any]
    accelerator: Accelerator
    monitor: Monitor
    is_begun: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    trained_on: NDArray[np.uint8] | None = None
    teacher: nn.Module | None = None
    workers: int = 1
    save_seconds: float = SAVE_SECONDS
    should_stop: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = field(default=lambda _: None)
    arguments: Sequence[str] = ()
    began: float = field(default_factory=time.monotonic)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.data.train.classes

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> dict[str, Any] | None:
        """Train to the end and return the summary; None where the run was asked to stop before, and was saved.

        Raises:
            ModelError, DataError: see `loop.run`.
            OutputError: a file cannot be written.
        """
        if self.is_begun and (summary := self.folder.summary()):
            self.note("this run has ended already; --overwrite starts anew")
            return summary
        found = self.folder.load(self.folder.last) if self.is_begun else None
        progress, tensors = found or (Progress(), {})
        if found:
            progress.resumed += 1
        training = self.prepare(progress, tensors)
        if self.is_main:
            self._record_start(progress.step)
        if self.is_main and found and progress.rows and progress.best_epoch == progress.rows[-1]["epoch"]:
            self._mend_best(training, progress)
        with watched():
            has_ended = loop.run(training)
            if not has_ended:
                self._write_rows(progress)
            summary = self._finish(training) if has_ended else None
        if self.is_main:
            self.folder.end_start(time.monotonic() - self.began)
        return summary

    def _record_start(self, step: int) -> None:
        start = provenance.start(
            self.accelerator, began=self.began, step=step, workers=self.workers, arguments=self.arguments
        )
        if self.is_begun:
            self.folder.add_start(start, self.data, self.trained_on)
        else:
            facts = {**self.facts, "network": self.start.record(), "starts": [start]}
            self.folder.begin(self.recipe, facts, self.data, self.trained_on)

    def prepare(self, progress: Progress, tensors: dict[str, Any]) -> loop.Training:
        """Return what the loop works with, from a checkpoint's progress and tensors or from the start.

        Raises:
            UsageError: the recipe asks for what timm does not have, or the batch cannot be divided.
        """
        import torch

        recipe, accelerator, module = self.recipe, self.accelerator, self.start.module
        schedule = self.schedule(progress.step)
        least = self._fewest_images()
        module.to(accelerator.device)
        with suppress(RuntimeError):  # of networks that have weights of five dimensions
            # In this layout CPUs and tensor cores compute convolutions fastest.
            module.to(memory_format=torch.channels_last)
        if not self.is_begun:
            effects.check_network(self.facts.get("changes", {}), module, self.start.name)
        if not tensors:
            self._begin_classifier(module)
        network.set_dropping(module, recipe)
        groups = network.parameter_groups(module, recipe)
        task = parts.make_task(
            module, recipe, teacher=self.teacher, config=self.start.config, device=accelerator.device
        )
        if recipe.ema_decay is not None:
            task.setup_ema(decay=recipe.ema_decay, use_warmup=True)
        optimizer = parts.make_optimizer(groups, recipe)
        if tensors:
            _restore(task, optimizer, accelerator, tensors)
        task.trainable_module = accelerator.prepare_model(module)
        training = loop.Training(
            task=task,
            optimizer=accelerator.prepare_optimizer(optimizer),
            rates=Rates(recipe, schedule.steps_per_epoch),
            mixup=parts.make_mixup(recipe, len(self.classes)),
            schedule=schedule,
            fewest_images=least,
            train=training_loader(self._training_images(), schedule, self._workers),
            val=self._evaluation(self.data.val),
            input_size=self.start.preprocessing.input_size,
            accelerator=accelerator,
            recipe=recipe,
            progress=progress,
            save=lambda is_best: self._save(training, is_best=is_best),
            save_seconds=self.save_seconds,
            began=self.began,
            measures_start=recipe.head == "probe" and self.data.val is not None,
            should_stop=self.should_stop,
            monitor=self.monitor,
        )
        return training

    def schedule(self, first_step: int = 0) -> Schedule:
        """Return which images each step sees.

        Raises:
            UsageError: there are more processes than images in a step.
        """
        accelerator = self.accelerator
        share = accelerator.process_index, accelerator.num_processes
        return sizes.schedule(self.recipe, len(self.data.train), *share, first_step=first_step)

    def _fewest_images(self) -> int:
        """Return the fewest images that the network learns from at once.

        Raises:
            UsageError: the batches, or the parts that they are run in, have fewer.
        """
        start, recipe = self.start, self.recipe

        def learns_from(images: int) -> bool:
            size = start.preprocessing.input_size[1:]
            return rehearsal.learns_from(
                start.module, images, size, lambda module: network.set_training(module, recipe)
            )

        if learns_from(1) or not learns_from(2):  # what the loop itself will say of one that cannot be tried
            return 1
        sizes.check_parts(recipe, len(self.data.train), self.accelerator.num_processes, start.name)
        return 2

    @cached_property
    def _workers(self) -> Workers:
        """The processes that load images, by the size of the batches."""
        image = 4 * math.prod(self.start.preprocessing.input_size)
        batches = (image * self.schedule().micro_batch, image * _EVALUATION_BATCH)
        return Workers.fitting(self.workers, batches, self.accelerator.num_processes)

    def _begin_classifier(self, module: nn.Module) -> None:
        """Give the classifier its first weights, the same in all processes."""
        if self.recipe.head == "zero":
            for tensor in network.classifier_of(module).parameters():
                tensor.data.zero_()
        if self.recipe.head == "probe":
            if self.is_main:
                self._fit_classifier(module)
            if self.accelerator.num_processes > 1:
                from accelerate.utils import broadcast

                for tensor in network.classifier_of(module).parameters():
                    broadcast(tensor.data, from_process=0)

    def _fit_classifier(self, module: nn.Module) -> None:
        loader = evaluation_loader(self._images_to_measure(self.data.train), _EVALUATION_BATCH, self._workers)
        seed_all(self.recipe.seed)
        if not probe.begin(module, loader, len(self.classes), self.accelerator.device):
            message = f"the classifier of {self.start.name} cannot be fitted: it is not linear in pooled features"
            raise UsageError(message, hint="--set head=zero or random")
        self.note("the classifier begins fitted to the features")

    def _training_images(self) -> Images:
        return Images(self.data.train, augmentation(self.recipe, self.start.preprocessing), self.recipe.seed)

    def _images_to_measure(self, examples: Examples) -> Images:
        return Images(examples, Evaluation(self.start.preprocessing), self.recipe.seed)

    def _evaluation(self, examples: Examples | None) -> Batches | None:
        """Return this process's share of the images to measure with."""
        if examples is None or not len(examples):
            return None
        share = self.accelerator.process_index, self.accelerator.num_processes
        return evaluation_loader(self._images_to_measure(examples), _EVALUATION_BATCH, self._workers, *share)

    def _save(self, training: loop.Training, *, is_best: bool) -> None:
        if not self.is_main:
            return
        training.progress.seconds = training.seconds
        task, accelerator = training.task, training.accelerator
        tensors = {**task.get_checkpoint_state(), "optimizer": training.optimizer.state_dict()}
        if task.has_ema():
            tensors |= task.get_checkpoint_state(ema=True)
        if accelerator.scaler is not None:
            tensors["scaler"] = accelerator.scaler.state_dict()
        self.folder.save(training.progress, tensors, is_best=is_best)
        if is_best:
            self._write_model(training)
        self._write_rows(training.progress)

    def _mend_best(self, training: loop.Training, progress: Progress) -> None:
        """Do again what a kill after the best epoch's checkpoint may have prevented."""
        if progress.step == progress.rows[-1]["step"]:
            self.folder.keep_best()
            self._write_model(training)

    def _write_rows(self, progress: Progress) -> None:
        if self.is_main:
            self.folder.write_metrics(progress.rows)

    def _write_model(self, training: loop.Training) -> None:
        task = training.task
        module = network.unwrapped(task.get_eval_model(ema=task.has_ema()))
        self.folder.write_model(self.start, self.classes, module.state_dict())

    def _finish(self, training: loop.Training) -> dict[str, Any]:
        """Measure the model that is kept, and write what remains."""
        progress = training.progress
        best = progress.best
        assert best is not None
        test = self._test(training)
        if self.is_main:
            self._write_rows(progress)
            self.folder.write_curves(progress.rows, training.rates)
        summary: dict[str, Any] = {
            **self.facts,
            "classes": list(self.classes),
            "images": {name: len(part) for name, part in self.data.parts.items()},
            "images_trained": self._images_trained(progress),
            "images_seen": progress.images_seen,
            "epochs": self.recipe.epochs,
            "steps": progress.step,
            "best_epoch": progress.best_epoch,
            "selected_by": "val_top1" if best["val_top1"] is not None else "the last epoch",
            "val": {name: best[f"val_{name}"] for name in ("loss", "top1", "top5")} if self.data.val else None,
            "test": test,
            "train_loss": best["train_loss"],
            "seconds": round(training.seconds, 1),
            "resumed": progress.resumed,
            "unreadable": {**self.left_out, **progress.unreadable},
            "processes": self.accelerator.num_processes,
            "versions": provenance.versions(),
        }
        if self.is_main:
            self.folder.write_summary(summary)
        return summary

    def _images_trained(self, progress: Progress) -> int:
        """Return how many of the images for training could be read."""
        train = self.data.train
        names = map(train.name, range(len(train))) if progress.unreadable else ()
        return len(train) - sum(name in progress.unreadable for name in names)

    def _test(self, training: loop.Training) -> dict[str, float | None] | None:
        """Measure the test images once, with the weights that are kept."""
        loader = self._evaluation(self.data.test)
        if loader is None:
            return None
        self.accelerator.wait_for_everyone()  # the first process may still be writing it
        kept = self.folder.load(self.folder.best)
        if kept is not None:
            ema = training.task.has_ema()
            key = "state_dict_ema" if ema else "state_dict"
            training.task.load_checkpoint_state(kept[1][key], ema=ema)
        return loop.measure(training, loader)


def _restore(
    task: TrainingTask, optimizer: torch.optim.Optimizer, accelerator: Accelerator, tensors: dict[str, Any]
) -> None:
    """Give all that learns the state that a checkpoint kept."""
    task.load_checkpoint_state(tensors["state_dict"])
    if task.has_ema():
        task.load_checkpoint_state(tensors["state_dict_ema"], ema=True)
    optimizer.load_state_dict(tensors["optimizer"])
    if tensors.get("scaler") and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(tensors["scaler"])


def open_accelerator(device: str, precision: str) -> Accelerator:
    """Return Accelerate's handle on devices, precision and processes.

    Raises:
        UsageError: this machine has no such device.
    """
    from accelerate import Accelerator

    from resnetd_cli.pipeline.engines.pytorch import choose_device

    chosen = choose_device(device)
    if chosen.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(chosen)
    on_gpu = chosen.type == "cuda"
    if precision == "auto":
        precision = ("bf16" if _has_bf16() else "fp16") if on_gpu else "fp32"
    mixed = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}[precision]
    if mixed == "fp16" and not on_gpu:
        raise UsageError("fp16 training needs a GPU", hint="--set precision=bf16 or fp32")
    return Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed)


def _has_bf16() -> bool:
    import torch

    with suppress(RuntimeError, AssertionError):
        return bool(torch.cuda.is_bf16_supported())
    return False
