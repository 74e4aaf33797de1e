"""From what the user asked for to a session that is ready to run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.class_names import matching
from resnetd_cli.compiled.exported_file import is_exported
from resnetd_cli.datasets.base import open_dataset
from resnetd_cli.datasets.examples import TEST, VAL
from resnetd_cli.datasets.groups import grouped_by
from resnetd_cli.datasets.looks import Sharing
from resnetd_cli.datasets.splits import DEFAULT_FRACTION, Divided, divide
from resnetd_cli.datasets.survey import Survey, survey
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.models import names, trained_on
from resnetd_cli.models.network import load_network
from resnetd_cli.results import Failure
from resnetd_cli.system.cpus import usable_cpus
from resnetd_cli.system.wording import counted
from resnetd_cli.training import effects, network, provenance, sizes
from resnetd_cli.training.recipe import Recipe, load_recipe
from resnetd_cli.training.run_folder import RunFolder, absolute
from resnetd_cli.training.session import Session, open_accelerator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from resnetd_cli.datasets.base import Dataset, Examples
    from resnetd_cli.training.loop import Monitor
    from resnetd_cli.training.network import Start
    from resnetd_cli.training.provenance import Origin

Look = Callable[[], tuple[Divided, Survey]]
FINETUNE, TRAIN = "finetune", "train"
_NEVER = object()


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    Attributes:
        command: `finetune` or `train`.
        data: where the labelled images are.
        folder: of the run.
        model: the MODEL to begin with, or to build anew.
        recipe: the name of a recipe, or a file.
        changes: settings in place of the recipe's.
        weights: a checkpoint in place of the model's own.
        image_size: as for `predict`.
        teacher: a MODEL whose answers are learnt, too.
        val_share: of the images that is held back, where the data has no split of its own.
        group_by: a regular expression for images' names: those in which it finds the same stay together.
        split_seed: which images those are; None for the recipe's seed.
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: processes that load images, for each that trains; None for as many as suit.
        save_seconds: between checkpoints within an epoch.
        resume: go on with the run that is in the folder.
        overwrite: replace it.
        offline: use only weights that are on this machine.
        seeds: train so many times, with as many seeds; None for one run, or as many as the one that is resumed.
        arguments: the command line, which the run's record quotes.
    """

    command: str
    data: str
    folder: Path
    model: str | None = None
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    image_size: str | None = None
    teacher: str | None = None
    val_share: float | None = None
    group_by: str | None = None
    split_seed: int | None = None
    device: str = "auto"
    workers: int | None = None
    save_seconds: float = 300.0
    resume: bool = False
    overwrite: bool = False
    offline: bool = False
    seeds: int | None = None
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Surroundings:
    """How a session reports while it runs, and how it is asked to stop.

    Attributes:
        monitor: is told how it goes.
        note: is told what is worth knowing.
        should_stop: tells whether the run was asked to stop.
        surveying: is told how many images were looked at in the first pass, and of how many.
        unreadable: is told of each image that cannot be read.
        surveyed: is told what the first pass found.
        progress: a tqdm class for downloads' bars.
        began: when the command started, by `time.monotonic`.
        replacing: is called just before the run's first files are written.
    """

    monitor: Monitor
    note: Callable[[str], None]
    should_stop: Callable[[], bool]
    surveying: Callable[[int, int], object] = lambda done, total: None
    unreadable: Callable[[Failure], object] = lambda failure: None
    surveyed: Callable[[Survey, Divided], object] = lambda found, divided: None
    progress: type[Any] | None = None
    began: float = field(default_factory=time.monotonic)
    replacing: Callable[[], object] = lambda: None


