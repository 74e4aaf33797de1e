"""Classes that the splits of a data set spell differently, such as `Hot Dog` and `hot_dog`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from resnetd_cli.class_names.shipped import folded
from resnetd_cli.datasets.examples import TRAIN, Dataset
from resnetd_cli.datasets.first_few import shown


def with_one_spelling(dataset: Dataset) -> Dataset:
    """Return the data set with train's spelling for the classes of val and test that are spelled differently.

    A class that train spells in the same way is kept, as is one that matches several of train's classes when case,
    spaces and punctuation are ignored.
    """
    import numpy as np

    if TRAIN not in dataset.splits or len(dataset.splits) == 1:
        return dataset
    names = dataset.classes
    learnt = dataset.splits[TRAIN].counts() > 0
    known: dict[str, list[int]] = defaultdict(list)
    for index in np.flatnonzero(learnt):
        known[folded(names[index])].append(int(index))
    moved = {
        index: found[0]
        for index, name in enumerate(names)
        if not learnt[index] and len(found := known[folded(name)]) == 1
    }
    if not moved:
        return dataset
    kept = [index for index in range(len(names)) if index not in moved]
    place = {index: position for position, index in enumerate(kept)}
    new = np.array([place[moved.get(index, index)] for index in range(len(names))], np.int64)
    classes = tuple(names[index] for index in kept)
    splits = {
        split: replace(examples, labels=new[examples.labels], classes=classes)
        for split, examples in dataset.splits.items()
    }
    renamed = (f"{names[index]} is {names[target]}" for index, target in moved.items())
    note = f"classes that are spelled differently in train: {shown(renamed, len(moved))}"
    return replace(dataset, splits=splits, notes=(*dataset.notes, note))
