"""Parsing files of class names (text, JSON, Python, YAML, pbtxt, csv, tsv) into rows of index, id and name.

`files` decides which class of a model a row belongs to.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resnetd_cli.class_names.shipped import INDEX
from resnetd_cli.errors import LabelsError, Reason, first_line
from resnetd_cli.system.wording import counted

FORMS = (
    "one name a line, numbered or not; a JSON or Python list, or map of index and name; "
    "a table (.tsv, .csv) with a column `name`; a YAML file with `names`"
)
_WHOLE = re.compile(r"(-?[0-9]{1,9})(?:\.0{1,9})?")
"""A whole number, also as pandas writes it in a column with missing values: `3.0`."""
_SYNSET_ID = re.compile(r"n[0-9]{8}")
_IMAGE_FILE = re.compile(r"(?i)\w\.(?:jpe?g|png|webp|bmp|gif|tiff?|heic|avif)(?=[\s,;|\"']|$)")
_MAX_LINE = 100_000
_MAX_YAML = 2**20
"""Bytes of YAML, which is slow to parse."""
_WRAPPERS = (
    "names",
    "label_names",
    "id2label",
    "idx_to_class",
    "class_names",
    "classes",
    "labels",
    "categories",
    "class_to_idx",
    "label2id",
    "class_indices",
)
"""Keys under which other programs store the names."""
_NAME_TITLES = (
    "name",
    "classname",
    "labelname",
    "categoryname",
    "label",
    "class",
    "category",
    "words",
    "description",
)
_CLASS_INDEX_TITLES = ("classindex", "classidx", "classid", "labelid", "labelindex", "target")
_INDEX_TITLES = ("index", "idx", *_CLASS_INDEX_TITLES)
_ID_TITLES = ("id", "wnid", "synset", "synsetid", "wordnetid")
"""Titles of columns, and keys of a class in JSON, without case, spaces and punctuation; the first counts."""


@dataclass(frozen=True)
class ClassRow:
    """What a file says about one class.

    Attributes:
        index: None if the file does not give it.
        id: a WordNet id, or any other.
        name: empty if there is only an id.
    """

    index: int | None
    id: str | None
    name: str


class Pairs(list[tuple[str, object]]):
    """A JSON map as it is written, which keeps duplicate keys."""


def read(text: str, location: str, suffix: str) -> list[ClassRow]:
    """Return the rows of a text in any of the formats.

    Args:
        text: the content of the file.
        location: the file, for errors.
        suffix: the suffix of its name, in lower case.

    Raises:
        LabelsError: it is in none of the formats, or its numbers are ambiguous.
    """
    rows = _read(text, location, suffix)
    if rows and all(_IMAGE_FILE.search(row.name) for row in rows):
        raise _list_of_images(location)
    _check_numbers_in_names(rows, location)
    return rows


def _check_numbers_in_names(rows: Sequence[ClassRow], location: str) -> None:
    """Refuse names that contain numbers for an order other than that of the rows.

    Raises:
        LabelsError: they have.
    """
    if any(row.index is not None or row.id is not None for row in rows):
        return
    names = [row.name for row in rows]
    if _name_another_order(names) and _differ([re.sub(r"[0-9]+", "", name) for name in names]):
        raise _uncertain_numbers(names[0], location)


def _name_another_order(texts: Sequence[str]) -> bool:
    """Return whether each text has one number, and these are indices in another order."""
    numbers = [re.findall(r"[0-9]{1,9}", text) for text in texts]
    if any(len(found) != 1 for found in numbers):
        return False
    indices = [int(found[0]) for found in numbers]
    return _is_run(indices) and indices != sorted(indices)


def _read(text: str, location: str, suffix: str) -> list[ClassRow]:
    body = re.sub(r"\A\s*(?:(?:export|const|let|var)\s+)*\w+\s*=\s*(?=[\[{])", "", text).rstrip().rstrip(";")
    start = body.lstrip()[:1] + body.rstrip()[-1:]
    if suffix == ".json" or start in ("[]", "{}"):
        return _structured(body, location)
    if suffix in (".yaml", ".yml") or re.search(r"^names[ \t]*:", text, re.MULTILINE):
        return _yaml_rows(text, location)
    if suffix in (".pbtxt", ".prototxt") or re.match(r"\s*(?:item|entry)\s*\{", text):
        return _pbtxt_rows(text, location)
    lines = lines_of(text)
    if any(len(line) > _MAX_LINE for line in lines):
        raise LabelsError(
            f"{location} has a line of more than {_MAX_LINE:,} characters", hint=f"the forms: {FORMS}"
        )
    if lines and all(_IMAGE_FILE.search(line) for line in lines[1:] or lines):
        raise _list_of_images(location)
    table = _table(lines, location, suffix)
    return table if table is not None else _line_rows(lines, location, suffix)


def _list_of_images(location: str) -> LabelsError:
    message = f"{location} is a list of images, not of classes"
    return LabelsError(message, reason=Reason.LABELS_NOT_A_LIST)


def lines_of(text: str) -> list[str]:
    """Return the lines without empty ones at the end. An empty line in the middle stays, to be reported."""
    text = text.rstrip(" \r\n")  # not tabs: they are the empty last cells of a table
    # Not splitlines: it also splits at characters that may stand inside a name.
    return [line.strip(" \r") for line in text.split("\n")] if text else []


def rows_of(items: Iterable[tuple[object, object]], owner: str, hint: str) -> list[ClassRow]:
    """Return the rows of (index, name), (index, [id, name]) or (index, {"id": ..., "name": ...}) items.

    An index may be a text, or None if it is not given.

    Raises:
        LabelsError: an index is invalid, or a name is missing or not a text.
    """
    rows = []
    items = list(items)
    without = sum(key is None for key, _ in items)
    if 0 < without < len(items):
        raise LabelsError(f"{owner}: some classes have an index, others none", hint=hint)
    for position, (key, value) in enumerate(items):
        if key is not None and not INDEX.fullmatch(str(key)):
            raise LabelsError(f"{owner}: {str(key)[:80]!r} is not a class index", hint=hint)
        index = None if key is None else int(str(key))
        id, name = _id_and_name(value)
        shown = position if index is None else index
        if not isinstance(name, str) or not (id is None or isinstance(id, str)):
            raise LabelsError(f"{owner}: class {shown} has no name but {str(value)[:80]!r}", hint=hint)
        if not name.strip():
            raise LabelsError(f"{owner}: the name of class {shown} is empty", hint=hint)
        rows.append(_row(index, id, name))
    return rows


def _row(index: int | None, id: str | None, name: str) -> ClassRow:
    id, name = (id or "").strip() or None, name.strip()
    if id is not None and (turned := re.fullmatch(r"([0-9]{8})-n", id)):
        id = f"n{turned[1]}"
    if id is None and _SYNSET_ID.fullmatch(name):
        return ClassRow(index, name, "")
    return ClassRow(index, id, name)


def _id_and_name(value: object) -> tuple[object, object]:
    if isinstance(value, (list, tuple)) and not isinstance(value, Pairs):
        return (value[0], value[1]) if len(value) == 2 else (None, value)
    if isinstance(value, Pairs):
        fields = {_bare(key): item for key, item in value}
        id = next((fields[key] for key in _ID_TITLES if isinstance(fields.get(key), str)), None)
        return id, next((fields[key] for key in _NAME_TITLES if isinstance(fields.get(key), str)), value)
    return None, value


# JSON and Python.


def _structured(text: str, location: str) -> list[ClassRow]:
    hint = 'a JSON list of names, or a map such as {"0": "tench", ...} or {"0": ["n01440764", "tench"], ...}'
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise LabelsError(f"{location} is not valid JSON: {reason}", hint=hint) from error
    return _rows_in(_unwrapped(value), location, hint)


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except ValueError:
        if (translated := _to_json(text)) is None:
            raise
        return json.loads(translated, object_pairs_hook=Pairs)


_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")|(?P<number>[0-9]+)|(?P<mark>[][(){},:])|"""
    r"""(?P<none>\s+|\#[^\n]*|//[^\n]*)"""
)


