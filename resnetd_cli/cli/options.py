"""The options that commands share: one spelling, one help text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from resnetd_cli.cli.number_parsers import number, whole
from resnetd_cli.pipeline.engines.table import ENGINES, precisions
from resnetd_cli.pipeline.sinks.base import RECORD_FORMATS


class Format(str, Enum):
    """How records are written: one of `RECORD_FORMATS`."""

    _ignore_ = "each"
    AUTO = "auto"
    for each in RECORD_FORMATS:
        vars()[each.upper()] = each


class GuardChoice(str, Enum):
    """Which images are decoded in a separate process."""

    SUSPECT = "suspect"
    ALL = "all"


class DecodeChoice(str, Enum):
    """How large JPEGs are decoded."""

    EXACT = "exact"
    FAST = "fast"


def complete_model(incomplete: str) -> list[str]:
    """Return the model names that start with this text, from the table only, to keep completion fast."""
    from resnetd_cli.models.names import EMBEDDED
    from resnetd_cli.models.table import entries

    full_names = [entry.name for entry in entries()]
    names = dict.fromkeys([EMBEDDED, *(entry.architecture for entry in entries()), *full_names])
    return [name for name in names if name.startswith(incomplete)]


InputArgument = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="INPUT",
        help="A file, a folder, a quoted glob, an http(s) or file: URL, or - for one image on standard input.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    Optional[str],
    typer.Option("--files-from", metavar="FILE|-", help="Read inputs from a list, one per line."),
]
Null = Annotated[bool, typer.Option("--null", "-0", help="The list is NUL-separated (find -print0).")]
AllFiles = Annotated[
    bool,
    typer.Option("--all-files", help="In folders, detect images by content, not only by extension."),
]
Follow = Annotated[
    bool,
    typer.Option("--follow", help="Follow links to folders; each folder is visited once."),
]
IgnoreExif = Annotated[bool, typer.Option("--ignore-exif", help="Ignore the EXIF orientation.")]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Use the readable part of a truncated image.")
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", parser=whole(1), metavar="N", help="Reject images with more pixels."),
]
MaxBytes = Annotated[
    int,
    typer.Option("--max-bytes", parser=whole(1), metavar="N", help="Reject inputs with more bytes."),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=number(0.001, 86_400),
        metavar="SECONDS",
        help="Time limit for reading an input, and again for decoding it.",
    ),
]
Connections = Annotated[
    int,
    typer.Option("--connections", parser=whole(1, 256), metavar="N", help="Number of URLs to fetch at once."),
]
AllowPrivateHosts = Annotated[
    bool,
    typer.Option(
        "--allow-private-hosts",
        help="Allow URLs from lists, and redirects, to reach private network addresses.",
    ),
]
Guard = Annotated[
    GuardChoice,
    typer.Option(
        "--guard",
        case_sensitive=False,
        help="Which images to decode in a separate process: all, or all but common formats.",
    ),
]
Decode = Annotated[
    DecodeChoice,
    typer.Option(
        "--decode",
        case_sensitive=False,
        help="exact: every pixel, as timm does; fast: JPEGs much larger than the model needs at a smaller scale.",
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first input that fails.")]

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="RESNETD_MODEL",
        metavar="MODEL",
        help="A timm name, embedded, hf-hub:OWNER/NAME, a model folder, or an exported .onnx file.",
        autocompletion=complete_model,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="The model, as for predict --model.", autocompletion=complete_model),
]
ModelArguments = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Models, as for predict --model.", autocompletion=complete_model),
]
Weights = Annotated[
    Optional[Path],
    typer.Option("--weights", metavar="FILE", help="Weights to load instead: a .safetensors or .pth file."),
]
ImageSize = Annotated[
    str,
    typer.Option(
        "--image-size", metavar="train|test|N", help="Input size: the training or test size, or N pixels."
    ),
]
Labels = Annotated[
    Optional[str],
    typer.Option("--labels", metavar="FILE|URL", help="Class names to use instead of the model's."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only weights already on this machine.")]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        parser=str.lower,
        metavar="|".join(("auto", *ENGINES)),
        envvar="RESNETD_ENGINE",
        help="Engine that runs the model.",
    ),
]
Calibrate = Annotated[
    Optional[list[str]],
    typer.Option(
        "--calibrate",
        metavar="INPUT...",
        help="Images to calibrate int8 with: about 64 that resemble your own.",
        show_default=False,
    ),
]
Verify = Annotated[
    Optional[list[str]],
    typer.Option(
        "--verify",
        metavar="INPUT...",
        help="Compare predictions on these images: int8 with fp32, or fp32 with torch.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        parser=str.lower,
        metavar="|".join(precisions()),
        help="int8 requires an earlier pull; bf16 runs on openvino if possible, else on torch, as does fp16.",
    ),
]
_COMPILED_PRECISIONS = "fp32|int8"
ExportPrecision = Annotated[
    str,
    typer.Option("--precision", metavar=_COMPILED_PRECISIONS, help="int8 requires an earlier pull."),
]
PullPrecision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar=f"{_COMPILED_PRECISIONS}|bf16",
        help="int8 is smaller and faster, but less accurate; bf16 uses the fp32 form, with openvino.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", parser=str.lower, metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
]
BatchSize = Annotated[
    Optional[int],
    typer.Option(
        "--batch-size",
        "-b",
        parser=whole(1),
        metavar="N",
        help="Images per batch.  [default: 1 on a CPU, 32 on a GPU]",
        show_default=False,
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        "--workers",
        parser=whole(1),
        metavar="N",
        help="Threads that decode images and run the model.  [default: one per processor; 1 for a single image]",
        show_default=False,
    ),
]
Threads = Annotated[
    Optional[int],
    typer.Option(
        "--threads",
        parser=whole(1),
        metavar="N",
        help="Threads per run of the model.  [default: 1; all cores for a single image]",
        show_default=False,
    ),
]

TopK = Annotated[
    Optional[int],
    typer.Option(
        "--top-k",
        "-k",
        parser=whole(1),
        metavar="K",
        help="Number of classes to show per image.  [default: 5]",
        show_default=False,
    ),
]
MinProbability = Annotated[
    float,
    typer.Option(
        "--min-probability",
        parser=number(0.0, 1.0),
        metavar="P",
        help="Leave out classes below this probability; with none left, abstain.",
    ),
]
Temperature = Annotated[
    Optional[float],
    typer.Option(
        "--temperature",
        metavar="T",
        help="Divide logits by T instead of the temperature that evaluate --fit-temperature stored.",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the output's extension, else table on a terminal and tsv in a pipe.",
    ),
]
PredictFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the output's extension, else tsv in a pipe. On a terminal: a table for one image, one line "
        "each and a summary for several, or tables if -k asks for more classes.",
    ),
]
FactsFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the output's extension, else table on a terminal and one line per key in a pipe.",
    ),
]
Output = Annotated[
    Optional[Path],
    typer.Option("--output", "--out", "-o", metavar="PATH", help="Write to PATH."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="Omit the header line of tsv and csv.")]
EscapeFormulas = Annotated[
    bool,
    typer.Option("--escape-formulas", help="In csv and tsv, put ' before text that looks like a formula."),
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Hide progress bars.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, no notes or progress.")]
QuietAnyway = Annotated[
    bool, typer.Option("--quiet", "-q", hidden=True, help="No effect: there are no notes to hide.")
]
"""For commands that write no notes and show no progress, so that every command accepts -q."""
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more detail, and the traceback of an error.")
]
