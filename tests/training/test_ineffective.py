"""Each setting of a recipe acts, or is an error that says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from helpers.training_data import NETWORK, carry_out, change, make_plan, write_colours
from PIL import Image
from safetensors.torch import load_file
from timm.data import Mixup
from torch.nn.functional import dropout

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UsageError
from resnetd_cli.results import Preprocessing
from resnetd_cli.training import (
    augmentation,
    head,
    ineffective,
    network,
    optimizer,
    randomness,
    recipe,
    train_mode,
)
from resnetd_cli.training.dropout import set_dropout
from resnetd_cli.training.mixup import mix
from resnetd_cli.training.plan import NetworkChoice, RecipeChoice
from resnetd_cli.training.recipe import Recipe
from resnetd_cli.training.recipe_choice import asked_recipe

BAG, TUNE = recipe.load_recipe("bag-of-tricks"), recipe.load_recipe("finetune")


def asked(
    command: str, teacher: str | None = None, file: str | None = None, processes: int = 1, **changes: Any
) -> Recipe:
    """Return the recipe that is asked for with some changes."""
    choice = RecipeChoice(file, changes)
    return asked_recipe(choice, command, has_teacher=teacher is not None, processes=processes)


@pytest.mark.parametrize(
    ("command", "changes", "message", "hint"),
    [
        ("train", {"step_at": [0.5]}, "step_at would have no effect: schedule is cosine", "--set schedule=step"),
        ("train", {"schedule": "poly", "step_factor": 0.5}, "step_factor would have no effect", "--set schedule"),
        ("finetune", {"poly_power": 2}, "poly_power would have no effect: schedule is cosine", "schedule=poly"),
        ("train", {"schedule": "step", "final_lr": 0.1}, "final_lr would have no effect", "cosine or poly"),
        ("train", {"schedule": "constant", "final_lr": 0.1}, "final_lr would have no effect", "cosine or poly"),
        (
            "train",
            {"schedule": "step", "epochs": 3, "warmup_epochs": 5},
            "schedule would have no effect: the warm-up lasts the whole run, as warmup_epochs is 5 and epochs 3",
            "--set warmup_epochs=0, or leave schedule out",
        ),
        (
            "finetune",
            {"freeze": True, "drop_path": 0.1},
            "drop_path would have no effect: freeze trains only the classifier",
            "--set freeze=false, or leave drop_path out",
        ),
        ("finetune", {"freeze": True, "backbone_lr": 0.5}, "backbone_lr would have no effect", "freeze=false"),
        ("finetune", {"freeze": True, "batch_norm": "update"}, "batch_norm would have no effect", "freeze=false"),
        ("finetune", {"momentum": 0.8}, "momentum would have no effect: adamw has no momentum", "optimizer=sgd"),
        ("train", {"teacher_temperature": 2}, "there is no teacher", "--teacher MODEL, or leave"),
        ("finetune", {"mixup": 0.2, "batch_size": 1}, "images are run one at a time", "a larger --batch-size"),
        ("finetune", {"cutmix": 1, "micro_batch": 1}, "images are run one at a time", "a larger --batch-size"),
        ("train", {"micro_batch": 65, "batch_size": 64}, "a step sees 64 images at most", "a larger --batch-size"),
    ],
)
def test_setting_without_an_effect_is_refused_if_it_was_asked_for(
    command: str, changes: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        asked(command, **changes)
    assert message in caught.value.message
    assert hint_of(caught.value) is not None and hint in hint_of(caught.value)


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("train", {}),
        ("finetune", {}),
        ("finetune", {"freeze": True}),  # though the recipe has a rate for the rest
        ("finetune", {"freeze": True, "backbone_lr": 0, "drop_path": 0, "batch_norm": "freeze"}),
        ("finetune", {"epochs": 1, "schedule": "step", "step_at": [0.5]}),  # the warm-up follows the epochs
        ("finetune", {"optimizer": "sgd", "momentum": 0.8}),
        ("finetune", {"optimizer": "lookahead_sgd", "momentum": 0.8}),
        ("train", {"batch_size": 64}),  # though the recipe's micro_batch is 128
        ("train", {"schedule": "poly", "poly_power": 2, "final_lr": 0.01}),
        ("train", {"schedule": "step", "step_at": [0.5], "step_factor": 0.5, "final_lr": 0}),
        ("train", {"optimizer": "unknown", "momentum": 0.5}),  # which is another error, later
    ],
)
def test_settings_with_an_effect_and_those_of_the_recipe_are_accepted(
    command: str, changes: dict[str, Any]
) -> None:
    asked(command, **changes)
    asked(command, teacher="embedded", **changes, teacher_temperature=2)


def test_settings_in_a_recipe_file_need_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TUNE.replace({"freeze": True, "drop_path": 0.2, "momentum": 0.5}).to_yaml())
    assert asked("finetune", file=str(file)).drop_path == 0.2
    with pytest.raises(UsageError, match="momentum would have no effect"):
        asked("finetune", file=str(file), momentum=0.4)


def test_mixing_needs_two_images_in_some_process() -> None:
    asked("finetune", mixup=0.2, batch_size=4, processes=3)
    with pytest.raises(UsageError, match="images are run one at a time"):
        asked("finetune", mixup=0.2, batch_size=4, processes=4)


def test_cases_name_settings_and_switched_off_values_are_right() -> None:
    for case in ineffective.CASES:
        assert set(case.settings) <= set(recipe.RULES)
    for setting, value in ineffective._OFF.items():
        assert recipe.RULES[setting].value.is_right(value)


# What each setting changes, and what must be so for it: all of a recipe is here, but for what names no effect.
ALTERED: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (2, {}),
    "batch_size": (4, {}),
    "micro_batch": (3, {}),
    "optimizer": ("adamw", {}),
    "lr": (0.1, {}),
    "lr_batch": (None, {}),
    "backbone_lr": (0.5, {}),
    "momentum": (0.5, {}),
    "weight_decay": (0.1, {}),
    "clip_grad": (0.01, {}),
    "schedule": ("poly", {}),
    "step_at": ([0.5], {"schedule": "step"}),
    "step_factor": (0.5, {"schedule": "step"}),
    "poly_power": (2, {"schedule": "poly"}),
    "final_lr": (0.5, {}),
    "warmup_epochs": (0.5, {}),
    "label_smoothing": (0.2, {}),
    "mixup": (0.5, {}),
    "cutmix": (0.5, {}),
    "scale": ([0.5, 0.6], {}),
    "ratio": ([0.5, 0.6], {}),
    "hflip": (0, {}),
    "vflip": (0.5, {}),
    "color_jitter": (0, {}),
    "auto_augment": ("rand-m7-mstd0.5", {}),
    "random_erasing": (0.5, {}),
    "head": ("zero", {}),
    "freeze": (True, {}),
    "batch_norm": ("freeze", {}),
    "drop_rate": (0.5, {}),
    "drop_path": (0.5, {}),
    "ema_decay": (0.9, {}),
    "precision": ("bf16", {}),
    "seed": (1, {}),
}
TOGETHER: list[tuple[dict[str, Any], str, Any]] = [
    ({"freeze": True}, "drop_rate", 0.5),
    ({"freeze": True}, "clip_grad", 0.01),
    ({"freeze": True}, "weight_decay", 0.5),
    ({"freeze": True}, "ema_decay", 0.9),
    ({"freeze": True}, "label_smoothing", 0.3),
    ({"freeze": True}, "head", "zero"),
    ({"freeze": True}, "mixup", 0.5),
    ({"backbone_lr": 0}, "drop_rate", 0.5),
    ({"backbone_lr": 0.1}, "drop_path", 0.5),
    ({"backbone_lr": 0}, "batch_norm", "freeze"),
    ({"mixup": 0.2}, "label_smoothing", 0.3),
    ({"mixup": 0.2}, "cutmix", 1.0),
    ({"auto_augment": "rand-m7-mstd0.5"}, "color_jitter", 0.0),
    ({"auto_augment": "augmix-m3"}, "color_jitter", 0.0),
    ({"auto_augment": "original"}, "color_jitter", 0.0),
    ({"drop_rate": 0.2}, "drop_path", 0.5),
    ({"micro_batch": 3}, "mixup", 0.5),
    ({"optimizer": "lamb"}, "weight_decay", 0.5),
    ({"schedule": "step", "warmup_epochs": 0.5}, "step_at", [0.6]),
]


@pytest.fixture(scope="module")
def train(
    one_thread: None, short_dry_runs: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, torch.Tensor]]:
    """Trains for three steps of 5 or 4 images with some settings; the weights."""
    top = tmp_path_factory.mktemp("effects")
    write_colours(top / "data" / "train", 5, seed=1)
    write_colours(top / "data" / "val", 1, seed=2)
    base = {"epochs": 1, "batch_size": 5, "lr": 0.3, "warmup_epochs": 0, "mixup": 0}
    known: dict[str, dict[str, torch.Tensor]] = {}

    def weights(**changes: Any) -> dict[str, torch.Tensor]:
        settings = {**base, **changes}
        if repr(settings) not in known:
            AcceleratorState._reset_state(reset_partial_state=True)  # which keeps the precision for the process
            run = top / str(len(known))
            plan = make_plan(
                "train", str(top / "data"), run, NETWORK, changes=settings, image_size="32", workers=0
            )
            carry_out(change(plan, device="cpu"))
            known[repr(settings)] = load_file(run / "model.safetensors")
        return known[repr(settings)]

    return weights


def differs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def test_every_setting_but_the_teachers_is_tried() -> None:
    assert set(ALTERED) == set(recipe.RULES) - {"teacher_temperature"}


@pytest.mark.slow
@pytest.mark.parametrize("setting", ALTERED)
def test_every_setting_changes_what_is_learnt(setting: str, train: Callable[..., dict[str, torch.Tensor]]) -> None:
    value, needed = ALTERED[setting]
    assert differs(train(**needed), train(**needed, **{setting: value}))


@pytest.mark.slow
@pytest.mark.parametrize(("others", "setting", "value"), TOGETHER)
def test_settings_act_beside_each_other(
    others: dict[str, Any], setting: str, value: Any, train: Callable[..., dict[str, torch.Tensor]]
) -> None:
    assert differs(train(**others), train(**others, **{setting: value}))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize(
    "architecture", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_nfnet"]
)
def test_dropout_is_timms_and_acts_on_a_frozen_backbone_too(architecture: str, freeze: bool) -> None:
    settings = BAG.replace({"drop_rate": 0.4, "freeze": freeze})
    theirs = timm.create_model(architecture, num_classes=5, drop_rate=0.4).train()
    ours = timm.create_model(architecture, num_classes=5)
    ours.load_state_dict(theirs.state_dict())
    set_dropout(ours, settings)
    train_mode.set_train_mode(ours, settings)
    side = ours.pretrained_cfg["input_size"][-1]
    images = torch.rand(4, 3, side, side)
    if freeze:
        theirs.eval()
        features = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.manual_seed(7)
        expected = theirs.get_classifier()(dropout(features, 0.4))
    else:
        torch.manual_seed(7)
        expected = theirs(images)
    torch.manual_seed(7)
    found = ours(images)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(ours.eval()(images), theirs.eval()(images), atol=1e-5)
    train_mode.set_train_mode(ours, settings)
    assert not torch.allclose(found, ours(images), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["levit_128s", "repvit_m0_9", "resnetv2_18", "ghostnet_050", "rexnet_100"]
)
def test_a_classifier_of_any_kind_drops_what_is_asked_for_and_no_more(architecture: str) -> None:
    """Two classifiers in one, one with a norm of its own, a convolution, and two with dropout by default."""
    images = torch.rand(2, 3, 224, 224)
    for rate in (0.0, 0.5):
        settings = BAG.replace({"freeze": True, "drop_rate": rate})
        module = timm.create_model(architecture, num_classes=5)
        set_dropout(module, settings)
        train_mode.set_train_mode(module, settings)
        with torch.no_grad():
            for layer in head.classifier_of(module).modules():
                if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
                    layer.weight.normal_()
            assert torch.equal(module(images), module(images)) is (rate == 0)


@pytest.mark.slow
def test_a_network_drops_no_paths_of_its_own_accord() -> None:
    module = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5)
    assert any(getattr(layer, "drop_prob", 0) for layer in module.modules())  # timm's default
    set_dropout(module, BAG)
    assert not any(getattr(layer, "drop_prob", 0) for layer in module.modules())


def test_stochastic_depth_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="drop_path would have no effect: vgg11 has no stochastic depth"):
        network.untrained(NetworkChoice("vgg11"), 5, BAG.replace({"drop_path": 0.1}))


def test_statistics_of_batches_are_refused_where_there_are_none() -> None:
    vit, resnet = (timm.create_model(name) for name in ("test_vit", "test_resnet"))
    with pytest.raises(UsageError, match="batch_norm would have no effect: vit has no batch normalisation"):
        ineffective.check_network({"batch_norm": "update"}, vit, "vit")
    ineffective.check_network({"batch_norm": "freeze"}, vit, "vit")
    ineffective.check_network({"batch_norm": "update"}, resnet, "resnet")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"backbone_lr": 0, "batch_norm": "freeze"}, {"freeze": True}])
def test_gradients_that_are_not_applied_are_neither_computed_nor_clipped_by(
    changes: dict[str, Any], train: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """A step of plain gradient descent is as long as the longest gradient that clip_grad leaves."""
    settings = {
        "optimizer": "momentum",
        "momentum": 0,
        "weight_decay": 0,
        "batch_size": 15,
        "schedule": "constant",
    }
    settings |= {"lr": 1, "lr_batch": None, **changes}
    before = train(**{**settings, "lr": 0})
    after = train(**settings, clip_grad=0.001)
    moved = {name: (after[name] - before[name]).double().norm().item() for name in before}
    assert sum(length**2 for length in moved.values()) ** 0.5 == pytest.approx(0.001, rel=1e-2)
    assert {name for name, length in moved.items() if length} == {"fc.weight", "fc.bias"}
    module = timm.create_model(NETWORK, num_classes=3)
    groups = optimizer.parameter_groups(module, BAG.replace(changes))
    assert sum(len(group["params"]) for group in groups) == 2
    assert {name for name, each in module.named_parameters() if each.requires_grad} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("policy", ["rand-m7-mstd0.5", "augmix-m3", "original"])
def test_colours_vary_beside_a_policy(policy: str) -> None:
    how = Preprocessing((3, 32, 32), 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    prepared = []
    for jitter in (0.0, 0.4):
        randomness.seed_all(3)
        settings = BAG.replace({"auto_augment": policy, "color_jitter": jitter})
        prepared.append(augmentation.training_transform(settings, how)(image))
    assert not torch.equal(*prepared)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 31])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_every_image_of_a_batch_is_mixed_with_another(count: int, kind: str) -> None:
    images, targets = torch.rand(count, 3, 8, 8), torch.arange(count)
    alphas = (
        {"mixup_alpha": 5.0, "cutmix_alpha": 0.0} if kind == "mixup" else {"mixup_alpha": 0.0, "cutmix_alpha": 5.0}
    )
    mixup = Mixup(**alphas, num_classes=count, label_smoothing=0.0)
    randomness.seed_all(1)
    mixed, soft = mix(mixup, images.clone(), targets)
    assert mixed.shape == images.shape and soft.shape == (count, count)
    for position in range(count):
        (partner,) = [each for each in soft[position].nonzero().flatten().tolist() if each != position]
        share = soft[position, position].item()
        assert 0 < share < 1 and soft[position].sum().item() == pytest.approx(1)
        if kind == "mixup":
            expected = share * images[position] + (1 - share) * images[partner]
            assert torch.allclose(mixed[position], expected, atol=1e-6)
        else:
            pasted = (mixed[position] == images[partner]).all(0)
            assert pasted.float().mean().item() == pytest.approx(1 - share)
            assert torch.equal(mixed[position][:, ~pasted], images[position][:, ~pasted])


def test_a_single_image_is_not_mixed_but_its_label_is_smoothed() -> None:
    mixup = Mixup(mixup_alpha=1.0, num_classes=4, label_smoothing=0.2)
    image = torch.rand(1, 3, 4, 4)
    mixed, soft = mix(mixup, image, torch.tensor([2]))
    assert torch.equal(mixed, image)
    assert soft.tolist() == [pytest.approx([0.05, 0.05, 0.85, 0.05])]


def test_an_optimiser_of_second_order_is_refused() -> None:
    with pytest.raises(UsageError, match="adahessian needs second derivatives, which are not computed"):
        optimizer.make_optimizer(
            [{"params": [torch.nn.Parameter(torch.zeros(1))]}], BAG.replace({"optimizer": "adahessian"})
        )


def test_a_share_for_val_is_refused_where_the_data_has_its_own(tmp_path: Path) -> None:
    write_colours(tmp_path / "data" / "train", 2)
    write_colours(tmp_path / "data" / "test", 1, seed=1)
    plan = make_plan("train", str(tmp_path / "data"), tmp_path / "run", NETWORK, val_share=0.2, device="cpu")
    with pytest.raises(UsageError, match=r"a share for val would have no effect: .* has test of its own"):
        carry_out(plan)


@pytest.mark.slow
def test_a_classifier_that_cannot_be_fitted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.training.linear_probe.fit_classifier", lambda *_: False)
    write_colours(tmp_path / "data", 4)
    changes = {"head": "probe", "batch_size": 4, "epochs": 10}
    plan = make_plan("train", str(tmp_path / "data"), tmp_path / "run", NETWORK, image_size="32", changes=changes)
    with pytest.raises(UsageError, match=f"the classifier of {NETWORK} cannot be fitted"):
        carry_out(change(plan, workers=0, device="cpu"))
