"""`resnetd evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.numbers import whole
from resnetd_cli.errors import ExitCode, ResnetdError, UsageError
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice
from resnetd_cli.net.fetch import TIMEOUT
from resnetd_cli.pipeline.decode.image import MAX_PIXELS, DecodeOptions
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Failure
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    from resnetd_cli.classifier import Classifier
    from resnetd_cli.evaluation.comparison import Comparison
    from resnetd_cli.evaluation.image_rows import ImageRow
    from resnetd_cli.evaluation.images import LabelledImages
    from resnetd_cli.evaluation.records import Evaluated
    from resnetd_cli.models.trained_on import Known


_ENOUGH = 100
"""Images: with fewer a temperature is mostly chance."""


_DEFAULTS = (None, "train", "fp32")
"""Of the options that a model was loaded with."""


class Split(str, Enum):
    """Which of a data set's images."""

    TEST = "test"
    VAL = "val"
    TRAIN = "train"
    ALL = "all"


def evaluate(  # noqa: PLR0915
    data: Annotated[
        str, typer.Argument(metavar="DIR", help="Labelled images: DIR/CLASS/*.jpg, DIR/test/CLASS/*.jpg, ...")
    ],
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="As predict takes it; twice to compare two.  [default: RESNETD_MODEL, else resnet50d]",
            autocompletion=options.complete_model,
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Optional[Split],
        typer.Option(
            "--split", help="By default the first there is of test, val, all, train.", show_default=False
        ),
    ] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out images of classes that the model lacks.")
    ] = False,
    include_training: Annotated[
        bool,
        typer.Option("--include-training-images", help="Measure also on images that the model was trained on."),
    ] = False,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Fit a temperature, and store it with the model.")
    ] = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", hidden=True, help="Former name of it.")] = False,
    real: Annotated[
        bool, typer.Option("--real-labels", help="Judge by ImageNet's reassessed labels too.")
    ] = False,
    fail_under: Annotated[
        Optional[float],
        typer.Option(
            "--fail-under", metavar="A", help="Exit with 1 if top-1 is below, as 0.93.", show_default=False
        ),
    ] = None,
    per_image: Annotated[
        Optional[Path],
        typer.Option(
            "--per-image",
            metavar="FILE",
            help="Write a row for each image here: .csv, .jsonl or .parquet.",
            show_default=False,
        ),
    ] = None,
    with_logits: Annotated[
        bool, typer.Option("--with-logits", help="Write the logits of each image with --per-image, too.")
    ] = False,
    mistakes: Annotated[
        int,
        typer.Option("--mistakes", parser=whole(0), metavar="N", help="How many of the surest mistakes to name."),
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
    _check(models, weights, fail_under, fit=fit, temperature=temperature)
    _check_rows(per_image, with_logits=with_logits)

    from resnetd_cli.cli import running
    from resnetd_cli.cli.outputs import TextOutput, check_outputs
    from resnetd_cli.cli.spared import model_files
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
    from resnetd_cli.models.hub import Downloads
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
    of_classes = f" of {counted(len(images.classes), 'class')}" if images.classes else ""
    terminal.note(f"{data}, {images.split}: {counted(len(images), 'image', ',')}{of_classes}")
    terminal.notes(images.notes)
    failures = running.Failures()
    decoding = DecodeOptions(
        max_pixels, timeout, guard.value, ignore_exif=ignore_exif, allow_truncated=allow_truncated
    )

    def load_one(choice: ModelChoice) -> Classifier:
        classifier = Loader(
            choice,
            class_names=labels,
            temperature=1.0 if fit else temperature,
            runtime=Runtime(engine, precision, device, batch_size, workers, threads),
            inputs=InputOptions(decoding=decoding),
            downloads=Downloads(offline, terminal.download_bar),
            note=terminal.note,
        ).load()
        running.tell_engine(classifier)
        return classifier

    # All are loaded first: what is wrong with the second is told before the first is measured.
    classifiers = {choice.model.text: load_one(choice) for choice in choices}
    if skip_unknown:
        images, notes = images.known_to([classifier.class_names for classifier in classifiers.values()])
        terminal.notes(notes)
    images, trained_on = _check_and_separate(
        images, classifiers, learnt, real=real, include=include_training, decoding=decoding, workers=workers
    )
    evaluated = []
    with _rows(per_image, overwrite, with_logits, not no_header, escape_formulas) as on_row:
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
                    on_failure=_stop if fail_fast else failures.tell_once,
                    track=track,
                )
            evaluated.append(each)
    terminal.notes(image_notes(evaluated[0].report.counts))
    comparison = compare_models(*evaluated) if len(evaluated) > 1 else None
    if fit:  # first, for the reader of the report may go away
        asked = {"--weights": weights, "--image-size": image_size, "--precision": precision}
        _keep(evaluated[0], images, models[0], classifiers[models[0]], place, asked)
    if target.format != "table" or target.path:
        _tell_in_short(evaluated, comparison)
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
    return _exit_code(evaluated, fail_under, failures.exit_code)


