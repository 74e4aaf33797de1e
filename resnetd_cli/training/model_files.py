"""The trained model on disk, as timm lays one out: `model.safetensors` and `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnetd_cli.models import trained_on
from resnetd_cli.system.files import write_atomic

if TYPE_CHECKING:
    from resnetd_cli.training.network import TrainableNetwork
    from resnetd_cli.training.run_folder import RunFolder


def write_model(
    folder: RunFolder, network: TrainableNetwork, classes: Sequence[str], weights: Mapping[str, Any]
) -> None:
    """Write the weights, then the configuration.

    Args:
        folder: of the run.
        network: the network that the weights belong to.
        classes: the names of its classes.
        weights: tensors by name.
    """
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    marks = trained_on.read(folder.path)
    # A single entry: safetensors writes several in random order.
    metadata = {trained_on.DIGEST: "" if marks is None else trained_on.digest(marks)}
    write_atomic(folder.path / "model.safetensors", safetensors.torch.save(tensors, metadata))
    folder.write_json(
        "config.json",
        {
            "architecture": network.architecture,
            "num_classes": len(classes),
            "label_names": list(classes),
            "model_args": dict(network.arguments),
            "pretrained_cfg": dict(network.config),
        },
    )