def _to_json(text: str) -> str | None:
    """Convert Python lists and maps of texts and numbers to JSON; None for anything else."""
    parts: list[str] = []
    end = 0
    while end < len(text):
        if (token := _TOKEN.match(text, end)) is None:
            return None
        end = token.end()
        if token["text"]:
            try:
                parts.append(json.dumps(ast.literal_eval(token["text"])))
            except (SyntaxError, ValueError):
                return None
        elif token["number"]:
            parts.append(token["number"])
        elif mark := token["mark"]:
            mark = {"(": "[", ")": "]"}.get(mark, mark)
            if mark in "]}" and parts and parts[-1] == ",":
                parts.pop()
            if mark == ":" and parts and parts[-1].isdigit():
                parts[-1] = f'"{parts[-1]}"'
            parts.append(mark)
    return "".join(parts)


def _unwrapped(value: object) -> object:
    """Return the value of the key under which another program stores the names, or the value itself."""
    if isinstance(value, Pairs):
        keys = dict(value)
        found = (keys[key] for key in _WRAPPERS if isinstance(keys.get(key), list))
        return next(found, value)
    return value


def _rows_in(value: object, location: str, hint: str) -> list[ClassRow]:
    if not isinstance(value, list):
        raise LabelsError(f"{location} holds neither a JSON list nor a map", hint=hint)
    if not isinstance(value, Pairs):
        if value and all(isinstance(item, Pairs) for item in value):
            return _rows_of_objects(value, location)
        return rows_of(((_own_index(item), _without_index(item)) for item in value), location, hint)
    keys, values = [key for key, _ in value], [item for _, item in value]
    objects = [Pairs([("key", key), *item]) for key, item in value if isinstance(item, Pairs)]
    if objects and len(objects) == len(keys) and all(map(INDEX.fullmatch, keys)):
        return _rows_of_objects(objects, location)
    if value and all(map(_is_index, values)):
        if not all(map(INDEX.fullmatch, keys)):
            return rows_of(zip(values, keys, strict=True), location, hint)
    elif value and all(map(_SYNSET_ID.fullmatch, keys)):
        return rows_of(((None, [key, _joined(item)]) for key, item in sorted(value, key=_key)), location, hint)
    return rows_of(value, location, hint)


