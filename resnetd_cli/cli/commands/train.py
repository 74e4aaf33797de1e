"""`resnetd train`."""

from __future__ import annotations

from resnetd_cli.cli import options, training
from resnetd_cli.cli.console import terminal


def train(
    data: training.Data = None,
    output: training.Run = None,
    model: training.Model = None,
    recipe: training.RecipeOption = None,
    print_recipe: training.PrintRecipe = False,
    plot: training.Plot = None,
    set_: training.Set = None,
    epochs: training.Epochs = None,
    batch_size: training.BatchSize = None,
    lr: training.Rate = None,
    seed: training.Seed = None,
    seeds: training.Seeds = None,
    image_size: training.ImageSize = None,
    teacher: training.Teacher = None,
    val_share: training.ValShare = None,
    group_by: training.GroupBy = None,
    split_seed: training.SplitSeed = None,
    resume: training.Resume = False,
    overwrite: training.Overwrite = False,
    processes: training.Processes = 1,
    workers: training.Workers = None,
    threads: training.Threads = None,
    device: options.Device = "auto",
    save_seconds: training.SaveSeconds = 300.0,
    tensorboard: training.TensorBoard = False,
    offline: options.Offline = False,
    no_progress: options.NoProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a network from scratch, by the paper's recipe unless another is named.

    resnetd train imagenet/ -o run --model resnet50d

    resnetd train digits/ -o run --model resnet18d --image-size 32 --batch-size 64 --epochs 30 --set hflip=0
    """
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    training.Request(
        command="train",
        data=data,
        folder=output,
        settings={"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed},
        changes=set_ or [],
        fields={
            "model": model,
            "recipe": recipe,
            "image_size": image_size,
            "teacher": teacher,
            "val_share": val_share,
            "group_by": group_by,
            "split_seed": split_seed,
            "device": device,
            "workers": workers,
            "save_seconds": save_seconds,
            "seeds": seeds,
            "resume": resume,
            "overwrite": overwrite,
            "offline": offline,
        },
        processes=processes,
        threads=threads,
        tensorboard=tensorboard,
    ).run(print_recipe=print_recipe, plot=plot)
