"""Property-based tests (Hypothesis): any file name, label or mixture of inputs."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_pipeline import FakeEngine, answers, failing, jitter, pipeline, source
from helpers.tsv import tsv_text
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from resnetd_cli.class_names import files
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError, LabelsError
from resnetd_cli.pipeline.sinks.arrays import open_array_sink
from resnetd_cli.pipeline.sinks.base import open_sink
from resnetd_cli.pipeline.sinks.csv_json import rows, to_json
from resnetd_cli.pipeline.sources.companions import is_companion
from resnetd_cli.pipeline.sources.expand import Source, expand, expand_list
from resnetd_cli.results import Classified, Failure, Prediction
from resnetd_cli.system.escaping import csv_line, json_safe, printable, tsv_line, without_formulas

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

# File names may hold any bytes but these two.
NAME_BYTES = st.lists(st.integers(1, 255).filter(lambda byte: byte != ord("/")), min_size=1, max_size=40).map(
    bytes
)
NAMES = NAME_BYTES.map(os.fsdecode)
LABELS = st.text(max_size=40)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Including lone surrogates, which JSON files may contain."""
IDS = st.none() | st.text(min_size=1, max_size=12)
PROBABILITIES = st.floats(0, 1, width=32)
PREDICTIONS = st.builds(
    Prediction,
    rank=st.integers(1, 1000),
    index=st.integers(0, 21841),
    id=IDS,
    label=LABELS,
    probability=PROBABILITIES,
)
RESULTS = st.lists(
    st.builds(Classified, input=NAMES, model=LABELS, predictions=st.lists(PREDICTIONS, max_size=3).map(tuple))
    | st.builds(Failure, input=NAMES, model=LABELS, kind=st.sampled_from(ErrorKind), message=LABELS),
    max_size=4,
)
AWKWARD = [
    Classified("\udcff", "m", (Prediction(1, 0, "=1", '"a",\r\nb\u2028', 1e-9),)),
    Failure("a\rb", "m", ErrorKind.TIMEOUT, "\x1b[31m\t\\t"),
]


def written(format_name: str, results: list[Classified | Failure], *, escape_formulas: bool = False) -> bytes:
    """Return the bytes that a file in the format gets."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="utf-8", errors="surrogateescape", newline="")
    sink = open_sink(format_name, stream, escape_formulas=escape_formulas)
    for result in results:
        sink.write(result)
    sink.close()
    stream.flush()
    return buffer.getvalue()


def as_cells(results: list[Classified | Failure]) -> list[list[str]]:
    """Return what the rows hold, as texts."""
    return [["" if cell is None else str(cell) for cell in row] for result in results for row in rows(result)]


# --- formats: round trips ---


@pytest.mark.slow
@given(RESULTS)
@example(AWKWARD)
def test_csv_round_trips(results: list[Classified | Failure]) -> None:
    # As a program opens it: newline="" is what the csv module asks for.
    text = io.TextIOWrapper(io.BytesIO(written("csv", results)), "utf-8", "surrogateescape", newline="")
    header, *body = csv.reader(text, strict=True)
    assert header[0] == "input"
    assert body == as_cells(results)


@pytest.mark.slow
@given(RESULTS)
@example(AWKWARD)
def test_tsv_round_trips(results: list[Classified | Failure]) -> None:
    text = written("tsv", results).decode("utf-8", "surrogateescape")
    lines = text.splitlines()  # which splits at more than newlines: there must be nothing else
    assert text == "".join(f"{line}\n" for line in lines)
    assert [[tsv_text(cell) for cell in line.split("\t")] for line in lines[1:]] == as_cells(results)


@pytest.mark.slow
@given(RESULTS)
@example(AWKWARD)
def test_json_round_trips(results: list[Classified | Failure]) -> None:
    records = [result.record() for result in results]
    whole = written("json", results).decode()  # UTF-8, strictly
    lines = written("jsonl", results).decode().splitlines()
    assert json.loads(whole) == records
    assert [json.loads(line) for line in lines] == records
    assert [os.fsencode(json.loads(line)["input"]) for line in lines] == [
        os.fsencode(one.input) for one in results
    ]


@pytest.mark.slow
@given(NAME_BYTES)
def test_file_name_round_trips_byte_for_byte_in_every_format(name: bytes) -> None:
    failure = Failure(os.fsdecode(name), "m", ErrorKind.EMPTY, "zero bytes")
    (line,) = written("jsonl", [failure]).splitlines()
    assert os.fsencode(json.loads(line)["input"]) == name
    _, line = written("tsv", [failure]).removesuffix(b"\n").split(b"\n")
    assert os.fsencode(tsv_text(line.split(b"\t")[0].decode("utf-8", "surrogateescape"))) == name
    body = written("csv", [failure]).split(b"\n", 1)[1]
    quoted = b'"' + name.replace(b'"', b'""') + b'"'
    assert body.startswith((name + b",error,", quoted + b",error,"))


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=6), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_array_index_names_every_input(inputs: list[tuple[str, bool]], escape_formulas: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        with open_array_sink(path, escape_formulas=escape_formulas) as sink:
            for place, (name, ok) in enumerate(inputs):
                answer = Classified(name, "m", (), np.full(2, place, np.float32))
                sink.write(answer if ok else Failure(name, "m", ErrorKind.EMPTY, "zero bytes"))
        array = np.load(path)
        with Path(f"{path}.index.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            index = list(csv.DictReader(file, strict=True))
    expected = without_formulas([name for name, _ in inputs]) if escape_formulas else [name for name, _ in inputs]
    assert [row["input"] for row in index] == expected
    assert [row["status"] == "ok" for row in index] == [ok for _, ok in inputs]
    rows_of_array = [(int(row["row"]), place) for place, row in enumerate(index) if row["row"]]
    assert [int(array[row][0]) for row, _ in rows_of_array] == [place for _, place in rows_of_array]
    assert len(array) == len(rows_of_array)


# --- escapes ---


@pytest.mark.slow
@given(ANY_TEXT, st.booleans())
def test_tsv_escapes_round_trip(text: str, terminal: bool) -> None:
    line = tsv_line([text], terminal=terminal)
    assert line.count("\n") == 1
    assert line.count("\t") == line.count("\r") == 0
    on_disk = line.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    assert tsv_text(on_disk.removesuffix("\n")) == as_utf_8(text)


@given(ANY_TEXT)
def test_printable_returns_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
    assert csv_line([text], terminal=True).removesuffix("\n").isprintable()


@given(ANY_TEXT)
def test_json_safe_keeps_the_value_and_is_utf_8(text: str) -> None:
    plain = json.dumps([text, {text: 1}], ensure_ascii=False)
    assert json_safe(plain).encode()
    if not _has_pair(text):  # which JSON reads as the one character that it is
        assert json.loads(to_json([text, {text: 1}])) == [as_utf_8(text), {as_utf_8(text): 1}]


def as_utf_8(text: str) -> str:
    """Return the text with those surrogates decoded that stand for bytes of UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text


