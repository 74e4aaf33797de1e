"""`resnetd export`: write a model as one `.onnx` file."""

from __future__ import annotations

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import UsageError
from resnetd_cli.models.names import DEFAULT_MODEL, ModelChoice
from resnetd_cli.system.escaping import shell_word


def export(
    model: options.ModelArgument = DEFAULT_MODEL,
    output: options.Output = None,
    precision: options.ExportPrecision = "fp32",
    verify: options.Verify = None,
    weights: options.Weights = None,
    labels: options.Labels = None,
    image_size: options.ImageSize = "train",
    offline: options.Offline = False,
    format: options.OutputFormat = options.Format.AUTO,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Write a model as one .onnx file, with its preprocessing and class names inside.

    resnetd export resnet50d -o resnet50d.onnx --verify photos/

    resnetd predict dog.jpg --model resnet50d.onnx

    The file runs without torch and timm. --format is the format of the --verify report.
    """
    choice = ModelChoice.of(model, weights, image_size)
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)

    from resnetd_cli.cli import outputs, result_loop
    from resnetd_cli.cli.input_arguments import images_of
    from resnetd_cli.cli.protected_files import model_files
    from resnetd_cli.loading import Loader
    from resnetd_cli.models.names import is_exported
    from resnetd_cli.pipeline.options import Runtime
    from resnetd_cli.pull import export, verify_file
    from resnetd_cli.views.agreement import write_agreement

    path = outputs.as_path(output)
    if path is None or not is_exported(path.name):
        raise UsageError("the model goes to a file whose name ends in .onnx", hint=f"-o {shell_word(model)}.onnx")
    outputs.check_outputs(
        path, overwrite=overwrite, reads=[weights, labels, *(verify or []), *model_files(choice.model)]
    )
    verification = images_of("--verify", verify)
    loader = Loader(
        choice,
        class_names=labels,
        runtime=Runtime(precision=precision),
        downloads=terminal.downloads(offline=offline),
        note=terminal.note,
    )
    failures = result_loop.Failures()
    card = export(loader, path, overwrite=overwrite)
    terminal.note(f"{path}: {card.name} in {card.precision}, {path.stat().st_size / 1e6:.1f} MB")
    if verification:
        agreement = verify_file(loader, path, verification, on_failure=failures.report)
        target = outputs.TextOutput.choose(format.value, None, overwrite=False, elsewhere="pairs")
        with target.open() as stream:
            write_agreement(agreement, stream, target.format)
    return failures.exit_code
