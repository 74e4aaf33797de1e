"""One training run from beginning to end: images, network, training, test, summary. Start reading here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.models.hub import Downloads
from resnetd_cli.system.cpus import usable_cpus
from resnetd_cli.training import checkpoint, ineffective, network, processes, provenance, resume, run_record
from resnetd_cli.training.accelerator import open_accelerator
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.data import RunData, find_images, marks_trained_on
from resnetd_cli.training.head_init import init_head
from resnetd_cli.training.learner import Learner, fewest_images, to_device
from resnetd_cli.training.loader import Loaders
from resnetd_cli.training.loop import Loop
from resnetd_cli.training.plan import FINETUNE, Plan
from resnetd_cli.training.progress import Progress
from resnetd_cli.training.recipe import Recipe
from resnetd_cli.training.recipe_choice import adapted_recipe, asked_recipe
from resnetd_cli.training.run_folder import RunFolder
from resnetd_cli.training.run_record import RunRecord
from resnetd_cli.training.saving import Saver
from resnetd_cli.training.teacher import load_teacher
from resnetd_cli.training.workers import watched

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from resnetd_cli.training.network import TrainableNetwork
    from resnetd_cli.training.provenance import Origin

FindImages = Callable[[], RunData]
Summary = dict[str, Any]


def execute(
    plan: Plan, callbacks: Callbacks, base: Recipe | None = None, find: FindImages | None = None
) -> Summary | None:
    """Carry out a plan in one run, as one of its processes, and return the summary.

    Args:
        plan: what the user asked for.
        callbacks: how the run reports, and how it is asked to stop.
        base: the recipe without the plan's changes, if it is already loaded.
        find: returns the images, if several runs share them.

    Returns:
        None if the run was asked to stop before its end, and was saved.

    Raises:
        ResnetdError: something is wrong with the plan, the images, the network or the folder.
    """
    _refuse_exported(plan)
    folder = RunFolder(plan.output.folder, replacing=callbacks.replacing)
    before = run_record.read(folder) if plan.output.resume else None
    if before:
        plan, recipe = resume.as_started(plan, before), before.recipe
    else:
        has_teacher, count = plan.network.teacher is not None, processes.process_count()
        recipe = asked_recipe(plan.recipe, plan.command, has_teacher=has_teacher, processes=count, base=base)
    accelerator = open_accelerator(plan.runtime.device, recipe.precision)
    is_main = bool(accelerator.is_main_process)
    if is_main:
        if not before:
            check_not_replaced(plan)
        folder.make(resume=plan.output.resume, overwrite=plan.output.overwrite)
    with folder.claimed() if is_main else nullcontext():
        accelerator.wait_for_everyone()
        data = find() if find else find_images(plan, recipe.seed, callbacks)
        if before:
            resume.check_images(before.facts, data.survey.fingerprint, plan.data.location, callbacks.note)
        else:
            images = len(data.divided.train)
            recipe = adapted_recipe(recipe, plan.recipe, plan.command, images, callbacks.note)
        return _Run(plan, recipe, folder, before, data, accelerator, callbacks).carry_out()


def check_not_replaced(plan: Plan) -> None:
    """Refuse to replace a run by one that starts from it.

    Raises:
        UsageError: it would be replaced.
    """
    run = plan.output.folder.resolve()
    chosen = plan.network
    made_from = [choice.model.path for choice in (chosen.model_choice, chosen.teacher_choice) if choice]
    for path in filter(None, (*made_from, chosen.weights)):
        if run in (path.resolve(), *path.resolve().parents):
            message = f"the run in {plan.output.folder} would replace what it starts from: {path}"
            raise UsageError(message, reason=Reason.REPLACES_ITS_ORIGIN)


def _refuse_exported(plan: Plan) -> None:
    for choice in filter(None, (plan.network.model_choice, plan.network.teacher_choice)):
        if choice.model.is_exported:
            message = f"{choice.model} is an exported file, which cannot be trained"
            raise UsageError(message, hint="name what it came from")


@dataclass(frozen=True)
class _Run:
    """A run whose images are known.

    Attributes:
        plan: what the user asked for.
        recipe: adapted to the images.
        folder: where the run is kept.
        before: what the run being resumed was started with; None: this run is new.
        data: the images.
        accelerator: device, precision, processes.
        callbacks: how the run reports, and how it is asked to stop.
    """

    plan: Plan
    recipe: Recipe
    folder: RunFolder
    before: RunRecord | None
    data: RunData
    accelerator: Accelerator
    callbacks: Callbacks

    @property
    def _is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self.accelerator.is_main_process)

    def carry_out(self) -> Summary | None:
        """Train to the end and return the summary; None if the run was asked to stop before, and was saved."""
        trainable, teacher, facts = self._load_networks()
        marks = marks_trained_on(self.plan, self.data.divided, self.callbacks.note)
        if self.before and (summary := self.folder.summary()):
            self.callbacks.note("this run has already ended; overwrite it to start anew")
            return summary
        saved = checkpoint.load(self.folder.last) if self.before else None
        progress, tensors = saved or (Progress(), {})
        if saved:
            progress.resumed += 1

        workers = _worker_count(self.plan, self.accelerator.num_processes)
        loaders = Loaders(self.data.divided, self.recipe, trainable.preprocessing, self.accelerator, workers)
        learner = self._learner(trainable, teacher, loaders, progress, tensors)
        saver = Saver(self.folder, trainable, self._classes, self._is_main, self.plan.runtime.save_seconds)
        loop = Loop(learner, loaders, progress, saver, self.callbacks)

        if self._is_main:
            began = provenance.describe_start(
                self.accelerator,
                began=self.callbacks.began,
                step=progress.step,
                workers=workers,
                arguments=self.plan.arguments,
            )
            if self.before:
                run_record.add_start(self.folder, began, self.data.divided, marks)
            else:
                record = RunRecord(self.recipe, {**facts, "network": trainable.record(), "starts": [began]})
                run_record.write(self.folder, record, self.data.divided, marks)
        saver.finish_best(learner, progress)

        with watched():
            has_ended = loop.run()
            saver.write_rows(progress)
            summary = self._finish(loop, loaders, facts) if has_ended else None
        if self._is_main:
            run_record.end_start(self.folder, time.monotonic() - self.callbacks.began)
        return summary

    @property
    def _classes(self) -> tuple[str, ...]:
        return self.data.divided.train.classes

    def _load_networks(self) -> tuple[TrainableNetwork, nn.Module | None, dict[str, Any]]:
        """Return the network, the teacher, and the facts of the run for `run.json` and the summary.

        Raises:
            UsageError: the model or the teacher has changed since the run started.
        """
        plan, before, classes = self.plan, self.before, len(self._classes)
        downloads = Downloads(plan.runtime.offline, self.callbacks.download_bar)
        if before and self.folder.last.is_file():  # a checkpoint has the weights
            trainable = network.rebuilt(before.facts["network"], classes, self.recipe)
        elif plan.command == FINETUNE:
            trainable = network.pretrained(plan.network, classes, self.recipe, downloads)
        else:
            trainable = network.untrained(plan.network, classes, self.recipe)
        teacher, teacher_files = None, None
        if plan.network.teacher_choice is not None:
            loaded = load_teacher(plan.network.teacher_choice, self._classes, plan.data.location, downloads)
            teacher, teacher_files = loaded.module, provenance.origin(loaded)
        files: dict[str, Origin | None] = {"model_files": trainable.files, "teacher_files": teacher_files}
        if before:
            resume.check_files(before.facts, trainable.files, teacher_files)
            files = {key: before.facts.get(key) for key in files}
        facts = {
            **resume.facts_of(plan),
            "split_seed": self.data.split_seed,
            "changes": dict(plan.recipe.changes),
            "data_sha256": self.data.survey.fingerprint,
            **files,
        }
        return trainable, teacher, facts

    def _learner(
        self,
        trainable: TrainableNetwork,
        teacher: nn.Module | None,
        loaders: Loaders,
        progress: Progress,
        tensors: Mapping[str, Any],
    ) -> Learner:
        """Return the learner, with the weights of the checkpoint, or with the first weights of its classifier.

        Raises:
            UsageError: the recipe asks for what timm or the network does not have, or the batch cannot be divided.
        """
        recipe, accelerator = self.recipe, self.accelerator
        sampler = loaders.sampler(progress.step)
        fewest = fewest_images(trainable, recipe, sampler.images, accelerator.num_processes)
        to_device(trainable.module, accelerator.device)
        if not self.before:
            ineffective.check_network(self.plan.recipe.changes, trainable.module, trainable.name)
        if not tensors:
            init_head(trainable, recipe, accelerator, loaders.features, self.callbacks.note)
        return Learner(
            trainable, recipe, accelerator, sampler, fewest_images=fewest, teacher=teacher, checkpoint=tensors
        )

    def _finish(self, loop: Loop, loaders: Loaders, facts: Mapping[str, Any]) -> Summary:
        """Test the model that is kept, and write the summary."""
        progress, divided = loop.progress, self.data.divided
        best = progress.best
        assert best is not None
        test = self._test(loop.learner, loaders)
        if self._is_main:
            self.folder.write_curves(progress.rows, loop.learner.rate)
        unreadable = {failure.input: failure.message for failure in self.data.survey.unreadable}
        summary: Summary = {
            **facts,
            "classes": list(self._classes),
            "images": {name: len(part) for name, part in divided.parts.items()},
            "images_trained": self._images_trained(progress),
            "images_seen": progress.images_seen,
            "epochs": self.recipe.epochs,
            "steps": progress.step,
            "best_epoch": progress.best_epoch,
            "selected_by": "val_top1" if best["val_top1"] is not None else "the last epoch",
            "val": {name: best[f"val_{name}"] for name in ("loss", "top1", "top5")} if divided.val else None,
            "test": test,
            "train_loss": best["train_loss"],
            "seconds": round(loop.seconds, 1),
            "resumed": progress.resumed,
            "unreadable": {**unreadable, **progress.unreadable},
            "processes": self.accelerator.num_processes,
            "versions": provenance.versions(),
        }
        if self._is_main:
            self.folder.write_summary(summary)
        return summary

    def _images_trained(self, progress: Progress) -> int:
        """Return how many of the training images could be read."""
        train = self.data.divided.train
        names = map(train.name, range(len(train))) if progress.unreadable else ()
        return len(train) - sum(name in progress.unreadable for name in names)

    def _test(self, learner: Learner, loaders: Loaders) -> dict[str, float | None] | None:
        """Measure the test images once, with the weights that are kept."""
        batches = loaders.evaluation(self.data.divided.test)
        if batches is None:
            return None
        self.accelerator.wait_for_everyone()  # the first process may still be writing them
        if kept := checkpoint.load(self.folder.best):
            learner.load_weights(kept[1])
        return learner.measure(batches, {})


def _worker_count(plan: Plan, processes: int) -> int:
    """Return how many processes load images for each training process."""
    wanted = plan.runtime.workers
    return max(1, min(8, usable_cpus() // processes)) if wanted is None else wanted
