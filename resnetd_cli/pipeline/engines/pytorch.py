"""The torch engine: runs a timm network with PyTorch, on the CPU or a GPU."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.engines.base import LAYER_LOGITS, LAYER_POOLED, EngineOptions, Outputs
from resnetd_cli.system.cpus import limited_cpus
from resnetd_cli.system.distribution import is_installed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

_GPU_BATCH = 32
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", r"C:\Windows\System32\nvcuda.dll")
"""Files of the GPU drivers of NVIDIA, AMD, WSL and Windows."""


class TorchEngine:
    """Runs a timm network with torch.

    Args:
        network: in evaluation mode.
        options: of these, size and optimised do not apply; the outputs are float32 in any precision.

    Raises:
        UsageError: the device does not exist, or the network has no such layer.
    """

    name = "torch"

    def __init__(self, network: nn.Module, options: EngineOptions = EngineOptions()) -> None:
        import torch

        threads = limited_cpus() if options.threads is None else options.threads
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(options.device)
        self.batch_size = 1 if self.device.type == "cpu" else _GPU_BATCH
        self._form: dict[str, Any] = {"device": self.device, "dtype": _dtype(options.precision)}
        self.network = network.to(**self._form)
        with suppress(RuntimeError):  # networks with five-dimensional weights
            # Convolutions on CPUs and tensor cores are fastest with channels last.
            self.network = self.network.to(memory_format=torch.channels_last)
        self.classes = int(getattr(network, "num_classes", 0) or 0)
        self._logits = options.wanted.logits and bool(self.classes)
        self._layer = layer = options.wanted.layer
        self._stage = _stage_index(network, layer) if layer not in (None, LAYER_POOLED, LAYER_LOGITS) else None

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the network on float32 images of shape (N, 3, H, W)."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(images).to(**self._form, memory_format=torch.channels_last)
            logits, features = self._forward(batch)
        return Outputs(_to_numpy(logits), _to_numpy(features))

    def _forward(self, batch: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        network: Any = self.network
        if self._layer is None:
            return network(batch), None
        if self._layer == LAYER_LOGITS:
            logits = network(batch)
            return logits, logits
        if self._stage is not None:
            final, maps = network.forward_intermediates(batch, indices=[self._stage])
            return self._head(final), _mean_over_positions(maps[0])
        final = network.forward_features(batch)
        return self._head(final), network.forward_head(final, pre_logits=True)

    def _head(self, final: torch.Tensor) -> torch.Tensor | None:
        network: Any = self.network
        return network.forward_head(final) if self._logits else None


def gpu_is_likely() -> bool:
    """Return whether there may be a GPU that torch runs on, without the seconds that importing torch takes."""
    is_there = any(map(os.path.exists, _GPU_DRIVERS)) or (sys.platform, platform.machine()) == ("darwin", "arm64")
    return is_there and is_installed("torch")


def choose_device(name: str) -> torch.device:
    """Return the torch device with this name; `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: this machine, or this torch, has no such device.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in present:
        raise UsageError(f"no device called {name!r}", hint="auto, cpu, cuda, cuda:N or mps")
    if not present[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise UsageError(f"the device {name} is not on this machine", hint=f"available: {there}")
    return device


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def _stage_index(network: nn.Module, layer: str | None) -> int:
    stages = [stage["module"] for stage in getattr(network, "feature_info", ())]
    if layer in stages and hasattr(network, "forward_intermediates"):
        return stages.index(layer)
    raise UsageError(f"no layer called {layer!r}", hint=f"available: {', '.join(['pooled', 'logits', *stages])}")


def _mean_over_positions(maps: torch.Tensor) -> torch.Tensor:
    """Average a stage's feature maps, (N, C, H, W), over their positions: (N, C)."""
    return maps.mean(dim=(2, 3))


def _to_numpy(tensor: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if tensor is None else tensor.float().cpu().numpy()


def build(network: nn.Module, options: EngineOptions) -> TorchEngine:
    """Return the engine for a network; see `EngineSpec.build`."""
    return TorchEngine(network, options)
