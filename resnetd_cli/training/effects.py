"""Settings that could not act on the run they are asked for: an error that says why, not silence.

A recipe lists every setting, so only those that were asked for beside it (`--set` and its short forms) are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from resnetd_cli.errors import UsageError
from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Asked:
    """What a setting acts on.

    Attributes:
        recipe: the settings.
        has_teacher: the answers of another model are learnt.
        processes: that share a batch.
    """

    recipe: Recipe
    has_teacher: bool
    processes: int = 1


class Case(NamedTuple):
    """When some settings cannot act.

    Attributes:
        settings: their names.
        holds: tells whether it is so.
        why: the reason; fields in braces are the recipe's.
        remedy: what to do instead.
    """

    settings: tuple[str, ...]
    holds: Callable[[Asked], bool]
    why: str
    remedy: str


_OFF = {
    "backbone_lr": 0,
    "batch_norm": "freeze",
    "cutmix": 0,
    "drop_path": 0,
    "final_lr": 0,
    "micro_batch": None,
    "mixup": 0,
    "momentum": 0,
}
"""Values that ask for nothing, which any run grants."""
_OF_THE_FALL = ("schedule", "step_at", "step_factor", "poly_power", "final_lr")

CASES = (
    Case(
        ("step_at", "step_factor"),
        lambda asked: asked.recipe.schedule != "step",
        "schedule is {schedule}",
        "--set schedule=step",
    ),
    Case(
        ("poly_power",),
        lambda asked: asked.recipe.schedule != "poly",
        "schedule is {schedule}",
        "--set schedule=poly",
    ),
    Case(
        ("final_lr",),
        lambda asked: asked.recipe.schedule not in ("cosine", "poly"),
        "schedule is {schedule}",
        "--set schedule=cosine or poly",
    ),
    Case(
        _OF_THE_FALL,
        lambda asked: asked.recipe.warmup_epochs >= asked.recipe.epochs,
        "the warm-up lasts the whole run, as warmup_epochs is {warmup_epochs:g} and epochs {epochs}",
        "--set warmup_epochs=0",
    ),
    Case(
        ("backbone_lr", "drop_path", "batch_norm"),
        lambda asked: asked.recipe.freeze,
        "freeze leaves all but the classifier as it is",
        "--set freeze=false",
    ),
    Case(
        ("momentum",),
        lambda asked: not _has_momentum(asked.recipe.optimizer),
        "{optimizer} has no momentum",
        "--set optimizer=sgd",
    ),
    Case(
        ("teacher_temperature",),
        lambda asked: not asked.has_teacher,
        "there is no teacher",
        "--teacher MODEL",
    ),
    Case(
        ("mixup", "cutmix"),
        lambda asked: _largest_part(asked) == 1,
        "images are run one at a time, and none is there to mix them with",
        "a larger --batch-size or micro_batch",
    ),
    Case(
        ("micro_batch",),
        lambda asked: (asked.recipe.micro_batch or 0) > asked.recipe.batch_size,
        "a step sees {batch_size} images at most",
        "a larger --batch-size",
    ),
)


def check(changes: Mapping[str, Any], asked: Asked) -> None:
    """Make sure that each setting which was asked for can act.

    Args:
        changes: what was asked for beside the recipe, which has it already.
        asked: what the settings act on.

    Raises:
        UsageError: one cannot.
    """
    for case in CASES:
        for setting in case.settings:
            if setting in changes and _is_on(setting, asked.recipe) and case.holds(asked):
                refuse(setting, case.why.format(**vars(asked.recipe)), case.remedy)


def check_network(changes: Mapping[str, Any], module: nn.Module, name: str) -> None:
    """Make sure that a network has what the settings act on which were asked for.

    Raises:
        UsageError: it lacks it.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    if changes.get("batch_norm") == "update" and not any(
        isinstance(layer, _BatchNorm) for layer in module.modules()
    ):
        refuse("batch_norm", f"{name} has no batch normalisation")


def refuse(setting: str, why: str, remedy: str = "") -> None:
    """Say that a setting could not act.

    Raises:
        UsageError: always.
    """
    hint = ", or ".join(filter(None, (remedy, f"leave {setting} out")))
    raise UsageError(f"{setting} would have no effect: {why}", hint=hint)


def _is_on(setting: str, recipe: Recipe) -> bool:
    return setting not in _OFF or getattr(recipe, setting) != _OFF[setting]


def _largest_part(asked: Asked) -> int:
    """Return the most images that a process runs at once."""
    share = -(-asked.recipe.batch_size // asked.processes)
    return min(share, asked.recipe.micro_batch or share)


def _has_momentum(optimizer: str) -> bool:
    from timm.optim import get_optimizer_info

    try:
        return bool(get_optimizer_info(optimizer.lower().rpartition("_")[2]).has_momentum)
    except (LookupError, ValueError):  # `make_optimizer` reports an unknown one
        return True
