"""Recipes: what they hold, and what they refuse."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnetd_cli.errors import UsageError
from resnetd_cli.training import recipe, sizes

BAG = recipe.load("bag-of-tricks")


def test_the_papers_recipe_has_the_papers_values() -> None:
    # He et al. 2018, sections 2.1, 3 and 5, and the log of resnet50_v1d-mixup.
    assert (BAG.epochs, BAG.batch_size, BAG.micro_batch) == (200, 1024, 128)
    assert (BAG.optimizer, BAG.momentum, BAG.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (BAG.schedule, BAG.warmup_epochs) == ("cosine", 5)
    assert (BAG.label_smoothing, BAG.mixup, BAG.teacher_temperature) == (0.1, 0.2, 20)
    assert BAG.scale == (0.08, 1.0) and BAG.ratio == (0.75, 1.3333)
    assert (BAG.hflip, BAG.color_jitter) == (0.5, 0.4)


@pytest.mark.parametrize(("batch_size", "rate"), [(256, 0.1), (1024, 0.4), (64, 0.025)])
def test_the_rate_grows_with_the_batch(batch_size: int, rate: float) -> None:
    assert BAG.replace({"batch_size": batch_size}).peak_lr == pytest.approx(rate)
    assert BAG.replace({"batch_size": batch_size, "lr_batch": None}).peak_lr == 0.1


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_written_is_read_back(name: str) -> None:
    loaded = recipe.load(name)
    text = loaded.to_yaml()
    assert recipe.parse(text) == loaded
    for setting, rule in recipe.RULES.items():
        assert f"{setting}: " in text and rule.help in text


def test_every_setting_has_a_rule() -> None:
    assert list(asdict(BAG)) == list(recipe.RULES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "the recipe's epochs is 0"),
        ({"epochs": 2.5}, "the recipe's epochs is 2.5"),
        ({"epochs": True}, "the recipe's epochs is True"),
        ({"lr": float("nan")}, "the recipe's lr is nan"),
        ({"lr": "fast"}, "the recipe's lr is 'fast'"),
        ({"scale": [1.0, 0.5]}, "the recipe's scale is (1.0, 0.5)"),
        ({"scale": 0.5}, "the recipe's scale is 0.5"),
        ({"hflip": 1.5}, "the recipe's hflip is 1.5"),
        ({"head": "one"}, "the recipe's head is 'one'"),
        ({"freeze": "no"}, "the recipe's freeze is 'no'"),
        ({"seed": -1}, "the recipe's seed is -1"),
        ({"optimizer": "x" * 101}, f"the recipe's optimizer is {repr('x' * 101)[:57]}..."),
        ({"warmup": 5}, "recipes have no 'warmup'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BAG.replace(changes)
    assert caught.value.message == message
    assert caught.value.hint


def test_near_names_are_told() -> None:
    with pytest.raises(UsageError) as caught:
        BAG.replace({"warm_up_epochs": 5})
    assert caught.value.hint == "perhaps warmup_epochs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "FILE is not a recipe"),
        ("epochs: [1", "FILE is not YAML: while parsing a flow sequence"),
        ("!!python/object/apply:os.system ['true']", "FILE is not YAML: could not determine a constructor"),
        ("epochs: 3\n", "FILE lacks batch_size, micro_batch,"),
        ("", "FILE is not a recipe"),
        ("[" * 5000, "FILE is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        recipe.load(str(file))
    assert caught.value.message.replace(str(file), "FILE").startswith(message)


def test_a_file_that_is_not_there_is_told_with_the_names_that_are() -> None:
    with pytest.raises(UsageError, match="no recipe sgd") as caught:
        recipe.load("sgd")
    assert caught.value.hint == "there is bag-of-tricks, finetune; or name a YAML file"


def test_settings_of_the_command_line() -> None:
    assert recipe.parse_setting("lr=1e-3") == ("lr", 0.001)
    assert recipe.parse_setting("scale=[0.5, 1]") == ("scale", [0.5, 1])
    assert recipe.parse_setting("ema_decay=null") == ("ema_decay", None)
    assert recipe.parse_setting("auto_augment=rand-m7-mstd0.5") == ("auto_augment", "rand-m7-mstd0.5")
    for text in ("lr", "lr=fast"):
        with pytest.raises(UsageError, match="no value"):
            recipe.parse_setting(text)


def test_differences_are_named() -> None:
    assert BAG.differences(BAG) == []
    assert BAG.differences(BAG.replace({"epochs": 3, "scale": [0.5, 1]})) == [
        "epochs 200, not 3",
        "scale [0.08, 1.0], not [0.5, 1]",
    ]


def test_a_batch_is_no_larger_than_the_data() -> None:
    assert sizes.within(BAG, 300).batch_size == 300
    assert sizes.within(BAG, 301, 2).batch_size == 300
    assert sizes.within(BAG, 5000) == BAG


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size", "batch_norm"),
    [
        (20, 24, 4, "freeze"),
        (100, 18, 14, "freeze"),
        (244, 18, 32, "freeze"),
        (1000, 9, 32, "freeze"),
        (10_000, 5, 32, "freeze"),
        (100_000, 3, 32, "update"),
    ],
)
def test_fine_tuning_takes_as_long_as_the_data_is_worth(
    images: int, epochs: int, batch_size: int, batch_norm: str
) -> None:
    fitted = sizes.finetuning(recipe.load("finetune"), images, {})
    assert (fitted.epochs, fitted.batch_size, fitted.batch_norm) == (epochs, batch_size, batch_norm)
    assert fitted.warmup_epochs == pytest.approx(epochs / 10)


def test_what_the_user_wants_goes_before_what_suits() -> None:
    fitted = sizes.finetuning(recipe.load("finetune"), 100, {"epochs": 5, "batch_size": 50})
    assert (fitted.epochs, fitted.batch_size, fitted.warmup_epochs) == (5, 50, 0.5)


def test_more_processes_than_images_are_refused() -> None:
    with pytest.raises(UsageError, match="3 images for 4 processes"):
        sizes.within(BAG, 3, 4)