def _rows_of_objects(items: Sequence[Pairs], location: str) -> list[ClassRow]:
    """Return the rows of a list of objects, read as a table whose columns are the keys."""
    objects = [{_bare(key): _cell(value) for key, value in item} for item in items]
    titles = dict.fromkeys(title for item in objects for title in item)
    columns = {title: [item.get(title, "") for item in objects] for title in titles}
    return _rows_of_columns(columns, location)


def _cell(value: object) -> str:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def _key(item: tuple[str, object]) -> str:
    return item[0]


def _joined(value: object) -> object:
    """Return the name of a class; synonyms are joined."""
    return ", ".join(map(str, value)) if isinstance(value, list) and not isinstance(value, Pairs) else value


def _own_index(item: object) -> object:
    """Return the index in a list item such as `[3, "cat"]` or `["3", "cat"]`."""
    if isinstance(item, list) and len(item) == 2 and sum(map(_is_index, item)) == 1:
        return next(filter(_is_index, item))
    return None


def _without_index(item: object) -> object:
    if isinstance(item, list) and not isinstance(item, Pairs) and _own_index(item) is not None:
        return next((part for part in item if not _is_index(part)), None)
    return item


def _is_index(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and INDEX.fullmatch(value) is not None)


# YAML and text protocol buffers.


def _yaml_rows(text: str, location: str) -> list[ClassRow]:
    hint = "names: a list of names, or a map of index to name"
    try:
        import yaml
    except ImportError as error:
        raise LabelsError(f"{location} is YAML, which needs another package", hint="pip install pyyaml") from error
    if len(text) > _MAX_YAML:
        raise LabelsError(f"{location}: more than {_MAX_YAML:,} characters of YAML", hint=hint)
    try:
        top = yaml.compose(text, yaml.BaseLoader)
        # A small text of nested aliases can expand to more than fits in memory.
        value = _plain(top, depth=4, left=iter(range(2 * len(text) + 2)))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else first_line(error)
        raise LabelsError(f"{location} is not valid YAML: {reason}", hint=hint) from error
    return _rows_in(_unwrapped(value), location, hint)


def _plain(node: Any, depth: int, left: Iterator[int]) -> object:
    """Return the value of a YAML node, down to a depth: texts as they are written, maps as pairs.

    Raises:
        ValueError: it has more nodes than allowed.
    """
    if next(left, None) is None:
        raise ValueError("it repeats itself too often")
    if node is None or not depth:
        return None
    if node.id == "mapping":
        return Pairs((str(key.value), _plain(value, depth - 1, left)) for key, value in node.value)
    if node.id == "sequence":
        return [_plain(item, depth - 1, left) for item in node.value]
    return str(node.value)


