"""A training step of resnetd and the same step written plainly with timm, in turn; and resnetd's with its loader.

    python training.py MODEL LIST BATCH TURNS

Prints JSON: the seconds of a step, plain, by resnetd with images in memory, and by resnetd from JPEG files, for
each turn; and the images a second that its loader gives when nothing else runs.
"""

import json
import sys
import time
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.datasets.splits import TrainValTest
from resnetd_cli.system.cpus import usable_cpus
from resnetd_cli.training import network, recipe
from resnetd_cli.training.accelerator import open_accelerator
from resnetd_cli.training.batch import Batch
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.learner import Learner, to_device
from resnetd_cli.training.loader import Loaders
from resnetd_cli.training.loop import Loop
from resnetd_cli.training.monitors import Monitors
from resnetd_cli.training.plan import NetworkChoice
from resnetd_cli.training.progress import Progress
from resnetd_cli.training.run_folder import RunFolder
from resnetd_cli.training.saving import Saver

CLASSES = 10
STEPS = 2
"""In a turn."""


def plain_step(model, batch):
    """Return a function that makes a step as a user of timm would write it."""
    network = timm.create_model(model, num_classes=CLASSES).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(network, "sgd", lr=0.01, weight_decay=1e-4, momentum=0.9)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=200, step_on_epochs=False, updates_per_epoch=99
    )
    mixup = Mixup(mixup_alpha=0.2, label_smoothing=0.1, num_classes=CLASSES)
    criterion, count = SoftTargetCrossEntropy(), 0

    def step():
        nonlocal count
        images, targets = mixup(batch.images.contiguous(memory_format=torch.channels_last), batch.targets)
        loss = criterion(network(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        count += 1
        scheduler.step_update(count)
        return loss.item()

    return step


def loop_of(model, files, batch_size, folder):
    """Return the training loop of resnetd with the paper's recipe."""
    for number, file in enumerate(files):
        link = folder / "images" / str(number % CLASSES) / f"{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(file).absolute())
    settings = recipe.load_recipe("bag-of-tricks").replace({"batch_size": batch_size, "epochs": 100_000})
    data = TrainValTest(open_dataset(str(folder / "images")).splits["all"], None, None)
    start = network.untrained(NetworkChoice(model), CLASSES, settings)
    accelerator = open_accelerator("cpu", "fp32")
    to_device(start.module, accelerator.device)
    loaders = Loaders(data, settings, start.preprocessing, accelerator, usable_cpus())
    learner = Learner(start, settings, accelerator, loaders.sampler(), fewest_images=1)
    saver = Saver(RunFolder(folder / "run"), start, data.train.classes, is_main=True, save_seconds=300)
    callbacks = Callbacks(Monitors(), lambda note: None, lambda: False)
    return Loop(learner, loaders, Progress(), saver, callbacks)


def seconds(step):
    """Return the mean time of a step."""
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) / STEPS


def main(model, images, batch_size, turns):
    """Measure each in turn."""
    size = int(batch_size)
    files = Path(images).read_text().splitlines()
    with TemporaryDirectory() as folder:
        loop = loop_of(model, files, size, Path(folder))
        loader = iter(loop.batches)
        began = time.perf_counter()
        for _ in range(20):
            next(loader)
        loading = 20 * size / (time.perf_counter() - began)
        side = next(loader).images.shape[-1]
        batch = Batch(torch.randn(size, 3, side, side), torch.arange(size) % CLASSES, ())
        in_memory, plain = cycle([batch]), plain_step(model, batch)
        steps = {
            "plain": plain,
            "resnetd": lambda: loop.step(in_memory),
            "from files": lambda: loop.step(loader),
        }
        for step in steps.values():
            step()
        measured = {name: [] for name in steps}
        for _ in range(int(turns)):
            for name, step in steps.items():
                measured[name].append(seconds(step))
    print(json.dumps({**measured, "loading": loading}))


if __name__ == "__main__":
    main(*sys.argv[1:])
