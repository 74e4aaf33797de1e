"""`resnetd features`: write the embeddings of images as an array file."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.input_arguments import InputArguments
from resnetd_cli.errors import UsageError
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice
from resnetd_cli.net.fetch import CONNECTIONS, MAX_BYTES, TIMEOUT
from resnetd_cli.pipeline.decode.image import MAX_PIXELS, DecodeOptions
from resnetd_cli.pipeline.sources.reading import ReadOptions


def features(
    inputs: options.InputArgument = None,
    output: options.Output = None,
    model: options.Model = DEFAULT_MODEL,
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="LAYER",
            help="pooled (what the classifier sees), logits, or a stage such as layer3 (its mean).",
        ),
    ] = "pooled",
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
    offline: options.Offline = False,
    overwrite: options.Overwrite = False,
    escape_formulas: options.EscapeFormulas = False,
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
    """Write an embedding of each image: row i of the array is the i-th readable image.

    resnetd features img.jpg --out feats.npy

    resnetd features photos/ --out photos.safetensors --layer layer3

    FILE.index.csv, beside the array, lists every input with its row, or why it has none.
    """
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    given = InputArguments(inputs or [], files_from, null, all_files, follow)
    choice = ModelChoice.of(model, weights, image_size)
    reading = ReadOptions(max_bytes, timeout, allow_private_hosts, connections)
    sources = given.sources(reading)

    from resnetd_cli.cli import outputs, protected_files, record_output, result_loop

    if output is None:
        raise UsageError(
            "features go to a file", hint="--out feats.npy, or predict --features -f jsonl for records"
        )
    path = outputs.as_path(output)
    sink = record_output.array_sink(path, overwrite=overwrite, keep=not fail_fast, escape_formulas=escape_formulas)
    paths = record_output.array_paths(path)
    reads = [*given.texts, files_from, weights, *protected_files.model_files(choice.model)]
    outputs.check_outputs(*paths, overwrite=overwrite, reads=reads)

    from resnetd_cli.loading import Loader
    from resnetd_cli.pipeline.engines.base import Wanted
    from resnetd_cli.pipeline.options import InputOptions, Runtime

    decoding = DecodeOptions(
        max_pixels, timeout, guard.value, ignore_exif=ignore_exif, allow_truncated=allow_truncated
    )
    classifier = Loader(
        choice,
        wanted=Wanted(logits=False, layer=layer),
        runtime=Runtime(engine, precision, device, batch_size, workers, threads, given.single),
        inputs=InputOptions(reading, decoding, decode.value),
        downloads=terminal.downloads(offline=offline),
        note=terminal.note,
    ).load()
    result_loop.report_engine(classifier)
    with record_output.open_arrays(sink):
        results = classifier.embed(protected_files.checked_inputs(sources, *paths))
        code = result_loop.drain(results, sink.write, given, fail_fast=fail_fast)
        if not sink.rows:
            sink.width = classifier.feature_width()
    index = f"; its index: {paths[1]}" if len(paths) > 1 else ""
    terminal.note(f"{path or 'standard output'}: {sink.rows} x {sink.width} float32{index}")
    return code
