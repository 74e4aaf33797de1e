"""What `finetune` and `train` do: print the recipe, or train in one or several processes and report the result."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.cli import signals
from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import OutputError, OutputExists, UsageError
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import name_temporary_folder, name_user, open_atomic
from resnetd_cli.system.quiet import own_stderr

if TYPE_CHECKING:
    from resnetd_cli.datasets.splits import TrainValTest
    from resnetd_cli.datasets.survey import Survey
    from resnetd_cli.results import Failure
    from resnetd_cli.training.plan import Plan, RecipeChoice


@dataclass(frozen=True)
class Launch:
    """How training is started on this machine.

    Attributes:
        processes: number of training processes.
        threads: of each process; None: the processors, divided among the processes.
        tensorboard: log for TensorBoard as well.
        began: when the command started, by `time.monotonic`.
    """

    processes: int = 1
    threads: int | None = None
    tensorboard: bool = False
    began: float = field(default_factory=time.monotonic)


def recipe_choice(name: str | None, texts: Iterable[str] | None, settings: Mapping[str, Any]) -> RecipeChoice:
    """Return the recipe that the options ask for.

    Args:
        name: `--recipe`.
        texts: `--set`.
        settings: those with an option of their own, by name; None: not given.

    Raises:
        UsageError: a value is wrong, or a setting is given twice.
    """
    from resnetd_cli.training.plan import RecipeChoice
    from resnetd_cli.training.recipe import parse_setting, read

    given = {
        setting: read(setting, value, f"--{setting.replace('_', '-')}") if isinstance(value, str) else value
        for setting, value in settings.items()
        if value is not None
    }
    changes: dict[str, Any] = {}
    for setting, value in [*(parse_setting(text, "--set") for text in texts or ()), *given.items()]:
        if changes.setdefault(setting, value) != value:
            raise UsageError(
                f"{setting} is set to {changes[setting]} and to {value}", hint="leave one of them out"
            )
    return RecipeChoice(name, changes)


def print_recipe(
    choice: RecipeChoice, command: str, plot: Path | None, *, has_teacher: bool, processes: int
) -> None:
    """Print the recipe, and draw its learning rate if there is a file to draw to.

    Raises:
        UsageError: a setting would have no effect, or the file is no PNG file.
        OutputError: the file cannot be written, or exists.
    """
    from resnetd_cli.training.recipe_choice import asked_recipe

    recipe = asked_recipe(choice, command, has_teacher=has_teacher, processes=processes)
    if plot:
        from resnetd_cli.training.curves import draw_rates

        if plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {plot}: not the name of a PNG file", hint="name a FILE.png")
        if plot.exists():
            raise OutputExists(f"{plot} exists, and images are never replaced", hint="name another file")
        if not plot.absolute().parent.is_dir():
            raise OutputError(f"cannot write {plot}: no such folder", hint="make it first")
        with open_atomic(plot, overwrite=False) as file:
            draw_rates(recipe, file)
    sys.stdout.write(recipe.to_yaml())


def required(command: str, data: str | None, output: Path | None, plot: Path | None) -> tuple[str, Path]:
    """Return the images and the folder of a run.

    Raises:
        UsageError: one is missing, or `--plot` is given without `--print-recipe`.
    """
    if plot:
        raise UsageError("--plot draws a recipe's rates", hint="add --print-recipe; a run draws its own")
    if data is None or output is None:
        what = "no data" if data is None else "no output folder"
        raise UsageError(what, hint=f"resnetd {command} DIR -o RUN")
    return data, output


def run(plan: Plan, launch: Launch) -> None:
    """Train, and report how it ended."""
    if launch.processes == 1:
        summary = _train(plan, launch)
    else:
        from resnetd_cli.training import processes
        from resnetd_cli.training.recipe_choice import asked_recipe

        if not plan.output.resume:  # report a wrong recipe before the processes have started
            has_teacher = plan.network.teacher is not None
            asked_recipe(plan.recipe, plan.command, has_teacher=has_teacher, processes=launch.processes)
        with signals.left_to_children() as left:
            arguments = (plan, launch, terminal.quiet, terminal.verbose)
            summary = processes.run(train_in_child, arguments, launch.processes, left)
    _report_end(summary, plan)


def train_in_child(plan: Plan, launch: Launch, quiet: bool, verbose: bool) -> dict[str, Any] | None:
    """Carry out a plan as one of several processes."""
    own_stderr()
    terminal.setup(quiet=quiet, verbose=verbose)
    return _train(plan, launch)


def _train(plan: Plan, launch: Launch) -> dict[str, Any] | None:
    """Carry out a plan in this process, showing how it goes."""
    from resnetd_cli.cli.training_progress import Display
    from resnetd_cli.training.accelerator import set_threads
    from resnetd_cli.training.callbacks import Callbacks
    from resnetd_cli.training.monitors import Monitors, TensorBoard
    from resnetd_cli.training.processes import is_main
    from resnetd_cli.training.several_seeds import carry_out

    name_temporary_folder()
    name_user()
    set_threads(launch.threads)
    if not is_main():
        with signals.requests() as should_stop:
            silent = Callbacks(Monitors(), lambda _: None, should_stop, began=launch.began)
            return carry_out(plan, lambda _: silent)
    display = Display(terminal)
    with signals.requests() as should_stop:

        def callbacks_for(folder: Path) -> Callbacks:
            logs = [TensorBoard(folder / "tensorboard")] if launch.tensorboard else []
            return Callbacks(
                monitor=Monitors(display, *logs),
                note=terminal.note,
                should_stop=should_stop,
                survey_progress=display.survey,
                unreadable=_report_failure,
                surveyed=_report_survey,
                download_bar=terminal.download_bar,
                began=launch.began,
            )

        try:
            return carry_out(plan, callbacks_for)
        finally:
            display.close()


def _report_failure(failure: Failure) -> None:
    from resnetd_cli.cli.result_loop import report_failure

    report_failure(failure)


def _report_survey(survey: Survey, divided: TrainValTest) -> None:
    for note in (*survey.notes, *divided.notes):
        terminal.note(note)
    if not terminal.quiet and sys.stderr is not None:
        from resnetd_cli.views.counts import write_counts

        counts = {name: part.counts() for name, part in divided.parts.items()}
        write_counts(divided.train.classes, counts, sys.stderr)


def _report_end(summary: dict[str, Any] | None, plan: Plan) -> None:
    if summary is None:
        terminal.note(f"saved; to continue: {_resume_command()}")
        raise signals.as_interrupt()
    for split in ("val", "test"):
        if "figures" in summary:
            _report_spread(split, summary)
        elif figures := summary[split]:
            terminal.note(f"{split}: top-1 {figures['top1']:.2%}, loss {figures['loss']:.3f}")
    folder = plan.output.folder
    terminal.note(f"{folder} is a model now: resnetd predict IMAGE --model {shell_word(folder)}")


def _report_spread(split: str, record: dict[str, Any]) -> None:
    """Report mean and standard deviation over the seeds, and the figures of the best one."""
    if not (figures := record["figures"][split]):
        return
    top1, loss = figures["top1"], figures["loss"]
    (best,) = (run for run in record["runs"] if run["seed"] == record["best"])
    terminal.note(
        f"{split}: top-1 {top1['mean']:.2%} +/- {top1['sd']:.2%} ({top1['min']:.2%} to {top1['max']:.2%}), "
        f"loss {loss['mean']:.3f} +/- {loss['sd']:.3f} over {len(record['runs'])} seeds; "
        f"seed {best['seed']}, which is kept: {best[split]['top1']:.2%}"
    )


def _resume_command() -> str:
    """Return the command line that continues this run: this one, with --resume."""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return shlex.join(["resnetd", *words, "--resume"])