def _has_pair(text: str) -> bool:
    return any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in itertools.pairwise(text))


@given(st.lists(ANY_TEXT, min_size=2, max_size=2, unique=True))
@example(["=1", "'=1"])
def test_formula_escaping_is_injective(texts: list[str]) -> None:
    first, second = without_formulas(texts)
    assert first != second


@given(st.text(st.sampled_from("=+-@'\" \t\r\nax1＝"), max_size=6))
def test_formula_gets_an_apostrophe(text: str) -> None:
    (cell,) = without_formulas([text])
    assert isinstance(cell, str)
    assert cell.removeprefix("'") == text or cell == text
    assert not cell.lstrip(' "').startswith(tuple("=+-@\t\r\n＝"))


# --- one answer for each input, its own, in order ---


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(["good", "missing", "broken", "empty"]), max_size=24),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 3),
)
@settings(max_examples=60)
def test_each_input_has_one_result_in_order(kinds: list[str], workers: int, batch_size: int, seed: int) -> None:
    def of(number: int, kind: str) -> Source:
        if kind == "good":
            return source(number)
        if kind == "broken":
            return source(number, lambda: b"not an image")
        return failing(number, ErrorKind.NOT_FOUND if kind == "missing" else ErrorKind.EMPTY)

    expected_kinds = {"missing": ErrorKind.NOT_FOUND, "broken": ErrorKind.UNDECODABLE, "empty": ErrorKind.EMPTY}
    run = pipeline(FakeEngine(jitter(seed)), workers=workers, batch_size=batch_size)
    results = list(run.run(of(number, kind) for number, kind in enumerate(kinds)))
    assert len(results) == len(kinds)
    for number, (kind, result) in enumerate(zip(kinds, results, strict=True)):
        if kind == "good":
            assert result == answers([number])[0]
        else:
            assert isinstance(result, Failure)
            assert (result.input, result.kind) == (f"{number}.png", expected_kinds[kind])


# --- lists of class names: LabelsError and nothing else ---

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
_TABLE = st.lists(st.lists(st.sampled_from(["name", "id", "index", "0", "1", "", '"', "a,b", "\r", "é"])))
LABEL_FILES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    _JSON.map(json.dumps).map(str.encode),
    _TABLE.map(lambda table: "\n".join("\t".join(line) for line in table).encode()),
    _TABLE.map(lambda table: "\n".join(",".join(line) for line in table).encode()),
)


