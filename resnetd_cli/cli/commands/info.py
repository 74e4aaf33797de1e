"""`resnetd info`: describe one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.engines.base import FP32, INT8
from resnetd_cli.results import FittedTemperature

if TYPE_CHECKING:
    from resnetd_cli.about import Facts


def info(
    model: options.ModelArgument,
    weights: options.Weights = None,
    image_size: options.ImageSize = "train",
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print the BibTeX entries to cite.")] = False,
    format: options.FactsFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    quiet: options.QuietAnyway = False,
    verbose: options.Verbose = False,
) -> int:
    """Show a model's architecture, size, preprocessing and licence, and where its weights are.

    resnetd info resnet50d

    resnetd info resnet50d --bibtex
    """
    choice = ModelChoice.of(model, weights, image_size)
    terminal.setup(quiet=quiet, verbose=verbose)

    from resnetd_cli import about
    from resnetd_cli.cli.outputs import TextOutput
    from resnetd_cli.cli.protected_files import model_files
    from resnetd_cli.views.listing import write_facts

    target = TextOutput.choose(
        format.value, output, overwrite=overwrite, elsewhere="pairs", reads=[weights, *model_files(choice.model)]
    )
    if bibtex:
        with target.open() as stream:
            stream.write(about.bibtex(choice.model))
        return 0
    facts = about.describe(choice)
    with target.open() as stream:
        write_facts(facts, stream, target.format, shown=_in_words(facts))
    return 0


def _in_words(facts: Facts) -> dict[str, str]:
    """Return the facts as readable text, with related ones together and with units."""
    size = facts["input_size"]
    others = " or --image-size N" if facts.get("any_size") else ""
    crop = f"{facts['crop_mode']} crop {facts['crop_pct']}"
    words = {
        "model": facts["model"],
        "architecture": facts["architecture"],
        "the D tweak": facts.get("tweak"),
        "classes": facts["classes"] and f"{facts['classes']:,}",
        "parameters": f"{facts['params_m']:.2f} million",
        "work": facts.get("gmacs")
        and f"{facts['gmacs']} GMACs ({facts['gflops']} GFLOPs) per image at {size} x {size}",
        "accuracy": _accuracy(facts),
        "preprocessing": f"{size} x {size}{others}, {facts['interpolation']}, {crop}",
        "normalised by": f"mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])}",
        "--image-size test": _test_size(facts),
        "temperatures": _temperatures(facts),
        "license": facts.get("license"),
        "hub": facts.get("hub_id"),
        "file size": f"{facts['file_mb']:.1f} MB" + ("" if facts["weights"] else ", about"),
        "weights": facts["weights"] or "not on this machine; the first predict fetches them",
        "engine": f"{facts['engine']}: {facts['engine_why']}",
        **_form_in_words("compiled", FP32, facts),
        **_form_in_words("--precision int8", INT8, facts),
    }
    return {heading: text for heading, text in words.items() if text}


def _temperatures(facts: Facts) -> str | None:
    if found := facts["temperatures"]:
        stored = [FittedTemperature.of(each) for each in found]
        return "logits are divided by " + ", ".join(
            f"{each.temperature:.4g} at {each.in_words()}" for each in stored
        )
    return f"logits are divided by {facts['temperature']:.4g}" if facts["temperature"] != 1 else None


def _test_size(facts: Facts) -> str | None:
    if "test_size" not in facts:
        return None
    return f"{facts['test_size']} x {facts['test_size']}, crop {facts['test_crop_pct']}"


def _form_in_words(heading: str, precision: str, facts: Facts) -> dict[str, str]:
    """Return where a compiled form is, and how it compares, as readable text."""
    place = facts.get(precision)
    if not place:
        return {}
    images = facts.get(f"{precision}_calibration_images")
    words = {heading: place + (f", calibrated with {images} images" if images else "")}
    compared = {key.removeprefix(f"{precision}_"): value for key, value in facts.items()}
    if compared.get("images"):
        from resnetd_cli.views.agreement import in_words

        words |= {f"  {precision} {name}": text for name, text in in_words(compared).items()}
    return words


def _accuracy(facts: Facts) -> str | None:
    if "top1" not in facts:
        return None
    at_train = f"top-1 {facts['top1']} %, top-5 {facts['top5']} % at {facts['input_size']}"
    return f"{at_train}; {facts['test_top1']} % and {facts['test_top5']} % at {facts['test_size']} (ImageNet-1k)"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(str(value) for value in values)
