"""The device and the precision (fp32, fp16, bf16) of training, as Accelerate's handle."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.training.processes import cpus_per_process

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_accelerator(device: str, precision: str) -> Accelerator:
    """Return Accelerate's handle on device, precision and processes.

    Raises:
        UsageError: this machine has no such device.
    """
    from accelerate import Accelerator

    from resnetd_cli.pipeline.engines.pytorch import choose_device

    chosen = choose_device(device)
    if chosen.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(chosen)
    on_gpu = chosen.type == "cuda"
    if precision == "auto":
        precision = ("bf16" if _has_bf16() else "fp16") if on_gpu else "fp32"
    mixed = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}[precision]
    if mixed == "fp16" and not on_gpu:
        instead = ("precision=bf16 or fp32",)
        raise UsageError("fp16 training needs a GPU", reason=Reason.OTHER_SETTING, details=instead)
    return Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed)


def set_threads(threads: int | None) -> None:
    """Let torch use this many threads; None for the process's share of the processors."""
    import torch

    torch.set_num_threads(threads or cpus_per_process())


def _has_bf16() -> bool:
    import torch

    with suppress(RuntimeError, AssertionError):
        return bool(torch.cuda.is_bf16_supported())
    return False
