"""Converting a timm network to an ONNX graph, with torch, and checking that the graph gives the same answers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError, first_line
from resnetd_cli.pipeline.engines.onnx import AXES, OnnxEngine
from resnetd_cli.results import Preprocessing
from resnetd_cli.system.quiet import quiet
from resnetd_cli.system.wording import shortened

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-4
"""The largest allowed difference between the graph's probabilities and the network's."""
_OPSET = 17


def convert(network: nn.Module, how: Preprocessing, path: Path) -> bool:
    """Write the network as an ONNX graph, and check that it gives the same answers.

    The input is `images`, float32, (N, 3, H, W); the outputs are `logits`, (N, C), where the network has a
    classifier, and `features`, (N, D). N is free, and so are H and W where the network allows it.

    Returns:
        whether H and W are free.

    Raises:
        ModelError: it cannot be converted, or the graph's answers differ.
        OSError: the file cannot be written.
    """
    import torch

    wrapper = _both_outputs(network)
    height, width = how.input_size[1:]
    try:
        with quiet(), _constant_padding() as padded, torch.no_grad():
            images = [_images(*size) for size in ((height, width), *_other_sizes(height, width))]
            expected = _answers(wrapper, images)
            if len(expected) == len(images) and not padded:
                _write(wrapper, network, images[0], path, AXES)
                if _is_right(path, images, expected):
                    return True
            _write(wrapper, network, images[0], path, {})
            _compare(OnnxEngine(path), images[0], expected[0] if expected else wrapper(images[0]))
            return False
    except (OSError, ModelError):
        raise
    except MemoryError as error:  # a later try may have more
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except Exception as error:
        raise ModelError(f"it cannot be exported: {_reason(error)}") from error


def _images(height: int, width: int) -> torch.Tensor:
    import torch

    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 4 - 2


def _other_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return two sizes to test whether the network takes any size, neither square: odd, and multiples of 32."""
    return [(height * 5 // 8 | 1, width * 3 // 4 | 1), (max(height // 64, 1) * 32, (width // 64 + 2) * 32)]


def _answers(wrapper: nn.Module, images: list[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    """Return the network's answers, up to the first size that it does not take."""
    answers = []
    with suppress(Exception):  # networks raise any kind
        for image in images:
            answers.append(wrapper(image))
    return answers


def _write(wrapper: nn.Module, network: nn.Module, images: torch.Tensor, path: Path, axes: dict[int, str]) -> None:
    """Trace the network. `axes`: the free axes of the images other than the first, and their names."""
    import torch

    outputs = ["logits", "features"] if network.num_classes else ["features"]
    torch.onnx.export(
        wrapper,
        (images.repeat(2, 1, 1, 1),),
        str(path),
        input_names=["images"],
        output_names=outputs,
        dynamic_axes={"images": {0: "n", **axes}, **{name: {0: "n"} for name in outputs}},
        opset_version=_OPSET,
        dynamo=False,  # the newer exporter takes three times as long and gives the same graph
    )


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


def _compare(engine: OnnxEngine, images: torch.Tensor, expected: tuple[torch.Tensor, ...]) -> None:
    import numpy as np

    from resnetd_cli.pipeline.postprocess import probabilities

    outputs = engine.run(images.numpy())
    features = expected[-1].numpy()
    assert outputs.features is not None
    close = np.allclose(outputs.features, features, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(features).max()))
    if outputs.logits is not None:
        difference = np.abs(probabilities(outputs.logits) - probabilities(expected[0].numpy())).max()
        close = close and bool(difference <= TOLERANCE)
    if not close:
        raise ModelError("the exported graph and the network give different answers")


def _is_right(path: Path, images: list[torch.Tensor], expected: list[tuple[torch.Tensor, ...]]) -> bool:
    """Return whether the graph gives the network's answers for images of several sizes."""
    try:
        engine = OnnxEngine(path)
        for image, answer in zip(images, expected, strict=True):
            _compare(engine, image, answer)
    except Exception:  # ONNX Runtime raises any kind on a graph that fits one size only
        return False
    return True


@contextmanager
def _constant_padding() -> Iterator[list[int]]:
    """Trace TensorFlow's "same" padding as constants, which it is for images of one size; yield them.

    A graph that computes it for every image is slower, and wrong when that arithmetic is quantised.
    """
    from timm.layers import padding

    compute = padding.get_same_padding
    found: list[int] = []

    def constant(size: int, *rest: int) -> int:
        found.append(compute(int(size), *rest))
        return found[-1]

    padding.get_same_padding = constant
    try:
        yield found
    finally:
        padding.get_same_padding = compute


def _reason(error: Exception) -> str:
    """Return the first sentence of torch's message, which can fill pages."""
    return shortened(first_line(error).partition(". ")[0])
