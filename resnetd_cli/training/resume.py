"""Resuming a run: what must be as it was when the run started, and an error that names what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetd_cli.errors import DataError, Reason, UsageError
from resnetd_cli.system.files import expand_user
from resnetd_cli.training import provenance
from resnetd_cli.training.plan import DataChoice, NetworkChoice, Plan
from resnetd_cli.training.provenance import Origin
from resnetd_cli.training.run_record import RunRecord

_NEVER = object()


def facts_of(plan: Plan) -> dict[str, Any]:
    """Return what a run was asked to be made from, as `run.json` holds it; its recipe is kept separately."""
    data, network = plan.data, plan.network
    return {
        "command": plan.command,
        "data": _absolute(data.location),
        "model": network.model,
        "weights": str(network.weights.absolute()) if network.weights else None,
        "image_size": network.image_size,
        "teacher": network.teacher,
        "recipe": plan.recipe.name,
        "val_share": data.val_share,
        "group_by": data.group_by,
        "split_seed": data.split_seed,
    }


def as_started(plan: Plan, record: RunRecord) -> Plan:
    """Return the plan of the run being resumed.

    Args:
        plan: what the user asks for now; what is left out is as it was.
        record: what the run was started with.

    Raises:
        UsageError: the user asks for something else.
    """
    recipe, facts = record.recipe, {"split_seed": None, **record.facts}
    asked = {key: value for key, value in facts_of(plan).items() if value is not None}
    differences = [f"{key} {facts.get(key)}, not {asked[key]}" for key in asked if asked[key] != facts.get(key)]
    # A setting may have been asked for before, and then been adapted to the images.
    before = facts.get("changes", {})
    changes = {name: value for name, value in plan.recipe.changes.items() if before.get(name, _NEVER) != value}
    differences += recipe.differences(recipe.replace(changes))
    if differences:
        message = f"{plan.output.folder} was started with {'; '.join(differences)}"
        raise UsageError(message, reason=Reason.RUN_DIFFERS)
    weights = Path(facts["weights"]) if facts["weights"] else None
    return replace(
        plan,
        data=DataChoice(facts["data"], *(facts.get(key) for key in ("val_share", "group_by", "split_seed"))),
        network=NetworkChoice(facts.get("model"), weights, facts.get("image_size"), facts.get("teacher")),
        recipe=replace(plan.recipe, name=facts.get("recipe")),
    )


def check_images(facts: Mapping[str, Any], fingerprint: str, data: str, note: Callable[[str], None]) -> None:
    """Check that the images are the ones the run started with.

    Args:
        facts: of the run.
        fingerprint: of the images now.
        data: what to call them in errors.
        note: called with a line for the user.

    Raises:
        DataError: they are not.
    """
    if "data_sha256" not in facts:
        note("an older resnetd started this run: its images cannot be checked for changes")
    elif facts["data_sha256"] != fingerprint:
        message = f"the images in {data} are not those that the run started with"
        raise DataError(message, reason=Reason.IMAGES_CHANGED)


def check_files(facts: Mapping[str, Any], model: Origin | None, teacher: Origin | None) -> None:
    """Check that the files of the model and the teacher are the ones the run started with.

    Args:
        facts: of the run; those of older versions lack the files.
        model: the files that the model was loaded from now; None: it was not loaded.
        teacher: those of the teacher.

    Raises:
        UsageError: one has changed.
    """
    for key, what, now in (
        ("model_files", "the model it started with", model),
        ("teacher_files", "its teacher", teacher),
    ):
        if facts.get(key):
            provenance.check(what, facts[key], now)


def _absolute(data: str) -> str:
    """Return the absolute path of images, so that the run can be resumed anywhere; a name stays a name."""
    path = expand_user(data)
    return str(path.absolute()) if path.exists() else data
