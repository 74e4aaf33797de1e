"""How fast this machine multiplies large float32 matrices on all cores, by numpy and by torch.

    python matrix_product.py SECONDS

Prints the faster library's flop/s, kept up for that many seconds: what no network computed in float32 by
multiplying and adding can be expected to exceed.
"""

import sys
import time

import numpy as np
import torch

SIDE = 2048


def rate(multiply, seconds):
    """Return the flop/s of a function that multiplies two square matrices of that side."""
    multiply()  # starts the library's threads
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        multiply()
        count += 1
    return count * 2 * SIDE**3 / elapsed


def main(seconds):
    """Measure both, each for half of the time."""
    left, right = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), dtype=np.float32)
    product = np.empty_like(left)
    tensors = torch.from_numpy(left), torch.from_numpy(right)
    result = torch.from_numpy(product)
    by_numpy = rate(lambda: np.matmul(left, right, out=product), seconds / 2)
    by_torch = rate(lambda: torch.matmul(*tensors, out=result), seconds / 2)
    print(max(by_numpy, by_torch))


if __name__ == "__main__":
    main(float(sys.argv[1]))