def execute(
    plan: Plan, around: Surroundings, base: Recipe | None = None, look: Look | None = None
) -> dict[str, Any] | None:
    """Do what a plan says in one run, as one of its processes, and return the summary.

    Args:
        plan: what the user asked for.
        around: how the run reports, and how it is asked to stop.
        base: the recipe without the plan's changes, where it was loaded before.
        look: gives the images, where other runs use them too.

    Returns:
        None where the run was asked to stop before its end, and was saved.

    Raises:
        ResnetdError: see `RunFolder`, `open_dataset`, `recipe.load`, `network` and `Session.run`.
    """
    for model in filter(None, (plan.model, plan.teacher)):
        if is_exported(model):
            raise UsageError(
                f"{model} is an exported file, which cannot be trained", hint="name what it came from"
            )
    folder = RunFolder(plan.folder, replacing=around.replacing)
    started = folder.begun() if plan.resume else None
    if started:
        plan = as_begun(plan, *started)
    recipe = started[0] if started else asked_recipe(plan, int(os.environ.get("WORLD_SIZE", "1")), base)
    accelerator = open_accelerator(plan.device, recipe.precision)
    if accelerator.is_main_process:
        if not started:
            check_spared(plan)
        folder.make(resume=plan.resume, overwrite=plan.overwrite)
    with folder.claimed() if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        data, found = look() if look else look_at_images(plan, recipe.seed, around)
        before = started[1] if started else None
        if before is None:
            recipe = _fitted(recipe, plan, len(data.train), around)
        else:
            _check_data(before, found.fingerprint, plan.data, around)
        classes = data.train.classes
        is_loaded = not (before and folder.last.is_file())  # a checkpoint has the weights
        start = (
            _network(plan, recipe, classes, around)
            if before is None or is_loaded
            else network.again(before["network"], len(classes), recipe)
        )
        teacher = _teacher(plan, classes, around)
        origins = _origins(plan, before, is_loaded=is_loaded)
        facts = {
            **_facts(plan),
            "split_seed": None if _own_splits(found.dataset) else _split_seed(plan, recipe.seed),
            "changes": dict(plan.changes),
            "data_sha256": found.fingerprint,
            **origins,
        }
        return Session(
            folder=folder,
            data=data,
            recipe=recipe,
            start=start,
            facts=facts,
            accelerator=accelerator,
            monitor=around.monitor,
            teacher=teacher,
            workers=_workers(accelerator.num_processes) if plan.workers is None else plan.workers,
            save_seconds=plan.save_seconds,
            should_stop=around.should_stop,
            note=around.note,
            is_begun=started is not None,
            left_out={failure.input: failure.message for failure in found.unreadable},
            arguments=plan.arguments,
            began=around.began,
            trained_on=_trained_on(plan, data.train, around.note),
        ).run()


def asked_recipe(plan: Plan, processes: int = 1, base: Recipe | None = None) -> Recipe:
    """Return the recipe that a plan asks for, whatever the images.

    Args:
        plan: what the user asked for.
        processes: that train.
        base: the recipe without the plan's changes, where it was loaded before.

    Raises:
        UsageError: there is none of this name, or a setting that was asked for would have no effect.
    """
    recipe = (base or load_recipe(recipe_name(plan))).replace(plan.changes)
    if recipe_name(plan) == sizes.FINETUNE or "epochs" in plan.changes:
        most = None if recipe_name(plan) == sizes.FINETUNE else recipe.warmup_epochs
        recipe = sizes.warming_up(recipe, plan.changes, most)
    effects.check(plan.changes, effects.Asked(recipe, plan.teacher is not None, processes))
    return recipe


def _fitted(recipe: Recipe, plan: Plan, images: int, around: Surroundings) -> Recipe:
    """Return the recipe with what follows from the number of images."""
    if recipe_name(plan) == sizes.FINETUNE:
        recipe = sizes.finetuning(recipe, images, plan.changes)
    evened = sizes.even(recipe, images)
    if "batch_size" in plan.changes and evened != recipe:
        steps = counted(math.ceil(images / evened.batch_size), "step", ",")
        around.note(f"{images:,} images, spread evenly, make {steps} of at most {evened.batch_size:,} an epoch")
    if evened.warmup_epochs >= evened.epochs:
        around.note(f"the rate only rises: --set warmup_epochs={evened.epochs / 10:g} shortens the warm-up")
    return evened


