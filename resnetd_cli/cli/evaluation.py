"""Helpers of `resnetd evaluate`: check the options, note what is found, and store the temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import ExitCode, ResnetdError, UsageError
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
"""Number of images; a temperature fitted on fewer is mostly noise."""
_DEFAULTS = (None, "train", "fp32")
"""The defaults of the options that choose how a model is loaded."""


def stop(failure: Failure) -> None:
    """End the command at a failure, for `--fail-fast`."""
    raise ResnetdError(f"{failure.input}: {failure.message}", **failure.advice)


def check_options(
    models: list[str], weights: Path | None, fail_under: float | None, *, fit: bool, temperature: float | None
) -> None:
    """Check which options go together.

    Raises:
        UsageError: some do not go together.
    """
    if len(models) > 2:
        raise UsageError(f"{len(models)} models: at most two can be compared", hint="give --model once or twice")
    if len(models) == 2:
        if models[0] == models[1]:
            raise UsageError(f"{models[0]} is named twice", hint="name two models to compare")
        if weights is not None:
            raise UsageError(
                "--weights cannot be used with two models", hint="compare model folders or exported files"
            )
        if fit:
            raise UsageError("--fit-temperature takes one model", hint="fit each on its own")
    if fit and temperature is not None:
        raise UsageError("--fit-temperature fits the temperature itself", hint="leave out --temperature")
    if fail_under is not None and not 0 <= fail_under <= 1:
        as_share = f"{fail_under:g} % is {fail_under / 100:g}" if 1 < fail_under <= 100 else "as 0.93"
        raise UsageError(f"--fail-under {fail_under:g}: not a share from 0 to 1", hint=as_share)


def check_per_image(path: Path | None, *, with_logits: bool) -> None:
    """Check the name of the `--per-image` file.

    Raises:
        UsageError: it does not say the format, or there is no file for the logits.
    """
    if path is not None:
        from resnetd_cli.views.per_image import check_name

        check_name(path)
    elif with_logits:
        raise UsageError("--with-logits requires --per-image", hint="--per-image FILE.parquet --with-logits")


def note_images(data: str, images: LabelledImages) -> None:
    """Note the split, and the numbers of images and classes."""
    of_classes = f" of {counted(len(images.classes), 'class')}" if images.classes else ""
    terminal.note(f"{data}, {images.split}: {counted(len(images), 'image', ',')}{of_classes}")
    terminal.notes(images.notes)


def check_and_separate(
    images: LabelledImages,
    classifiers: Mapping[str, Classifier],
    learnt: Sequence[Known],
    *,
    real: bool,
    **options: Any,
) -> tuple[LabelledImages, list[int | None]]:
    """Check that all models fit the images, and leave out training images; see `held_out.separate`."""
    from resnetd_cli.evaluation import held_out
    from resnetd_cli.evaluation.evaluate import check

    for name, classifier in classifiers.items():
        if note := check(classifier, images, real=real):
            terminal.note(f"{name}: {note}")
    with terminal.counting(lambda: len(images)) as looked:
        images, trained_on, notes = held_out.separate(images, learnt, looked=looked, **options)
    terminal.notes(notes)
    return images, trained_on


def open_rows_file(
    path: Path | None, *options: bool
) -> AbstractContextManager[Callable[[ImageRow], object] | None]:
    """Open the `--per-image` file, if one is wanted, with the options of `per_image.RowOptions`."""
    if path is None:
        return nullcontext()
    from resnetd_cli.views.per_image import RowOptions, open_rows

    return open_rows(path, RowOptions(*options))


def note_results(evaluated: list[Evaluated], comparison: Comparison | None) -> None:
    """Note the accuracy of each model, and the comparison."""
    from resnetd_cli.views.evaluation import comparison_in_words, in_short

    for each in evaluated:
        terminal.note(in_short(each.report))
    if comparison:
        terminal.note(comparison_in_words(comparison))


def keep_temperature(
    evaluated: Evaluated,
    images: LabelledImages,
    model: str,
    classifier: Classifier,
    place: Path | None,
    asked: Mapping[str, object],
) -> None:
    """Store the temperature with the model, or note how to use it."""
    from resnetd_cli.evaluation.temperature import store_temperature
    from resnetd_cli.results import FittedTemperature

    temperature, counts = evaluated.report.model.temperature, evaluated.report.counts
    seen = counts.trained_on
    if seen or (seen is None and images.split == "train"):
        verb = "was" if seen else "may have been"
        terminal.note(f"fitted on images that it {verb} trained on, where it is right too often")
    if counts.answered < _ENOUGH:
        terminal.note(f"fitted on {counted(counts.answered, 'image')}: a few hundred give a better temperature")
    if place is None:
        given = {"--model": model, **{key: value for key, value in asked.items() if value not in _DEFAULTS}}
        words = " ".join(f"{option} {shell_word(str(value))}" for option, value in given.items())
        terminal.note(
            "a temperature can be stored only with a model folder's own weights or in an exported file: "
            f"predict {words} --temperature {temperature:.4g}"
        )
        return
    new = FittedTemperature.at(temperature, classifier.preprocessing, classifier.precision)
    store_temperature(place, new, note=terminal.note)
    terminal.note(
        f"{place} now has the temperature {temperature:.4g} for {new.in_words()}: predict divides logits by it"
    )


def exit_code(evaluated: list[Evaluated], fail_under: float | None, otherwise: ExitCode) -> ExitCode:
    """Return the exit code: 1 if a model's accuracy is below the limit, with an error that says so."""
    below = [each.report for each in evaluated if fail_under is not None and each.report.accuracy < fail_under]
    for report in below:
        message = f"{report.model.name}: top-1 is {report.accuracy:.4f}, below {fail_under:g}"
        terminal.error(ResnetdError(message))
    return ExitCode.FAILED if below else otherwise
