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
    """What is decoded in a process of its own."""

    SUSPECT = "suspect"
    ALL = "all"


def complete_model(incomplete: str) -> list[str]:
    """Return the model names that begin like this, from the table alone: completion may not be slow."""
    from resnetd_cli.models.names import EMBEDDED
    from resnetd_cli.models.table import cards

    names = dict.fromkeys([EMBEDDED, *(card.architecture for card in cards()), *(card.name for card in cards())])
    return [name for name in names if name.startswith(incomplete)]


Inputs = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="INPUT",
        help="A file, a folder, a quoted glob, an http(s) or file: URL, or - for one image on standard input.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    Optional[str],
    typer.Option("--files-from", metavar="FILE|-", help="Read inputs from a list, one a line."),
]
Null = Annotated[bool, typer.Option("--null", "-0", help="The list is NUL-separated (find -print0).")]
AllFiles = Annotated[
    bool,
    typer.Option("--all-files", help="In folders, find images by their bytes, not only by their names."),
]
Follow = Annotated[
    bool,
    typer.Option("--follow", help="Follow links to folders; each folder is visited once."),
]
IgnoreExif = Annotated[bool, typer.Option("--ignore-exif", help="Do not turn images upright.")]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Classify what could be read of a truncated image.")
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", parser=whole(1), metavar="N", help="Refuse images of more pixels."),
]
MaxBytes = Annotated[
    int,
    typer.Option("--max-bytes", parser=whole(1), metavar="N", help="Refuse inputs of more bytes."),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=number(0.001, 86_400),
        metavar="SECONDS",
        help="How long reading an input may take, and decoding it.",
    ),
]
Connections = Annotated[
    int,
    typer.Option("--connections", parser=whole(1, 256), metavar="N", help="URLs fetched at once."),
]
AllowPrivateHosts = Annotated[
    bool,
    typer.Option(
        "--allow-private-hosts",
        help="Let URLs from lists, and redirects, lead to addresses inside this network.",
    ),
]
Guard = Annotated[
    GuardChoice,
    typer.Option(
        "--guard",
        case_sensitive=False,
        help="Decode all, or all but the usual formats, in a process that may crash.",
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
        help="A timm name, embedded, hf-hub:OWNER/NAME, a model folder, or an exported .onnx.",
        autocompletion=complete_model,
    ),
]
Weights = Annotated[
    Optional[Path],
    typer.Option("--weights", metavar="FILE", help="A .safetensors or .pth to load into it."),
]
ImageSize = Annotated[
    str,
    typer.Option("--image-size", metavar="train|test|N", help="Input size, in pixels."),
]
Labels = Annotated[
    Optional[str],
    typer.Option("--labels", metavar="FILE|URL", help="Class names in place of the model's."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only weights that are on this machine.")]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        parser=str.lower,
        metavar="|".join(("auto", *ENGINES)),
        envvar="RESNETD_ENGINE",
        help="What runs the model.",
    ),
]
Calibrate = Annotated[
    Optional[list[str]],
    typer.Option(
        "--calibrate",
        metavar="INPUT...",
        help="Images to make the int8 form with; some 64 like those to come.",
        show_default=False,
    ),
]
Verify = Annotated[
    Optional[list[str]],
    typer.Option(
        "--verify",
        metavar="INPUT...",
        help="Compare its answers on these images: int8 with fp32, fp32 with torch.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        parser=str.lower,
        metavar="|".join(precisions()),
        help="int8 needs pull before; fp16, bf16: torch.",
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
        help="Images run at once.  [default: 1 on a CPU, 32 on a GPU]",
        show_default=False,
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        "--workers",
        parser=whole(1),
        metavar="N",
        help="Threads that decode and run.  [default: one a processor; 1 for one image]",
        show_default=False,
    ),
]
Threads = Annotated[
    Optional[int],
    typer.Option(
        "--threads",
        parser=whole(1),
        metavar="N",
        help="Threads that one run of the model uses.  [default: 1; all for one image]",
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
        help="Classes named for each image.  [default: 5]",
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
        help="Divide logits by it, in place of what evaluate --fit-temperature stored.",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the name of the output, else table on a terminal and tsv in a pipe.",
    ),
]
PredictFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the name of the output, else tsv in a pipe, and on a terminal a table for one image, "
        "a line for each of several and a summary; tables if -k asks for more classes.",
    ),
]
FactsFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        case_sensitive=False,
        help="auto: by the name of the output, else table on a terminal and in a pipe a line for each key.",
    ),
]
Output = Annotated[
    Optional[Path],
    typer.Option("--output", "--out", "-o", metavar="PATH", help="Write here."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="Leave out the first line of tsv and csv.")]
EscapeFormulas = Annotated[
    bool,
    typer.Option("--escape-formulas", help="Put ' before texts in csv and tsv that begin like a formula."),
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no progress bars.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes or progress, only errors.")]
QuietAnyway = Annotated[bool, typer.Option("--quiet", "-q", hidden=True, help="There are no notes anyway.")]
"""Of commands that write no notes and show no progress: accepted, so that -q can be given to every command."""
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; errors with their traceback.")]
