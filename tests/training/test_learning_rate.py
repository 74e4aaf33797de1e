"""The learning rate of each step, against formulas in numpy and timm's own schedulers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler

from resnetd_cli.training import curves, recipe
from resnetd_cli.training.curves import draw
from resnetd_cli.training.learning_rate import LearningRate

BAG = recipe.load_recipe("bag-of-tricks").replace({"lr": 0.2, "lr_batch": None})


def rates(epochs: int, steps_per_epoch: int, **settings: Any) -> LearningRate:
    return LearningRate(BAG.replace({"epochs": epochs, "warmup_epochs": 0, **settings}), steps_per_epoch)


def all_of(found: LearningRate) -> list[float]:
    return [found.at(step) for step in range(found.steps)]


def test_cosine_is_half_a_wave_after_a_straight_warm_up() -> None:
    warm = 0.2 * np.arange(1, 11) / 11
    wave = 0.2 * (1 + np.cos(np.pi * np.arange(40) / 40)) / 2
    assert all_of(rates(5, 10, warmup_epochs=1)) == pytest.approx([*warm, *wave])


def test_cosine_and_poly_end_where_final_lr_says() -> None:
    assert rates(1, 10_000, final_lr=0.05).at(9999) == pytest.approx(0.01, rel=1e-3)
    assert rates(1, 10_000, final_lr=0.05, schedule="poly").at(9999) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(("power", "left"), [(1, 0.2), (2, 0.04), (0.5, 0.4472136)])
def test_poly_keeps_a_fifth_at_four_fifths_of_the_run_unless_its_power_is_changed(
    power: float, left: float
) -> None:
    found = rates(10, 10, schedule="poly", poly_power=power)
    assert found.at(80) == pytest.approx(0.2 * left)
    assert all_of(found) == pytest.approx(0.2 * (1 - np.arange(100) / 100) ** power)


@pytest.mark.parametrize("epochs", [1, 3, 90])
def test_step_falls_at_its_shares_of_the_run_whatever_the_epochs(epochs: int) -> None:
    found = np.array(all_of(rates(epochs, 10, schedule="step")))
    steps = 10 * epochs
    third, sixth, ninth = (steps * 3) // 10, (steps * 6) // 10, (steps * 9) // 10
    expected = np.repeat([0.2, 0.02, 0.002, 0.0002], [third, sixth - third, ninth - sixth, steps - ninth])
    assert found == pytest.approx(expected)


def test_step_falls_in_a_run_of_two_steps() -> None:
    assert all_of(rates(1, 2, schedule="step", step_at=[0.5], step_factor=0.25)) == pytest.approx([0.2, 0.05])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [100, 1000, 777])
def test_shares_that_are_no_whole_numbers_in_floating_point_fall_where_they_should(steps: int) -> None:
    for hundredth in range(1, 100):
        found = rates(1, steps, schedule="step", step_at=[hundredth / 100])
        first = next(step for step, rate in enumerate(all_of(found)) if rate < 0.1)
        assert first == -(-hundredth * steps // 100)


def test_constant_stays() -> None:
    assert set(all_of(rates(3, 7, schedule="constant"))) == {0.2}


@pytest.mark.parametrize("warmup_epochs", [0, 0.35, 1, 2])
@pytest.mark.parametrize("final_lr", [0, 0.1])
@pytest.mark.parametrize("schedule", ["cosine", "poly", "step", "constant"])
def test_rates_are_those_of_timms_schedulers(schedule: str, warmup_epochs: float, final_lr: float) -> None:
    steps_per_epoch, epochs = 9, 6
    found = rates(epochs, steps_per_epoch, schedule=schedule, warmup_epochs=warmup_epochs, final_lr=final_lr)
    warmup, steps = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    common: dict[str, Any] = {
        "warmup_t": warmup,
        "warmup_lr_init": 0.2 / (1 + warmup),
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    falling = {"t_initial": steps - warmup, "lr_min": 0.2 * final_lr}
    theirs: Any
    if schedule == "cosine":
        theirs = CosineLRScheduler(optimizer, **falling, **common)
    elif schedule == "poly":
        theirs = PolyLRScheduler(optimizer, power=1.0, **falling, **common)
    elif schedule == "constant":
        theirs = StepLRScheduler(optimizer, decay_t=1, decay_rate=1.0, **common)
    else:  # timm counts milestones from the end of the warm-up, and falls a step early
        falls = [share * steps - warmup + 1 for share in (0.3, 0.6, 0.9)]
        theirs = MultiStepLRScheduler(optimizer, decay_t=falls, decay_rate=0.1, **common)
    for step in range(steps):
        theirs.step_update(step)
        assert found.at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step


def test_a_curve_has_the_first_step_the_last_and_at_most_a_thousand_points() -> None:
    epochs, values = rates(3, 1000, schedule="poly").curve()
    assert len(epochs) == 1000 and epochs[0] == 0 and epochs[-1] == 2.999
    assert values == pytest.approx([0.2 * (1 - epoch / 3) for epoch in epochs])
    assert rates(1, 1).curve() == ([0.0], [0.2])
    assert len(rates(1, 7).curve()[0]) == 7


@pytest.mark.slow
def test_rates_are_drawn_by_step() -> None:
    pictures = []
    for schedule in ("cosine", "step"):
        file = io.BytesIO()
        curves.draw_rates(rates(1, 50, schedule=schedule).recipe, file)
        with Image.open(file) as picture:
            assert picture.format == "PNG" and min(picture.size) > 300
            pictures.append(picture.convert("L").tobytes())
    assert pictures[0] != pictures[1]


@pytest.mark.slow
def test_loss_and_accuracy_are_drawn_beside_the_rate() -> None:
    pictures = []
    for val_top1 in (0.9, 0.1, None):  # None: there is no val
        rows = [
            {
                "epoch": epoch,
                "train_loss": 1 / epoch,
                "val_loss": 2 / epoch,
                "train_top1": 0.5,
                "val_top1": val_top1,
            }
            for epoch in (1, 2)
        ]
        file = io.BytesIO()
        draw(rows, rates(2, 3, backbone_lr=0.5), file)
        with Image.open(file) as picture:
            assert picture.format == "PNG" and picture.size[0] > 1000
            pictures.append(picture.convert("L").tobytes())
    assert len(set(pictures)) == 3
