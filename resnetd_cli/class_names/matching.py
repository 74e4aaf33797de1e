"""Matching the classes of a data set with a model's: by name, ImageNet id, or index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from resnetd_cli.class_names import shipped
from resnetd_cli.class_names.shipped import INDEX, ClassNames, folded
from resnetd_cli.errors import DataError, Reason
from resnetd_cli.system.wording import near

_TOLD = 5
_ID_AND_NAME = re.compile(r"n[0-9]{8}[-_. ].*")
_ID_LENGTH = 9
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_KINDS = ("a name", "an id", "an index")
"""What the rules compare, in order."""
_Rule = Callable[[str], Sequence[int]]


class Match(NamedTuple):
    """The model's index for each class of a data set, and whether the index rule found them."""

    indices: list[int]
    by_index: bool


def match(classes: Sequence[str], names: ClassNames) -> Match:
    """Find the model's class for each class of a data set.

    One rule applies to all classes, the first that fits them all: names (see `shipped.finder`), ImageNet ids, or
    indices. Indices do not apply to a model whose classes have numbers for names.

    Args:
        classes: the names in the data set.
        names: the names of the model's classes.

    Raises:
        DataError: no rule fits all of them; a name means several classes; two of them mean one class.
    """
    rules = _rules(names)
    found = [[rule(name) for name in classes] for rule in rules]
    fitting = next((rule for rule, candidates in enumerate(found) if all(candidates)), None)
    if fitting is None:
        raise _unmatched(classes, found, names)
    for name, candidates in zip(classes, found[fitting], strict=True):
        if len(candidates) > 1:
            raise _ambiguous(name, candidates, names)
    chosen = [candidates[0] for candidates in found[fitting]]
    _check_different(classes, chosen)
    return Match(chosen, by_index=bool(classes) and rules[fitting] is rules[-1])


def strangers(classes: Sequence[str], names: ClassNames) -> list[str]:
    """Return the classes of a data set that no rule finds among a model's."""
    rules = _rules(names)
    return [name for name in classes if not any(rule(name) for rule in rules)]


def _rules(names: ClassNames) -> list[_Rule]:
    return [shipped.finder(names), _by_id(names), _by_index(names)]


def in_words(classes: Sequence[str], indices: Sequence[int], names: ClassNames) -> str:
    """Return a line that says which classes the indices stand for."""
    pairs = list(zip(classes, indices, strict=True))
    told = ", ".join(f"{name} is {names.titles[index]}" for name, index in pairs[:_TOLD])
    return f"classes are matched with the model's by index: {told}{', ...' if len(pairs) > _TOLD else ''}"


def _by_id(names: ClassNames) -> _Rule:
    """Match an id, alone or before a name: `n02085620`, `n02085620-Chihuahua`."""
    index: Mapping[str, int] = {id: position for position, id in enumerate(names.ids) if id}

    def candidates(name: str) -> Sequence[int]:
        id = index.get(name, index.get(name[:_ID_LENGTH]) if _ID_AND_NAME.fullmatch(name) else None)
        return [] if id is None else [id]

    return candidates


def _by_index(names: ClassNames) -> _Rule:
    if any(map(_NUMBER.fullmatch, names.names)):
        return lambda name: []
    return lambda name: [int(name)] if INDEX.fullmatch(name) and int(name) < len(names) else []


def _ambiguous(name: str, candidates: Sequence[int], names: ClassNames) -> DataError:
    which = ", ".join(map(str, candidates[:_TOLD]))
    titles = " or ".join(names.titles[index] for index in candidates[:_TOLD])
    hint = f"call it {titles}, or use ids (n02012849) or indices for all the classes"
    return DataError(f"{name} is the name of several of the model's classes: {which}", hint=hint)


def _check_different(classes: Sequence[str], chosen: Sequence[int]) -> None:
    owners: dict[int, str] = {}
    for name, index in zip(classes, chosen, strict=True):
        if index in owners:
            message = f"{owners[index]} and {name} are both the model's class {index}"
            raise DataError(message, hint="put their images into one folder")
        owners[index] = name


def _unmatched(classes: Sequence[str], found: Sequence[Sequence[Sequence[int]]], names: ClassNames) -> DataError:
    """Return the error for classes that no rule finds; if all are found, for rules that differ."""
    unknown = [name for name, *ways in zip(classes, *found, strict=True) if not any(ways)]
    if not unknown:
        return _mixed(classes, found, names)
    of = "the class" if len(classes) == 1 else f"{len(unknown)} of the {len(classes)} classes"
    verb = "is" if len(unknown) == 1 else "are"
    message = f"{of} {verb} not among the model's {len(names)}: {some_of(unknown)}"
    some_known = len(unknown) < len(classes)
    if near_names := _near(unknown, names):
        return DataError(message, hint=near_names, reason=Reason.CLASSES_MISSPELT if some_known else None)
    some = ", ".join(names.names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")
    reason = Reason.SOME_CLASSES_UNKNOWN if some_known else Reason.CLASSES_UNKNOWN
    return DataError(message, hint=f"the model's are {some}", reason=reason)


def _mixed(classes: Sequence[str], found: Sequence[Sequence[Sequence[int]]], names: ClassNames) -> DataError:
    """Return the error for classes that are all found, but not by one rule."""
    examples: dict[str, tuple[str, int]] = {}  # the first class of each kind, and its index
    for name, *ways in zip(classes, *found, strict=True):
        kind, index = next((kind, way[0]) for kind, way in zip(_KINDS, ways, strict=True) if way)
        examples.setdefault(kind, (name, index))
    told = ", ".join(f"{name} is {kind}" for kind, (name, _) in examples.items())
    name, index = next(example for kind, example in examples.items() if kind != _KINDS[0])
    hint = f"ids and indices work only if all classes use them: call {name} {names.titles[index]!r}"
    return DataError(f"the classes are not all named in the same way: {told}", hint=hint)


def _near(unknown: Sequence[str], names: ClassNames) -> str | None:
    """Return the model's classes whose spelling is near one that it lacks, if any."""
    known = {folded(name): name for name in reversed(names.names)}
    for stranger in unknown[:_TOLD]:
        if alike := near(folded(stranger), known):
            return f"near {stranger}: {', '.join(known[name] for name in alike)}"
    return None


def some_of(classes: Sequence[str]) -> str:
    """Return the first few classes, and how many more there are."""
    more = f" and {len(classes) - _TOLD} more" if len(classes) > _TOLD else ""
    return f"{', '.join(classes[:_TOLD])}{more}"
