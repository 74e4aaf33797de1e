"""The order of a run's images, and what is random about them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_data import write_colours

from resnetd_cli.datasets.examples import Examples
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.results import Failure, Preprocessing
from resnetd_cli.training.augmentation import training_transform
from resnetd_cli.training.batch import Batch, collate
from resnetd_cli.training.dataset import ImageDataset
from resnetd_cli.training.loader import evaluation_loader, training_loader
from resnetd_cli.training.randomness import mixed_seed, seed_all, seed_cpu
from resnetd_cli.training.recipe import load_recipe
from resnetd_cli.training.sampling import BatchSampler
from resnetd_cli.training.workers import Workers

HOW = Preprocessing((3, 16, 16), 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def sampler(**changes: int) -> BatchSampler:
    return BatchSampler(**{"images": 25, "batch_size": 8, "micro_batch": 8, "epochs": 3, "seed": 1, **changes})


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    return open_dataset(str(write_colours(tmp_path / "data", 3))).splits["all"]


def test_an_epoch_sees_every_image_once_in_steps_of_even_size() -> None:
    batches = list(sampler())
    assert [len(batch) for batch in batches] == [7, 6, 6, 6] * 3
    assert [sampler().images_of(step) for step in range(12)] == [7, 6, 6, 6] * 3
    orders = []
    for epoch in range(3):
        keys = [key for batch in batches[4 * epoch : 4 * epoch + 4] for key in batch]
        assert {number for number, _ in keys} == {epoch}
        orders.append([position for _, position in keys])
        assert sorted(orders[-1]) == list(range(25))
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.slow
@pytest.mark.parametrize("images", [2, 3, 5, 24, 25, 96, 97])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("micro_batch", [1, 3, 100])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_steps_are_split_evenly_over_processes_and_parts(
    images: int, batch_size: int, micro_batch: int, processes: int
) -> None:
    fields = {"images": images, "batch_size": batch_size, "micro_batch": micro_batch, "epochs": 2}
    samplers = [sampler(**fields, process=number, processes=processes) for number in range(processes)]
    first, shares = samplers[0], [list(each) for each in samplers]
    parts_per_step = first.micro_batches_per_step
    assert {len(share) for share in shares} == {first.steps * parts_per_step}  # the processes stay in step
    sizes = []
    for step in range(first.steps):
        parts = [part for share in shares for part in share[step * parts_per_step : (step + 1) * parts_per_step]]
        assert max(map(len, parts)) <= micro_batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        sizes.append(sum(map(len, parts)))
        assert sizes[-1] == first.images_of(step) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert first.smallest_micro_batch == min(len(part) for share in shares for part in share)
    seen = [position for share in shares for part in share for epoch, position in part if epoch == 1]
    assert sorted(seen) == list(range(images))


def test_resumed_sampler_yields_the_remaining_steps() -> None:
    whole = list(sampler())
    for step in range(12):
        assert list(sampler(first_step=step)) == whole[step:]


def test_another_seed_gives_another_order() -> None:
    assert next(iter(sampler(seed=1))) != next(iter(sampler(seed=2)))


def test_processes_share_each_step_of_one() -> None:
    whole = list(sampler())
    shares = [list(sampler(process=number, processes=2, micro_batch=4)) for number in range(2)]
    for step, parts in enumerate(zip(*shares, strict=True)):
        assert sorted(parts[0] + parts[1]) == sorted(whole[step])


def test_micro_batches_make_up_the_steps() -> None:
    parts = list(sampler(micro_batch=3))
    assert [len(part) for part in parts[:6]] == [3, 2, 2, 2, 2, 2]
    assert sampler(micro_batch=3).micro_batches_per_step == 3
    assert parts[0] + parts[1] + parts[2] == next(iter(sampler()))


@pytest.mark.slow
def test_an_image_is_the_same_whenever_and_wherever_it_is_loaded(examples: Examples) -> None:
    images = ImageDataset(examples, training_transform(load_recipe("bag-of-tricks"), HOW), seed=3)
    first, label = images[(1, 4)]
    random.random(), torch.rand(1), np.random.random()
    again, _ = images[(1, 4)]
    assert label == 1 and first.shape == (3, 16, 16) and first.dtype == torch.float32
    assert torch.equal(first, again)
    other, _ = images[(2, 4)]
    assert not torch.equal(first, other)
    steps = BatchSampler(images=9, batch_size=4, micro_batch=4, epochs=2, seed=3)
    here, elsewhere, by_pipe = (
        list(training_loader(images, steps, workers))
        for workers in (Workers(0), Workers(2), Workers(2, by_pipe=True))
    )
    assert len(here) == len(elsewhere) == len(by_pipe) == 6
    for one, *others in zip(here, elsewhere, by_pipe, strict=True):
        for other in others:
            assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_images_that_cannot_be_read_are_named_and_left_out(examples: Examples) -> None:
    Path(examples.name(2)).write_bytes(b"no image")
    images = ImageDataset(examples, lambda image: np.zeros((3, 2, 2), np.float32), seed=0)
    failure = images[(0, 2)]
    assert isinstance(failure, Failure) and failure.input == examples.name(2)
    batch = collate([images[(0, position)] for position in range(4)])
    assert batch.images.shape == (3, 3, 2, 2)
    assert batch.targets.tolist() == [0, 0, 1] and batch.failures == (failure,)
    empty = collate([failure])
    assert len(empty) == 0 and empty.failures == (failure,)


def test_evaluation_sees_each_image_once_over_all_processes(examples: Examples) -> None:
    images = ImageDataset(examples, lambda image: np.zeros((3, 2, 2), np.float32), seed=0)
    seen: list[Batch] = [
        batch for number in range(2) for batch in evaluation_loader(images, 2, Workers(0), number, 2)
    ]
    assert sorted(torch.cat([batch.targets for batch in seen]).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [len(batch) for batch in seen] == [2, 2, 1, 2, 2]


def test_seeds_mixed_from_different_numbers_differ() -> None:
    seeds = {
        mixed_seed(seed, epoch, position) for seed in range(3) for epoch in range(9) for position in range(99)
    }
    assert len(seeds) == 3 * 9 * 99
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_seed_gives_the_same_numbers_in_all_generators() -> None:
    drawn = []
    for seed in (seed_all, seed_all, seed_cpu):
        seed(5)
        drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1] == drawn[2]
