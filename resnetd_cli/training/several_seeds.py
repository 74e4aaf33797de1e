"""`--seeds N`: several runs that differ only in their seed, the spread of their figures, and the best model."""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.training import processes, resume, run_record
from resnetd_cli.training.best_epoch import best_run
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.data import find_images
from resnetd_cli.training.plan import Output, Plan
from resnetd_cli.training.recipe import Recipe, load_recipe
from resnetd_cli.training.recipe_choice import recipe_name
from resnetd_cli.training.run import check_not_replaced, execute
from resnetd_cli.training.run_folder import FORMAT, RunFolder

SPLITS = ("val", "test")
_FIGURES = ("loss", "top1", "top5")
_KEPT = ("best_epoch", *SPLITS, "seconds")
"""What a run's summary contributes to the common record."""

CallbacksFor = Callable[[Path], Callbacks]
"""Returns the callbacks of the run in a folder."""
Record = Mapping[str, Any]
"""The content of `seeds.json`."""


def carry_out(plan: Plan, callbacks_for: CallbacksFor) -> dict[str, Any] | None:
    """Carry out a plan, in one run or in several.

    Returns:
        the summary of a single run, or the content of `seeds.json` for several; None if a run was asked to stop
        before its end, and was saved.

    Raises:
        ResnetdError: as `execute`.
    """
    output = plan.output
    folder = RunFolder(output.folder)
    before = _read(folder) if output.resume else None
    if before is None and (plan.seeds or 1) == 1:
        return execute(plan, callbacks_for(output.folder))
    plan, recipe, is_resumed = _as_started(plan, folder, before)
    seeds = _seeds(plan, recipe, before)
    is_main = processes.is_main()
    if is_main:
        if not is_resumed:
            check_not_replaced(plan)
        folder.make(resume=output.resume, overwrite=output.overwrite)
    with folder.claimed() if is_main else nullcontext():
        if before and before.get("best") is not None:
            callbacks_for(output.folder).note("these runs have already ended; overwrite them to start anew")
            return {**before}
        return _Several(plan, callbacks_for, folder, recipe, seeds, is_main, is_resumed).run()


def _read(folder: RunFolder) -> Record | None:
    """Return how the runs of several seeds in a folder went so far; None if there is a single run, or none.

    Raises:
        UsageError: it cannot be read.
    """
    if not folder.seeds.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(folder.seeds.read_text(encoding="utf-8"))
        if record.pop("format") != FORMAT or not all(isinstance(seed, int) for seed in record["seeds"]):
            raise ValueError
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{folder.seeds} is damaged", reason=Reason.RUN_DAMAGED) from error
    return record


def _write(folder: RunFolder, record: Record) -> None:
    folder.write_json(folder.seeds.name, {"format": FORMAT, **record})


def _as_started(plan: Plan, folder: RunFolder, before: Record | None) -> tuple[Plan, Recipe, bool]:
    """Return the plan of all runs, their recipe with the first seed, and whether the first run is being resumed.

    Raises:
        UsageError: the folder holds a single run, or runs that were started with something else.
    """
    if before is None and plan.output.resume and run_record.read(folder):
        raise UsageError(f"{plan.output.folder} holds a run of one seed", reason=Reason.RUN_OF_ONE_SEED)
    started = run_record.read(folder.of_seed(before["seeds"][0])) if before else None
    if started is None:
        recipe = load_recipe(recipe_name(plan.recipe, plan.command)).replace(plan.recipe.changes)
        return plan, recipe, False
    # Its recipe is adapted to the images already, and the file that it came from may be gone.
    plan = resume.as_started(plan, started)
    changes = replace(plan.recipe, changes=started.facts["changes"])
    return replace(plan, recipe=changes), started.recipe, True


def _seeds(plan: Plan, recipe: Recipe, before: Record | None) -> list[int]:
    """Return the seeds of the runs: the recipe's and the next ones.

    Raises:
        UsageError: one is too large, or they are not those of the runs being resumed.
    """
    count = plan.seeds or len(before["seeds"] if before else ())
    seeds = [recipe.seed + number for number in range(count)]
    if before and before["seeds"] != seeds:
        shown = (f"{some[0]} to {some[-1]}" for some in (before["seeds"], seeds))
        message = "{} holds runs of the seeds {}, not {}".format(plan.output.folder, *shown)
        raise UsageError(message, reason=Reason.RUN_DIFFERS)
    try:
        recipe.replace({"seed": seeds[-1]})
    except UsageError as error:
        raise UsageError(f"{count} seeds: the last one would be {seeds[-1]}", hint=error.hint) from error
    return seeds