def _pbtxt_rows(text: str, location: str) -> list[ClassRow]:
    hint = 'item { id: 1 name: "cat" }, one for each class'
    items: list[tuple[object, object]] = []
    for body in re.findall(r"(?:item|entry)\s*\{([^{}]*)\}", text):
        fields = dict(re.findall(r"(\w+)\s*:\s*(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[0-9]+)", body))
        index = fields.get("id", fields.get("target_class"))
        names = (fields.get(key) for key in ("display_name", "name", "target_class_string"))
        texts = [str(ast.literal_eval(name)) for name in names if name is not None and not name.isdigit()]
        id = next(filter(_SYNSET_ID.fullmatch, texts), None)
        name = next((text for text in texts if text != id), id)
        items.append((index, name if id in (None, name) else [id, name]))
    return rows_of(items, location, hint)


# Tables.

_TABLE_HINT = "a header line with `name`, and perhaps `index` and `id`, then a line per class"
_INDEX_HINT = "keep two columns, `index` (0, 1, 2, ...) and `name`"
_WORDNET_ID = re.compile(r"n[0-9]{8}|[0-9]{8}-n")


def _table(lines: Sequence[str], location: str, suffix: str) -> list[ClassRow] | None:
    """Return the rows of a table with a header; None if it is not one."""
    delimiter = _delimiter(lines[0] if lines else "", suffix)
    if delimiter is None:
        return None
    try:
        body = [_split(line, delimiter) for line in lines[1:]]
    except csv.Error as error:
        raise LabelsError(f"{location} is not a table: {error}", hint=_TABLE_HINT) from error
    header = [_bare(title) for title in _split(lines[0], delimiter)]
    for number, cells in enumerate(body, 2):
        if len(cells) != len(header):
            found = counted(len(cells), "column")
            raise LabelsError(f"{location}: line {number} has {found}, the header {len(header)}", hint=_TABLE_HINT)
    # Two columns may have the same title.
    titles = [title if title not in header[:at] else f"{title} {at}" for at, title in enumerate(header)]
    columns = {title: [row[at].strip() for row in body] for at, title in enumerate(titles)}
    return _rows_of_columns(columns, location)


def _delimiter(line: str, suffix: str) -> str | None:
    """Return the delimiter that splits a header into most columns; None if the line is not a header."""
    counts = {mark: _columns_of_header(line, mark, suffix) for mark in "\t,;|"}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else None


def _columns_of_header(line: str, delimiter: str, suffix: str) -> int:
    """Return the number of columns of a header; 0 if the line, split like this, is not a header."""
    try:
        titles = [_bare(cell) for cell in _split(line, delimiter)]
    except csv.Error:
        return 0
    is_named = any(title in (*_NAME_TITLES, *_ID_TITLES[1:]) for title in titles)
    return len(titles) if is_named and (len(titles) > 1 or suffix in (".csv", ".tsv")) else 0


def _rows_of_columns(columns: dict[str, list[str]], location: str) -> list[ClassRow]:
    """Return the rows of a table, given as its columns by title.

    Raises:
        LabelsError: it has no names, or no certain index column, or it lists images.
    """
    if any(cells and all(map(_IMAGE_FILE.search, cells)) for cells in columns.values()):
        raise _list_of_images(location)
    id = _first(columns, _ID_TITLES, lambda cells: not _are_numbers(cells))
    name = _first(columns, _NAME_TITLES, lambda cells: not _are_numbers(cells)) or id
    if name is None and len(columns) > 1:  # classes called 0, 1, ...
        name = _first(columns, ("name", "classname", "labelname", "categoryname"), lambda _: True)
    if name is None:
        raise LabelsError(f"{location} has no column `name`", hint=_TABLE_HINT)
    numbers = {title: cells for title, cells in columns.items() if title != name and _are_numbers(cells)}
    has_ids = all(map(_WORDNET_ID.fullmatch, columns[id or name]))
    titled = _first(columns, _INDEX_TITLES, lambda _: True)
    indices: Iterable[object] = [None] * len(columns[name])
    index = _index_column(numbers, location)
    if index is None:
        index = titled
    if index is not None:
        indices = [_number(cell) for cell in columns[index]]
    elif not has_ids and (stray := [*numbers, *_hidden_indices(columns, name)]):
        which = f"column {stray[0]!r} has neither 0, 1, 2, ... nor 1, 2, 3, ... once each"
        raise LabelsError(f"{location}: nothing says which class is which: {which}", hint=_INDEX_HINT)
    names = columns[name] if id in (None, name) else zip(columns[str(id)], columns[name], strict=True)
    return rows_of(zip(indices, names, strict=True), location, _TABLE_HINT)


