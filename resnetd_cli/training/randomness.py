"""Seeds: all randomness of a run derives from its seed, the epoch, and the image or step.

So a run can be resumed at any step, with any number of workers, as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import random


def seed_all(seed: int) -> None:
    """Seed all random number generators: torch's on each device, numpy's and Python's."""
    import torch

    seed_cpu(seed)
    torch.manual_seed(seed)


def seed_cpu(seed: int) -> None:
    """Seed the generators that images are loaded with; those of torch's other devices take a millisecond more."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def mixed_seed(*numbers: int) -> int:
    """Return a seed of 63 bits derived from some numbers; different numbers give different seeds, in practice."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1
