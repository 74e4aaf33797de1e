"""Dry runs find the image and batch sizes that a network rejects."""

from __future__ import annotations

import pytest
import timm

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UsageError
from resnetd_cli.models import dry_run
from resnetd_cli.training import network, recipe, train_mode
from resnetd_cli.training.plan import NetworkChoice

UPDATE = recipe.load_recipe("bag-of-tricks").replace({"batch_norm": "update"})
FREEZE = UPDATE.replace({"batch_norm": "freeze"})


@pytest.mark.parametrize(
    ("settings", "images", "side", "learns"),
    [
        (UPDATE, 1, 16, False),  # one value per channel in the last stage
        (UPDATE, 2, 16, True),
        (UPDATE, 1, 96, True),
        (FREEZE, 1, 16, True),
    ],
)
def test_batch_norm_learns_from_one_image_only_if_it_has_several_positions(
    settings: recipe.Recipe, images: int, side: int, learns: bool
) -> None:
    module = timm.create_model("test_resnet")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def prepare(twin: object) -> None:
        train_mode.set_train_mode(twin, settings)  # type: ignore[arg-type]

    assert dry_run.learns_from(module, images, (side, side), prepare) is learns
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "side", "hint"),
    [
        ("test_vit", "30", "--image-size 32 works"),
        ("vgg11", "16", "--image-size 32 works"),
        ("inception_v3", "32", "--image-size 75 works"),
    ],
)
def test_image_size_that_network_rejects_is_error_with_next_size_that_works(
    architecture: str, side: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "_SECONDS", 300.0)  # a busy machine must not cut the search short
    with pytest.raises(UsageError) as caught:
        network.untrained(NetworkChoice(architecture, image_size=side), 3, UPDATE)
    assert caught.value.message == f"{architecture} does not take images of {side} pixels"
    assert hint_of(caught.value) == hint


@pytest.mark.slow
def test_image_sizes_that_network_accepts_are_used() -> None:
    for architecture, side in (("test_resnet", "16"), ("test_vit", "64")):
        start = network.untrained(NetworkChoice(architecture, image_size=side), 3, UPDATE)
        assert start.preprocessing.input_size == (3, int(side), int(side))