@dataclass(frozen=True)
class _Several:
    """Runs that differ only in their seed.

    Attributes:
        plan: of all runs.
        callbacks_for: as for `carry_out`.
        folder: of all runs, and of the best one in the end.
        recipe: with the first seed.
        seeds: one for each run.
        is_main: this process writes the files.
        is_resumed: the first run was started before.
    """

    plan: Plan
    callbacks_for: CallbacksFor
    folder: RunFolder
    recipe: Recipe
    seeds: Sequence[int]
    is_main: bool
    is_resumed: bool

    @property
    def split_seed(self) -> int:
        """The split seed of all runs.

        If each had its own split, their figures could not be compared, and the best would be chosen by images that
        others were trained on.
        """
        return self.seeds[0] if self.plan.data.split_seed is None else self.plan.data.split_seed

    def run(self) -> dict[str, Any] | None:
        """Train with each seed, and keep the best; return None if one was asked to stop."""
        record = self._record([])
        for summary in self._summaries():
            if summary is None:
                return None
            record = self._record([*record["runs"], summary])
            if self.is_main:
                _write(self.folder, record)
                self._drop_checkpoints(record["runs"])
        best = best_run(record["runs"])
        record["best"] = best["seed"]
        if self.is_main:
            self._publish(record)
        if best["val"] is None:
            self.callbacks_for(self.folder.path).note(
                "there is no val split to choose by: the first seed's model is kept"
            )
        return record

    def _record(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        figures = {split: spread([run[split] for run in runs]) for split in SPLITS}
        return {
            "seeds": list(self.seeds),
            "best": None,
            "figures": figures,
            "runs": list(runs),
        }

    def _summaries(self) -> Iterator[dict[str, Any] | None]:
        """Yield how each run ended, including runs that had ended before."""
        own = self.callbacks_for(self.folder.path)
        is_new = not self.is_resumed
        find = functools.cache(lambda: find_images(self.plan, self.seeds[0], own))
        began = own.began
        for number, seed in enumerate(self.seeds, 1):
            run = self.folder.of_seed(seed)
            summary = run.summary() if self.is_resumed else None
            if summary is None:
                own.note(f"run {number} of {len(self.seeds)}: seed {seed}")
                callbacks = replace(self.callbacks_for(run.path), began=began)
                if number == 1 and is_new:
                    callbacks = replace(callbacks, replacing=self._replace)
                summary = execute(self._plan_of(seed, run), callbacks, self.recipe, find)
                began = time.monotonic()
            yield summary and {"seed": seed, **{key: summary[key] for key in _KEPT}}

    def _plan_of(self, seed: int, run: RunFolder) -> Plan:
        """Return the plan of one run."""
        plan = self.plan
        return replace(
            plan,
            data=replace(plan.data, split_seed=self.split_seed),
            recipe=replace(plan.recipe, changes={**plan.recipe.changes, "seed": seed}),
            output=Output(run.path, resume=self.is_resumed, overwrite=not self.is_resumed),
        )

    def _replace(self) -> None:
        """Remove what earlier runs left in the folder, now that the first of these starts."""
        self.folder.clear(keeping=self.seeds)
        _write(self.folder, self._record([]))

    def _drop_checkpoints(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Remove all checkpoints but those of the best run so far, which become the folder's."""
        for run in runs:
            if run is not best_run(runs):
                self.folder.of_seed(run["seed"]).clear_checkpoints()

    def _publish(self, record: Record) -> None:
        """Copy the best run into the folder; the summary, which marks the end of all runs, is written last."""
        best = self.folder.of_seed(record["best"])
        best.publish(self.folder)
        self.folder.write_summary({**(best.summary() or {}), "seeds": record["seeds"]})
        _write(self.folder, record)


def spread(figures: Sequence[Mapping[str, float | None] | None]) -> dict[str, Any] | None:
    """Return mean, sample standard deviation (n - 1), minimum and maximum of each figure that all runs have.

    Args:
        figures: of each run, by name; None, for a run or a figure, if it was not measured.

    Returns:
        None if there are none; `sd` is None for a single run.
    """
    found: dict[str, Any] = {}
    for name in _FIGURES:
        values = [value for run in figures if run and (value := run[name]) is not None]
        if values and len(values) == len(figures):
            sd = statistics.stdev(values) if len(values) > 1 else None
            found[name] = {"mean": statistics.fmean(values), "sd": sd, "min": min(values), "max": max(values)}
    return found or None
