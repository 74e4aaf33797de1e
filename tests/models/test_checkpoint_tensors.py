"""Finding the network's tensors in checkpoints of training scripts and frameworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import WeightsError
from resnetd_cli.models import checkpoint_tensors, checkpoints

NAME = "test_resnet"
Tensors = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=3).eval()


@pytest.fixture(scope="module")
def tensors(network: nn.Module) -> Tensors:
    return network.state_dict()


@pytest.fixture
def fit(tmp_path: Path, network: nn.Module) -> Callable[..., dict[str, Any]]:
    """Save content as a training script would, read it back, and return the network's tensors."""

    def save_and_fit(content: object, name: str = "w.pth") -> dict[str, Any]:
        torch.save(content, tmp_path / name)
        found = checkpoints.read(tmp_path / name)
        return checkpoint_tensors.fit(tmp_path / name, found, NAME, network.pretrained_cfg, network.state_dict)

    return save_and_fit


def under(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_head(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


def shifted(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return different weights for the same network."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


def assert_same(found: Mapping[str, Any], tensors: Tensors) -> None:
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# --- keys and prefixes ---


@pytest.mark.parametrize(
    "path",
    ["state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema", "module", "x.y.z"],
)
def test_tensors_under_any_key_are_found(path: str, tensors: Tensors, fit: Any) -> None:
    content: Any = dict(tensors)
    for key in reversed(path.split(".")):
        content = {key: content, "epoch": 3, "best_acc": 0.5, "optimizer": {"state": {0: {"step": 1}}}}
    assert_same(fit(content), tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "backbone.",
        "net.",
        "encoder.",
        "student.",
        "_orig_mod.",
        "model._orig_mod.",
        "module.model.",
        "model.model.",
        "timm_model.",
        "base_model.model.",
        "_forward_module.model.",
        "_fsdp_wrapped_module.",
        "1.",
    ],
)
def test_any_prefix_is_removed(prefix: str, tensors: Tensors, fit: Any) -> None:
    assert_same(fit({"state_dict": under(prefix, tensors), "epoch": 3}), tensors)


def test_wrappers_of_single_layers_are_removed_from_names(tensors: Tensors, fit: Any) -> None:
    wrapped = {name.replace("layer1.", "layer1._fsdp_wrapped_module."): tensors[name] for name in tensors}
    wrapped = {name.replace("layer2.", "layer2._checkpoint_wrapped_module."): wrapped[name] for name in wrapped}
    assert_same(fit({"model": under("module.", wrapped)}), tensors)


@pytest.mark.slow
def test_optimizer_that_names_its_parameters_is_not_the_network(tensors: Tensors, fit: Any) -> None:
    state = {name: {"exp_avg": tensor * 0, "step": torch.tensor(3.0)} for name, tensor in tensors.items()}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1}], "momentum": shifted(without_head(tensors))}
    assert_same(fit({"optimizer": optimizer, "weights": dict(tensors)}), tensors)


def test_timm_names_are_used_without_building_outline(
    tmp_path: Path, network: nn.Module, tensors: Tensors
) -> None:
    torch.save({"model": dict(tensors), "epoch": 3}, tmp_path / "w.pth")
    found = checkpoints.read(tmp_path / "w.pth")
    fitted = checkpoint_tensors.fit(
        tmp_path / "w.pth", found, NAME, network.pretrained_cfg, lambda: pytest.fail("a network was built")
    )
    assert_same(fitted, tensors)


def test_safetensors_with_other_extension_is_read(tmp_path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "w.bin")
    assert_same(checkpoints.read(tmp_path / "w.bin")[0].tensors, tensors)


# --- averaged copies ---


@pytest.mark.slow
@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "ema_model", "swa_model"])
def test_averaged_copy_wins(key: str, tensors: Tensors, fit: Any) -> None:
    assert_same(fit({"model": shifted(tensors), "state_dict": shifted(tensors), key: dict(tensors)}), tensors)


@pytest.mark.slow
def test_torch_averaged_copy_is_recognised_by_its_counter(tensors: Tensors, fit: Any) -> None:
    averaged = {"n_averaged": torch.tensor(10), **under("module.", tensors)}
    assert_same(fit({"model": shifted(tensors), "model_ema": averaged}), tensors)
    assert_same(fit({"net": shifted(tensors), "smooth": averaged}), tensors)
    assert_same(fit(averaged), tensors)


@pytest.mark.slow
def test_averaged_copy_inside_module_wins(tensors: Tensors, fit: Any) -> None:
    state = {
        **under("model.", shifted(tensors)),
        **under("ema.module.", tensors),
        "ema.n_averaged": torch.tensor(1),
    }
    assert_same(fit({"state_dict": state}), tensors)
    state = {**under("net.", shifted(tensors)), **under("model_ema.", tensors)}
    assert_same(fit({"state_dict": state}), tensors)


