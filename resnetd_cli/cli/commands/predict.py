"""`resnetd predict`: classify images and write a record for each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import is_tty, terminal
from resnetd_cli.cli.input_arguments import InputArguments
from resnetd_cli.errors import UsageError
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice
from resnetd_cli.net.fetch import CONNECTIONS, MAX_BYTES, TIMEOUT
from resnetd_cli.pipeline.decode.image import MAX_PIXELS, DecodeOptions
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Classified, Failure

_TOP_K = 5


def predict(
    inputs: options.InputArgument = None,
    model: options.Model = DEFAULT_MODEL,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    all_files: options.AllFiles = False,
    follow: options.Follow = False,
    ignore_exif: options.IgnoreExif = False,
    allow_truncated: options.AllowTruncated = False,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    max_bytes: options.MaxBytes = MAX_BYTES,
    timeout: options.Timeout = TIMEOUT,
    connections: options.Connections = CONNECTIONS,
    allow_private_hosts: options.AllowPrivateHosts = False,
    guard: options.Guard = options.GuardChoice.SUSPECT,
    decode: options.Decode = options.DecodeChoice.EXACT,
    fail_fast: options.FailFast = False,
    weights: options.Weights = None,
    image_size: options.ImageSize = "train",
    labels: options.Labels = None,
    offline: options.Offline = False,
    top_k: options.TopK = None,
    min_probability: options.MinProbability = 0.0,
    temperature: options.Temperature = None,
    format: options.PredictFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    no_header: options.NoHeader = False,
    escape_formulas: options.EscapeFormulas = False,
    embeddings: Annotated[
        bool,
        typer.Option("--features", help="Include each image's embedding in json and jsonl."),
    ] = False,
    features_out: Annotated[
        Optional[Path],
        typer.Option(
            "--features-out",
            metavar="FILE",
            help="Write the embeddings to FILE: .npy, .npz or .safetensors.",
        ),
    ] = None,
    no_progress: options.NoProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    engine: options.Engine = "auto",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
) -> int:
    """Classify images: the most probable classes of each, with their probabilities.

    resnetd predict dog.jpg

    resnetd predict photos/ --model embedded -f csv -o photos.csv

    find . -name '*.jpg' -print0 | resnetd predict --files-from - -0 -f jsonl
    """
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    given = InputArguments(inputs or [], files_from, null, all_files, follow)
    choice = ModelChoice.of(model, weights, image_size)
    reading = ReadOptions(max_bytes, timeout, allow_private_hosts, connections)
    sources = given.sources(reading)

    import sys

    from resnetd_cli.cli import outputs, protected_files, record_output, result_loop
    from resnetd_cli.pipeline.sinks.base import choose_format

    path = outputs.as_path(output)
    on_terminal = path is None and is_tty(sys.stdout)
    first, sources = result_loop.look_ahead(sources) if on_terminal and not files_from else ([], sources)
    as_overview = (files_from or len(first) > 1) and top_k in (None, 1)
    format_name = choose_format(
        format.value, path, terminal=on_terminal, on_terminal="overview" if as_overview else "table"
    )
    if embeddings and format_name not in ("json", "jsonl"):
        raise UsageError(
            f"--features cannot be written as {format_name}", hint="-f jsonl, or --features-out FILE.npy"
        )
    arrays_path = outputs.as_path(features_out)
    writing = {"overwrite": overwrite, "keep": not fail_fast, "escape_formulas": escape_formulas}
    arrays = record_output.array_sink(arrays_path, **writing) if features_out else None
    if arrays and arrays_path is None and path is None:
        raise UsageError("two outputs would be written to standard output", hint="-o FILE writes one of them")
    paths = [path, *(record_output.array_paths(arrays_path) if arrays else [])]
    reads = [*given.texts, files_from, weights, labels, *protected_files.model_files(choice.model)]
    outputs.check_outputs(*paths, overwrite=overwrite, reads=reads)

    from resnetd_cli.loading import Loader
    from resnetd_cli.pipeline.engines.base import LAYER_POOLED, Wanted
    from resnetd_cli.pipeline.options import InputOptions, Runtime

    decoding = DecodeOptions(
        max_pixels, timeout, guard.value, ignore_exif=ignore_exif, allow_truncated=allow_truncated
    )
    classifier = Loader(
        choice,
        class_names=labels,
        temperature=temperature,
        wanted=Wanted(layer=LAYER_POOLED if embeddings or features_out else None),
        runtime=Runtime(engine, precision, device, batch_size, workers, threads, given.single),
        inputs=InputOptions(reading, decoding, decode.value),
        downloads=terminal.downloads(offline=offline),
        note=terminal.note,
    ).load()
    result_loop.report_engine(classifier)
    with ExitStack() as stack:
        if arrays:
            stack.enter_context(record_output.open_arrays(arrays))
        shares_terminal = on_terminal and is_tty(sys.stderr)
        lists_failures = shares_terminal and format_name == "overview"
        if lists_failures:
            stack.callback(given.report_skipped)  # below the summary
        answers = record_output.Records(
            path,
            format_name,
            header=not no_header,
            failures=lists_failures or not shares_terminal,
            names=[source.name for source in first],
            summary=not quiet,
            **writing,
        )
        stack.enter_context(answers)

        def write(result: Classified | Failure) -> None:
            if arrays:
                arrays.write(result)
            if not embeddings and isinstance(result, Classified):
                result = replace(result, embedding=None)
            answers.write(result)

        results = classifier.predict(
            protected_files.checked_inputs(sources, *paths),
            top_k=top_k or _TOP_K,
            min_probability=min_probability,
            embeddings=bool(embeddings or arrays),
        )
        code = result_loop.drain(results, write, given, fail_fast=fail_fast, reported=lists_failures)
        if arrays and not arrays.rows:
            arrays.width = classifier.feature_width()
    return code
