"""Load a model's definition and weights with neither torch nor timm, for the networks whose graphs are shipped.

Whatever is unusual about a configuration or about weights is left to timm, which then loads the model, or explains
what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.errors import LabelsError, ModelError
from resnetd_cli.models import checkpoint_tensors, checkpoints, config_json, embedded, hub, shipped_graphs
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import Kind, ModelChoice, ResolvedModel
from resnetd_cli.models.network import Definition, find_weights, has_own_weights, prefetch
from resnetd_cli.models.plain_tensors import NeedsTorchError, PlainTensor
from resnetd_cli.models.shipped_graphs import ShippedGraph
from resnetd_cli.models.table import TableEntry
from resnetd_cli.pipeline.engines.onnx import import_onnxruntime
from resnetd_cli.results import FittedTemperature, Preprocessing
from resnetd_cli.system.distribution import how_to_install, is_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RESNET_LAYERS = {"first_conv": "conv1.0", "classifier": "fc"}


@dataclass(frozen=True)
class PlainNetwork:
    """A network's graph and weights, with its preprocessing and its class names.

    Attributes:
        name: the model's name in records.
        graph: the graph without weights.
        weights: by name, float32; most are mapped from the file.
        file: the weights file.
        preprocessing: how images are prepared.
        class_names: the names of its classes.
        temperatures: divisors of its logits, by image size and precision.
    """

    name: str
    graph: ShippedGraph
    weights: Mapping[str, NDArray[np.float32]]
    file: Path
    preprocessing: Preprocessing
    class_names: ClassNames
    temperatures: tuple[FittedTemperature, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers it has learnt."""
        return self.graph.parameters(len(self.class_names))


def load_plain(choice: ModelChoice, downloads: Downloads = Downloads()) -> PlainNetwork | None:
    """Download a model's files and read its weights; None if it needs timm, or only timm can tell what is wrong.

    Raises:
        ModelError: it needs timm, which is not installed.
        ResnetdError: see `find_weights`, and `checkpoint_tensors.fit`.
    """
    try:
        return _load(choice, downloads)
    except NeedsTorchError as error:
        if is_installed("timm"):
            return None
        message = f"{choice.model} needs the package timm, which is not installed"
        message = f"{message}: {error}" if str(error) else message
        raise ModelError(message, hint=how_to_install()) from error


def define_plain(choice: ModelChoice) -> Definition | None:
    """Look up a model's configuration, for the classes of the weights chosen; None if it needs timm.

    Raises:
        ResnetdError: see `load_plain`.
    """
    try:
        definition = _define(choice.model.resolved, Downloads())
        if choice.weights is None:
            return definition
        classes = len(_load(choice, Downloads()).class_names)
    except NeedsTorchError:
        return None
    return replace(definition, config={**definition.config, "num_classes": classes}, stored=())


def _load(choice: ModelChoice, downloads: Downloads) -> PlainNetwork:
    ref, own_weights = choice.model.resolved, choice.weights is not None
    definition = _define(ref, downloads)
    if not own_weights:
        prefetch(ref, downloads)
    preprocessing = definition.preprocessing(choice.image_size)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(import_onnxruntime)  # while the weights are hashed
        file = find_weights(definition, choice.weights, downloads)
    graph = shipped_graphs.read(definition.architecture)
    tensors = _read_tensors(definition, file, graph, is_embedded=ref.kind is Kind.EMBEDDED and not own_weights)
    classes = checkpoints.class_count(tensors, definition.config) or 0
    weights = _fitting(tensors, graph, classes)
    try:
        names = definition.class_names(classes, own_weights=own_weights)
    except LabelsError as error:
        raise NeedsTorchError from error
    return PlainNetwork(
        definition.name_with(file) if own_weights else ref.name,
        graph,
        weights,
        file,
        preprocessing,
        names,
        () if own_weights or not has_own_weights(ref) else definition.temperatures,
    )


def _define(ref: ResolvedModel, downloads: Downloads) -> Definition:
    """Look up a model's configuration as `network.define` does.

    Raises:
        NeedsTorchError: its network is not one of those shipped, or there is something unusual about it.
    """
    if ref.kind is Kind.EMBEDDED:
        return Definition(ref, embedded.ARCHITECTURE, embedded.CONFIG)
    if ref.kind is Kind.TIMM and ref.entry:
        return Definition(ref, ref.entry.architecture, _config(ref.entry))
    if ref.kind not in (Kind.FOLDER, Kind.HUB):
        raise NeedsTorchError(f"{ref.name} is timm's")
    folder = Path(ref.location)
    if ref.kind is Kind.HUB:
        folder = hub.fetch(ref.location, hub.CONFIG, downloads).parent
    config, architecture = config_json.read_plain(folder, shipped_graphs.architectures())
    layers = embedded.CONFIG if architecture == embedded.ARCHITECTURE else _RESNET_LAYERS
    if any(config.get(key) != layers[key] for key in _RESNET_LAYERS):
        raise NeedsTorchError("its config.json names other layers")
    return Definition(ref, architecture, config, {}, config_json.read_temperatures(ref.name, folder))


def _config(entry: TableEntry) -> dict[str, Any]:
    """Return the pretrained configuration of a model in the table, as far as it matters here."""
    how, test = entry.train.preprocessing, entry.test.preprocessing
    return {
        **_RESNET_LAYERS,
        "input_size": how.input_size,
        "crop_pct": how.crop_pct,
        "crop_mode": how.crop_mode,
        "interpolation": how.interpolation,
        "mean": how.mean,
        "std": how.std,
        "test_input_size": test.input_size,
        "test_crop_pct": test.crop_pct,
        "hf_hub_id": entry.hub_id,
    }


def _read_tensors(
    definition: Definition, file: Path, graph: ShippedGraph, *, is_embedded: bool
) -> dict[str, PlainTensor]:
    found = checkpoints.read_plain(file)
    if is_embedded:
        return embedded.to_timm(found[0].tensors)
    # Only the names matter, and which tensors are single numbers.
    outline = {
        name: PlainTensor("float32", tuple(side or 2 for side in shape)) for name, shape in graph.shapes.items()
    }
    return checkpoint_tensors.fit(
        file, found, definition.architecture, definition.config, lambda: outline, _leave_to_timm
    )


def _leave_to_timm(_: object) -> dict[str, Any]:
    raise NeedsTorchError("its weights have other names")


def _fitting(
    tensors: Mapping[str, PlainTensor], graph: ShippedGraph, classes: int
) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights as float32.

    Raises:
        NeedsTorchError: they are not exactly those of the graph.
    """
    shapes = {
        name: tensor.shape
        for name, tensor in tensors.items()
        if not (name.endswith(checkpoint_tensors.COUNTER) and tensor.shape in ((), (1,)))
    }
    wanted = {
        name: tuple(classes if side is None else side for side in shape) for name, shape in graph.shapes.items()
    }
    if classes < 1 or shapes != wanted:
        raise NeedsTorchError("its weights do not fit")
    return {name: tensors[name].float32() for name in wanted}