def check_spared(plan: Plan) -> None:
    """Refuse to replace a run by one that is made from it.

    Raises:
        UsageError: it would be.
    """
    run = plan.folder.resolve()
    made_from = [names.local_path(model) for model in (plan.model, plan.teacher) if model]
    for path in filter(None, (*made_from, plan.weights)):
        if run in (path.resolve(), *path.resolve().parents):
            message = f"the run in {plan.folder} would replace what it starts from: {path}"
            raise UsageError(message, hint="name another folder with -o")


def recipe_name(plan: Plan) -> str:
    """Return the name of the recipe, or its file."""
    return plan.recipe or (sizes.FINETUNE if plan.command == FINETUNE else "bag-of-tricks")


def as_begun(plan: Plan, recipe: Recipe, facts: Mapping[str, Any]) -> Plan:
    """Return the plan of the run that is resumed; what is asked for now may not differ from it.

    Raises:
        UsageError: it does.
    """
    facts = {"split_seed": None, **facts}
    asked = {key: value for key, value in _facts(plan).items() if value is not None}
    differences = [f"{key} {facts.get(key)}, not {asked[key]}" for key in asked if asked[key] != facts.get(key)]
    # A setting may have been asked for before and then fitted to the data.
    before = facts.get("changes", {})
    changes = {name: value for name, value in plan.changes.items() if before.get(name, _NEVER) != value}
    differences += recipe.differences(recipe.replace(changes))
    if differences:
        message = f"{plan.folder} was started with {'; '.join(differences)}"
        raise UsageError(message, hint="leave out what differs, or start anew with --overwrite")
    kept = ("data", "model", "image_size", "teacher", "recipe", "val_share", "group_by", "split_seed")
    started: dict[str, Any] = {key: facts.get(key) for key in kept}
    return replace(plan, weights=Path(facts["weights"]) if facts["weights"] else None, **started)


def _facts(plan: Plan) -> dict[str, Any]:
    """Return what a run was asked to be made from, beside its recipe."""
    return {
        "command": plan.command,
        "data": absolute(plan.data),
        "model": plan.model,
        "weights": str(plan.weights.absolute()) if plan.weights else None,
        "image_size": plan.image_size,
        "teacher": plan.teacher,
        "recipe": plan.recipe,
        "val_share": plan.val_share,
        "group_by": plan.group_by,
        "split_seed": plan.split_seed,
    }


def _split_seed(plan: Plan, seed: int) -> int:
    return seed if plan.split_seed is None else plan.split_seed


def _check_data(before: Mapping[str, Any], data_sha256: str, data: str, around: Surroundings) -> None:
    """Refuse other images than those that a run started with.

    Raises:
        DataError: they are others.
    """
    if "data_sha256" not in before:
        around.note("an older resnetd started this run: whether its images are still the same is not checked")
    elif before["data_sha256"] != data_sha256:
        message = f"the images in {data} are not those that the run started with"
        raise DataError(message, hint="put them back, or start anew with --overwrite")


def _origins(plan: Plan, before: Mapping[str, Any] | None, *, is_loaded: bool) -> dict[str, Origin | None]:
    """Return the files of the model that the run starts with and of its teacher, as they were at its start.

    Args:
        plan: of the run.
        before: its facts, where it is resumed: those of older versions lack the files.
        is_loaded: the model was loaded just now.

    Raises:
        UsageError: one of them has changed.
    """
    now: dict[str, Origin | None] = {"model_files": None, "teacher_files": None}
    if plan.command == FINETUNE and is_loaded:
        model = plan.model or names.DEFAULT_MODEL
        now["model_files"] = provenance.origin(model, weights=plan.weights, offline=plan.offline)
    if plan.teacher:
        now["teacher_files"] = provenance.origin(plan.teacher, offline=plan.offline)
    if before is None:
        return now
    for key, what in (("model_files", "the model it started with"), ("teacher_files", "its teacher")):
        if before.get(key):
            provenance.check(what, before[key], now[key])
    return {key: before.get(key) for key in now}


