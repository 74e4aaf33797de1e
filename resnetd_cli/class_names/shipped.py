"""Class names (`ClassNames`), and the ImageNet sets shipped in `labels/`, with search in names and synonyms.

In the shipped sets a class is a WordNet synset; its id distinguishes two classes of the same name.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from resnetd_cli.errors import LabelsError
from resnetd_cli.results import titled

SUBSETS = {
    "imagenet-1k": 1000,
    "imagenet-21k-miil": 11221,
    "imagenet-12k": 11821,
    "imagenet-22k": 21841,
    "imagenet-22k-ms": 21842,
    "imagenet-21k-goog": 21843,
}
"""The shipped sets by timm's names, and their numbers of classes, which all differ."""

_ALIASES = {"imagenet21k": "imagenet-21k-goog"}
INDEX = re.compile(r"[0-9]{1,9}")
"""A class by its number, as people write it."""
_SHORTEST_PLURAL = len("cats")
_SENSES = {"n02012849": "bird", "n03126707": "machine", "n03710637": "tights", "n03710721": "swimsuit"}
"""Words that distinguish the cranes and the maillots of ImageNet; WordNet has none."""


@dataclass(frozen=True)
class ClassNames:
    """The names of a model's classes, in the order of its outputs.

    Attributes:
        names: one per class; not unique (ImageNet has two cranes).
        ids: one per class: a WordNet id such as `n02111889`, or None.
        source: the origin of the names: a shipped set, `checkpoint`, `numbered`, or the path or URL of a file.
    """

    names: tuple[str, ...]
    ids: tuple[str | None, ...]
    source: str

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def senses(self) -> dict[int, str]:
        """What distinguishes classes of the same name, by index: a word, else the id, else the index."""
        if len(set(self.names)) == len(self.names):
            return {}
        count = Counter(self.names)
        return {
            index: _SENSES.get(id or "", id) or str(index)
            for index, (name, id) in enumerate(zip(self.names, self.ids, strict=True))
            if count[name] > 1
        }

    @property
    def titles(self) -> tuple[str, ...]:
        """The names that people see: `crane (bird)` if two classes are called crane."""
        return tuple(titled(name, self.senses.get(index)) for index, name in enumerate(self.names))


@dataclass(frozen=True)
class ClassEntry:
    """One class in a search. Without a WordNet id, `synonyms` and `definition` are empty."""

    index: int
    id: str | None
    name: str
    synonyms: tuple[str, ...]
    definition: str


@lru_cache(maxsize=len(SUBSETS))
def imagenet(subset: str = "imagenet-1k") -> ClassNames:
    """Return a shipped set by its name; case, hyphens and underscores do not matter, as in timm.

    Raises:
        LabelsError: there is no such set.
    """
    key = _bare(subset)
    known = {_bare(name): name for name in SUBSETS} | _ALIASES
    if key not in known:
        raise LabelsError(f"no class names called {subset!r}", hint=f"there are {', '.join(SUBSETS)}")
    name = known[key]
    synsets = _synsets(name) if name == "imagenet-1k" else _synsets("wordnet")
    ids = tuple(synsets) if name == "imagenet-1k" else tuple(_shipped(f"{name}.txt").split())
    return ClassNames(names=tuple(_first_cell(synsets[id]) for id in ids), ids=ids, source=name)


def for_class_count(n: int) -> ClassNames | None:
    """Return the shipped set with n classes, or None; timm guesses by the count, too."""
    return next((imagenet(subset) for subset, count in SUBSETS.items() if count == n), None)


def unnamed(n: int) -> ClassNames:
    """Return names for n unnamed classes: `class 0`, `class 1`, ..."""
    return ClassNames(names=tuple(f"class {index}" for index in range(n)), ids=(None,) * n, source="numbered")


def search(query: str, names: ClassNames) -> list[ClassEntry]:
    """Return the classes that match the query, best first, then in class order; all for an empty query.

    A match of the whole name or id comes first. Then comes the query as whole words in the name, a synonym or the
    definition; as part of a word in the name or a synonym, or as the start of the id; and its words in any order.
    Spelling (`folded`), hyphens and a plural `s` do not matter. A number that is a class index finds it alone.
    """
    entries = _entries(names)
    wanted = _searched(query)
    if INDEX.fullmatch(wanted) and int(wanted) < len(entries):
        return [entries[int(wanted)]]
    if not wanted:
        return entries
    matcher = _Matcher(wanted)
    ranked = [(rank, entry) for entry in entries if (rank := matcher.rank(entry)) is not None]
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]