def _stop(failure: Failure) -> None:
    raise ResnetdError(f"{failure.input}: {failure.message}", **failure.advice)


def _check(
    models: list[str], weights: Path | None, fail_under: float | None, *, fit: bool, temperature: float | None
) -> None:
    """Find out early what does not go together.

    Raises:
        UsageError: something does not.
    """
    if len(models) > 2:
        raise UsageError(f"{len(models)} models: two at most are compared", hint="name --model once or twice")
    if len(models) == 2:
        if models[0] == models[1]:
            raise UsageError(f"{models[0]} is named twice", hint="name two models to compare")
        if weights is not None:
            raise UsageError(
                "--weights does not say which of two models", hint="compare model folders, or exports"
            )
        if fit:
            raise UsageError("--fit-temperature takes one model", hint="fit each on its own")
    if fit and temperature is not None:
        raise UsageError("--fit-temperature fits the temperature itself", hint="leave out --temperature")
    if fail_under is not None and not 0 <= fail_under <= 1:
        as_share = f"{fail_under:g} % is {fail_under / 100:g}" if 1 < fail_under <= 100 else "as 0.93"
        raise UsageError(f"--fail-under {fail_under:g}: not a share from 0 to 1", hint=as_share)


def _check_rows(path: Path | None, *, with_logits: bool) -> None:
    """Find out early what is wrong with the file of rows.

    Raises:
        UsageError: something is.
    """
    if path is not None:
        from resnetd_cli.views.per_image import check_name

        check_name(path)
    elif with_logits:
        raise UsageError("--with-logits goes with --per-image", hint="--per-image FILE.parquet --with-logits")


def _check_and_separate(
    images: LabelledImages,
    classifiers: Mapping[str, Classifier],
    learnt: Sequence[Known],
    *,
    real: bool,
    **options: Any,
) -> tuple[LabelledImages, list[int | None]]:
    """Check that all models can be measured on images, and return those to measure on; see `held_out.separate`."""
    from resnetd_cli.evaluation import held_out
    from resnetd_cli.evaluation.evaluate import check

    for name, classifier in classifiers.items():
        if note := check(classifier, images, real=real):
            terminal.note(f"{name}: {note}")
    with terminal.counting(lambda: len(images)) as looked:
        images, trained_on, notes = held_out.separate(images, learnt, looked=looked, **options)
    terminal.notes(notes)
    return images, trained_on


def _rows(path: Path | None, *options: bool) -> AbstractContextManager[Callable[[ImageRow], object] | None]:
    """Open the file of rows, if one is wanted, with the options of `per_image.RowOptions`."""
    if path is None:
        return nullcontext()
    from resnetd_cli.views.per_image import RowOptions, open_rows

    return open_rows(path, RowOptions(*options))


def _tell_in_short(evaluated: list[Evaluated], comparison: Comparison | None) -> None:
    from resnetd_cli.views.evaluation import comparison_in_words, in_short

    for each in evaluated:
        terminal.note(in_short(each.report))
    if comparison:
        terminal.note(comparison_in_words(comparison))


def _keep(
    evaluated: Evaluated,
    images: LabelledImages,
    model: str,
    classifier: Classifier,
    place: Path | None,
    asked: Mapping[str, object],
) -> None:
    """Store the temperature with the model, or say how to use it."""
    from resnetd_cli.evaluation.temperature import store_temperature
    from resnetd_cli.results import FittedTemperature

    temperature, counts = evaluated.report.model.temperature, evaluated.report.counts
    seen = counts.trained_on
    if seen or (seen is None and images.split == Split.TRAIN.value):
        verb = "was" if seen else "may have been"
        terminal.note(f"fitted on images that it {verb} trained on, where a model is too often right")
    if counts.answered < _ENOUGH:
        terminal.note(f"fitted on {counted(counts.answered, 'image')}: some hundreds tell a temperature better")
    if place is None:
        given = {"--model": model, **{key: value for key, value in asked.items() if value not in _DEFAULTS}}
        words = " ".join(f"{option} {shell_word(str(value))}" for option, value in given.items())
        terminal.note(
            "a temperature is kept with a model folder's own weights and with an exported file, not here: "
            f"predict {words} --temperature {temperature:.4g}"
        )
        return
    new = FittedTemperature.at(temperature, classifier.preprocessing, classifier.precision)
    store_temperature(place, new, note=terminal.note)
    terminal.note(
        f"{place} keeps the temperature {temperature:.4g} for {new.in_words()}: predict divides logits by it"
    )


def _exit_code(evaluated: list[Evaluated], fail_under: float | None, otherwise: ExitCode) -> ExitCode:
    below = [each.report for each in evaluated if fail_under is not None and each.report.accuracy < fail_under]
    for report in below:
        message = f"{report.model.name}: top-1 is {report.accuracy:.4f}, below {fail_under:g}"
        terminal.error(ResnetdError(message))
    return ExitCode.FAILED if below else otherwise
