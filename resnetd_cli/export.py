"""From a timm network to an ONNX graph. The only module that needs torch for inference's sake."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError, first_line
from resnetd_cli.quiet import quiet
from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-4
"""How far the graph's probabilities may lie from the network's."""
_OPSET = 17
_LONGEST_REASON = 160


def export(network: nn.Module, how: Preprocessing, path: Path) -> None:
    """Write the network as an ONNX graph and make sure that it gives the same answers.

    The input is `images`, float32, (N, 3, H, W); the outputs are `logits`, (N, C), where the network has a
    classifier, and `features`, (N, D).

    Raises:
        ModelError: it cannot be exported, or the graph's answers differ.
        OSError: the file cannot be written.
    """
    import torch

    wrapper = _both_outputs(network)
    names = ["logits", "features"] if network.num_classes else ["features"]
    images = torch.rand(2, *how.input_size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    try:
        with quiet(), _constant_padding(), torch.no_grad():
            torch.onnx.export(
                wrapper,
                (images,),
                str(path),
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: {0: "n"} for name in ["images", *names]},
                opset_version=_OPSET,
                dynamo=False,  # the newer exporter takes three times as long and gives the same graph
            )
            expected = wrapper(images[:1])
        _compare(path, images[:1], expected)
    except (OSError, ModelError):
        raise
    except MemoryError as error:  # there may be more another time
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except Exception as error:
        raise ModelError(f"it cannot be exported: {_reason(error)}") from error


def _both_outputs(network: nn.Module) -> nn.Module:
    from torch import nn

    class BothOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network: Any = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            final = self.network.forward_features(images)
            features = self.network.forward_head(final, pre_logits=True)
            return (self.network.forward_head(final), features) if self.network.num_classes else (features,)

    return BothOutputs().eval()


def _compare(path: Path, images: torch.Tensor, expected: tuple[torch.Tensor, ...]) -> None:
    import numpy as np

    from resnetd_cli.engines.onnx import OnnxEngine
    from resnetd_cli.postprocess import probabilities

    outputs = OnnxEngine(path).run(images.numpy())
    features = expected[-1].numpy()
    assert outputs.features is not None
    close = np.allclose(outputs.features, features, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(features).max()))
    if outputs.logits is not None:
        difference = np.abs(probabilities(outputs.logits) - probabilities(expected[0].numpy())).max()
        close = close and bool(difference <= TOLERANCE)
    if not close:
        raise ModelError("the exported graph gives other answers than the network")


@contextmanager
def _constant_padding() -> Iterator[None]:
    """Trace TensorFlow's "same" padding as numbers, which it is for images of one size.

    A graph that works it out anew for every image is slower, and wrong when that arithmetic is quantised.
    """
    from timm.layers import padding

    compute = padding.get_same_padding
    padding.get_same_padding = lambda size, *rest: compute(int(size), *rest)
    try:
        yield
    finally:
        padding.get_same_padding = compute


def _reason(error: Exception) -> str:
    """Return the first sentence of torch's explanation, which goes on for pages."""
    return shorten(first_line(error).partition(". ")[0], _LONGEST_REASON, placeholder=" ...")
