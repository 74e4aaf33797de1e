"""The OpenVINO engine: runs a compiled graph with Intel's OpenVINO on the CPU. Imports neither torch nor timm."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.engines.base import BF16, LAYER_POOLED, EngineOptions, Outputs, Wanted
from resnetd_cli.pipeline.engines.graph_outputs import checked, output_names, run_error
from resnetd_cli.system.cpus import multiplies_bf16, usable_cpus
from resnetd_cli.system.distribution import how_to_install

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OpenVinoEngine:
    """Runs an ONNX graph with OpenVINO.

    Args:
        path: the graph.
        options: of these, device and optimised do not apply; the layer is `pooled`, `logits`, or None.

    Raises:
        UsageError: OpenVINO is not installed, or the processor does not compute in bf16.
        ValueError: the graph's inputs or outputs are not those of a compiled model.
        Exception: OpenVINO cannot load the graph.

    Attributes:
        input_size: channels, height and width of the images; text or None for a side of any length.
    """

    name = "openvino"
    batch_size = 1

    def __init__(self, path: Path, options: EngineOptions = EngineOptions(Wanted(layer=LAYER_POOLED))) -> None:
        openvino = _import_openvino()
        if options.precision == BF16 and not multiplies_bf16():
            raise UsageError(
                "this processor does not compute in bf16", hint="it takes one with AVX512_BF16 or AMX"
            )
        core = openvino.Core()
        network = core.read_model(str(path))
        if [item.any_name for item in network.inputs] != ["images"] or network.inputs[0].partial_shape.rank != 4:
            raise ValueError("the graph does not take images")
        if options.size is not None:
            network.reshape(openvino.PartialShape([-1, 3, *options.size]))
        self.input_size = tuple(
            side.get_length() if side.is_static else None for side in list(network.inputs[0].partial_shape)[1:]
        )
        self.classes = _classes(network)
        wanted = options.wanted
        self._layer = wanted.layer
        self._wanted = output_names(wanted, self.classes)
        self._compiled = core.compile_model(network, "CPU", _settings(options))
        self._own = threading.local()

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the graph on float32 images of shape (N, 3, H, W)."""
        try:
            request = self._request()
            request.infer({"images": images})
            # The request keeps its outputs for the next run, so they are copied.
            given = {name: request.get_tensor(name).data.copy() for name in self._wanted}
        except Exception as error:
            raise run_error(error) from error
        return checked(given, self._layer, self.classes, len(images))

    def _request(self) -> Any:
        """Return this thread's request: a request runs one batch at a time."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request


def _import_openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise UsageError("the openvino engine is not installed", hint=how_to_install("openvino")) from error
    return openvino


def _classes(network: Any) -> int:
    """Return the number of classes of the graph; 0 if it has no logits."""
    shapes = {output.any_name: output.partial_shape for output in network.outputs}
    if "logits" not in shapes:
        return 0
    if shapes["logits"].rank != 2 or not shapes["logits"][1].is_static:
        raise ValueError("the graph's logits have the wrong shape")
    return int(shapes["logits"][1].get_length())


def _settings(options: EngineOptions) -> dict[str, Any]:
    """Return OpenVINO's settings: a stream is what runs one batch, with its own threads."""
    cpus = usable_cpus()
    threads = options.threads or cpus
    return {
        # On some processors OpenVINO would compute in bfloat16 by itself.
        "INFERENCE_PRECISION_HINT": "bf16" if options.precision == BF16 else "f32",
        "NUM_STREAMS": max(1, cpus // threads),
        "INFERENCE_NUM_THREADS": max(cpus, threads),
        # Pinned threads of several processes would share a processor while others are idle.
        "ENABLE_CPU_PINNING": False,
    }


def build(path: Path, options: EngineOptions) -> OpenVinoEngine:
    """Return the engine for a graph; see `EngineSpec.build`."""
    return OpenVinoEngine(path, options)
