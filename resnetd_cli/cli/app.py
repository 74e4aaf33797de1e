"""The `resnetd` program: registers the commands, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from resnetd_cli import __version__
from resnetd_cli.cli import open_file_limit, signals
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.mistyped import understood
from resnetd_cli.cli.multi_value_options import ManyValuesCommand
from resnetd_cli.errors import ExitCode, Reason, ResnetdError, first_line, innermost
from resnetd_cli.models import hub_environment
from resnetd_cli.system.distribution import how_to_install
from resnetd_cli.system.files import current_folder, too_many_files_hint, write_error
from resnetd_cli.system.wording import system_reason

COMMANDS = {
    "predict": "Classify images.",
    "features": "Write an embedding of each image to an array file.",
    "finetune": "Teach a trained network your own classes.",
    "train": "Train a network from scratch.",
    "evaluate": "Measure how often a model is right.",
    "bench": "Measure how fast a model is on this machine.",
    "list-models": "List the models.",
    "pull": "Download and compile models ahead of use.",
    "export": "Write a model as one .onnx file.",
    "info": "Describe a model.",
    "labels": "Search the ImageNet class names.",
}
"""The commands as `resnetd --help` lists them. To add one, write a module with a function of that name."""


class Commands(Mapping[str, Any]):
    """The commands by name, each made on first use: importing all of them would slow down every start."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Import the module of a command and return the command."""
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._made:
            word = name.replace("-", "_")
            function = getattr(import_module(f"resnetd_cli.cli.commands.{word}"), word)
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=ManyValuesCommand, short_help=COMMANDS[name])(function)
            self._made[name] = get_command(alone)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a command, without importing it."""
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """Return the number of commands."""
        return len(COMMANDS)


class CommandGroup(TyperGroup):
    """The program: a group of the commands in `COMMANDS`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands in `resnetd --help`, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="resnetd",
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # plain help takes half the time of Rich panels
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"resnetd {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def resnetd(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """What is in this picture? Answers from the shell, with ResNet-D and every other timm model.

    Start with: resnetd predict IMAGE --model embedded
    """
    terminal.options = _options_of(context)
    if context.invoked_subcommand is None:
        if sys.stderr is not None:
            typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)


def _options_of(context: typer.Context) -> frozenset[str] | None:
    """Return the options of the command being run; None without one."""
    assert isinstance(context.command, TyperGroup)
    command = context.command.commands.get(context.invoked_subcommand or "")
    return frozenset(name for parameter in command.params for name in parameter.opts) if command else None


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Every error ends here, as one line and a hint."""
    _quiet_libraries()
    try:
        open_file_limit.check()
        code = _invoke(arguments)
        if sys.stdout is not None:  # started with it closed
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does: not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt as interrupt:
        return _stopped(interrupt)
    except Exception as error:
        if signals.raised:
            return _stopped(signals.raised[-1])
        known = _as_resnetd_error(error)
        terminal.error(known)
        if terminal.verbose:
            terminal.lines("".join(traceback.format_exception(error)))
        return known.exit_code


def _stopped(interrupt: KeyboardInterrupt) -> int:
    if isinstance(interrupt, signals.Stopped):
        terminal.note(interrupt.note)
        return interrupt.exit_code
    terminal.note("interrupted")
    return ExitCode.INTERRUPTED


def _invoke(arguments: list[str]) -> int:
    """Parse and run a command line. `app()` would not do: it exits by itself when a pipe is closed."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    if "_RESNETD_COMPLETE" in os.environ:
        command.main(arguments, prog_name="resnetd")
    try:
        with command.make_context("resnetd", understood(arguments, command.commands)) as context:
            return int(command.invoke(context) or ExitCode.OK)
    except typer.Exit as exit_:
        return exit_.exit_code


def _as_resnetd_error(error: Exception) -> ResnetdError:
    """Return the error to show for any exception."""
    if isinstance(error, ResnetdError):
        return error
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("resnetd_cli"):
        return ResnetdError(f"the package {error.name} is not installed", hint=how_to_install())
    if isinstance(error, (ImportError, MemoryError, RuntimeError)) and (shortage := _shortage(error)):
        return shortage
    # Errors of Typer's parser format their own message.
    if hasattr(error, "format_message"):
        said = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # pydantic's wording
        usage = ResnetdError(said, hint=_help_hint(error))
        usage.exit_code = ExitCode.USAGE
        return usage
    message = " ".join(str(error).split())
    return ResnetdError(f"unexpected {type(error).__name__}: {message}", hint="-v shows where; please report it")


def _of_the_system(error: OSError) -> ResnetdError:
    """Return the error for an OSError: about the file it names, or else about writing the output."""
    if error.filename is None:
        try:
            current_folder()
        except ResnetdError as gone:
            return gone
        return write_error("the output", error)
    hint = too_many_files_hint(error) or "-v shows where"
    return ResnetdError(f"{os.fsdecode(error.filename)}: {system_reason(error)}", hint=hint)


def _shortage(error: Exception) -> ResnetdError | None:
    """Return the error for running out of memory or threads, which libraries report only in their message."""
    text = first_line(innermost(error))
    if "new thread" in text:
        return ResnetdError("the system allows no more threads", reason=Reason.NO_MORE_THREADS)
    if isinstance(error, MemoryError) or re.search(r"alloc|out of memory", text):
        return ResnetdError("not enough memory", reason=Reason.NO_MEMORY)
    if isinstance(error, ImportError):
        hint = "there may be too little memory (ulimit -v), or the install is damaged"
        return ResnetdError(f"a library cannot be loaded: {text}", hint=hint)
    return None


def _help_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'resnetd'} --help lists what it accepts"


def _quiet_libraries() -> None:
    """Keep libraries' messages off the terminal; anything important is raised as an error."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    hub_environment.put_in_order()
    # NumPy's OpenBLAS interrupts the process if it cannot start its threads, and is not needed here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import logging

    logging.getLogger("timm").setLevel(logging.ERROR)
