"""From what the user asked for to a session that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli import factory, matching, models
from resnetd_cli.cpus import usable_cpus
from resnetd_cli.datasets import open_dataset
from resnetd_cli.datasets.splits import DEFAULT_FRACTION, Divided, divide
from resnetd_cli.datasets.survey import Survey, survey
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.exported import is_exported
from resnetd_cli.results import Failure
from resnetd_cli.training import network, sizes
from resnetd_cli.training import recipe as recipes
from resnetd_cli.training.recipe import Recipe
from resnetd_cli.training.run_folder import RunFolder, absolute
from resnetd_cli.training.session import Session, open_accelerator

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.training.loop import Monitor
    from resnetd_cli.training.network import Start

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
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: processes that load images, for each that trains; None for as many as suit.
        save_seconds: between checkpoints within an epoch.
        resume: go on with the run that is in the folder.
        overwrite: replace it.
        offline: use only weights that are on this machine.
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
    device: str = "auto"
    workers: int | None = None
    save_seconds: float = 300.0
    resume: bool = False
    overwrite: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What a session is told by, and tells, while it runs.

    Attributes:
        monitor: is told how it goes.
        note: is told what is worth knowing.
        should_stop: tells whether the run was asked to stop.
        surveying: is told how many images were looked at in the first pass, and of how many.
        unreadable: is told of each image that cannot be read.
        surveyed: is told what the first pass found.
        progress: a tqdm class for downloads' bars.
    """

    monitor: Monitor
    note: Callable[[str], None]
    should_stop: Callable[[], bool]
    surveying: Callable[[int, int], object] = lambda done, total: None
    unreadable: Callable[[Failure], object] = lambda failure: None
    surveyed: Callable[[Survey, Divided], object] = lambda found, divided: None
    progress: type[Any] | None = None


def execute(plan: Plan, around: Surroundings) -> dict[str, Any] | None:
    """Do what a plan says, as one of the processes of a run, and return the summary.

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
    folder = RunFolder(plan.folder)
    begun = folder.begun() if plan.resume else None
    if begun:
        plan = _as_begun(plan, *begun)
    recipe = begun[0] if begun else recipes.load(recipe_name(plan)).replace(plan.changes)
    accelerator = open_accelerator(plan.device, recipe.precision)
    if accelerator.is_main_process:
        if not begun:
            _check_spared(plan)
        folder.make(resume=plan.resume, overwrite=plan.overwrite)
    with folder.claimed() if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        data, found = _data(plan, recipe.seed, around)
        if begun is None:
            if recipe_name(plan) == sizes.FINETUNE:
                recipe = sizes.finetuning(recipe, len(data.train), plan.changes)
            recipe = sizes.within(recipe, len(data.train), accelerator.num_processes)
            if recipe.warmup_epochs >= recipe.epochs > 1:
                around.note(
                    f"the rate only rises: --set warmup_epochs={recipe.epochs // 10 or 1} shortens the warm-up"
                )
        start = (
            network.again(begun[1]["network"], len(data.train.classes), recipe)
            if begun and folder.last.is_file()
            else _network(plan, recipe, data.train.classes, around)
        )
        facts = {**_facts(plan, found.fingerprint), "changes": dict(plan.changes)}
        if begun:
            _check_same(begun[1], facts)
        return Session(
            folder=folder,
            data=data,
            recipe=recipe,
            start=start,
            facts=facts,
            accelerator=accelerator,
            monitor=around.monitor,
            teacher=_teacher(plan, data.train.classes, around),
            workers=_workers(accelerator.num_processes) if plan.workers is None else plan.workers,
            save_seconds=plan.save_seconds,
            should_stop=around.should_stop,
            note=around.note,
            is_begun=begun is not None,
            left_out={failure.input: failure.message for failure in found.unreadable},
        ).run()


def _check_spared(plan: Plan) -> None:
    """Refuse to replace a run by one that is made from it.

    Raises:
        UsageError: it would be.
    """
    run = plan.folder.resolve()
    made_from = [models.local_path(model) for model in (plan.model, plan.teacher) if model]
    for path in filter(None, (*made_from, plan.weights)):
        if run in (path.resolve(), *path.resolve().parents):
            message = f"the run in {plan.folder} would replace what it starts from: {path}"
            raise UsageError(message, hint="name another folder with -o")


def recipe_name(plan: Plan) -> str:
    """Return the name of the recipe, or its file."""
    return plan.recipe or (sizes.FINETUNE if plan.command == FINETUNE else "bag-of-tricks")


def _as_begun(plan: Plan, recipe: Recipe, facts: Mapping[str, Any]) -> Plan:
    """Return the plan of the run that is gone on with; what was asked for now may add nothing to it.

    Raises:
        UsageError: it does.
    """
    asked = {key: value for key, value in _facts(plan, None).items() if value is not None}
    differences = [f"{key} {facts.get(key)}, not {asked[key]}" for key in asked if asked[key] != facts.get(key)]
    # A setting may have been asked for before and then fitted to the data.
    before = facts.get("changes", {})
    changes = {name: value for name, value in plan.changes.items() if before.get(name, _NEVER) != value}
    differences += recipe.differences(recipe.replace(changes))
    if differences:
        message = f"{plan.folder} was begun with {'; '.join(differences)}"
        raise UsageError(message, hint="leave out what differs, or begin anew with --overwrite")
    begun = {key: facts[key] for key in ("data", "model", "image_size", "teacher", "recipe", "val_share")}
    return replace(plan, weights=Path(facts["weights"]) if facts["weights"] else None, **begun)


def _facts(plan: Plan, fingerprint: str | None) -> dict[str, Any]:
    """Return what a run is made from, beside its recipe."""
    return {
        "command": plan.command,
        "data": absolute(plan.data),
        "model": plan.model,
        "weights": str(plan.weights.absolute()) if plan.weights else None,
        "image_size": plan.image_size,
        "teacher": plan.teacher,
        "recipe": plan.recipe,
        "val_share": plan.val_share,
        "fingerprint": fingerprint,
    }


def _check_same(begun: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if begun["fingerprint"] != facts["fingerprint"]:
        message = f"the images in {facts['data']} are not those that the run was begun with"
        raise DataError(message, hint="put them back, or begin anew with --overwrite")


def _data(plan: Plan, seed: int, around: Surroundings) -> tuple[Divided, Survey]:
    """Return the images that are trained and measured with, and what the first pass found."""
    found = survey(
        open_dataset(plan.data, offline=plan.offline),
        workers=usable_cpus(),
        progress=around.surveying,
        tell=around.unreadable,
    )
    share = DEFAULT_FRACTION if plan.val_share is None else plan.val_share
    divided = divide(found.dataset, fraction=share, seed=seed)
    around.surveyed(found, divided)
    return divided, found


def _network(plan: Plan, recipe: Recipe, classes: tuple[str, ...], around: Surroundings) -> Start:
    model, image_size = plan.model or models.DEFAULT_MODEL, plan.image_size or "train"
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
    teacher = factory.load_network(plan.teacher, offline=plan.offline, progress=around.progress)
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
