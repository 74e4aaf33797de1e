"""Settings that would have no effect on the run: an error that says why, instead of silence.

A recipe lists every setting, so only settings that the user asked for (`--set` and its short forms) are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Asked:
    """The run that a setting must have an effect on.

    Attributes:
        recipe: the settings.
        has_teacher: the answers of another model are learnt as well.
        processes: number of processes that share a batch.
    """

    recipe: Recipe
    has_teacher: bool
    processes: int = 1


class Case(NamedTuple):
    """When some settings have no effect.

    Attributes:
        settings: their names.
        holds: returns whether this is the case.
        why: the reason; names in braces are the recipe's settings.
        reason: from which the command line chooses a hint.
        instead: what to set instead, for the hint.
    """

    settings: tuple[str, ...]
    holds: Callable[[Asked], bool]
    why: str
    reason: Reason
    instead: str = ""


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
"""Values that switch a setting off; asking for them is never an error."""
_AFTER_WARMUP = ("schedule", "step_at", "step_factor", "poly_power", "final_lr")

CASES = (
    Case(
        ("step_at", "step_factor"),
        lambda asked: asked.recipe.schedule != "step",
        "schedule is {schedule}",
        Reason.SETTING_WITHOUT_EFFECT,
        "schedule=step",
    ),
    Case(
        ("poly_power",),
        lambda asked: asked.recipe.schedule != "poly",
        "schedule is {schedule}",
        Reason.SETTING_WITHOUT_EFFECT,
        "schedule=poly",
    ),
    Case(
        ("final_lr",),
        lambda asked: asked.recipe.schedule not in ("cosine", "poly"),
        "schedule is {schedule}",
        Reason.SETTING_WITHOUT_EFFECT,
        "schedule=cosine or poly",
    ),
    Case(
        _AFTER_WARMUP,
        lambda asked: asked.recipe.warmup_epochs >= asked.recipe.epochs,
        "the warm-up lasts the whole run, as warmup_epochs is {warmup_epochs:g} and epochs {epochs}",
        Reason.SETTING_WITHOUT_EFFECT,
        "warmup_epochs=0",
    ),
    Case(
        ("backbone_lr", "drop_path", "batch_norm"),
        lambda asked: asked.recipe.freeze,
        "freeze trains only the classifier",
        Reason.SETTING_WITHOUT_EFFECT,
        "freeze=false",
    ),
    Case(
        ("momentum",),
        lambda asked: not _has_momentum(asked.recipe.optimizer),
        "{optimizer} has no momentum",
        Reason.SETTING_WITHOUT_EFFECT,
        "optimizer=sgd",
    ),
    Case(
        ("teacher_temperature",),
        lambda asked: not asked.has_teacher,
        "there is no teacher",
        Reason.NO_TEACHER,
    ),
    Case(
        ("mixup", "cutmix"),
        lambda asked: _largest_part(asked) == 1,
        "images are run one at a time, so there are none to mix",
        Reason.IMAGES_RUN_ALONE,
    ),
    Case(
        ("micro_batch",),
        lambda asked: (asked.recipe.micro_batch or 0) > asked.recipe.batch_size,
        "a step sees {batch_size} images at most",
        Reason.MICRO_BATCH_TOO_LARGE,
    ),
)


def check(changes: Mapping[str, Any], asked: Asked) -> None:
    """Check that each setting that the user asked for has an effect.

    Args:
        changes: the settings that the user asked for; the recipe already has them.
        asked: the run.

    Raises:
        UsageError: one has none.
    """
    for case in CASES:
        for setting in case.settings:
            if setting in changes and _is_on(setting, asked.recipe) and case.holds(asked):
                _refuse(setting, case, asked)


def check_network(changes: Mapping[str, Any], module: nn.Module, name: str) -> None:
    """Check that the network has what the user's settings act on.

    Raises:
        UsageError: it does not.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    if changes.get("batch_norm") == "update" and not any(
        isinstance(layer, _BatchNorm) for layer in module.modules()
    ):
        refuse("batch_norm", f"{name} has no batch normalisation")


def refuse(setting: str, why: str) -> None:
    """Refuse a setting that would have no effect.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"{setting} would have no effect: {why}", hint=f"leave {setting} out")


def _refuse(setting: str, case: Case, asked: Asked) -> None:
    message = f"{setting} would have no effect: {case.why.format(**vars(asked.recipe))}"
    raise UsageError(message, reason=case.reason, details=(setting, case.instead))


def _is_on(setting: str, recipe: Recipe) -> bool:
    return setting not in _OFF or getattr(recipe, setting) != _OFF[setting]


def _largest_part(asked: Asked) -> int:
    """Return the largest number of images that a process runs at once."""
    share = -(-asked.recipe.batch_size // asked.processes)
    return min(share, asked.recipe.micro_batch or share)


def _has_momentum(optimizer: str) -> bool:
    from timm.optim import get_optimizer_info

    try:
        return bool(get_optimizer_info(optimizer.lower().rpartition("_")[2]).has_momentum)
    except (LookupError, ValueError):  # `make_optimizer` reports an unknown one
        return True