class _Matcher:
    """Ranks classes by how well they match a query."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._phrase = _whole(wanted)
        self._words = [_whole(word) for word in wanted.split()]

    def rank(self, entry: ClassEntry) -> int | None:
        """Return 0 for the best match, more for a worse one, None for none."""
        id, name, definition = map(_searched, (entry.id or "", entry.name, entry.definition))
        synonyms = list(map(_searched, entry.synonyms))
        everything = " ".join((name, *synonyms, definition))
        matches = (
            self._wanted in (id, name),
            self._wanted in synonyms,
            self._phrase.search(name),
            any(map(self._phrase.search, synonyms)),
            self._phrase.search(definition),
            id.startswith(self._wanted) or any(self._wanted in word for word in (name, *synonyms)),
            all(word.search(everything) for word in self._words),
        )
        return next((rank for rank, match in enumerate(matches) if match), None)


def _searched(text: str) -> str:
    return folded(text.replace("-", " "))


def _whole(wanted: str) -> re.Pattern[str]:
    """Return a pattern that finds a query as whole words, singular or plural."""
    stem = wanted if len(wanted) < _SHORTEST_PLURAL or wanted.endswith("ss") else wanted.removesuffix("s")
    return re.compile(rf"\b{re.escape(stem)}(?:s|es)?\b")


def folded(name: str) -> str:
    """Return a name normalised for comparison: Unicode composition, case, `_` and spaces do not matter."""
    composed = unicodedata.normalize("NFC", name)
    return unicodedata.normalize("NFC", " ".join(composed.casefold().replace("_", " ").split()))


def finder(names: ClassNames) -> Callable[[str], Sequence[int]]:
    """Return a function that finds the classes that a name means: none, one, or several if it is ambiguous.

    It tries the exact name, then the name in another spelling (`folded`), then synonyms. A title (`crane (bird)`)
    counts as a name. In a list of synonyms, all known ones must mean the same class.
    """
    exact, first, others = (defaultdict[str, list[int]](list) for _ in range(3))
    for entry, title in zip(_entries(names), names.titles, strict=True):
        for name in dict.fromkeys((entry.name, title)):
            exact[name].append(entry.index)
        for name in dict.fromkeys((folded(entry.name), folded(title))):
            first[name].append(entry.index)
        for word in dict.fromkeys(map(folded, (*entry.name.split(","), *entry.synonyms))):
            others[word].append(entry.index)

    def find(name: str) -> Sequence[int]:
        whole = folded(name)
        if found := exact.get(name) or first.get(whole) or others.get(whole):
            return found
        return sorted({index for word in name.split(",") for index in others.get(folded(word), ())})

    return find


def words(ids: Iterable[str]) -> dict[str, str]:
    """Return the name of each id that is a WordNet synset."""
    wanted = list(ids)
    synsets = _synsets_for(wanted)
    return {id: _first_cell(synsets[id]) for id in wanted if id in synsets}


# The shipped files.


def _folder() -> Path:
    """Return the folder of the shipped files: in the installed package, else at the top of the project."""
    package = Path(__file__).resolve().parent
    installed = package / "labels"
    return installed if installed.is_dir() else package.parents[1] / "labels"


def _shipped(file: str) -> str:
    path = _folder() / file
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise LabelsError(f"{path} is missing from the install", hint="install resnetd again") from error


@lru_cache(maxsize=2)
def _synsets(table: str) -> dict[str, str]:
    """Return id -> `name TAB synonyms TAB definition` of a shipped table, in its order.

    A row stays one text: most callers need a few of the 21,844 rows, or only the names.
    """
    rows = _shipped(f"{table}.tsv").rstrip("\n").split("\n")
    before = rows[0].split("\t").index("id")  # imagenet-1k.tsv has the class index before the id
    cells = (row.split("\t", before + 1)[before:] for row in rows[1:])
    return dict(cells)


def _synsets_for(ids: Iterable[str]) -> dict[str, str]:
    """Return the smaller of the two shipped tables if it has all these ids, else the larger."""
    small = _synsets("imagenet-1k")
    return small if all(id in small for id in ids) else _synsets("wordnet")


def _entries(names: ClassNames) -> list[ClassEntry]:
    synsets = _synsets_for(id for id in names.ids if id is not None)
    entries = []
    for index, (id, name) in enumerate(zip(names.ids, names.names, strict=True)):
        word, synonyms, definition = synsets.get(id or "", "\t\t").split("\t")
        others = (other for other in (word, *synonyms.split(", ")) if other not in ("", name))
        entries.append(ClassEntry(index, id, name, tuple(others), definition))
    return entries


def _first_cell(row: str) -> str:
    return row.partition("\t")[0]


def _bare(subset: str) -> str:
    return re.sub(r"[-_\s]", "", subset.lower())