@pytest.mark.slow
@given(LABEL_FILES, st.sampled_from([".txt", ".json", ".tsv", ".csv", ""]), st.integers(1, 5))
@settings(max_examples=300)
@example(b"[" * 100_000, ".json", 1)
@example(b"name\n" + b"x" * 200_000, ".csv", 1)
@example(b'{"' + b"9" * 5000 + b'": "a"}', ".json", 1)
@example(b"[" + b"9" * 5000 + b"]", ".json", 1)
@example(b'["\\ud800"]', ".json", 1)
def test_any_label_file_is_read_or_raises_labels_error(data: bytes, suffix: str, classes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"labels{suffix}")
        path.write_bytes(data)
        try:
            names = files.load(str(path), classes)
        except LabelsError as error:
            assert hint_of(error)
            return
    assert len(names.names) == classes
    assert all(isinstance(name, str) and name for name in names.names)


@pytest.mark.slow
@given(_JSON, _JSON, st.integers(1, 5))
@settings(max_examples=300)
def test_any_checkpoint_labels_are_read_or_raise_labels_error(
    names: object, descriptions: object, classes: int
) -> None:
    try:
        taken = files.from_checkpoint(names, descriptions, classes)  # type: ignore[arg-type]
    except LabelsError:
        return
    assert len(taken.names) == classes


# --- arguments, folders and lists to inputs ---


def opened(found: Iterator[Source]) -> list[tuple[str, bytes | ErrorKind]]:
    """Return the sources' names, and their bytes or why there are none."""
    answers: list[tuple[str, bytes | ErrorKind]] = []
    for one in found:
        try:
            answers.append((one.name, one.read()))
        except InputError as error:
            answers.append((one.name, error.kind))
    return answers


def is_taken(folder: Path, name: bytes) -> bool:
    """Make a file of this name that holds its name, unless the system refuses."""
    try:
        with open(os.path.join(os.fsencode(folder), name), "xb") as file:
            file.write(name)
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
@given(st.sets(NAME_BYTES, max_size=8), st.sampled_from([b".jpg", b".PNG", b".tiff"]))
@example({b"[a]", b"a", b"*", b"?", b"http:", b"-"}, b".jpg")
@example({b".a", b"~$a", b"{a,b}", b"b"}, b".PNG")
def test_every_file_in_a_folder_is_an_input_whatever_its_name(names: set[bytes], suffix: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        there = sorted(os.fsdecode(name + suffix) for name in names if is_taken(folder, name + suffix))
        paths = [f"{temporary}/{name}" for name in there]
        expected = [(path, os.fsencode(name)) for path, name in zip(paths, there, strict=True)]
        if own := [one for one in expected if not is_companion(Path(one[0]).name)]:
            assert opened(expand([temporary])) == own
            assert opened(expand([f"{temporary}/**"])) == own
        # Each by its own name, though some look like globs.
        assert opened(expand(paths)) == expected
        listed = folder / "the list"
        listed.write_bytes(b"\0".join(map(os.fsencode, paths)))
        assert opened(expand_list(str(listed), null=True)) == expected


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
@given(
    st.lists(st.binary(min_size=1, max_size=30).filter(lambda entry: b"\n" not in entry), max_size=8),
    st.booleans(),
)
def test_every_entry_of_a_list_is_an_input(entries: list[bytes], null: bool) -> None:
    entries = [entry.replace(b"\0", b"0") for entry in entries]  # in lines it would make UTF-16 of them
    assume(not b"".join(entries[:1]).startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)))
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary, "list")
        listed.write_bytes((b"\0" if null else b"\n").join(entries))
        found = list(expand_list(str(listed), null=null))
    lines = [line for entry in entries for line in entry.split(b"\r") if os.fsdecode(line).strip()]
    expected = entries if null else lines
    names = [os.fsencode(one.name) for one in found]
    # A folder, such as `.`, stands for its images.
    if not any(os.path.isdir(entry) for entry in expected if b"\0" not in entry):
        assert names == expected


@pytest.mark.slow
@given(st.lists(ANY_TEXT.filter(lambda text: text != "-"), max_size=4))
def test_any_argument_is_at_least_one_input(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        prefixed = [f"{temporary}/{text}" for text in texts]
        for text in prefixed:
            found = list(expand([text]))
            assert found
            for one in found:
                try:
                    one.read()
                except InputError as error:
                    assert hint_of(error)
