"""Which distribution is installed, and what its hints tell users to install."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from resnetd_cli.errors import ModelError, UnknownModel
from resnetd_cli.models import names, plain_network
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.plain_tensors import NeedsTorchError
from resnetd_cli.pipeline.engines import pytorch
from resnetd_cli.system.distribution import how_to_install, is_installed, is_lite


@pytest.fixture
def lite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: {"resnetd-lite": object()}[name])


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (names, plain_network):
        monkeypatch.setattr(module, "is_installed", lambda name: name != "timm")


@pytest.mark.parametrize(
    ("extra", "command"), [(None, "pip install resnetd"), ("heif", "pip install 'resnetd[heif]'")]
)
def test_full_distribution_is_completed_by_itself(extra: str | None, command: str) -> None:
    assert not is_lite()
    assert how_to_install(extra) == command


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        (None, "pip uninstall resnetd-lite, then pip install resnetd"),
        ("hfds", "pip uninstall resnetd-lite, then pip install 'resnetd[hfds]'"),
        ("openvino", "pip install 'resnetd-lite[openvino]'"),
    ],
)
def test_lite_is_replaced_unless_it_has_the_extra(extra: str | None, command: str, lite: None) -> None:
    assert is_lite()
    assert how_to_install(extra) == command


def test_packages_are_found_without_importing_them() -> None:
    assert is_installed("torch")
    assert not is_installed("no_such_package")


def test_gpu_is_not_expected_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch.os.path, "exists", lambda _: True)
    assert pytorch.gpu_is_likely()
    monkeypatch.setattr(pytorch, "is_installed", lambda _: False)
    assert not pytorch.gpu_is_likely()


def test_name_of_timm_is_unknown_without_timm(without_timm: None) -> None:
    with pytest.raises(UnknownModel, match=r"'resnet50' .* the package timm, .* is not installed") as caught:
        names.resolve("resnet50")
    assert caught.value.hint == "pip install resnetd; resnetd list-models shows what runs without"


def test_unusual_model_needs_timm(without_timm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise NeedsTorchError("its weights do not fit")

    monkeypatch.setattr(plain_network, "_load", fail)
    with pytest.raises(ModelError) as caught:
        plain_network.load_plain(ModelChoice.of("embedded"))
    message = "embedded needs the package timm, which is not installed: its weights do not fit"
    assert (caught.value.message, caught.value.hint) == (message, "pip install resnetd")
