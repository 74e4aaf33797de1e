"""`resnetd list-models`: list the ResNet-D models, or every timm model."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import UsageError

# On a narrow terminal only the first columns fit.
_CARD_COLUMNS = {
    "name": "model",
    "on_this_machine": "here",
    "params_m": "params M",
    "gmacs_train": "GMACs",
    "train_size": "size",
    "top1_train": "top-1",
    "test_size": "test size",
    "top1_test": "top-1",
    "gmacs_test": "GMACs",
    "license": "license",
}
_TIMM_COLUMNS = {
    "name": "model",
    "on_this_machine": "here",
    "input_size": "size",
    "classes": "classes",
    "license": "license",
}


def list_models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="A glob, or part of a name.")] = "*",
    all_models: Annotated[
        bool, typer.Option("--all", "-a", help="List every timm model, not only the ResNet-D family.")
    ] = False,
    format: options.OutputFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    no_header: options.NoHeader = False,
    quiet: options.QuietAnyway = False,
    verbose: options.Verbose = False,
) -> int:
    """List the ResNet-D models, with their size and accuracy, and whether their weights are on this machine.

    resnetd list-models

    resnetd list-models 'vit_*' --all -f tsv
    """
    terminal.setup(quiet=quiet, verbose=verbose)

    from resnetd_cli import about
    from resnetd_cli.cli.outputs import TextOutput
    from resnetd_cli.views.listing import write_rows

    target = TextOutput.choose(format.value, output, overwrite=overwrite)
    rows = about.list_timm(pattern) if all_models else about.list_table(pattern)
    if not rows:
        hint = (
            "resnetd list-models --all searches all timm models"
            if not all_models
            else "PATTERN is a glob, or part of a name"
        )
        raise UsageError(f"no model matches {pattern!r}", hint=hint)
    with target.open() as stream:
        columns = _TIMM_COLUMNS if all_models else _CARD_COLUMNS
        write_rows(rows, stream, target.format, header=not no_header, columns=columns)
    return 0
