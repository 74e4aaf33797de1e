"""Count a network's parameters and multiply-adds (MACs, FLOPs), without loading its weights."""

from __future__ import annotations

from resnetd_cli.errors import ModelError, first_line
from resnetd_cli.models import shipped_graphs
from resnetd_cli.models.network import Definition, outline
from resnetd_cli.system.distribution import is_installed

_CELL = 32
"""The side of a square of pixels, for each of which a network of shipped graphs computes the same."""


def count(definition: Definition) -> tuple[float, float | None]:
    """Return a network's parameters, in millions, and multiply-adds per image, in billions (GMACs).

    The second is None for the few networks that cannot be traced without data.

    Raises:
        ModelError: timm cannot build the network.
    """
    plain = _count_plain(definition)
    if plain is not None:
        return plain
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        network = outline(definition)
    except Exception as error:
        message = f"timm cannot build {definition.ref.name}: {first_line(error)}"
        raise ModelError(message, hint="check its config.json") from error
    params_m = round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *definition.preprocessing().input_size, device="meta"))
    except Exception:  # a few networks need values, and the meta device has none
        return params_m, None
    return params_m, round(counter.get_total_flops() / 2e9, 2)


def _count_plain(definition: Definition) -> tuple[float, float | None] | None:
    """Return the counts of a network whose graph is shipped, without torch; None if they take torch."""
    macs = shipped_graphs.CONVOLUTION_MACS.get(definition.architecture)
    classes = definition.config.get("num_classes")
    if macs is None or not classes or definition.arguments:
        return None
    _, height, width = definition.preprocessing().input_size
    is_exact = height % _CELL == 0 == width % _CELL
    if not is_exact and is_installed("torch"):
        return None
    graph = shipped_graphs.read(definition.architecture)
    macs = macs * (height // _CELL) * (width // _CELL) + graph.classifier_weights(classes)
    return round(graph.parameters(classes) / 1e6, 2), round(macs / 1e9, 2) if is_exact else None
