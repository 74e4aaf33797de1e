"""The options that `finetune` and `train` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.number_parsers import number, whole

SAVE_SECONDS = 300.0
"""Default of `--save-seconds`."""

Data = Annotated[
    Optional[str],
    typer.Argument(
        metavar="DIR",
        help="Images: DIR/CLASS/IMAGE, with train/, val/ or test/ above; a .csv or .parquet; hfds/NAME, wds/NAME.",
        show_default=False,
    ),
]
Run = Annotated[
    Optional[Path],
    typer.Option("--output", "--out", "-o", metavar="RUN", help="The folder to write the model to."),
]
Model = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        "-m",
        envvar="RESNETD_MODEL",
        metavar="MODEL",
        help="The network: any MODEL that predict takes except .onnx.  [default: resnet50d]",
        show_default=False,
        autocompletion=options.complete_model,
    ),
]
RecipeOption = Annotated[
    Optional[str],
    typer.Option("--recipe", metavar="NAME|FILE", help="How to train: bag-of-tricks, finetune, or a YAML file."),
]
PrintRecipe = Annotated[bool, typer.Option("--print-recipe", help="Print the recipe and exit.")]
Plot = Annotated[
    Optional[Path],
    typer.Option("--plot", metavar="FILE.png", help="With --print-recipe: draw the learning rate over the run."),
]
Set = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="NAME=VALUE", help="Change any setting of the recipe.", show_default=False),
]
# Settings of the recipe, read like those of `--set` and of files.
Epochs = Annotated[Optional[str], typer.Option("--epochs", metavar="N", help="Number of epochs.")]
BatchSize = Annotated[
    Optional[str],
    typer.Option("--batch-size", "-b", metavar="N", help="Images per step at most, over all processes."),
]
Rate = Annotated[Optional[str], typer.Option("--lr", metavar="R", help="Peak learning rate.")]
Seed = Annotated[Optional[str], typer.Option("--seed", metavar="N", help="Seed for all randomness.")]
Seeds = Annotated[
    Optional[int],
    typer.Option(
        "--seeds",
        parser=whole(1, 1000),
        metavar="N",
        help="Train N times, with N seeds and one split; keep the model that is best on val.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    Optional[str],
    typer.Option(
        "--image-size", metavar="train|test|N", help="Input size: the training or test size, or N pixels."
    ),
]
Teacher = Annotated[
    Optional[str],
    typer.Option("--teacher", metavar="MODEL", help="A model with the same classes to distil from."),
]
ValShare = Annotated[
    Optional[float],
    typer.Option(
        "--val-share",
        parser=number(0.01, 0.9),
        metavar="P",
        help="Share held back for validation if the data has no val/ or test/.  [default: 0.2]",
        show_default=False,
    ),
]
SplitSeed = Annotated[
    Optional[int],
    typer.Option(
        "--split-seed",
        parser=whole(0, 2**31 - 1),
        metavar="N",
        help="Seed that chooses the held-back images.  [default: the seed]",
        show_default=False,
    ),
]
GroupBy = Annotated[
    Optional[str],
    typer.Option(
        "--group-by",
        metavar="PATTERN",
        help="Keep images together in a split if this regular expression finds the same text in their paths.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in RUN, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in RUN.")]
Processes = Annotated[
    int, typer.Option("--processes", parser=whole(1, 256), metavar="N", help="Train in N processes.")
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        "--workers",
        parser=whole(0, 256),
        metavar="N",
        help="Processes that load images, per training process.",
    ),
]
Threads = Annotated[
    Optional[int], typer.Option("--threads", parser=whole(1, 1024), metavar="N", help="Threads per process.")
]
SaveSeconds = Annotated[
    float,
    typer.Option("--save-seconds", parser=number(0, 1e9), metavar="S", help="Longest time between checkpoints."),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also log to RUN/tensorboard.")]
