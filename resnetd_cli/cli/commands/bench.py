"""`resnetd bench`: measure the speed of a model on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.input_arguments import InputArguments
from resnetd_cli.cli.number_parsers import number
from resnetd_cli.errors import ExitCode, UsageError
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice


def bench(
    inputs: options.InputArgument = None,
    model: options.Model = DEFAULT_MODEL,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    seconds: Annotated[
        float,
        typer.Option("--seconds", parser=number(1, 3600), metavar="S", help="Approximate time to measure."),
    ] = 30.0,
    all_forms: Annotated[
        bool, typer.Option("--all", help="Compare every engine and precision that this machine runs.")
    ] = False,
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
    engine: options.Engine = "auto",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    decode: options.Decode = options.DecodeChoice.EXACT,
) -> int:
    """Measure how fast a model is on this machine, what limits it, and which settings are fastest.

    resnetd bench

    resnetd bench photos/ --model embedded --seconds 60 -f json

    resnetd bench --all --seconds 120
    """
    if all_forms and precision != "fp32":
        raise UsageError("--all measures every precision", hint="leave out --precision")
    choice = ModelChoice.of(model, weights, image_size)
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    given = InputArguments(inputs or [], files_from, null) if inputs or files_from or null else None
    sources = given.sources() if given else None

    from resnetd_cli.cli import result_loop
    from resnetd_cli.cli.outputs import TextOutput
    from resnetd_cli.cli.protected_files import model_files
    from resnetd_cli.views.bench import write_ranking, write_report

    target = TextOutput.choose(
        format.value,
        output,
        overwrite=overwrite,
        reads=[*(inputs or []), files_from, weights, *model_files(choice.model)],
    )

    from dataclasses import replace

    from resnetd_cli.evaluation.bench import BenchReport, measure, rank, read_sample, synthetic_sample
    from resnetd_cli.loading import Loader
    from resnetd_cli.pipeline.engines.pytorch import gpu_is_likely
    from resnetd_cli.pipeline.engines.table import runnable
    from resnetd_cli.pipeline.options import InputOptions, Runtime
    from resnetd_cli.system.cpus import usable_cpus

    sample = synthetic_sample() if sources is None else read_sample(sources, model)
    for failure in sample.failures:
        result_loop.report_failure(failure)
    if given:
        given.report_skipped()
    runtime = Runtime(engine, precision, device, batch_size)
    loader = Loader(
        choice,
        runtime=runtime,
        inputs=InputOptions(decode=decode.value),
        downloads=terminal.downloads(offline=offline),
        note=terminal.note,
    )

    def measure_form(engine: str, precision: str, seconds: float) -> BenchReport:
        form = replace(runtime, engine=engine, precision=precision)
        return measure(
            lambda threads: replace(loader, runtime=replace(form, threads=threads)).load(),
            sample,
            cpus=usable_cpus(),
            seconds=seconds,
            batch_size=batch_size,
        )

    if all_forms:
        ranking = rank(runnable(engine, gpu=gpu_is_likely()), measure_form, seconds)
        with target.open() as stream:
            write_ranking(ranking, stream, target.format, header=not no_header)
    else:
        report = measure_form(engine, precision, seconds)
        with target.open() as stream:
            write_report(report, stream, target.format, header=not no_header)
    return ExitCode.PARTIAL if sample.failures else ExitCode.OK
