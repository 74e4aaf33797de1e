"""How fast this machine multiplies large float32 matrices on all cores, and how fast resnetd classifies, in turn.

    python limit.py MODEL WEIGHTS LIST TURNS

Prints JSON: the flop/s by numpy and by torch, and the images/s of the whole pipeline, of each turn. A turn takes
a few seconds, so that what else goes on in the machine hits all three alike.
"""

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

import resnetd_cli as resnetd

SIDE = 2048
SECONDS = 0.8
IMAGES = 64


def multiplying(multiply):
    """Return the flop/s of a function that multiplies two square matrices of that side."""
    multiply()  # wakes the library's threads
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < SECONDS:
        multiply()
        count += 1
    return count * 2 * SIDE**3 / elapsed


def classifying(classifier, images):
    """Return the images a second of a run that is under way: a few images start it and are not counted."""
    results = classifier.predict(images)
    for _ in range(2 * classifier.workers):
        next(results)
    began = time.perf_counter()
    return sum(1 for _ in results) / (time.perf_counter() - began)


def main(model, weights, images, turns):
    """Measure each in turn."""
    left, right = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), dtype=np.float32)
    product = np.empty_like(left)
    tensors = [torch.from_numpy(array) for array in (left, right, product)]
    classifier = resnetd.load(model, weights=weights)
    paths = cycle(Path(images).read_text().splitlines())
    measured = {"numpy": [], "torch": [], "resnetd": []}
    for _ in range(int(turns)):
        measured["numpy"].append(multiplying(lambda: np.matmul(left, right, out=product)))
        measured["torch"].append(multiplying(lambda: torch.matmul(*tensors[:2], out=tensors[2])))
        measured["resnetd"].append(classifying(classifier, list(islice(paths, IMAGES))))
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
