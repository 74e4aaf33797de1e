"""`resnetd pull`: download, compile and quantise models ahead of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import ExitCode, ResnetdError, UsageError

if TYPE_CHECKING:
    from resnetd_cli.cli.result_loop import Failures
    from resnetd_cli.compiled.bundles import Bundle
    from resnetd_cli.loading import Loader
    from resnetd_cli.pipeline.sources.expand import Source
    from resnetd_cli.results import Agreement

_COLUMNS = {"model": "model", "precision": "precision", "engine": "engine", "megabytes": "MB", "folder": "folder"}


def pull(
    models: options.ModelArguments,
    precision: options.PullPrecision = "fp32",
    calibrate: options.Calibrate = None,
    verify: options.Verify = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = "train",
    offline: options.Offline = False,
    format: options.OutputFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    no_header: options.NoHeader = False,
    no_progress: options.NoProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Download and compile models now, so that the first predict is as fast as later ones.

    resnetd pull resnet50d resnet101d

    resnetd pull resnet50d --precision int8 --calibrate photos/ --verify others/
    """
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    if calibrate and precision != "int8":
        raise UsageError("--calibrate requires --precision int8", hint="add it, or leave --calibrate out")

    from resnetd_cli.cli.input_arguments import images_of
    from resnetd_cli.cli.outputs import TextOutput
    from resnetd_cli.cli.protected_files import model_files
    from resnetd_cli.cli.result_loop import Failures
    from resnetd_cli.loading import Loader
    from resnetd_cli.models.names import ModelChoice
    from resnetd_cli.pipeline.options import Runtime
    from resnetd_cli.views.listing import write_facts, write_rows

    choices = [ModelChoice.of(model, weights, image_size) for model in models]
    reads = [weights, *(calibrate or []), *(verify or []), *model_files(*(choice.model for choice in choices))]
    target = TextOutput.choose(format.value, output, overwrite=overwrite, reads=reads)
    calibration, verification = images_of("--calibrate", calibrate), images_of("--verify", verify)
    for choice in choices:  # report a misspelt name before the first download
        _ = choice.model.resolved
    rows, failures, code = [], Failures(), ExitCode.OK
    for choice in choices:
        loader = Loader(
            choice,
            runtime=Runtime(precision=precision),
            downloads=terminal.downloads(offline=offline),
            note=terminal.note,
        )
        try:
            rows.append(_pull(loader, calibration, verification, failures))
        except ResnetdError as error:
            if len(models) == 1:
                raise
            terminal.error(error, about=choice.model.text)
            code = ExitCode.FAILED
    with target.open() as stream:
        if verify and target.format == "table":
            for row in rows:
                write_facts(row, stream, "table", shown=_in_words(row))
        else:
            write_rows(rows, stream, target.format, header=not no_header, columns=_COLUMNS)
    return code or failures.exit_code


def _pull(
    loader: Loader,
    calibration: Sequence[Source] | None,
    verification: Sequence[Source] | None,
    failures: Failures,
) -> dict[str, Any]:
    from resnetd_cli.pull import pull, verify

    bundle = pull(loader, calibration, on_failure=failures.report)
    precision = loader.runtime.precision
    agreement = bundle.card.agreement if bundle.card.precision == precision else None
    if verification and bundle.failure is None:
        agreement = verify(loader, verification, on_failure=failures.report)
    return _row(bundle, agreement, precision)


def _row(bundle: Bundle, agreement: Agreement | None, precision: str) -> dict[str, Any]:
    from resnetd_cli.about import agreement_facts
    from resnetd_cli.pipeline.engines.table import graph_engine, network_engine

    return {
        "model": bundle.card.name,
        "precision": precision,
        "engine": (network_engine() if bundle.failure else graph_engine(precision=precision)).name,
        "failure": bundle.failure,
        "megabytes": None if bundle.failure else round(bundle.graph.stat().st_size / 1e6, 1),
        "calibration_images": bundle.card.origin.calibration_images or None,
        **agreement_facts(agreement),
        "folder": str(bundle.folder),
    }


def _in_words(row: dict[str, Any]) -> dict[str, str]:
    from resnetd_cli.views import agreement

    words = {"model": f"{row['model']} in {row['precision']}, on {row['engine']}"}
    return words | (agreement.in_words(row) if row["images"] else {}) | {"folder": row["folder"]}
