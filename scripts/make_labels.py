"""Write the class names in `labels/` from the ImageNet tables that timm carries.

    python scripts/make_labels.py            write the files
    python scripts/make_labels.py --check    exit 1 if the files differ from what would be written

Needs timm.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from timm.data.imagenet_info import ImageNetInfo

LABELS = Path(__file__).resolve().parent.parent / "labels"

LIST_SUBSETS = ("imagenet-12k", "imagenet-21k-miil", "imagenet-21k-goog", "imagenet-22k", "imagenet-22k-ms")
"""The sets whose file holds WordNet ids only; `wordnet.tsv` has the words for all of them."""


def build() -> dict[str, str]:
    """Return the text of every generated file, by file name."""
    tables: dict[str, Any] = {subset: ImageNetInfo(subset) for subset in ("imagenet-1k", *LIST_SUBSETS)}
    classes: dict[str, list[str]] = {subset: table.label_names() for subset, table in tables.items()}
    words = {synset: describe(tables[subset], synset) for subset, synsets in classes.items() for synset in synsets}
    texts = {f"{subset}.txt": lines(classes[subset]) for subset in LIST_SUBSETS}
    texts["imagenet-1k.tsv"] = lines(
        ["index\tid\tname\tsynonyms\tdefinition"]
        + [f"{index}\t{synset}\t{words[synset]}" for index, synset in enumerate(classes["imagenet-1k"])]
    )
    texts["wordnet.tsv"] = lines(
        ["id\tname\tsynonyms\tdefinition"] + [f"{synset}\t{words[synset]}" for synset in sorted(words)]
    )
    return texts


def describe(table: ImageNetInfo, synset: str) -> str:
    """Return the name, synonyms and definition of one synset, tab separated."""
    lemmas: str = table.label_name_to_description(synset)
    detailed: str = table.label_name_to_description(synset, detailed=True)
    name, *synonyms = (lemma.strip() for lemma in lemmas.split(","))
    cells = (name, ", ".join(synonyms), detailed.removeprefix(f"{lemmas}: "))
    # A tab or a line end inside a cell would move every class after it by one.
    if any(character in cell for cell in cells for character in "\t\r\n"):
        raise ValueError(f"{synset} has a tab or a line end in its text")
    return "\t".join(cells)


def lines(rows: list[str]) -> str:
    """Return the rows as text, each ended by a line feed."""
    return "".join(f"{row}\n" for row in rows)


def outdated(folder: Path = LABELS) -> list[str]:
    """Return the names of the files that are missing or differ from what `build` makes."""
    return sorted(
        name
        for name, text in build().items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode()
    )


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description="Write labels/ from timm's ImageNet tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    if parser.parse_args().check:
        stale = outdated()
        for name in stale:
            print(f"labels/{name} is not current: run python scripts/make_labels.py", file=sys.stderr)
        return 1 if stale else 0
    LABELS.mkdir(exist_ok=True)
    for name, text in build().items():
        (LABELS / name).write_bytes(text.encode())
        print(f"labels/{name}: {text.count(chr(10)):,} lines")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
