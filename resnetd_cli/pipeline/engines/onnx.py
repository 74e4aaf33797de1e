"""The ONNX engine: runs a compiled graph with ONNX Runtime on the CPU. Imports neither torch nor timm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import first_line
from resnetd_cli.pipeline.engines.base import LAYER_POOLED, EngineOptions, Outputs, Wanted
from resnetd_cli.pipeline.engines.graph_outputs import checked, output_names, run_error
from resnetd_cli.system.cpus import limited_cpus
from resnetd_cli.system.memory import usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS_SUFFIX = ".bin"
AXES = {2: "height", 3: "width"}
"""Names of the image axes in graphs that accept any size."""
_SHARE_OF_MEMORY = 0.8
_NO_MESSAGES = 4


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry disabled, which would store a device id in the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Import numpy first: onnxruntime's C start-up would import it and swallow an interrupt.
    import numpy as np  # noqa: F401
    import onnxruntime

    # This logger is for messages without a graph, such as threads that cannot be pinned to a core.
    onnxruntime.set_default_logger_severity(_NO_MESSAGES)
    return onnxruntime


@dataclass(frozen=True)
class BoundGraph:
    """A graph in memory.

    Attributes:
        content: an ONNX file whose weights are external, float32.
        weights: by name; sessions read them where they are, and need them as long as they exist.
    """

    content: bytes
    weights: Mapping[str, NDArray[np.float32]]


class OnnxEngine:
    """Runs an ONNX graph.

    Args:
        graph: the graph, or its file.
        options: of these, precision and device do not apply; the layer is `pooled`, `logits`, or None.

    Raises:
        ValueError: its inputs or outputs are not those of a compiled model.
        Exception: ONNX Runtime cannot load it.

    Attributes:
        input_size: channels, height and width of the images; text or None for a side of any length.
    """

    name = "onnx"
    batch_size = 1

    def __init__(
        self, graph: Path | BoundGraph, options: EngineOptions = EngineOptions(Wanted(layer=LAYER_POOLED))
    ) -> None:
        onnxruntime = import_onnxruntime()
        session_options = _session_options(options.threads, options.size)
        if options.optimised:
            session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if options.keep is not None:
            _keep_optimised(session_options, options.keep)
        wanted = options.wanted
        self._graph = graph  # its weights stay in use
        self._session = _session(graph, session_options)
        self.input_size = _input_size(self._session)
        self.classes = _classes(self._session)
        self._layer = wanted.layer
        self._wanted = output_names(wanted, self.classes)

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Run the graph on float32 images of shape (N, 3, H, W)."""
        try:
            given = dict(zip(self._wanted, self._session.run(self._wanted, {"images": images}), strict=True))
        except Exception as error:
            raise run_error(error) from error
        return checked(given, self._layer, self.classes, len(images))


def _input_size(session: Any) -> tuple[Any, ...]:
    given = session.get_inputs()
    if [(item.name, item.type) for item in given] != [("images", "tensor(float)")] or len(given[0].shape) != 4:
        raise ValueError("the graph does not take images")
    return tuple(given[0].shape[1:])


def _classes(session: Any) -> int:
    """Return the number of classes of the graph; 0 if it has no logits."""
    outputs = {output.name: output for output in session.get_outputs()}
    if not outputs or any(output.type != "tensor(float)" for output in outputs.values()):
        raise ValueError("the graph does not return floats")
    if "logits" not in outputs:
        return 0
    shape = outputs["logits"].shape
    if len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 1:
        raise ValueError("the graph's logits have the wrong shape")
    return int(shape[1])


def optimise(graph: Path, target: Path, size: tuple[int, int]) -> None:
    """Write the graph as optimised by ONNX Runtime for this processor and image size.

    The weights go into a separate file beside it, which is memory-mapped.

    Raises:
        OSError: the file cannot be written.
    """
    options = _session_options(None, size)
    _keep_optimised(options, target)
    try:
        _session(graph, options)
    except Exception as error:  # the graph has been loaded before, so only writing can fail
        raise OSError(first_line(error)) from error


def _keep_optimised(options: Any, target: Path) -> None:
    options.optimized_model_filepath = str(target)
    weights = target.with_suffix(WEIGHTS_SUFFIX).name
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)


def _session(graph: Path | BoundGraph, options: Any) -> Any:
    onnxruntime = import_onnxruntime()
    content: str | bytes = str(graph) if isinstance(graph, Path) else graph.content
    if isinstance(graph, BoundGraph):
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
        options.add_external_initializers(list(graph.weights), values)
    # With fallback enabled, ONNX Runtime would retry and print a message.
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _session_options(threads: int | None, size: tuple[int, int] | None) -> Any:
    options = import_onnxruntime().SessionOptions()
    for name, side in zip(AXES.values(), size or (), strict=False):
        options.add_free_dimension_override_by_name(name, side)
    options.log_severity_level = _NO_MESSAGES
    options.inter_op_num_threads = 1
    # By default ONNX Runtime starts a thread for each core of the machine, even in a container with fewer.
    threads = limited_cpus() if threads is None else threads
    if threads is not None:
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take cores from other workers, or use up a CPU quota.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _bound_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@lru_cache(maxsize=1)
def _bound_memory() -> bool:
    """Limit the memory of all graphs in this process, so that a run fails before the system kills the process."""
    import onnxruntime

    memory = usable()
    if memory is None:
        return False
    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    config = onnxruntime.OrtArenaCfg({"max_mem": int(memory * _SHARE_OF_MEMORY)})
    onnxruntime.create_and_register_allocator(info, config)
    return True


def build(graph: Path | BoundGraph, options: EngineOptions) -> OnnxEngine:
    """Return the engine for a graph; see `EngineSpec.build`."""
    return OnnxEngine(graph, options)
