"""Which class of a model each class of a data set is: by its name, its ImageNet id, or its index."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from resnetd_cli import labels
from resnetd_cli.errors import DataError
from resnetd_cli.labels import ClassNames

_TOLD = 5
_INDEX = re.compile(r"[0-9]{1,9}")
_Rule = Callable[[str], Sequence[int]]


def match(classes: Sequence[str], names: ClassNames) -> list[int]:
    """Return the index of the model's class for each class of a data set.

    One rule holds for all: names (with synonyms, whatever the case, `_` for a space), else ImageNet ids, else
    indices; the first of these that fits them all.

    Args:
        classes: the names that the data set uses.
        names: the model's.

    Raises:
        DataError: no rule fits all of them; a name means several classes; two of them mean one class.
    """
    rules = [_by_name(names), _by_id(names), _by_index(len(names))]
    found = [[rule(name) for name in classes] for rule in rules]
    fitting = next((candidates for candidates in found if all(candidates)), None)
    if fitting is None:
        raise _unmatched(classes, found, names)
    for name, candidates in zip(classes, fitting, strict=True):
        if len(candidates) > 1:
            which = ", ".join(map(str, candidates[:_TOLD]))
            hint = "use ids (n02012849) or indices for all the classes"
            raise DataError(f"{name} is the name of several of the model's classes: {which}", hint=hint)
    chosen = [candidates[0] for candidates in fitting]
    _check_different(classes, chosen)
    return chosen


def _by_name(names: ClassNames) -> _Rule:
    """Match a name; where it is no class's first name, a synonym."""
    first: dict[str, list[int]] = defaultdict(list)
    others: dict[str, list[int]] = defaultdict(list)
    for entry in labels.search("", names):
        first[_folded(entry.name)].append(entry.index)
        for word in dict.fromkeys(map(_folded, (*entry.name.split(","), *entry.synonyms))):
            others[word].append(entry.index)

    def candidates(name: str) -> Sequence[int]:
        whole = _folded(name)
        if found := first.get(whole) or others.get(whole):
            return found
        # A list of synonyms: each that is known has to mean the same.
        return sorted({index for word in name.split(",") for index in others.get(_folded(word), ())})

    return candidates


def _by_id(names: ClassNames) -> _Rule:
    index: Mapping[str, int] = {id: position for position, id in enumerate(names.ids) if id}
    return lambda name: [index[name]] if name in index else []


def _by_index(count: int) -> _Rule:
    return lambda name: [int(name)] if _INDEX.fullmatch(name) and int(name) < count else []


def _check_different(classes: Sequence[str], chosen: Sequence[int]) -> None:
    owners: dict[int, str] = {}
    for name, index in zip(classes, chosen, strict=True):
        if index in owners:
            message = f"{owners[index]} and {name} are both the model's class {index}"
            raise DataError(message, hint="put their images into one folder")
        owners[index] = name


def _unmatched(classes: Sequence[str], found: Sequence[Sequence[Sequence[int]]], names: ClassNames) -> DataError:
    """Return the error of the rule that comes nearest; where none comes near, of what the classes look like."""
    missing = [[name for name, one in zip(classes, candidates, strict=True) if not one] for candidates in found]
    rule = min(range(len(missing)), key=lambda position: len(missing[position]))
    strangers = missing[rule]
    more = f" and {len(strangers) - _TOLD} more" if len(strangers) > _TOLD else ""
    told = f"{', '.join(strangers[:_TOLD])}{more}"
    of = "the class" if len(classes) == 1 else f"{len(strangers)} of the {len(classes)} classes"
    verb = "is" if len(strangers) == 1 else "are"
    message = f"{of} {verb} not among the model's {len(names)}: {told}"
    return DataError(message, hint=_near(strangers, names))


def _near(strangers: Iterable[str], names: ClassNames) -> str:
    known = {_folded(name): name for name in reversed(names.names)}
    for stranger in list(strangers)[:_TOLD]:
        if near := difflib.get_close_matches(_folded(stranger), known, n=3, cutoff=0.6):
            return f"near {stranger}: {', '.join(known[name] for name in near)}"
    some = ", ".join(names.names[:_TOLD])
    return f"the model's are {some}{', ...' if len(names) > _TOLD else ''}; --labels FILE names them otherwise"


def _folded(name: str) -> str:
    """Return what is the same for two spellings of a name; file systems compose accents each in their own way."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