def _hidden_indices(columns: dict[str, list[str]], name: str) -> list[str]:
    """Return the titles of columns that may hold indices inside texts, such as `class 3`."""
    return [title for title, cells in columns.items() if title != name and _name_another_order(cells)]


def _index_column(numbers: dict[str, list[str]], location: str) -> str | None:
    """Return the title of the column that numbers the rows from 0 or 1; None if there is none.

    Raises:
        LabelsError: several do, in different orders.
    """
    places: dict[str, list[int]] = {}
    for title, cells in numbers.items():
        values = [int(found[1]) for cell in cells if (found := _WHOLE.fullmatch(cell))]
        if len(values) == len(cells) and _is_run(values):
            places[title] = [value - min(values) for value in values]
    places = {title: places[title] for title in _CLASS_INDEX_TITLES if title in places} or places
    first = next(iter(places), None)
    other = next((title for title in places if places[title] != places[str(first)]), None)
    if other is not None:
        message = f"{location}: nothing says whether column {first!r} or {other!r} is the class index"
        raise LabelsError(message, hint=_INDEX_HINT)
    return first


def _first(
    columns: dict[str, list[str]], titles: Sequence[str], fits: Callable[[Sequence[str]], bool]
) -> str | None:
    return next((title for title in titles if title in columns and fits(columns[title])), None)


def _are_numbers(cells: Sequence[str]) -> bool:
    """Return whether cells are whole numbers; some may be empty."""
    return any(cells) and all(not cell or _WHOLE.fullmatch(cell) for cell in cells)


def _number(cell: str) -> str:
    return found[1] if (found := _WHOLE.fullmatch(cell)) else cell


def _split(line: str, delimiter: str) -> list[str]:
    if (
        delimiter == "\t"
    ):  # nothing is quoted, as in the shipped tables: WordNet's definitions contain quotation marks
        return line.split("\t")
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


# Lines.

# Repetitions are bounded, or start with a character that cannot precede them, so that no line takes long.
_SEPARATOR = r"(?:\s{0,9}[:;,|.)=\t]\s{0,9}|\s{1,9})"
_ID_LINES = (
    re.compile(
        rf"(?:(?P<index>[0-9]{{1,9}}){_SEPARATOR})?(?P<id>n[0-9]{{8}}|[0-9]{{8}}-n)"
        rf"(?:{_SEPARATOR}(?P<after>[0-9]{{1,9}})(?={_SEPARATOR}|$))?(?:{_SEPARATOR}(?P<name>.*))?"
    ),
    re.compile(
        rf"(?P<name>.*?){_SEPARATOR}(?P<id>n[0-9]{{8}})(?:{_SEPARATOR}(?P<index>[0-9]{{1,9}}))?(?P<after>)"
    ),
)
_ARROW = r"[-=]>|(?<=\s)[-\u2013\u2014](?=\s)"
_NUMBERED_LINES = (
    (
        re.compile(
            r"[#(\[]?\s?(?P<index>[0-9]{1,9})(?:\.0{1,9})?"
            rf"\s{{0,9}}(?:{_ARROW}|[:;,|.)\]=\t]{{1,2}})\s{{0,9}}(?P<name>\S.*)"
        ),
        True,
    ),
    (re.compile(r"#\s?(?P<index>[0-9]{1,9})\s{1,9}(?P<name>\S.*)"), True),
    (re.compile(r"(?P<index>[0-9]{1,9})\s{1,9}(?P<name>\S.*)"), False),
    (
        re.compile(
            rf"(?P<name>\S.*?)\s{{0,9}}(?:{_ARROW}|[:;,|=\t#(\[])\s{{0,9}}(?P<index>[0-9]{{1,9}})[)\]]?",
        ),
        True,
    ),
    (re.compile(r"(?P<name>\S.*?)\s{1,9}(?P<index>[0-9]{1,9})"), False),
)
"""The second item: the number can only be an index, as in `3: hen`, `(3) hen`, `3 -> hen`, `#3 hen`, `hen (3)`."""
_QUOTED_LINE = re.compile(r"""(?:[0-9]+\s*:\s*)?(?:'.*'|".*")(?:\s*:\s*[0-9]+)?,?""")


