"""What `finetune` and `train` share: their options as a plan, and how it is carried out and told."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from resnetd_cli.cli import options, stopping
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.numbers import number, whole
from resnetd_cli.errors import OutputError, OutputExists, UsageError
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import name_temporary_folder, name_user, open_atomic
from resnetd_cli.system.quiet import own_stderr

if TYPE_CHECKING:
    from resnetd_cli.datasets.splits import Divided
    from resnetd_cli.datasets.survey import Survey
    from resnetd_cli.results import Failure

Data = Annotated[
    Optional[str],
    typer.Argument(
        metavar="DIR",
        help="Images: DIR/CLASS/IMAGE, with train/, val/ or test/ above; a .csv or .parquet; hfds/NAME, wds/NAME.",
        show_default=False,
    ),
]
Run = Annotated[
    Optional[Path],
    typer.Option("--output", "--out", "-o", metavar="RUN", help="The folder to write the model to."),
]
Model = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        "-m",
        envvar="RESNETD_MODEL",
        metavar="MODEL",
        help="The network; any MODEL that predict takes but .onnx.  [default: resnet50d]",
        show_default=False,
        autocompletion=options.complete_model,
    ),
]
RecipeOption = Annotated[
    Optional[str],
    typer.Option("--recipe", metavar="NAME|FILE", help="How to train: bag-of-tricks, finetune, or a YAML file."),
]
PrintRecipe = Annotated[bool, typer.Option("--print-recipe", help="Print the recipe and exit.")]
Plot = Annotated[
    Optional[Path],
    typer.Option("--plot", metavar="FILE.png", help="With --print-recipe: draw the learning rate over the run."),
]
Set = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="NAME=VALUE", help="Change any setting of the recipe.", show_default=False),
]
# Settings of the recipe, read as those of `--set` and of files are.
Epochs = Annotated[Optional[str], typer.Option("--epochs", metavar="N", help="Number of epochs.")]
BatchSize = Annotated[
    Optional[str],
    typer.Option("--batch-size", "-b", metavar="N", help="Most images in a step, over all processes."),
]
Rate = Annotated[Optional[str], typer.Option("--lr", metavar="R", help="The highest learning rate.")]
Seed = Annotated[Optional[str], typer.Option("--seed", metavar="N", help="Seed of all randomness.")]
Seeds = Annotated[
    Optional[int],
    typer.Option(
        "--seeds",
        parser=whole(1, 1000),
        metavar="N",
        help="Train N times, with N seeds and one split; keep the model that is best by val.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    Optional[str], typer.Option("--image-size", metavar="train|test|N", help="Input size, in pixels.")
]
Teacher = Annotated[
    Optional[str],
    typer.Option("--teacher", metavar="MODEL", help="A model of the same classes whose answers are learnt, too."),
]
ValShare = Annotated[
    Optional[float],
    typer.Option(
        "--val-share",
        parser=number(0.01, 0.9),
        metavar="P",
        help="Share held back to measure with, where the data has no val/ or test/.  [default: 0.2]",
        show_default=False,
    ),
]
SplitSeed = Annotated[
    Optional[int],
    typer.Option(
        "--split-seed",
        parser=whole(0, 2**31 - 1),
        metavar="N",
        help="Which images are held back.  [default: the seed]",
        show_default=False,
    ),
]
GroupBy = Annotated[
    Optional[str],
    typer.Option(
        "--group-by",
        metavar="PATTERN",
        help="Keep images on one side of a split if this regular expression finds the same in their paths.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is in RUN, if one is.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in RUN.")]
Processes = Annotated[
    int, typer.Option("--processes", parser=whole(1, 256), metavar="N", help="Train in N processes.")
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        "--workers", parser=whole(0, 256), metavar="N", help="Processes that load images, for each that trains."
    ),
]
Threads = Annotated[
    Optional[int], typer.Option("--threads", parser=whole(1, 1024), metavar="N", help="Threads of each process.")
]
SaveSeconds = Annotated[
    float,
    typer.Option(
        "--save-seconds", parser=number(0, 1e9), metavar="S", help="Between checkpoints within an epoch."
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Log to RUN/tensorboard, too.")]


@dataclass(frozen=True)
class Request:
    """One command line of `finetune` or `train`.

    Attributes:
        command: which of them.
        settings: those of the recipe that have an option of their own, None where it was not given.
        changes: `--set`.
        fields: of the plan.
        processes, threads, tensorboard: as the options.
        began: when it was read, by `time.monotonic`.
    """

    command: str
    data: str | None
    folder: Path | None
    settings: dict[str, Any]
    changes: list[str]
    fields: dict[str, Any]
    processes: int = 1
    threads: int | None = None
    tensorboard: bool = False
    began: float = field(default_factory=time.monotonic)

    def run(self, *, print_recipe: bool, plot: Path | None) -> None:
        """Train, or print the recipe and draw its rates."""
        changes = _changes(self.settings, self.changes)
        if print_recipe:
            self._print_recipe(changes, plot)
            return
        if plot:
            raise UsageError("--plot draws a recipe's rates", hint="add --print-recipe; a run draws its own")
        if self.data is None or self.folder is None:
            what = "no data" if self.data is None else "nowhere to write to"
            raise UsageError(what, hint=f"resnetd {self.command} DIR -o RUN")
        from resnetd_cli.training.plan import Plan

        plan = Plan(
            command=self.command,
            data=self.data,
            folder=self.folder,
            changes=changes,
            arguments=tuple(sys.argv[1:]),
            **self.fields,
        )
        if self.processes == 1:
            summary = train(plan, self)
        else:
            from resnetd_cli.training import processes

            with stopping.left_to_children() as signals:
                summary = processes.run(
                    train_in_child, (plan, self, terminal.quiet, terminal.verbose), self.processes, signals
                )
        _tell_end(summary, plan)

    def _print_recipe(self, changes: dict[str, Any], plot: Path | None) -> None:
        from resnetd_cli.training.plan import Plan, asked_recipe

        recipe = asked_recipe(
            Plan(command=self.command, data="", folder=Path(), changes=changes, **self.fields), self.processes
        )
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


def train(plan: Any, request: Request) -> dict[str, Any] | None:
    """Carry out a plan in this process, showing how it goes."""
    from resnetd_cli.cli.training_progress import Display
    from resnetd_cli.training.monitors import Several, TensorBoard
    from resnetd_cli.training.plan import Surroundings
    from resnetd_cli.training.seeds import carry_out

    name_temporary_folder()
    name_user()
    _set_threads(request)
    if os.environ.get("RANK", "0") != "0":  # the first of several processes shows and writes for all
        with stopping.requests() as should_stop:
            began = request.began
            return carry_out(plan, lambda _: Surroundings(Several(), lambda _: None, should_stop, began=began))
    display = Display(terminal)
    with stopping.requests() as should_stop:

        def around(folder: Path) -> Surroundings:
            logs = [TensorBoard(folder / "tensorboard")] if request.tensorboard else []
            return Surroundings(
                monitor=Several(display, *logs),
                note=terminal.note,
                should_stop=should_stop,
                surveying=display.survey,
                unreadable=_tell_failure,
                surveyed=_tell_survey,
                progress=terminal.download_bar(),
                began=request.began,
            )

        try:
            return carry_out(plan, around)
        finally:
            display.close()


def train_in_child(plan: Any, request: Request, quiet: bool, verbose: bool) -> dict[str, Any] | None:
    """Carry out a plan as one of several processes."""
    own_stderr()
    terminal.setup(quiet=quiet, verbose=verbose)
    return train(plan, request)


def _tell_failure(failure: Failure) -> None:
    from resnetd_cli.cli.running import tell_failure

    tell_failure(failure)


def _tell_survey(found: Survey, divided: Divided) -> None:
    for note in (*found.notes, *divided.notes):
        terminal.note(note)
    if not terminal.quiet and sys.stderr is not None:
        from resnetd_cli.views.counts import write_counts

        counts = {name: part.counts() for name, part in divided.parts.items()}
        write_counts(divided.train.classes, counts, sys.stderr)


def _set_threads(request: Request) -> None:
    import torch

    from resnetd_cli.system.cpus import usable_cpus

    torch.set_num_threads(request.threads or max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _changes(settings: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    from resnetd_cli.training.recipe import parse_setting, read

    given = {
        name: read(name, value, f"--{name.replace('_', '-')}") if isinstance(value, str) else value
        for name, value in settings.items()
        if value is not None
    }
    found: dict[str, Any] = {}
    for name, value in [*map(parse_setting, texts), *given.items()]:
        if found.setdefault(name, value) != value:
            raise UsageError(f"{name} is set to {found[name]} and to {value}", hint="leave one of them out")
    return found


def _tell_end(summary: dict[str, Any] | None, plan: Any) -> None:
    if summary is None:
        terminal.note(f"saved; to go on: {_again()}")
        raise stopping.as_interrupt()
    for split in ("val", "test"):
        if "figures" in summary:
            _tell_spread(split, summary)
        elif figures := summary[split]:
            terminal.note(f"{split}: top-1 {figures['top1']:.2%}, loss {figures['loss']:.3f}")
    terminal.note(f"{plan.folder} is a model now: resnetd predict IMAGE --model {shell_word(plan.folder)}")


def _tell_spread(split: str, record: dict[str, Any]) -> None:
    """Tell mean and standard deviation over the seeds, and the figures of the best one."""
    if not (figures := record["figures"][split]):
        return
    top1, loss = figures["top1"], figures["loss"]
    (best,) = (run for run in record["runs"] if run["seed"] == record["best"])
    terminal.note(
        f"{split}: top-1 {top1['mean']:.2%} +/- {top1['sd']:.2%} ({top1['min']:.2%} to {top1['max']:.2%}), "
        f"loss {loss['mean']:.3f} +/- {loss['sd']:.3f} over {len(record['runs'])} seeds; "
        f"seed {best['seed']}, which is kept: {best[split]['top1']:.2%}"
    )


def _again() -> str:
    """Return the command line that goes on with this run: this one, and --resume."""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return shlex.join(["resnetd", *words, "--resume"])