def look_at_images(plan: Plan, seed: int, around: Surroundings) -> tuple[Divided, Survey]:
    """Return the images that are trained and measured with, and what the first pass found."""
    dataset = open_dataset(plan.data, offline=plan.offline)
    if plan.group_by is not None:
        dataset = grouped_by(dataset, plan.group_by)
    found = survey(
        dataset,
        workers=max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        progress=around.surveying,
        tell=around.unreadable,
        sharing=_sharing(),
    )
    for option, value in (("--val-share", plan.val_share), ("--split-seed", plan.split_seed)):
        if value is not None and (given := _own_splits(found.dataset)):
            message = f"{option} would have no effect: {plan.data} has {' and '.join(given)} of its own"
            raise UsageError(message, hint="leave it out")
    share = DEFAULT_FRACTION if plan.val_share is None else plan.val_share
    divided = divide(found.dataset, fraction=share, seed=_split_seed(plan, seed))
    around.surveyed(found, divided)
    return divided, found


def _own_splits(dataset: Dataset) -> list[str]:
    """Return the splits that a data set has of its own beside `train`."""
    return sorted(dataset.splits.keys() & {VAL, TEST})


def _sharing() -> Sharing:
    """Return how the processes of this run share the first pass."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    return Sharing(state.process_index, state.num_processes, lambda own: gather_object([own]))


def _trained_on(plan: Plan, train: Examples, note: Callable[[str], None]) -> NDArray[np.uint8] | None:
    """Return the marks of all images that the model will have been trained on; None for too many to keep.

    They are those of this run and of the runs before it, but not what other models and the teacher learnt from.
    """
    marks = trained_on.together(train.known_marks(), *_trained_on_before(plan, note))
    if len(marks) <= trained_on.MOST:
        return marks
    message = f"{len(marks):,} images are trained on, and marks of {trained_on.MOST:,} are kept at the most"
    note(f"{message}: the model will not know them again when it is evaluated")
    return None


def _trained_on_before(plan: Plan, note: Callable[[str], None]) -> Iterator[NDArray[np.uint8]]:
    """Yield the marks of the images that the starting weights were trained on, where they are known."""
    if plan.command == TRAIN:
        return
    model = plan.model or names.DEFAULT_MODEL
    marks, is_run = trained_on.known(model, plan.weights)
    if marks is not None:
        yield marks
    elif is_run:
        note(f"{plan.weights or model} does not say which images it was trained on: they will count as new ones")


def _network(plan: Plan, recipe: Recipe, classes: tuple[str, ...], around: Surroundings) -> Start:
    model, image_size = plan.model or names.DEFAULT_MODEL, plan.image_size or "train"
    if plan.command == TRAIN:
        return network.untrained(model, len(classes), recipe, image_size=image_size)
    return network.pretrained(
        model,
        len(classes),
        recipe,
        weights=plan.weights,
        image_size=image_size,
        offline=plan.offline,
        progress=around.progress,
    )


def _teacher(plan: Plan, classes: tuple[str, ...], around: Surroundings) -> nn.Module | None:
    """Return the network of the teacher, its answers in the order of the classes.

    Raises:
        UsageError: it does not tell the same classes apart.
    """
    if plan.teacher is None:
        return None
    teacher = load_network(plan.teacher, offline=plan.offline, progress=around.progress)
    try:
        order = matching.match(classes, teacher.class_names).indices
    except DataError:
        order = []
    if sorted(order) != list(range(len(teacher.class_names))):
        message = f"{plan.teacher} does not tell the same classes apart as {plan.data}"
        raise UsageError(message, hint="finetune it on the same images first, and name its run")
    network.reorder(teacher.module, order)
    return teacher.module


def _workers(processes: int) -> int:
    """Return how many processes load images for each that trains."""
    return max(1, min(8, usable_cpus() // processes))
