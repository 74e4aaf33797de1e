"""The ONNX engine: a compiled model, run by ONNX Runtime on the CPU. Imports neither torch nor timm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.engines import LAYER_LOGITS, LAYER_POOLED, Outputs
from resnetd_cli.errors import first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS_SUFFIX = ".bin"
_ERRORS_ONLY = 3


def import_onnxruntime() -> Any:
    """Return the module, told to report nothing to its makers.

    Left alone it keeps an identifier of the device in the home folder and sends measurements home.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Before it, as its start-up in C imports numpy too, and there loses the signal that asks to end.
    import numpy as np  # noqa: F401
    import onnxruntime

    return onnxruntime


class OnnxEngine:
    """Runs an ONNX graph.

    Args:
        path: the graph.
        optimised: it was optimised for this machine, by `optimise`; it is run as it is.
        logits: give the logits.
        layer: which features to give: `pooled`, `logits`, or None.
        threads: how many threads one call of `run` may use; None for all cores.

    Raises:
        Exception: ONNX Runtime cannot load it.
    """

    name = "onnx"

    def __init__(
        self,
        path: Path,
        *,
        optimised: bool = False,
        logits: bool = True,
        layer: str | None = LAYER_POOLED,
        threads: int | None = None,
    ) -> None:
        onnxruntime = import_onnxruntime()
        options = _options(threads)
        if optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        width = {output.name: output.shape[1] for output in self._session.get_outputs()}
        self.classes = int(width.get("logits", 0))
        self._layer = layer
        self._wanted = [
            name
            for name, wanted in (
                ("logits", self.classes and (logits or layer == LAYER_LOGITS)),
                ("features", layer == LAYER_POOLED),
            )
            if wanted
        ]

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the graph on float32 images of shape (N, 3, H, W)."""
        given = dict(zip(self._wanted, self._session.run(self._wanted, {"images": images}), strict=True))
        logits = given.get("logits")
        return Outputs(logits, logits if self._layer == LAYER_LOGITS else given.get("features"))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that an ONNX file carries beside its graph.

    Raises:
        Exception: ONNX Runtime cannot load it.
    """
    onnxruntime = import_onnxruntime()
    options = _options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


def optimise(graph: Path, target: Path) -> None:
    """Write the graph as ONNX Runtime optimises it for this machine's processor.

    Its weights go into a file of their own beside it, which is mapped into memory and not read.

    Raises:
        OSError: the file cannot be written.
    """
    onnxruntime = import_onnxruntime()
    options = _options(None)
    options.optimized_model_filepath = str(target)
    weights = target.with_suffix(WEIGHTS_SUFFIX).name
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    try:
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the graph has been loaded before: what can fail is the writing
        raise OSError(first_line(error)) from error


def _options(threads: int | None) -> Any:
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
        # Threads that wait for work by spinning take the cores from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
