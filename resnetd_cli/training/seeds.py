"""Several runs that differ in their seed alone: how far the figures vary, and the best model of them."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnetd_cli.errors import UsageError
from resnetd_cli.training.plan import (
    Plan,
    Surroundings,
    as_begun,
    check_spared,
    execute,
    look_at_images,
    recipe_name,
)
from resnetd_cli.training.recipe import Recipe, load_recipe
from resnetd_cli.training.run_folder import RunFolder

SPLITS = ("val", "test")
_FIGURES = ("loss", "top1", "top5")
_KEPT = ("best_epoch", *SPLITS, "seconds")
"""What of a run's summary stands beside those of the others."""

Around = Callable[[Path], Surroundings]
"""Makes the surroundings of the run in a folder."""
Record = Mapping[str, Any]
"""What `seeds.json` holds."""


def carry_out(plan: Plan, around: Around) -> dict[str, Any] | None:
    """Do what a plan says, in one run or in several.

    Returns:
        the summary of one run, what `seeds.json` holds of several; None where a run was asked to stop before its
        end, and was saved.

    Raises:
        ResnetdError: as `execute`.
    """
    folder = RunFolder(plan.folder)
    before = folder.seeds() if plan.resume else None
    if before is None and (plan.seeds or 1) == 1:
        return execute(plan, around(plan.folder))
    plan, recipe, is_resumed = _as_begun(plan, folder, before)
    seeds = _seeds(plan, recipe, before)
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:
        if not is_resumed:
            check_spared(plan)
        folder.make(resume=plan.resume, overwrite=plan.overwrite)
    with folder.claimed() if is_main else nullcontext():
        if before and before.get("best") is not None:
            around(plan.folder).note("these runs have ended already; --overwrite starts anew")
            return before
        return _Several(plan, around, folder, recipe, seeds, is_main, is_resumed).run()


def _as_begun(plan: Plan, folder: RunFolder, before: Record | None) -> tuple[Plan, Recipe, bool]:
    """Return the plan of all runs, their recipe with the first seed, and whether the first was started before.

    Raises:
        UsageError: the folder holds a single run, or one that was asked for differently.
    """
    if before is None and plan.resume and folder.begun():
        hint = "leave out --seeds, or start anew with --overwrite"
        raise UsageError(f"{plan.folder} holds a run of one seed", hint=hint)
    started = folder.of_seed(before["seeds"][0]).begun() if before else None
    if started is None:
        return plan, load_recipe(recipe_name(plan)).replace(plan.changes), False
    # Its recipe is fitted to the data already, and the file that it came from may be gone.
    recipe, facts = started
    return replace(as_begun(plan, recipe, facts), changes=facts["changes"]), recipe, True


def _seeds(plan: Plan, recipe: Recipe, before: Record | None) -> list[int]:
    """Return the seeds of the runs: the recipe's and those after it.

    Raises:
        UsageError: one is too large, or they are not those of the runs that are resumed.
    """
    count = plan.seeds or len(before["seeds"] if before else ())
    seeds = [recipe.seed + number for number in range(count)]
    if before and before["seeds"] != seeds:
        shown = (f"{some[0]} to {some[-1]}" for some in (before["seeds"], seeds))
        message = "{} holds runs of the seeds {}, not {}".format(plan.folder, *shown)
        raise UsageError(message, hint="leave out what differs, or start anew with --overwrite")
    try:
        recipe.replace({"seed": seeds[-1]})
    except UsageError as error:
        raise UsageError(f"--seeds {count}: the last seed would be {seeds[-1]}", hint=error.hint) from error
    return seeds


@dataclass(frozen=True)
class _Several:
    """Runs that differ in their seed alone.

    Attributes:
        plan: of all of them.
        around: as for `carry_out`.
        folder: of all of them, and at the end of the best.
        recipe: with the first seed.
        seeds: one for each.
        is_main: this process writes the files.
        is_resumed: the first run was started before.
    """

    plan: Plan
    around: Around
    folder: RunFolder
    recipe: Recipe
    seeds: Sequence[int]
    is_main: bool
    is_resumed: bool

    @property
    def split_seed(self) -> int:
        """That of all of them.

        With another split for each, the figures could not be compared, and each would have been trained on images
        that others are chosen by.
        """
        return self.seeds[0] if self.plan.split_seed is None else self.plan.split_seed

    def run(self) -> dict[str, Any] | None:
        """Train with each seed, and keep the best; return None where one was asked to stop."""
        record = self._record([])
        for summary in self._summaries():
            if summary is None:
                return None
            record = self._record([*record["runs"], summary])
            if self.is_main:
                self.folder.write_seeds(record)
                self._drop_checkpoints(record["runs"])
        best = _best(record["runs"])
        record["best"] = best["seed"]
        if self.is_main:
            self._publish(record)
        if best["val"] is None:
            self.around(self.folder.path).note("there is no val to choose by: the first seed's model is kept")
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
        """Yield how each run ended, those included that had ended before."""
        own = self.around(self.folder.path)
        is_new = not self.is_resumed
        plan = replace(self.plan, split_seed=self.split_seed, resume=self.is_resumed, overwrite=is_new)
        look = functools.cache(lambda: look_at_images(self.plan, self.seeds[0], own))
        began = own.began
        for number, seed in enumerate(self.seeds, 1):
            run = self.folder.of_seed(seed)
            summary = run.summary() if self.is_resumed else None
            if summary is None:
                own.note(f"run {number} of {len(self.seeds)}: seed {seed}")
                one = replace(plan, folder=run.path, changes={**plan.changes, "seed": seed})
                here = replace(self.around(run.path), began=began)
                if number == 1 and is_new:
                    here = replace(here, replacing=self._replace)
                summary = execute(one, here, self.recipe, look)
                began = time.monotonic()
            yield summary and {"seed": seed, **{key: summary[key] for key in _KEPT}}

    def _replace(self) -> None:
        """Remove what runs before these left in the folder, now that the first of these starts."""
        self.folder.clear(keeping=self.seeds)
        self.folder.write_seeds(self._record([]))

    def _drop_checkpoints(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Remove what only a resumption would need, but for the best run's, which become the folder's."""
        for run in runs:
            if run is not _best(runs):
                self.folder.of_seed(run["seed"]).clear_checkpoints()

    def _publish(self, record: Record) -> None:
        """Make the folder the best run's, too; what says that all have ended comes last."""
        best = self.folder.of_seed(record["best"])
        best.publish(self.folder)
        self.folder.write_summary({**(best.summary() or {}), "seeds": record["seeds"]})
        self.folder.write_seeds(record)


def spread(figures: Sequence[Mapping[str, float | None] | None]) -> dict[str, Any] | None:
    """Return mean, sample standard deviation (of n - 1), least and most of each figure that all runs have.

    Args:
        figures: of each run, by name: None, or None in place of a figure, where it was not measured.

    Returns:
        None where there are none; `sd` is None for a single run.
    """
    found: dict[str, Any] = {}
    for name in _FIGURES:
        values = [value for run in figures if run and (value := run[name]) is not None]
        if values and len(values) == len(figures):
            sd = statistics.stdev(values) if len(values) > 1 else None
            found[name] = {"mean": statistics.fmean(values), "sd": sd, "min": min(values), "max": max(values)}
    return found or None


def _best(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the run that is best by val, as the best epoch is chosen; the first of equals, and without val."""
    return max(runs, key=lambda run: (run["val"]["top1"], -run["val"]["loss"]) if run["val"] else (0.0, 0.0))
