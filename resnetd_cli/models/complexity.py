"""Count a network's parameters and multiply-adds (MACs, FLOPs), without loading its weights."""

from __future__ import annotations

from resnetd_cli.errors import ModelError, first_line
from resnetd_cli.models.network import Definition, outline


def count(definition: Definition) -> tuple[float, float | None]:
    """Return a network's parameters, in millions, and multiply-adds per image, in billions (GMACs).

    The second is None for the few networks that cannot be traced without data.

    Raises:
        ModelError: timm cannot build the network.
    """
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
