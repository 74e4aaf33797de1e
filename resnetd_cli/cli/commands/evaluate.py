"""`resnetd evaluate`: measure accuracy and calibration on labelled images, and compare two models."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.number_parsers import whole
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice
from resnetd_cli.net.fetch import TIMEOUT
from resnetd_cli.pipeline.decode.image import MAX_PIXELS, DecodeOptions
from resnetd_cli.pipeline.sources.reading import ReadOptions

if TYPE_CHECKING:
    from resnetd_cli.classifier import Classifier


class Split(str, Enum):
    """The split of a data set to measure on."""

    TEST = "test"
    VAL = "val"
    TRAIN = "train"
    ALL = "all"


def evaluate(
    data: Annotated[
        str, typer.Argument(metavar="DIR", help="Labelled images: DIR/CLASS/*.jpg, DIR/test/CLASS/*.jpg, ...")
    ],
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The model, as for predict; give two to compare them.  [default: RESNETD_MODEL, else resnet50d]",
            autocompletion=options.complete_model,
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Optional[Split],
        typer.Option(
            "--split",
            help="The split to use.  [default: test, val, all or train, the first in DIR]",
            show_default=False,
        ),
    ] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out images of classes that the model lacks.")
    ] = False,
    include_training: Annotated[
        bool,
        typer.Option("--include-training-images", help="Also measure on images that the model was trained on."),
    ] = False,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Fit a temperature, and store it with the model.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", hidden=True, help="The former name of --fit-temperature.")
    ] = False,
    real: Annotated[
        bool, typer.Option("--real-labels", help="Also measure with ImageNet's reassessed labels.")
    ] = False,
    fail_under: Annotated[
        Optional[float],
        typer.Option(
            "--fail-under",
            metavar="A",
            help="Exit with 1 if top-1 is below A (for example 0.93).",
            show_default=False,
        ),
    ] = None,
    per_image: Annotated[
        Optional[Path],
        typer.Option(
            "--per-image",
            metavar="FILE",
            help="Write one row per image to FILE: .csv, .jsonl or .parquet.",
            show_default=False,
        ),
    ] = None,
    with_logits: Annotated[
        bool, typer.Option("--with-logits", help="Add the logits of each image to --per-image.")
    ] = False,
    mistakes: Annotated[
        int,
        typer.Option(
            "--mistakes", parser=whole(0), metavar="N", help="Number of most confident mistakes to list."
        ),
    ] = 10,
    temperature: options.Temperature = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = "train",
    labels: options.Labels = None,
    offline: options.Offline = False,
    ignore_exif: options.IgnoreExif = False,
    allow_truncated: options.AllowTruncated = False,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    timeout: options.Timeout = TIMEOUT,
    guard: options.Guard = options.GuardChoice.SUSPECT,
    decode: options.Decode = options.DecodeChoice.EXACT,
    fail_fast: options.FailFast = False,
    format: options.OutputFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    no_header: options.NoHeader = False,
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
    """Measure how often a model is right on labelled images, how sure it is, and where it goes wrong.

    resnetd evaluate photos/ --model embedded

    resnetd evaluate photos/ --model RUN --fit-temperature

    resnetd evaluate photos/ --model RUN --model embedded.onnx -f json --fail-under 0.93
    """
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    models = model or [os.environ.get("RESNETD_MODEL") or DEFAULT_MODEL]
    fit = fit_temperature or calibrate
    choices = [ModelChoice.of(name, weights, image_size) for name in models]

    from resnetd_cli.cli.evaluation import (
        check_and_separate,
        check_options,
        check_per_image,
        exit_code,
        keep_temperature,
        note_images,
        note_results,
        open_rows_file,
        stop,
    )

    check_options(models, weights, fail_under, fit=fit, temperature=temperature)
    check_per_image(per_image, with_logits=with_logits)

    from resnetd_cli.cli import result_loop
    from resnetd_cli.cli.outputs import TextOutput, check_outputs
    from resnetd_cli.cli.protected_files import model_files
    from resnetd_cli.views.evaluation import image_notes, write_reports

    reads = [data, weights, labels, *model_files(*(choice.model for choice in choices))]
    target = TextOutput.choose(format.value, output, overwrite=overwrite, reads=reads)
    check_outputs(target.path, per_image, overwrite=overwrite, reads=reads)

    from resnetd_cli.evaluation import held_out
    from resnetd_cli.evaluation.comparison import compare_models
    from resnetd_cli.evaluation.evaluate import evaluate
    from resnetd_cli.evaluation.images import open_images
    from resnetd_cli.evaluation.temperature import temperature_file
    from resnetd_cli.loading import Loader
    from resnetd_cli.pipeline.options import InputOptions, Runtime

    place = temperature_file(choices[0]) if fit else None
    learnt = [held_out.learnt_by(choice) for choice in choices]
    images = open_images(
        data,
        split.value if split else None,
        real=real,
        offline=offline,
        reading=ReadOptions(timeout=timeout),
    )
    note_images(data, images)
    failures = result_loop.Failures()
    decoding = DecodeOptions(
        max_pixels, timeout, guard.value, ignore_exif=ignore_exif, allow_truncated=allow_truncated
    )

    def load_one(choice: ModelChoice) -> Classifier:
        classifier = Loader(
            choice,
            class_names=labels,
            temperature=1.0 if fit else temperature,
            runtime=Runtime(engine, precision, device, batch_size, workers, threads),
            inputs=InputOptions(decoding=decoding, decode=decode.value),
            downloads=terminal.downloads(offline=offline),
            note=terminal.note,
        ).load()
        result_loop.report_engine(classifier)
        return classifier

    # Load all models first, so that an error of the second comes before the first is measured.
    classifiers = {choice.model.text: load_one(choice) for choice in choices}
    if skip_unknown:
        images, notes = images.known_to([classifier.class_names for classifier in classifiers.values()])
        terminal.notes(notes)
    images, trained_on = check_and_separate(
        images, classifiers, learnt, real=real, include=include_training, decoding=decoding, workers=workers
    )
    evaluated = []
    with open_rows_file(per_image, overwrite, with_logits, not no_header, escape_formulas) as on_row:
        for classifier, seen in zip(classifiers.values(), trained_on, strict=True):
            with terminal.tracking(lambda: len(images), wanted=True) as track:
                each = evaluate(
                    classifier,
                    images,
                    fit=fit,
                    real=real,
                    mistakes=mistakes,
                    trained_on=seen,
                    on_row=on_row,
                    on_failure=stop if fail_fast else failures.report_once,
                    track=track,
                )
            evaluated.append(each)
    terminal.notes(image_notes(evaluated[0].report.counts))
    comparison = compare_models(*evaluated) if len(evaluated) > 1 else None
    if fit:  # before the report, whose reader may close the pipe
        keep_temperature(
            evaluated[0],
            images,
            models[0],
            classifiers[models[0]],
            place,
            {"--weights": weights, "--image-size": image_size, "--precision": precision},
        )
    if target.format != "table" or target.path:
        note_results(evaluated, comparison)
    with target.open() as stream:
        write_reports(
            images,
            [each.report for each in evaluated],
            comparison,
            stream,
            target.format,
            header=not no_header,
            escape_formulas=escape_formulas,
        )
    return exit_code(evaluated, fail_under, failures.exit_code)