_BULLET = re.compile(r"(?:[-*+]|\u2022)\s{1,9}(?=\S)")


def _line_rows(lines: Sequence[str], location: str, suffix: str) -> list[ClassRow]:
    hint = "one name a line, in class order"
    if lines and all(map(_QUOTED_LINE.fullmatch, lines)):
        brackets = "{}" if lines[0][:1].isdigit() or lines[0].rstrip(",")[-1:].isdigit() else "[]"
        joined = "\n".join(f"{line.rstrip(',')}," for line in lines)
        return _structured(f"{brackets[0]}{joined}{brackets[1]}", location)
    if lines and all(map(_BULLET.match, lines)):
        stripped = [_BULLET.sub("", line, count=1) for line in lines]
        if all(re.match(r"\{|\[[0-9\"']", line) for line in stripped):
            return _yaml_rows("\n".join(lines), location)
        return _line_rows(stripped, location, suffix)
    for pattern in _ID_LINES:
        if found := _matches(pattern, lines):
            return _lines_with_ids(found)
    for pattern, is_certain in _NUMBERED_LINES:
        if (found := _matches(pattern, lines)) and (items := _numbered(found, is_certain, location)):
            return rows_of(items, location, hint)
    if any("\t" in line or ("," in line and suffix == ".csv") for line in lines):
        raise LabelsError(f"{location} has no column `name`", hint=_TABLE_HINT)
    return rows_of(((None, line) for line in lines), location, hint)


def _numbered(
    found: Sequence[re.Match[str]], is_certain: bool, location: str
) -> list[tuple[object, object]] | None:
    """Return the indices and names of numbered lines; None if the numbers belong to the names.

    Raises:
        LabelsError: the numbers may be either.
    """
    indices, names = [int(match["index"]) for match in found], [_unquoted(match["name"]) for match in found]
    if not _differ(names):
        return None
    is_run = _is_run(indices)
    if not is_run and found[0].start("index") > found[0].start("name"):  # `Airbus 320`
        return None
    if not is_run or (not is_certain and indices != sorted(indices)):
        raise _uncertain_numbers(found[0].string, location)
    return list(zip(indices, names, strict=True))


def _differ(names: Sequence[str]) -> bool:
    """Return whether names still differ without their numbers: `level 1` and `level 2` do not."""
    return 2 * len(set(names)) > len(names)


def _uncertain_numbers(example: str, location: str) -> LabelsError:
    message = f"{location}: nothing says whether the numbers, like that of {example[:80]!r}, are indices"
    return LabelsError(message, hint="write lines as `0: name`, or a table with columns index and name")


def _matches(pattern: re.Pattern[str], lines: Sequence[str]) -> list[re.Match[str]]:
    """Return the matches of a pattern; none if it does not fit every line."""
    found = []
    for line in lines:
        if (match := pattern.fullmatch(line)) is None:
            return []
        found.append(match)
    return found


def _lines_with_ids(found: Sequence[re.Match[str]]) -> list[ClassRow]:
    indices = [match["index"] or match["after"] for match in found]
    rows = [
        _row(int(index) if index and all(indices) else None, match["id"], _unquoted(match["name"] or ""))
        for index, match in zip(indices, found, strict=True)
    ]
    if any(indices) and not all(indices):  # a number that only some have belongs to the name
        return [
            ClassRow(None, row.id, _unquoted(match.string.partition(match["id"])[2].strip(" \t:;,|")))
            for row, match in zip(rows, found, strict=True)
        ]
    return rows


def _is_run(indices: Sequence[int]) -> bool:
    """Return whether indices are 0, 1, 2, ... or 1, 2, 3, ... once each, in any order."""
    start = min(indices, default=0)
    return start in (0, 1) and sorted(indices) == list(range(start, start + len(indices)))


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _bare(title: str) -> str:
    return re.sub(r"[\W_]", "", title.casefold())