def test_incomplete_averaged_copy_does_not_win(tensors: Tensors, fit: Any) -> None:
    part = dict(list(shifted(tensors).items())[:60])
    assert_same(fit({"model": dict(tensors), "model_ema": part}), tensors)
    assert_same(fit({"model": dict(tensors), "model_ema": without_head(shifted(tensors))}), tensors)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (lambda t: {"student": dict(t), "teacher": shifted(t)}, "student and teacher"),
        (lambda t: {"state_dict": under("q.", t) | under("k.", shifted(t))}, "state_dict.q and state_dict.k"),
        (lambda t: {"best": dict(t), "last": shifted(t)}, "best and last"),
    ],
    ids=["two dicts", "two prefixes", "best and last"],
)
def test_two_networks_in_one_file_are_an_error(content: Any, names: str, tensors: Tensors, fit: Any) -> None:
    with pytest.raises(WeightsError, match=f"more than one {NAME}: {names}") as caught:
        fit(content(tensors))
    assert "torch.save(" in (hint_of(caught.value) or "")


# --- other content of checkpoints ---


def test_counters_of_other_tools_are_ignored(tensors: Tensors, fit: Any) -> None:
    counted = dict(tensors)
    for layer in ("", "layer1.", "layer1.0.conv1.", "fc."):
        counted |= {
            f"{layer}total_ops": torch.zeros(1, dtype=torch.float64),
            f"{layer}total_params": torch.zeros(1),
        }
    assert_same(fit({"model": counted}), tensors)
    assert_same(fit(under("module.", counted)), tensors)


def test_class_weights_of_a_loss_are_ignored(tensors: Tensors, fit: Any) -> None:
    state = under("model.", tensors) | {"criterion.weight": torch.ones(3), "loss.pos_weight": torch.tensor(3.2)}
    state |= {"normalize.mean": torch.zeros(1, 3, 1, 1), "accuracy.tp": torch.zeros(3, dtype=torch.int64)}
    assert_same(fit({"state_dict": state}), tensors)


@pytest.mark.parametrize("name", ["classifier.weight", "teacher.conv1.weight", "head.0.weight"])
def test_extra_weights_beside_network_are_an_error(name: str, tensors: Tensors, fit: Any) -> None:
    state = under("model.", tensors) | {name: torch.zeros(5, 64), name.replace("weight", "bias"): torch.zeros(5)}
    with pytest.raises(WeightsError) as caught:
        fit({"state_dict": state})
    assert f"{name} (5 x 64)" in caught.value.message
    assert "'model.'" in caught.value.message


def test_extra_weights_inside_network_are_left_for_timm_to_reject(tensors: Tensors, fit: Any) -> None:
    assert "extra.weight" in fit(under("module.", {**tensors, "extra.weight": torch.zeros(4)}))


def test_classifier_under_another_prefix_is_found(tensors: Tensors, fit: Any) -> None:
    state = under("backbone.", without_head(tensors))
    state |= {"head.fc.weight": tensors["fc.weight"], "head.fc.bias": tensors["fc.bias"]}
    assert_same(fit({"state_dict": state, "meta": {"CLASSES": ["a", "b", "c"]}}), tensors)


def test_network_without_classifier_gets_none(tensors: Tensors, fit: Any) -> None:
    assert_same(fit({"state_dict": under("encoder.", without_head(tensors))}), without_head(tensors))


def test_missing_counters_are_ignored(tensors: Tensors, fit: Any) -> None:
    state = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert_same(fit(under("model.", state)), state)


def test_missing_weights_are_left_for_timm_to_report(tensors: Tensors, fit: Any) -> None:
    state = {name: tensor for name, tensor in tensors.items() if name != "layer1.0.conv1.weight"}
    assert_same(fit(under("model.", state)), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_width_are_accepted(dtype: torch.dtype, tensors: Tensors, fit: Any) -> None:
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    assert_same(fit(under("model.", state)), state)


def test_integer_weights_are_an_error(tensors: Tensors, fit: Any) -> None:
    state = {**tensors, "layer1.0.conv1.weight": tensors["layer1.0.conv1.weight"].to(torch.int8)}
    for content in (state, {"model": under("module.", state)}):
        with pytest.raises(WeightsError, match=r"does not fit test_resnet: layer1\.0\.conv1\.weight holds int8"):
            fit(content)


def test_names_of_another_architecture_are_unchanged(fit: Any) -> None:
    other = {"blocks.0.weight": torch.zeros(3, 3), "blocks.0.bias": torch.zeros(3)}
    assert_same(fit({"state_dict": under("module.", other)}), other)
