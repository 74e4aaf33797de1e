"""Recipes: what they hold, and what they refuse."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UsageError
from resnetd_cli.training import recipe, recipe_choice, sampling
from resnetd_cli.training.plan import RecipeChoice
from resnetd_cli.training.recipe_choice import asked_recipe

BAG = recipe.load_recipe("bag-of-tricks")


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
    loaded = recipe.load_recipe(name)
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
def test_value_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BAG.replace(changes)
    assert caught.value.message == message
    assert hint_of(caught.value)


def test_unknown_setting_hints_at_a_similar_name() -> None:
    with pytest.raises(UsageError) as caught:
        BAG.replace({"warm_up_epochs": 5})
    assert hint_of(caught.value) == "did you mean warmup_epochs?"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "FILE is not a recipe"),
        ("epochs: [1", "FILE is not YAML: expected ',' or ']', but got '<stream end>' (line 1)"),
        ("!!python/object/apply:os.system ['true']", "FILE is not a recipe"),
        ("epochs: 3\n", "FILE lacks batch_size, micro_batch,"),
        ("", "no recipe FILE: zero bytes"),
        ("# nothing\n", "FILE is not a recipe"),
        ("[" * 5000, "FILE is not YAML: it is nested too deep"),
        ("lr: 1\n\thflip: 0\n", "FILE is not YAML: found character '\\t' that cannot start any token (line 2)"),
        ("[" * 2**17, "no recipe FILE: 131,072 bytes, more than 65,536"),
        ("lr: 1\nwarmup: 5\n", "FILE, line 2: recipes have no 'warmup'"),
        ("lr: 1\nLR: 2\n", "FILE, line 2: lr is set twice"),
        ("lr: {value: 1}\n", "FILE, line 1: not a setting"),
        ("lr: fast\n", "FILE, line 1: lr is 'fast'"),
        ("momentum: 0,9\n", "FILE, line 1: momentum is '0,9'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        recipe.load_recipe(str(file))
    assert caught.value.message.replace(str(file), "FILE").startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("lr: 3e-3", {"lr": 0.003}),
        ("lr: 1e-4", {"lr": 1e-4}),
        ("weight_decay: 5E-2", {"weight_decay": 0.05}),
        ("hflip: .5", {"hflip": 0.5}),
        ("lr: '1.'", {"lr": 1.0}),
        ('lr: "0.003"', {"lr": 0.003}),
        ("lr: 1\N{MINUS SIGN}4".replace("1", "1e"), {"lr": 1e-4}),
        ("epochs: 1_000", {"epochs": 1000}),
        ("epochs: 32.0", {"epochs": 32}),
        ("epochs: 1e3", {"epochs": 1000}),
        ("epochs: 010", {"epochs": 10}),
        ("epochs: +3", {"epochs": 3}),
        ("freeze: True", {"freeze": True}),
        ("freeze: yes", {"freeze": True}),
        ("freeze: 'no'", {"freeze": False}),
        ("freeze: OFF", {"freeze": False}),
        ("clip_grad: None", {"clip_grad": None}),
        ("clip_grad: ~", {"clip_grad": None}),
        ("clip_grad:", {"clip_grad": None}),
        ("ema_decay: Null", {"ema_decay": None}),
        ("scale: (0.08, 1.0)", {"scale": (0.08, 1.0)}),
        ("scale: [8e-2, '1']", {"scale": (0.08, 1)}),
        ("scale:\n- .08\n- 1", {"scale": (0.08, 1)}),
        ("schedule: Cosine", {"schedule": "cosine"}),
        ("batch-size: 64", {"batch_size": 64}),
        ("lr: 1e-3  # a comment\r\nhflip: 0", {"lr": 0.001, "hflip": 0}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_settings_are_read_in_every_usual_notation(
    tmp_path: Path, text: str, settings: dict[str, Any], encoding: str
) -> None:
    others = "".join(
        line for line in BAG.to_yaml().splitlines(keepends=True) if line.partition(":")[0] not in settings
    )
    file = tmp_path / "recipe.yaml"
    file.write_bytes(f"{text}\n{others}".encode(encoding))
    expected = BAG.replace(settings)
    assert recipe.load_recipe(str(file)) == expected
    if "\n" not in text:
        name, _, value = text.partition(":")
        assert BAG.replace(dict([recipe.parse_setting(f"{name}={value}")])) == expected


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("lr=0,003", "write 0.003: commas do not belong in numbers"),
        ("epochs=1,000", "write 1000: commas do not belong in numbers"),
        ("label_smoothing=10%", "write 0.1: shares are written as numbers from 0 to 1"),
        ("epochs=1:30", "it takes a whole number from 1 to 100000"),
        ("epochs=0x10", "it takes a whole number from 1 to 100000"),
        ("epochs=2.5", "it takes a whole number from 1 to 100000"),
        ("epochs=1e999", "it takes a whole number from 1 to 100000"),
        ("lr=nan", "it takes a number from 0 to 1000"),
        ("lr=inf", "it takes a number from 0 to 1000"),
        ("lr=", "it takes a number from 0 to 1000"),
        ("lr=" + "9" * 5000, "it takes a number from 0 to 1000"),
        ("freeze=maybe", "it takes true or false"),
        ("scale=0.08", "it takes two numbers from 0.01 to 1, the smaller first"),
        ("scale=0,08, 1", "it takes two numbers from 0.01 to 1, the smaller first"),
        ("micro_batch=none of them", "it takes a whole number from 1 to 1000000, or null"),
    ],
)
def test_wrong_value_is_refused_with_a_hint_what_is_allowed(setting: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.parse_setting(setting, "--set")
    name, _, value = setting.partition("=")
    assert caught.value.message.startswith(f"--set {name} is {value!r}"[:60])
    assert hint_of(caught.value) == hint


def test_aliases_in_a_file_cannot_multiply(tmp_path: Path) -> None:
    lines = ["a: &a ['x', 'x']"] + [f"b{n}: &b{n} [*{'a' if not n else f'b{n - 1}'}, *a]" for n in range(99)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join(lines) + "\nlr: *b98\n")
    with pytest.raises(UsageError, match="line 1: recipes have no 'a'"):
        recipe.load_recipe(str(file))
    file.write_text(f"lr: &a {['x']}\nhflip: [*a, *a]\n")
    with pytest.raises(UsageError, match="lr is 'x'"):
        recipe.load_recipe(str(file))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_an_endless_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="no recipe /dev/zero: more than 65,536 bytes"):
        recipe.load_recipe("/dev/zero")


def test_a_recipe_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(BAG.to_yaml().encode())
    try:
        assert recipe.load_recipe(f"/dev/fd/{reading}") == BAG
    finally:
        os.close(reading)


def test_missing_recipe_file_hints_at_the_shipped_recipes() -> None:
    with pytest.raises(UsageError, match="no recipe sgd") as caught:
        recipe.load_recipe("sgd")
    assert hint_of(caught.value) == "available: bag-of-tricks, finetune; or name a YAML file"


def test_settings_of_the_command_line() -> None:
    assert recipe.parse_setting("lr=1e-3") == ("lr", 0.001)
    assert recipe.parse_setting("scale=[0.5, 1]") == ("scale", [0.5, 1])
    assert recipe.parse_setting("ema_decay=null") == ("ema_decay", None)
    assert recipe.parse_setting("auto_augment=rand-m7-mstd0.5") == ("auto_augment", "rand-m7-mstd0.5")
    with pytest.raises(UsageError, match="--set lr: no value"):
        recipe.parse_setting("lr", "--set")
    with pytest.raises(UsageError, match="--set lr is 'fast'"):
        recipe.parse_setting("lr=fast", "--set")
    with pytest.raises(UsageError, match=r"^lr is 'fast'"):
        recipe.parse_setting("lr=fast")


def test_differences_between_recipes_are_named() -> None:
    assert BAG.differences(BAG) == []
    assert BAG.differences(BAG.replace({"epochs": 3, "scale": [0.5, 1]})) == [
        "epochs 200, not 3",
        "scale [0.08, 1.0], not [0.5, 1]",
    ]


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [(300, 1024, 300), (96, 64, 48), (97, 64, 49), (42, 12, 11), (1_281_167, 1024, 1024), (5, 2, 2), (3, 3, 3)],
)
def test_batch_size_is_that_of_images_spread_evenly_over_the_steps(
    images: int, batch_size: int, expected: int
) -> None:
    evened = recipe_choice.with_even_batches(BAG.replace({"batch_size": batch_size}), images)
    assert evened.batch_size == expected
    assert evened.peak_lr == pytest.approx(0.1 * expected / 256)
    assert recipe_choice.with_even_batches(evened, images) == evened


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size", "batch_norm"),
    [
        (20, 24, 4, "freeze"),  # 120 updates, 5 an epoch
        (100, 15, 14, "freeze"),  # 8 an epoch
        (244, 15, 32, "freeze"),  # 8 an epoch
        (1000, 8, 32, "freeze"),  # 250 updates, 32 an epoch
        (10_000, 5, 32, "freeze"),
        (100_000, 3, 32, "update"),
    ],
)
def test_finetuning_adapts_epochs_and_batches_to_the_number_of_images(
    images: int, epochs: int, batch_size: int, batch_norm: str
) -> None:
    fitted = recipe_choice.adapted_to(recipe.load_recipe("finetune"), images, {})
    assert (fitted.epochs, fitted.batch_size, fitted.batch_norm) == (epochs, batch_size, batch_norm)
    assert fitted.warmup_epochs == pytest.approx(epochs / 10)


@pytest.mark.parametrize(
    ("command", "changes", "warmup_epochs"),
    [
        ("train", {}, 5),
        ("train", {"epochs": 90}, 5),
        ("train", {"epochs": 3}, 0.3),
        ("train", {"epochs": 1}, 0.1),
        ("train", {"epochs": 3, "warmup_epochs": 2}, 2),
        ("finetune", {"epochs": 90}, 9),
    ],
)
def test_warmup_is_a_tenth_of_the_epochs_asked_for(
    command: str, changes: dict[str, Any], warmup_epochs: float
) -> None:
    asked = asked_recipe(RecipeChoice(None, changes), command)
    assert asked.warmup_epochs == pytest.approx(warmup_epochs)


def test_settings_of_the_user_override_adapted_ones() -> None:
    fitted = recipe_choice.adapted_to(recipe.load_recipe("finetune"), 100, {"epochs": 5, "batch_size": 50})
    assert (fitted.epochs, fitted.batch_size, fitted.warmup_epochs) == (5, 50, 0.5)


@pytest.mark.parametrize(
    ("images", "batch_size", "processes", "message", "hint"),
    [
        (3, 8, 4, "3 images in a step for 4 processes", "use fewer --processes"),
        (9, 2, 2, "1 image in a step for 2 processes", "use --batch-size 4 or fewer --processes"),
    ],
)
def test_more_processes_than_images_in_a_step_are_refused(
    images: int, batch_size: int, processes: int, message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sampling.batch_sampler(BAG.replace({"batch_size": batch_size}), images, processes=processes)
    assert hint_of(caught.value) == hint


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "processes", "images", "hint"),
    [
        (1, None, 1, 8, "--batch-size 2, or --set batch_norm=freeze"),
        (2, None, 1, 9, "--batch-size 3, or --set batch_norm=freeze"),
        (2, None, 2, 8, "--batch-size 4, or --set batch_norm=freeze"),
        (5, 2, 1, 10, "--set micro_batch=null, or --set batch_norm=freeze"),
        (3, 2, 1, 5, "--set micro_batch=null, or --set batch_norm=freeze"),
        (8, 1, 1, 99, "--set micro_batch=null, or --set batch_norm=freeze"),
        (1, 1, 1, 99, "--batch-size 3 --set micro_batch=null, or --set batch_norm=freeze"),  # 2 would leave one
        (3, None, 2, 3, "--set batch_norm=freeze, or fewer --processes"),
        (1, None, 1, 1, "--set batch_norm=freeze"),
    ],
)
def test_micro_batch_of_one_image_is_refused_with_a_batch_size_that_works(
    batch_size: int, micro_batch: int | None, processes: int, images: int, hint: str
) -> None:
    settings = BAG.replace({"batch_size": batch_size, "micro_batch": micro_batch})
    with pytest.raises(UsageError, match="NET cannot learn from one image at a time") as caught:
        sampling.check_micro_batches(settings, images, processes, "NET")
    assert hint_of(caught.value) == hint


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "processes"), [(2, None, 1), (4, None, 2), (9, 4, 1), (8, 2, 2)]
)
def test_micro_batches_of_more_images_are_accepted(
    batch_size: int, micro_batch: int | None, processes: int
) -> None:
    sampling.check_micro_batches(
        BAG.replace({"batch_size": batch_size, "micro_batch": micro_batch}), 96, processes, "NET"
    )


def test_a_file_written_before_schedules_had_settings_is_read() -> None:
    lines = BAG.to_yaml().splitlines()
    new = ("step_at", "step_factor", "poly_power", "final_lr")
    assert recipe.parse("\n".join(line for line in lines if line.partition(":")[0] not in new)) == BAG


@pytest.mark.parametrize(
    ("text", "value"),
    [("step_at=0.5", [0.5]), ("step_at=[.3, 6e-1]", [0.3, 0.6]), ("step_at=0.1,0.2", [0.1, 0.2])],
)
def test_shares_of_a_run_are_read(text: str, value: list[float]) -> None:
    assert recipe.parse_setting(text) == ("step_at", value)


@pytest.mark.parametrize("text", ["", "[]", "0", "1", "0.6,0.3", "0.3,0.3", "30", "half", "-0.1"])
def test_shares_that_are_not_in_rising_order_within_the_run_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="step_at is") as caught:
        recipe.parse_setting(f"step_at={text}")
    assert hint_of(caught.value) == "it takes numbers between 0 and 1 in rising order, such as [0.5, 0.75]"
