"""The table of engines. A new engine is a file beside this one, and a line in `ENGINES`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.pipeline.engines.base import AUTO, BF16, FP16, FP32, INT8, EngineOptions
from resnetd_cli.system.cpus import multiplies_bf16
from resnetd_cli.system.distribution import is_installed

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.pipeline.engines.onnx import BoundGraph

_HERE = "resnetd_cli.pipeline.engines"


@dataclass(frozen=True)
class EngineSpec:
    """An engine's entry in the table.

    Attributes:
        name: its name for `--engine`.
        module: the module whose `build(model, options)` returns the engine.
        precisions: the precisions it supports.
        devices: the types of devices it runs on: `cpu`, `cuda`, `mps`.
        takes_graph: `model` is the path of a compiled ONNX graph, and the engine a `GraphEngine`. Otherwise
            `model` is a timm network: in evaluation mode, on the CPU, float32.
        takes_optimised: it also runs graphs that ONNX Runtime has optimised for this machine, which load faster,
            and those in memory (`BoundGraph`).
        package: the package that it needs and that may be missing.
    """

    name: str
    module: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    takes_graph: bool = False
    takes_optimised: bool = False
    package: str | None = None

    def can_run(self, precision: str) -> bool:
        """Return whether it supports a precision and can run it here."""
        if self.package is not None and not is_installed(self.package):
            return False
        needs_bf16 = precision == BF16 and self.takes_graph
        return precision in self.precisions and (not needs_bf16 or multiplies_bf16())

    def build(self, model: Path | BoundGraph | nn.Module, options: EngineOptions) -> Any:
        """Return the engine for a model. This imports the engine's libraries."""
        return import_module(self.module).build(model, options)


ENGINES = {
    spec.name: spec
    for spec in (
        EngineSpec("onnx", f"{_HERE}.onnx", (FP32, INT8), takes_graph=True, takes_optimised=True),
        EngineSpec("openvino", f"{_HERE}.openvino", (FP32, INT8, BF16), takes_graph=True, package="openvino"),
        EngineSpec("torch", f"{_HERE}.pytorch", (FP32, FP16, BF16), ("cpu", "cuda", "mps"), package="timm"),
    )
}
"""The engines by name. Without `--engine`, the first that fits is used."""


def precisions() -> list[str]:
    """Return the precisions of all engines."""
    return list(dict.fromkeys(precision for spec in ENGINES.values() for precision in spec.precisions))


def runnable(engine: str = AUTO, *, gpu: bool = False) -> list[tuple[str, str]]:
    """Return engine and precision of each form in which this machine runs models without emulating a precision.

    Args:
        engine: the only engine to consider, which may turn out not to be installed.
        gpu: there may be a GPU, which computes in 16 bits.
    """
    native = {FP32, INT8} | ({BF16} if gpu or multiplies_bf16() else set()) | ({FP16} if gpu else set())
    return [
        (spec.name, precision)
        for spec in ENGINES.values()
        for precision in spec.precisions
        if engine in (AUTO, spec.name) and precision in native and (spec.name == engine or spec.can_run(precision))
    ]


def graph_engine(name: str | None = None, precision: str | None = None) -> EngineSpec:
    """Return the engine with this name if it runs compiled graphs, else the first that does.

    Args:
        name: the name of an engine.
        precision: prefer the first engine that can run it here.
    """
    graphs = [spec for spec in ENGINES.values() if spec.takes_graph]
    named = (spec for spec in graphs if spec.name == name)
    fitting = (spec for spec in graphs if precision is None or spec.can_run(precision))
    return next(named, None) or next(fitting, graphs[0])


def network_engine(name: str | None = None) -> EngineSpec:
    """Return the engine with this name if it runs timm networks, else the first that does."""
    networks = [spec for spec in ENGINES.values() if not spec.takes_graph]
    return next((spec for spec in networks if spec.name == name), networks[0])
