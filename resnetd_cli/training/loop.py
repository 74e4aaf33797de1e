"""The training loop: steps, epochs, validation, and when to save or stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext

from resnetd_cli.datasets.survey import MAX_UNREADABLE
from resnetd_cli.errors import DataError, ModelError, Reason
from resnetd_cli.training.batch import Batch
from resnetd_cli.training.best_epoch import is_best
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.learner import Answers, Learner
from resnetd_cli.training.loader import Loaders
from resnetd_cli.training.progress import EpochRow, EpochSums, Progress
from resnetd_cli.training.randomness import mixed_seed, seed_all
from resnetd_cli.training.saving import Saver

_COLLECT_STEPS = 20


class Loop:
    """Trains to the end of a run, from its first step or from where it was stopped.

    Args:
        learner: what learns.
        loaders: make the batches.
        progress: how far the run is; it is kept up to date.
        saver: writes checkpoints.
        callbacks: how the run reports, and how it is asked to stop.
    """

    def __init__(
        self, learner: Learner, loaders: Loaders, progress: Progress, saver: Saver, callbacks: Callbacks
    ) -> None:
        import torch

        self.learner, self.progress = learner, progress
        self._sampler, self._accelerator = learner.sampler, learner.accelerator
        self._saver, self._callbacks = saver, callbacks
        self.batches = loaders.training(self._sampler)
        self._val = loaders.evaluation(loaders.data.val)
        self._began = callbacks.began - progress.seconds
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._accelerator.device)
        """Sums of loss, correct answers and images, since they were last collected."""
        self._unreadable: dict[str, str] = {}
        """Images that could not be read since then, and why."""

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, with that of the processes it was resumed from."""
        return time.monotonic() - self._began

    def run(self) -> bool:
        """Train to the end; return False if the run was asked to stop before, and was saved.

        Raises:
            ModelError: the loss is not a number.
            DataError: too many images cannot be read.
        """
        progress, sampler, recipe = self.progress, self._sampler, self.learner.recipe
        batches = iter(self.batches)
        self._callbacks.monitor.begin(recipe.epochs, sampler.steps_per_epoch, sampler.images, progress)
        if recipe.head == "probe" and self._val is not None and not progress.rows:
            # A fitted classifier may be better than anything that training makes of it.
            self._end_row({"lr": None, "train_loss": None, "train_top1": None})
        while progress.step < sampler.steps:
            rate = self.step(batches)
            self._callbacks.monitor.step(progress, rate)
            stop, is_due = self._agreed(self._callbacks.should_stop(), self._saver.is_due())
            if progress.step % sampler.steps_per_epoch == 0:
                self._end_epoch(rate)
            elif stop or is_due:
                self._collect()
                self._save(is_best=False)
            if stop and progress.step < sampler.steps:
                return False
        return True

    def step(self, batches: Iterator[Batch]) -> float:
        """Update the weights once, and return the learning rate of the head."""
        learner, sampler, progress = self.learner, self._sampler, self.progress
        rate = learner.apply_rate(progress.step)
        for left in reversed(range(sampler.micro_batches_per_step)):
            batch = next(batches)
            self._unreadable.update({failure.input: failure.message for failure in batch.failures})
            # Seeded here: loading the images may have used the generators.
            seed_all(mixed_seed(sampler.seed, -1, progress.step, sampler.process, left))
            with learner.accumulating() if left else nullcontext():
                if (answers := learner.backward(batch, progress.step)) is not None:
                    self._count(answers)
        learner.update(progress.step + 1)
        progress.step += 1
        is_cheap = self._accelerator.device.type == "cpu" and sampler.processes == 1
        if is_cheap or progress.step % _COLLECT_STEPS == 0:  # otherwise the device would have to wait
            self._collect()
        return rate

    def _end_epoch(self, rate: float) -> None:
        """Check the loss and the unreadable images of an epoch, then end its row. `rate`: of the last step."""
        progress = self.progress
        self._collect()
        if not math.isfinite(progress.epoch.loss):
            raise ModelError("the loss is no longer a number", reason=Reason.LOSS_NOT_A_NUMBER)
        if len(progress.unreadable) > MAX_UNREADABLE * self._sampler.images:
            count, (first, reason) = len(progress.unreadable), next(iter(progress.unreadable.items()))
            raise DataError(
                f"{count} of {self._sampler.images} images cannot be decoded, the first is {first}: {reason}",
                hint=f"repair or remove them: up to {MAX_UNREADABLE:.0%} of a split is left out",
            )
        sums, progress.epoch = progress.epoch, EpochSums()
        self._end_row({"lr": rate, "train_loss": sums.mean_loss, "train_top1": sums.top1})

    def _end_row(self, trained: EpochRow) -> None:
        """Validate the weights, add a row, and save them: as the best, if they are."""
        progress = self.progress
        val = {f"val_{name}": value for name, value in self.learner.measure(self._val, self._unreadable).items()}
        self._collect()  # what could not be read of val
        row: EpochRow = {"epoch": progress.step // self._sampler.steps_per_epoch, "step": progress.step}
        row |= {**trained, **val, "seconds": round(self.seconds, 1)}
        best_so_far = is_best(row, progress.best)
        progress.rows.append(row)
        if best_so_far:
            progress.best_epoch = row["epoch"]
        self._save(is_best=best_so_far)
        self._callbacks.monitor.epoch(row, is_best=best_so_far)

    def _save(self, *, is_best: bool) -> None:
        self.progress.seconds = self.seconds
        self._saver.save(self.learner, self.progress, is_best=is_best)

    def _count(self, answers: Answers) -> None:
        """Add a micro-batch to the sums; the correct class of a mixed image is that of its larger part."""
        import torch

        loss, logits, targets = answers
        truth = targets.argmax(1) if targets.ndim == 2 else targets
        correct = (logits.argmax(1) == truth).sum()
        counted = [loss.double() * len(targets), correct.double(), loss.new_tensor(len(targets)).double()]
        self._sums += torch.stack(counted)

    def _collect(self) -> None:
        """Add to the progress what all processes saw since the last time."""
        from accelerate.utils import gather_object

        progress = self.progress
        loss, correct, seen = self._accelerator.reduce(self._sums, "sum").tolist()
        progress.epoch.loss += loss
        progress.epoch.correct += int(correct)
        progress.epoch.seen += int(seen)
        progress.images_seen += int(seen)
        self._sums.zero_()
        found = list(self._unreadable.items())
        progress.unreadable.update(gather_object(found) if self._sampler.processes > 1 else found)
        self._unreadable.clear()

    def _agreed(self, stop: bool, is_due: bool) -> tuple[bool, bool]:
        """Return what the processes agree on: to stop if any was asked to, to save if the first one says so."""
        if self._sampler.processes == 1:
            return stop, is_due
        import torch

        accelerator = self._accelerator
        wishes = torch.tensor([stop, is_due and accelerator.is_main_process], device=accelerator.device).float()
        agreed = accelerator.reduce(wishes, "sum").tolist()
        return agreed[0] > 0, agreed[1] > 0
