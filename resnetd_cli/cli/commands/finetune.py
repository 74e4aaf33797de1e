"""`resnetd finetune`: teach a trained network your own classes."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer

from resnetd_cli.cli import options, training_options, training_run
from resnetd_cli.cli.console import terminal

Freeze = Annotated[
    Optional[bool],
    typer.Option("--freeze/--no-freeze", help="Train the classifier only.", show_default=False),
]


def finetune(
    data: training_options.Data = None,
    output: training_options.Run = None,
    model: training_options.Model = None,
    weights: options.Weights = None,
    freeze: Freeze = None,
    recipe: training_options.RecipeOption = None,
    print_recipe: training_options.PrintRecipe = False,
    plot: training_options.Plot = None,
    set_: training_options.Set = None,
    epochs: training_options.Epochs = None,
    batch_size: training_options.BatchSize = None,
    lr: training_options.Rate = None,
    seed: training_options.Seed = None,
    seeds: training_options.Seeds = None,
    image_size: training_options.ImageSize = None,
    teacher: training_options.Teacher = None,
    val_share: training_options.ValShare = None,
    group_by: training_options.GroupBy = None,
    split_seed: training_options.SplitSeed = None,
    resume: training_options.Resume = False,
    overwrite: training_options.Overwrite = False,
    processes: training_options.Processes = 1,
    workers: training_options.Workers = None,
    threads: training_options.Threads = None,
    device: options.Device = "auto",
    save_seconds: training_options.SaveSeconds = training_options.SAVE_SECONDS,
    tensorboard: training_options.TensorBoard = False,
    offline: options.Offline = False,
    no_progress: options.NoProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Teach a trained network your own classes: from a folder of images to a model for predict.

    resnetd finetune photos/ -o mine --model embedded

    resnetd predict new.jpg --model mine
    """
    launch = training_run.Launch(processes, threads, tensorboard)
    terminal.setup(quiet=quiet, verbose=verbose, no_progress=no_progress, output=output)
    settings = {"freeze": freeze, "epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed}
    choice = training_run.recipe_choice(recipe, set_, settings)
    if print_recipe:
        training_run.print_recipe(choice, "finetune", plot, has_teacher=teacher is not None, processes=processes)
        return
    images, folder = training_run.required("finetune", data, output, plot)
    from resnetd_cli.training.plan import DataChoice, NetworkChoice, Output, Plan, TrainingRuntime

    plan = Plan(
        command="finetune",
        data=DataChoice(images, val_share, group_by, split_seed),
        network=NetworkChoice(model, weights, image_size, teacher),
        recipe=choice,
        output=Output(folder, resume=resume, overwrite=overwrite),
        runtime=TrainingRuntime(device=device, workers=workers, save_seconds=save_seconds, offline=offline),
        seeds=seeds,
        arguments=tuple(sys.argv[1:]),
    )
    training_run.run(plan, launch)
