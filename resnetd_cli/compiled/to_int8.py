"""Quantising an fp32 graph to int8 with calibration images, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError, Reason, ResnetdError, UsageError, first_line
from resnetd_cli.pipeline.engines.onnx import import_onnxruntime
from resnetd_cli.system.cpus import multiplies_bytes
from resnetd_cli.system.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def quantise_graph(graph: Path, target: Path, images: Iterable[NDArray[np.float32]]) -> int:
    """Write the int8 form of a graph: a weight scale per channel, activations of unsigned 8 bits.

    Weights have 8 bits if this processor adds their products without overflow, else 7.

    Args:
        graph: the fp32 graph, with the input `images`, float32, (N, 3, H, W).
        target: the file to write.
        images: the calibration images, float32, each (3, H, W); their activations set the ranges.

    Returns:
        the number of images.

    Raises:
        UsageError: there are no images.
        ModelError: ONNX Runtime cannot quantise the graph.
        OSError: the file cannot be written.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, images: Iterator[NDArray[np.float32]]) -> None:
            self.images = images
            self.count = 0

        def get_next(self) -> dict[str, Any] | None:
            for image in self.images:
                self.count += 1
                return {"images": image[None]}
            return None

    reader = Reader(iter(images))
    try:
        with quiet(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # with int8 weights: what VNNI multiplies
                weight_type=QuantType.QInt8,
                # Without VNNI, pairs of products are added in 16 bits, which overflow with weights of 8.
                reduce_range=not multiplies_bytes(),
            )
    except (OSError, ResnetdError):
        raise
    except Exception as error:
        if reader.count == 0:
            raise UsageError("no image to calibrate with", reason=Reason.NO_CALIBRATION_IMAGE) from error
        raise ModelError(f"it cannot be quantised: {first_line(error)}", reason=Reason.NOT_QUANTISED) from error
    return reader.count
