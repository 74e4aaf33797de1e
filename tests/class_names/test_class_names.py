"""Class names: the shipped sets, checkpoints, files of every form, search, download."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from helpers.paths import ROOT

from resnetd_cli.class_names import files
from resnetd_cli.class_names.shipped import (
    SUBSETS,
    ClassEntry,
    ClassNames,
    _folder,
    _shipped,
    for_class_count,
    imagenet,
    search,
    unnamed,
)
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import LabelsError, OutputError

THOUSAND = "".join(f"{name}\n" for name in imagenet().names)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """`scripts/make_labels.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_labels", ROOT / "scripts" / "make_labels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """Write a file and return its path."""

    def _write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return _write


PAGES: dict[str, bytes] = {
    "/imagenet_classes.txt": THOUSAND.rstrip("\n").encode(),
    "/short.txt": "".join(f"class {i}\n" for i in range(999)).encode(),
    "/long.txt": "".join(f"class {i}\n" for i in range(1001)).encode(),
    "/hole.txt": THOUSAND.replace("Samoyed\n", "\n").encode(),
    "/page.html": b"<!DOCTYPE html>\n" + b"<p>sign in</p>\n" * 999,
    "/latin1.txt": THOUSAND.replace("Samoyed", "Samoy\u00e8de").encode("latin-1"),
    "/three.json": b'["a", "b", "c"]',
    "/three.csv": b"name\na\nb\nc\n",
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGES.get(self.path.partition("?")[0])
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body or b"gone")))
        self.end_headers()
        self.wfile.write(body or b"gone")

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A web server on the loopback interface; its address without a slash at the end."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


# The shipped sets.


def test_imagenet_1k_has_the_names_in_class_order() -> None:
    names = imagenet()
    assert len(names) == len(names.names) == len(names.ids) == 1000
    assert (names.names[0], names.ids[0]) == ("tench", "n01440764")
    assert (names.names[258], names.ids[258]) == ("Samoyed", "n02111889")
    assert (names.names[999], names.ids[999]) == ("toilet tissue", "n15075141")
    assert names.source == "imagenet-1k"
    # Two pairs of classes share their first word; only the id tells them apart.
    assert [i for i, name in enumerate(names.names) if name in ("crane", "maillot")] == [134, 517, 638, 639]
    assert len(set(names.ids)) == 1000


def test_classes_of_the_same_name_get_different_titles() -> None:
    names = imagenet()
    assert [names.titles[index] for index in (134, 517, 638, 639, 258)] == [
        "crane (bird)",
        "crane (machine)",
        "maillot (tights)",
        "maillot (swimsuit)",
        "Samoyed",
    ]
    assert len(set(names.titles)) == 1000
    assert set(names.senses) == {134, 517, 638, 639}


@pytest.mark.parametrize("subset", SUBSETS)
def test_titles_of_every_shipped_set_are_unique(subset: str) -> None:
    names = imagenet(subset)
    assert len(set(names.titles)) == len(names)


def test_titles_fall_back_to_ids_and_indices() -> None:
    names = ClassNames(("ram", "ram", "ram", "ewe"), ("n02412210", "n03649797", None, None), "a test")
    assert names.titles == ("ram (n02412210)", "ram (n03649797)", "ram (2)", "ewe")


@pytest.mark.parametrize("subset", SUBSETS)
def test_sets_equal_timms(subset: str) -> None:
    from timm.data import ImageNetInfo

    theirs = ImageNetInfo(subset)
    ours = imagenet(subset)
    assert list(ours.ids) == theirs.label_names()
    assert list(ours.names) == [text.split(",")[0] for text in theirs.label_descriptions()]
    assert ours.source == subset


def test_class_counts_equal_timms() -> None:
    from timm.data.imagenet_info import _NUM_CLASSES_TO_SUBSET

    assert {count: subset for subset, count in SUBSETS.items()} == _NUM_CLASSES_TO_SUBSET
    for count, subset in _NUM_CLASSES_TO_SUBSET.items():
        found = for_class_count(count)
        assert found is not None
        assert (len(found), found.source) == (count, subset)


@pytest.mark.parametrize("count", [0, 1, 10, 999, 1001, 10450, 21844])
def test_class_counts_of_the_sets_differ(count: int) -> None:
    assert for_class_count(count) is None


@pytest.mark.parametrize(
    ("spelling", "subset"),
    [
        ("ImageNet_1K", "imagenet-1k"),
        ("imagenet12k", "imagenet-12k"),
        ("imagenet-21k", "imagenet-21k-goog"),
        ("imagenet22k-ms", "imagenet-22k-ms"),
    ],
)
def test_timms_other_spellings(spelling: str, subset: str) -> None:
    assert imagenet(spelling) == imagenet(subset)


def test_unknown_set() -> None:
    with pytest.raises(LabelsError) as caught:
        imagenet("imagenet-9k")
    assert caught.value.message == "no class names called 'imagenet-9k'"
    assert "imagenet-21k-miil" in str(hint_of(caught.value))


def test_unnamed() -> None:
    names = unnamed(3)
    assert names.names == ("class 0", "class 1", "class 2")
    assert names.ids == (None, None, None)


def test_shipped_files_lie_in_the_package_or_at_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "resnetd_cli" / "class_names"
    package.mkdir(parents=True)
    monkeypatch.setattr("resnetd_cli.class_names.shipped.__file__", str(package / "shipped.py"))
    assert _folder() == tmp_path / "labels"
    (package / "labels").mkdir()
    assert _folder() == package / "labels"
    with pytest.raises(LabelsError, match=r"nothing\.txt is missing from the install"):
        _shipped("nothing.txt")


@pytest.mark.slow
def test_generated_files_are_current(generator: ModuleType) -> None:
    assert generator.outdated() == []


@pytest.mark.slow
def test_check_finds_stale_files(generator: ModuleType, tmp_path: Path) -> None:
    texts = generator.build()
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    assert generator.outdated(tmp_path) == []
    (tmp_path / "imagenet-12k.txt").unlink()
    stale = texts["imagenet-1k.tsv"].replace("Samoyed\t", "samoyed\t")
    (tmp_path / "imagenet-1k.tsv").write_bytes(stale.encode())
    assert generator.outdated(tmp_path) == ["imagenet-12k.txt", "imagenet-1k.tsv"]


@pytest.mark.slow
def test_check_exits_with_what_it_found(
    generator: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_labels.py", "--check"])
    assert generator.main() == 0
    monkeypatch.setattr(generator, "outdated", lambda: ["wordnet.tsv"])
    assert generator.main() == 1
    assert capsys.readouterr().err.startswith("labels/wordnet.tsv is not current")


@pytest.mark.slow
def test_tables_are_plain(generator: ModuleType) -> None:
    texts: dict[str, str] = generator.build()
    rows = texts["wordnet.tsv"].removesuffix("\n").split("\n")
    assert rows[0] == "id\tname\tsynonyms\tdefinition"
    assert len(rows) == 1 + 21844
    assert {row.count("\t") for row in rows} == {3}
    assert rows[1:] == sorted(rows[1:])
    thousand = texts["imagenet-1k.tsv"].split("\n")
    assert thousand[0] == "index\tid\tname\tsynonyms\tdefinition"
    assert thousand[259] == (
        "258\tn02111889\tSamoyed\tSamoyede\tSiberian breed of white or cream-colored dog of the spitz family"
    )


@pytest.mark.slow
def test_heavy_libraries_stay_out() -> None:
    code = (
        "import sys; from resnetd_cli.class_names import shipped; shipped.for_class_count(21843);"
        "shipped.search('terrier', shipped.imagenet());"
        "print(sorted({'torch', 'timm', 'numpy', 'PIL', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# Checkpoints.


def test_checkpoint_list() -> None:
    names = files.from_checkpoint(["cat", "dog"], None, 2)
    assert names == ClassNames(("cat", "dog"), (None, None), "checkpoint")


@pytest.mark.parametrize("given", [{"1": "dog", "0": "cat"}, {1: "dog", 0: "cat"}])
def test_checkpoint_map_is_put_in_class_order(given: dict[str | int, str]) -> None:
    assert files.from_checkpoint(given, None, 2).names == ("cat", "dog")


def test_checkpoint_synsets_are_named_from_wordnet() -> None:
    # The first is one of the 1,000, the second is not, the third is nowhere.
    names = files.from_checkpoint(["n02111889", "n00007846", "n99999999", "person"], None, 4)
    assert names.names == ("Samoyed", "person", "n99999999", "person")
    assert names.ids == ("n02111889", "n00007846", "n99999999", None)


def test_checkpoint_synsets_are_named_from_its_descriptions_first() -> None:
    descriptions = {"n02111889": "white dog, Samoyede", "n01440764": "", "cat": "a beast"}
    names = files.from_checkpoint(["n02111889", "n01440764", "cat"], descriptions, 3)
    assert names.names == ("white dog", "tench", "cat")
    assert names.ids == ("n02111889", "n01440764", None)


def test_checkpoint_map_with_gaps() -> None:
    # timm takes such maps too: its fallback names the classes that the map leaves out.
    names = files.from_checkpoint({"2": "n02111889"}, None, 4)
    assert names.names == ("class 0", "class 1", "Samoyed", "class 3")
    assert names.ids == (None, None, "n02111889", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b"], "the model's config.json has 2 class names, but the model has 3 classes"),
        (["a", "b", "c", "d"], "the model's config.json has 4 class names, but the model has 3 classes"),
        ([], "the model's config.json has 0 class names, but the model has 3 classes"),
        ({}, "the model's config.json has 0 class names, but the model has 3 classes"),
        ({"0": "a", "7": "b", "3": "c"}, "the model's config.json names class 3, but the model has 3 classes"),
        ({"1": "a", 1: "b"}, "the model's config.json names class 1 twice"),
        ({"cat": "0"}, "the model's config.json: 'cat' is not a class index"),
        ({-1: "a"}, "the model's config.json: '-1' is not a class index"),
        (["a", None, "c"], "the model's config.json: class 1 has no name but 'None'"),
        (["a", " ", "c"], "the model's config.json: the name of class 1 is empty"),
        ("abc", "the model's config.json has neither a list nor a map of class names"),
        (3, "the model's config.json has neither a list nor a map of class names"),
    ],
)
def test_checkpoint_errors(given: object, message: str) -> None:
    with pytest.raises(LabelsError) as caught:
        files.from_checkpoint(given, None, 3)  # type: ignore[arg-type]
    assert caught.value.message == message
    assert hint_of(caught.value) == "name the classes with --labels FILE"


# Files.

GOOD = {
    "lines": ("names.txt", "cat\ndog\nred fox\n"),
    "lines, no end": ("names.txt", "cat\ndog\nred fox"),
    "lines, many ends": ("names.txt", "cat\ndog\nred fox\n\n\n"),
    "lines, CRLF and BOM": ("names.txt", "\ufeffcat\r\ndog\r\nred fox\r\n"),
    "lines, no suffix": ("names", "cat\n dog \nred fox\n"),
    "json list": ("names.json", '["cat", "dog", "red fox"]'),
    "json list, BOM": ("names.json", '\ufeff["cat", "dog", "red fox"]'),
    "json map": ("names.json", '{"2": "red fox", "0": "cat", "1": "dog"}'),
    "json in a .txt": ("names.txt", '\n{"0": "cat", "1": "dog", "2": "red fox"}\n'),
    "tsv": ("names.tsv", "name\ncat\ndog\nred fox\n"),
    "tsv with index": ("names.tsv", "name\tIndex\nred fox\t2\ncat\t0\ndog\t1\n"),
    "tsv in a .txt": ("names.txt", "index\tname\r\n0\tcat\r\n1\tdog\r\n2\tred fox\r\n"),
    "tsv, empty last cells": ("names.tsv", "name\tid\tnote\ncat\t\t\ndog\t\t\nred fox\t\t\n"),
    "csv": ("names.csv", 'note,name\n"a, b",cat\n,dog\n"""",red fox\n'),
}


@pytest.mark.parametrize(("name", "content"), GOOD.values(), ids=GOOD)
def test_load(write: Callable[[str, str | bytes], str], name: str, content: str) -> None:
    path = write(name, content)
    expected = ClassNames(("cat", "dog", "red fox"), (None, None, None), path)
    assert files.load(path, 3) == expected


FORMS = {
    "numbered": ("names.txt", "0 cat\n1 dog\n2 red fox\n"),
    "numbered from one": ("names.txt", "1 cat\n2 dog\n3 red fox\n"),
    "numbered, colons": ("names.txt", "1: dog\n0: cat\n2: red fox\n"),
    "numbered, dots": ("names.txt", "1. cat\n2. dog\n3. red fox\n"),
    "numbered, tabs": ("names.tsv", "2\tred fox\n0\tcat\n1\tdog\n"),
    "numbered, commas": ("names.csv", '2,"red fox"\n0,cat\n1,dog\n'),
    "numbers at the end": ("names.txt", "cat 0\ndog 1\nred fox 2\n"),
    "numbers at the end, commas": ("names.csv", "red fox,2\ncat,0\ndog,1\n"),
    "numbers of more digits": ("names.txt", "000 cat\n001 dog\n002 red fox\n"),
    "python map": ("names.txt", "{0: 'cat',\n 1: 'dog',\n 2: \"red fox\",}\n"),
    "python map in a .json": ("names.json", "{0: 'cat', 1: 'dog', 2: 'red fox'}"),
    "python map without braces": ("names.txt", "0: 'cat',\n1: 'dog',\n2: 'red fox'"),
    "python list": ("names.py", "NAMES = [\n    'cat',  # one\n    \"dog\",\n    'red fox',\n]\n"),
    "python pairs": ("names.txt", "[(0, 'cat'), (2, 'red fox'), (1, 'dog')]"),
    "quoted lines": ("names.txt", "'cat',\n'dog',\n'red fox'\n"),
    "javascript": ("names.js", "export const NAMES = {\n  0: 'cat',\n  1: 'dog',\n  2: 'red fox'\n};\n"),
    "map of name to index": ("class_indices.json", '{"dog": 1, "cat": 0, "red fox": 2}'),
    "map of name to index as text": ("label2id.json", '{"dog": "1", "cat": "0", "red fox": "2"}'),
    "configuration of transformers": (
        "config.json",
        '{"hidden": 3, "label2id": {"cat": 0}, "id2label": {"0": "cat", "1": "dog", "2": "red fox"}}',
    ),
    "configuration of timm": ("config.json", '{"architecture": "x", "label_names": ["cat", "dog", "red fox"]}'),
    "categories": (
        "x.json",
        '{"categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "red fox"}]}',
    ),
    "yaml list": ("data.yaml", "path: d\nnc: 3\nnames: ['cat', dog, red fox]\n"),
    "yaml map": ("data.yaml", "# a comment\nnames:\n  0: cat\n  2: red fox\n  1: dog\ntrain: images\n"),
    "yaml block": ("data.txt", "names:\n- cat\n- dog\n- red fox\n"),
    "pbtxt": (
        "map.pbtxt",
        "item {\n  id: 1\n  name: 'cat'\n}\nitem { id: 3 name: 'red fox' }\nitem {\n  name: \"dog\"\n  id: 2\n}\n",
    ),
    "csv, other headers": ("x.csv", "class_id,Class Name\n2,red fox\n0,cat\n1,dog\n"),
    "csv, semicolons": ("x.csv", "Index;Label\r\n0;cat\r\n1;dog\r\n2;red fox\r\n"),
    "csv, an id that is the index": ("x.csv", "id,label\n2,red fox\n1,dog\n0,cat\n"),
    "csv, a class that is the index": ("x.csv", "class, description\n0, cat\n1, dog\n2, red fox\n"),
    "utf-16": ("names.txt", "cat\r\ndog\r\nred fox\r\n".encode("utf-16")),
    "utf-16 without a mark": ("names.txt", "cat\ndog\nred fox\n".encode("utf-16-le")),
    "with tensorflow's background": ("names.txt", "background\ncat\ndog\nred fox\n"),
    "with tensorflow's background, numbered": ("names.txt", "0:background\n1:cat\n2:dog\n3:red fox\n"),
}


@pytest.mark.parametrize(("name", "content"), FORMS.values(), ids=FORMS)
def test_forms_of_other_programs(
    write: Callable[[str, str | bytes], str], name: str, content: str | bytes
) -> None:
    assert files.load(write(name, content), 3).names == ("cat", "dog", "red fox")


NAMES_AS_WRITTEN = {
    "numbers that are no indices": ["10 euro", "20 euro", "50 euro"],
    "numbers that all names share": ["level 0", "level 1", "level 2"],
    "numbers first that all names share": ["1 euro", "2 euro"],
    "commas": ["crane, bird", "crane, machine"],
    "quotes": ['5" disk', '3" disk'],
    "yes and no": ["no", "yes"],
    "a colon": ["a: b", "c"],
}


@pytest.mark.parametrize("names", NAMES_AS_WRITTEN.values(), ids=NAMES_AS_WRITTEN)
def test_plain_names_stay_as_they_are(write: Callable[[str, str | bytes], str], names: list[str]) -> None:
    assert files.load(write("x.txt", "\n".join(names)), len(names)).names == tuple(names)


def test_yaml_names_are_not_read_as_numbers_or_booleans(write: Callable[[str, str | bytes], str]) -> None:
    assert files.load(write("x.yaml", "names: [no, 1e3, 007, null, ~]"), 5).names == (
        "no",
        "1e3",
        "007",
        "null",
        "~",
    )


WITH_IDS = {
    "lines of ids": ("names.txt", "n01440764\nn02111889\n"),
    "json list of ids": ("names.json", '["n01440764", "n02111889"]'),
    "json map of pairs": ("x.json", '{"0": ["n01440764", "tench"], "1": ["n02111889", "Samoyed"]}'),
    "json list of pairs": ("x.json", '[["n01440764", "tench"], ["n02111889", "Samoyed"]]'),
    "synset words": ("synset_words.txt", "n01440764 tench, Tinca tinca\nn02111889 Samoyed, Samoyede\n"),
    "synset words, tabs": ("words.txt", "n01440764\ttench, Tinca tinca\nn02111889\tSamoyed\n"),
    "index, id, name": ("x.txt", "0 n01440764 tench\n1 n02111889 Samoyed\n"),
    "id, index, name": ("map_clsloc.txt", "n01440764 1 tench\nn02111889 2 Samoyed\n"),
    "id, index": ("x.txt", "n01440764 0\nn02111889 1\n"),
    "json of id to index": ("class_to_idx.json", '{"n02111889": 1, "n01440764": 0}'),
    "json of id to words": ("x.json", '{"n02111889": "Samoyed, Samoyede", "n01440764": ["tench", "Tinca tinca"]}'),
    "json of parts": (
        "x.json",
        '{"0": {"id": "01440764-n", "label": "tench, Tinca tinca", "uri": ""},'
        ' "1": {"id": "02111889-n", "label": "Samoyed"}}',
    ),
    "pbtxt": (
        "x.pbtxt",
        'entry {\n target_class: 2\n target_class_string: "n02111889"\n}\n'
        'entry {\n target_class: 1\n target_class_string: "n01440764"\n}\n',
    ),
    "csv": ("x.csv", "WNID,words\nn01440764,tench\nn02111889,Samoyed\n"),
    "tsv": ("x.tsv", 'id\tname\tdefinition\nn01440764\ttench\t"fish\nn02111889\tSamoyed\t\n'),
}


@pytest.mark.parametrize(("name", "content"), WITH_IDS.values(), ids=WITH_IDS)
def test_load_ids(write: Callable[[str, str | bytes], str], name: str, content: str) -> None:
    names = files.load(write(name, content), 2)
    assert names.names == ("tench", "Samoyed")
    assert names.ids == ("n01440764", "n02111889")


def test_load_keeps_the_users_word_for_an_id(write: Callable[[str, str | bytes], str]) -> None:
    names = files.load(write("x.json", '{"0": ["n02111889", "Sammy"], "1": ["mine", "n02111889"]}'), 2)
    assert (names.names, names.ids) == (("Sammy", "n02111889"), ("n02111889", "mine"))
    names = files.load(write("x.json", '{"0": "n02111889", "1": ["mine", "n02111889"]}'), 2)
    assert (names.names, names.ids) == (("Samoyed", "n02111889"), ("n02111889", "mine"))


def test_load_non_ascii_names(write: Callable[[str, str | bytes], str]) -> None:
    # U+2028 ends a line for str.splitlines, not in a file.
    names = files.load(write("x.txt", "猫\nbr\u00fcn\u2028hund\n[MASK]\n"), 3)
    assert names.names == ("猫", "br\u00fcn\u2028hund", "[MASK]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "subset"), [("imagenet-1k.tsv", "imagenet-1k"), ("imagenet-12k.txt", "imagenet-12k")]
)
def test_load_reads_the_shipped_files(file: str, subset: str) -> None:
    shipped = imagenet(subset)
    loaded = files.load(str(ROOT / "labels" / file), len(shipped))
    assert (loaded.names, loaded.ids) == (shipped.names, shipped.ids)


BAD = {
    "too few": ("x.txt", "cat\n", "{} has 1 class name, but the model has 2 classes"),
    "too many": ("x.txt", "a\nb\nc\n", "{} has 3 class names, but the model has 2 classes"),
    "nothing": ("x.txt", "", "{} has 0 class names, but the model has 2 classes"),
    "nothing in a table": ("x.tsv", "", "{} has 0 class names, but the model has 2 classes"),
    "hole": ("x.txt", "cat\n\ndog\n", "{}: the name of class 1 is empty"),
    "not text": ("x.txt", b"c\xe0t\ndog", "{} is not UTF-8 text"),
    "half a character": ("x.txt", b"\xff\xfec\x00a", "{} is not UTF-8 text"),
    "a workbook": ("x.csv", b"PK\x03\x04\x14\x00", "{} is an Excel workbook (.xlsx) or another zip archive"),
    "a web page": ("x.txt", "\n<!DOCTYPE html>\n<p>", "{} is a web page, not a list of class names"),
    "zeros": ("x.txt", b"cat\n\0\0\0\ndog", "{} is no text, not a list of class names"),
    "a long line": ("x.txt", "a" * 100_001 + "\nb", "{} has a line of more than 100,000 characters"),
    "broken json": ("x.json", '["cat", "dog"', "{} is not valid JSON: "),
    "deep json": ("x.json", "[" * 200_000, "{} is not valid JSON: nested too deep"),
    "json text": ("x.json", '"cat"', "{} holds neither a JSON list nor a map"),
    "json number in list": ("x.json", '["cat", 7]', "{}: class 1 has no name but '7'"),
    "json list of three": (
        "x.json",
        '[["a", "b", "c"], "d"]',
        "{}: class 0 has no name but \"['a', 'b', 'c']\"",
    ),
    "json map of texts": ("x.json", '{"cat": "0", "dog": "x"}', "{}: 'cat' is not a class index"),
    "json of something else": ("x.json", '{"epochs": 3, "lr": 0.1}', "{}: 'epochs' is not a class index"),
    "json key twice": ("x.json", '{"0": "cat", "0": "dog"}', "{} names class 0 twice"),
    "json index twice": ("x.json", '{"1": "cat", "01": "dog"}', "{} names class 1 twice"),
    "json from two": ("x.json", '{"2": "cat", "3": "dog"}', "{} has no name for class 0"),
    "json map too short": ("x.json", '{"0": "cat"}', "{} has 1 class name, but the model has 2 classes"),
    "tsv without names": ("x.tsv", "index\tid\n0\t7\n1\t8\n", "{} has no column `name`"),
    "tsv, short row": ("x.tsv", "id\tname\na\tcat\nb\n", "{}: line 3 has 1 column, the header 2"),
    "tsv, index twice": ("x.tsv", "index\tname\n1\tcat\n1\tdog\n", "{} names class 1 twice"),
    "tsv, index missing": ("x.tsv", "index\tname\n0\tcat\n2\tdog\n", "{} has no name for class 1"),
    "tsv, no index": ("x.tsv", "index\tname\n0\tcat\n\tdog\n", "{}: '' is not a class index"),
    "csv without header": ("x.csv", "a,cat\nb,dog\n", "{} has no column `name`"),
    "csv, an open quote": ("x.csv", 'name,note\n"cat,1\ndog,2\n', "{}: line 2 has 1 column, the header 2"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_load_errors(
    write: Callable[[str, str | bytes], str], name: str, content: str | bytes, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(LabelsError) as caught:
        files.load(path, 2)
    assert caught.value.message.startswith(message.format(path))
    assert "\n" not in caught.value.message
    assert hint_of(caught.value)
    assert "\n" not in hint_of(caught.value)


def test_load_999_of_1000(write: Callable[[str, str | bytes], str]) -> None:
    path = write("x.txt", PAGES["/short.txt"])
    with pytest.raises(LabelsError) as caught:
        files.load(path, 1000)
    assert caught.value.message == f"{path} has 999 class names, but the model has 1000 classes"
    assert str(hint_of(caught.value)).startswith("the forms: one name a line")


def test_load_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"nothing\.txt: no such file"):
        files.load(str(tmp_path / "nothing.txt"), 2)
    with pytest.raises(LabelsError, match="cannot be read: is a directory"):
        files.load(str(tmp_path), 2)
    with pytest.raises(LabelsError, match="no such file"):
        files.load("a\0b", 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_load_from_a_pipe_without_a_writer_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LabelsError, match=r"pipe cannot be read: no data came in 0\.2 seconds"):
        files.load(str(tmp_path / "pipe"), 2)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors have no names")
def test_load_from_the_shells_process_substitution() -> None:
    """`--labels <(printf 'cat\\ndog\\n')` names a pipe like this one; what writes to it may be slow."""
    reader, writer = os.pipe()

    def write() -> None:
        time.sleep(0.1)
        os.write(writer, b"cat\ndo")
        time.sleep(0.1)
        os.write(writer, b"g\n")
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert files.load(f"/dev/fd/{reader}", 2).names == ("cat", "dog")
    finally:
        thread.join()
        os.close(reader)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device without end")
def test_load_from_an_endless_device_is_bounded() -> None:
    with pytest.raises(LabelsError, match="/dev/zero has more than 16,777,216 bytes"):
        files.load("/dev/zero", 2)


def test_load_too_large(write: Callable[[str, str | bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_BYTES", 7)
    assert len(files.load(write("x.txt", "cat\ndog"), 2)) == 2
    with pytest.raises(LabelsError, match="more than 7 bytes"):
        files.load(write("x.txt", "cat\ndog\n"), 2)


def test_load_url(server: str) -> None:
    for url in (f"{server}/three.json", f"{server}/three.csv?raw=1"):
        assert files.load(url, 3) == ClassNames(("a", "b", "c"), (None, None, None), url)
    names = files.load(f"{server}/imagenet_classes.txt", 1000)
    assert names.names == imagenet().names


def test_load_url_errors(server: str) -> None:
    with pytest.raises(LabelsError, match=r"/gone\.txt: the server answered 404") as caught:
        files.load(f"{server}/gone.txt", 3)
    assert hint_of(caught.value)
    with pytest.raises(LabelsError, match=r"/three\.json has 3 class names, but the model has 4 classes"):
        files.load(f"{server}/three.json", 4)
    assert files.load(f" {server}/three.json\n", 3) == files.load(f"{server}/three.json", 3)
    with pytest.raises(LabelsError, match=r"^s3://bucket/names\.txt: "):
        files.load("s3://bucket/names.txt", 3)


# Search.


def found(query: str, names: ClassNames | None = None) -> list[str]:
    return [entry.name for entry in search(query, names or imagenet())]


def test_search_names_and_synonyms() -> None:
    entries = search("terrier", imagenet())
    # Names come first, then the Maltese dog by a synonym, then others by their definitions.
    assert entries[0].name == "toy terrier"
    by_name = [entry for entry in entries if "terrier" in entry.name.split()]
    assert entries[: len(by_name)] == by_name
    assert [entry.index for entry in by_name] == sorted(entry.index for entry in by_name)
    assert entries[len(by_name)] == ClassEntry(
        index=153,
        id="n02085936",
        name="Maltese dog",
        synonyms=("Maltese terrier", "Maltese"),
        definition="breed of toy dogs having a long straight silky white coat",
    )
    assert sum("terrier" in " ".join((e.name, *e.synonyms)).lower() for e in entries) == 24


@pytest.mark.parametrize("query", ["airplane", "airplanes", "Airplane", "commercial airplane"])
def test_search_finds_words_of_definitions(query: str) -> None:
    assert found(query)[0] == "airliner"


def test_search_puts_whole_words_before_parts() -> None:
    assert found("plane") == ["plane", "warplane", "aircraft carrier", "seat belt", "planetarium"]
    assert found("cat").index("tiger cat") < found("cat").index("tabby") < found("cat").index("bullfrog")


def test_search_takes_plurals_hyphens_and_words_in_any_order() -> None:
    assert found("dogs")[0] == "Maltese dog"
    assert found("sports cars") == found("cars sports") == ["sports car"]
    assert found("t shirt") == found("T-shirt") == ["jersey"]


@pytest.mark.parametrize("query", ["samoyed", "SAMOYEDE", "n02111889", "N02111889", "258", " 258 ", "0258"])
def test_search_finds_the_samoyed(query: str) -> None:
    assert [entry.index for entry in search(query, imagenet())] == [258]


def test_search_by_the_start_of_an_id() -> None:
    found = search("n02111", imagenet())
    assert [entry.index for entry in found] == [255, 256, 257, 258]
    assert search("02111889", imagenet()) == []


@pytest.mark.slow
def test_search_all_and_none() -> None:
    names = imagenet("imagenet-22k")
    everything = search("", names)
    assert [entry.index for entry in everything] == list(range(21841))
    assert everything[0].definition.startswith("a living thing")
    assert search("  ", names) == everything
    assert search("no such thing", names) == []


def test_search_names_without_ids() -> None:
    names = ClassNames(("great_white_shark", "class 1", "Sammy"), (None, None, "n02111889"), "test")
    assert search("White Shark", names) == [ClassEntry(0, None, "great_white_shark", (), "")]
    assert [entry.index for entry in search("1", names)] == [1]
    # WordNet's own words are synonyms of the user's.
    assert search("samoyed", names)[0].synonyms == ("Samoyed", "Samoyede")
    assert search("n02", names)[0].index == 2


# Download.


def test_download_good(server: str, tmp_path: Path) -> None:
    path = files.download(f"{server}/imagenet_classes.txt", cache=tmp_path / "cache")
    assert path == tmp_path / "cache" / "imagenet_classes.txt"
    assert path.read_bytes() == PAGES["/imagenet_classes.txt"]
    assert [entry.name for entry in path.parent.iterdir()] == ["imagenet_classes.txt"]
    assert files.load(str(path), 1000).names[258] == "Samoyed"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("/short.txt", "has 999 class names, not one on each of 1000 lines"),
        ("/long.txt", "has 1001 class names, not one on each of 1000 lines"),
        ("/hole.txt", "has 999 class names, not one on each of 1000 lines"),
        ("/page.html", "is a web page, not a list of class names"),
        ("/latin1.txt", "is not UTF-8 text"),
        ("/gone.txt", "the server answered 404"),
    ],
)
def test_download_of_anything_else_writes_nothing(server: str, tmp_path: Path, page: str, message: str) -> None:
    kept = tmp_path / "imagenet_classes.txt"
    kept.write_text("the one before")
    with pytest.raises(LabelsError) as caught:
        files.download(server + page, cache=tmp_path)
    assert caught.value.message.startswith(server + page)
    assert message in caught.value.message
    assert hint_of(caught.value)
    assert kept.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.slow
def test_download_without_a_server(tmp_path: Path) -> None:
    probe = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port = probe.server_port
    probe.server_close()
    with pytest.raises(LabelsError, match="no answer from"):
        files.download(f"http://127.0.0.1:{port}/x.txt", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_into_a_file(server: str, tmp_path: Path) -> None:
    blocker = tmp_path / "cache"
    blocker.write_text("")
    with pytest.raises(OutputError):
        files.download(f"{server}/imagenet_classes.txt", cache=blocker)
    assert blocker.read_text() == ""


def test_seed_url_is_the_pytorch_list() -> None:
    assert files.SEED_URL.startswith("https://")
    assert files.SEED_URL.endswith("/pytorch/hub/master/imagenet_classes.txt")
    assert files.download.__defaults__ == (files.SEED_URL,)


def test_well_known_class_index_form(write: Callable[[str, str | bytes], str]) -> None:
    ours = imagenet()
    index = {str(i): [ours.ids[i], ours.names[i].replace(" ", "_")] for i in range(1000)}
    loaded = files.load(write("imagenet_class_index.json", json.dumps(index)), 1000)
    assert loaded.ids == ours.ids
    assert (loaded.names[0], loaded.names[2]) == ("tench", "great_white_shark")


# ImageNet's own files, in the orders of their makers.

SETS = imagenet()
PAIRS = list(zip(SETS.ids, SETS.names, strict=True))
SHUFFLED = [PAIRS[index] for index in sorted(range(1000), key=lambda index: index * 7919 % 1000)]
IN_ANOTHER_ORDER = {
    "devkit": "".join(f"{id} {k} {name.replace(' ', '_')}\n" for k, (id, name) in enumerate(SHUFFLED, 1)),
    "words": "".join(f"{id} {name}, another word\n" for id, name in SHUFFLED),
    "ids": "".join(f"{id}\n" for id, _ in SHUFFLED),
    "class index": json.dumps({str(k): pair for k, pair in enumerate(SHUFFLED)}),
    "map to words": json.dumps(dict(SHUFFLED)),
    "map to index": json.dumps({id: k for k, (id, _) in enumerate(SHUFFLED)}),
    "table": "label,wnid\n" + "".join(f'"{name}",{id}\n' for id, name in SHUFFLED),
    "lines with the id at the end": "".join(f"{name},{id}\n" for id, name in SHUFFLED),
}


@pytest.mark.parametrize("content", IN_ANOTHER_ORDER.values(), ids=IN_ANOTHER_ORDER)
def test_wordnet_ids_decide_the_order(write: Callable[[str, str | bytes], str], content: str) -> None:
    loaded = files.load(write("x.txt", content), 1000)
    assert loaded.ids == SETS.ids
    assert [name.replace("_", " ") for name in loaded.names] == [name.replace("_", " ") for name in SETS.names]


NAMES_ALONE = {
    "lines": THOUSAND,
    "python map": "{" + ",\n ".join(f"{index}: {name!r}" for index, name in enumerate(SETS.names)) + "}",
    "with background": "background\n" + THOUSAND,
    "synonyms": "".join(f"{', '.join((entry.name, *entry.synonyms))}\n" for entry in search("", imagenet())),
    "numbered from one": "".join(f"{k} {name}\n" for k, name in enumerate(SETS.names, 1)),
}


@pytest.mark.parametrize("content", NAMES_ALONE.values(), ids=NAMES_ALONE)
def test_names_of_imagenet_get_its_ids(write: Callable[[str, str | bytes], str], content: str) -> None:
    loaded = files.load(write("x.txt", content), 1000)
    assert loaded.ids == SETS.ids
    assert loaded.names[967].startswith("espresso")


@pytest.mark.parametrize("form", ["lines", "map", "reversed", "swapped", "cycle"])
def test_names_of_imagenet_in_another_order_are_refused(
    write: Callable[[str, str | bytes], str], form: str
) -> None:
    names = [name for _, name in SHUFFLED]
    content = {
        "lines": "\n".join(names),
        "map": json.dumps(dict(enumerate(names))),
        "reversed": "\n".join(reversed(SETS.names)),
        "swapped": "\n".join([*SETS.names[:967], SETS.names[968], SETS.names[967], *SETS.names[969:]]),
        "cycle": "\n".join([SETS.names[2], *SETS.names[:2], *SETS.names[3:]]),
    }[form]
    path = write("x.txt", content)
    with pytest.raises(LabelsError) as caught:
        files.load(path, 1000)
    assert caught.value.message == (
        f"{path} has names of imagenet-1k, but in another order: which class is which is not certain"
    )


def test_a_map_that_lost_classes_of_one_name_is_refused(write: Callable[[str, str | bytes], str]) -> None:
    indices = {name: index for index, name in enumerate(SETS.names)}
    path = write("x.json", json.dumps(indices))
    with pytest.raises(LabelsError) as caught:
        files.load(path, 1000)
    assert caught.value.message == (
        f"{path} has 998 class names, but the model has 1000 classes: "
        "two classes share each of the names crane and maillot"
    )
    assert "WordNet id" in str(hint_of(caught.value))
    with pytest.raises(LabelsError, match="has 998 class names, but the model has 1000 classes"):
        files.load(write("x.txt", "".join(f"own {index}\n" for index in range(998))), 1000)


def test_a_thousand_other_classes_have_no_ids(write: Callable[[str, str | bytes], str]) -> None:
    own = [f"species {index}" for index in range(1000)]
    assert files.load(write("x.txt", "\n".join(own)), 1000).ids == (None,) * 1000
    few = [*own[:-3], "tench", "goldfish", "espresso"]
    loaded = files.load(write("x.txt", "\n".join(few)), 1000)
    assert (loaded.names, loaded.ids) == (tuple(few), (None,) * 1000)


UNCERTAIN = {
    "ids of no set, not in order": ("n02111889\nn01440764\n", "its WordNet ids are not in order"),
    "ids of no set, numbered from one": ("n02111889 1 a\nn01440764 2 b\n", "its WordNet ids are not in order"),
    "some ids": ("n01440764\ndog\n", "some classes have a WordNet id, others none"),
    "an id twice": ("n01440764 a\nn01440764 b\n", "names class n01440764 twice"),
    "numbers that may be indices": ("1 cent\n0 euro\n", "nothing says whether the numbers, like that of '1 cent'"),
    "numbers with a gap": ("0 cat\n2 dog\n", "nothing says whether the numbers, like that of '0 cat'"),
    "a number twice": ("0: cat\n0: dog\n", "nothing says whether the numbers, like that of '0: cat'"),
}


@pytest.mark.parametrize(("content", "message"), UNCERTAIN.values(), ids=UNCERTAIN)
def test_ambiguous_lists_are_refused(write: Callable[[str, str | bytes], str], content: str, message: str) -> None:
    with pytest.raises(LabelsError) as caught:
        files.load(write("x.txt", content), 2)
    assert message in caught.value.message
    assert hint_of(caught.value)


def test_pairs_of_a_list_are_placed_by_their_indices(write: Callable[[str, str | bytes], str]) -> None:
    pairs = [["0", "cat"], ["1", "dog"], ["3", "hen"], ["2", "fish"]]
    loaded = files.load(write("x.json", json.dumps(pairs)), 4)
    assert (loaded.names, loaded.ids) == (("cat", "dog", "fish", "hen"), (None,) * 4)


PLACED_BY_A_COLUMN = {
    "unnamed": (".csv", ",name\n3,hen\n2,fish\n0,cat\n1,dog\n"),
    "unnamed, tabs": (".tsv", "\tname\n3\then\n2\tfish\n0\tcat\n1\tdog\n"),
    "label": (".csv", "label,name\n3,hen\n2,fish\n0,cat\n1,dog\n"),
    "category": (".csv", "category,name\n4,hen\n3,fish\n1,cat\n2,dog\n"),
    "name first": (".csv", "label,encoded\nhen,3\nfish,2\ncat,0\ndog,1\n"),
    "from one": (".csv", "no,name\n4,hen\n3,fish\n1,cat\n2,dog\n"),
    "number": (".csv", "number,class\n3,hen\n2,fish\n0,cat\n1,dog\n"),
    "value": (".txt", "value,name\n3,hen\n2,fish\n0,cat\n1,dog\n"),
    "semicolons": (".csv", "value;name\n3;hen\n2;fish\n0;cat\n1;dog\n"),
    "floats": (".csv", "code,name\n3.0,hen\n2.0,fish\n0.0,cat\n1.0,dog\n"),
    "two that agree": (".csv", ",number,name\n3,4,hen\n2,3,fish\n0,1,cat\n1,2,dog\n"),
    "beside counts": (".csv", "images,code,name\n70,3,hen\n9,2,fish\n70,0,cat\n8,1,dog\n"),
    "beside row numbers": (".csv", ",class_id,name\n0,3,hen\n1,2,fish\n2,0,cat\n3,1,dog\n"),
    "an index that is none": (".csv", "index,code,name\n8,3,hen\n9,2,fish\n5,0,cat\n5,1,dog\n"),
    "objects": (
        ".json",
        '[{"label": 3, "name": "hen"}, {"label": 2, "name": "fish"},'
        ' {"label": 0, "name": "cat"}, {"label": 1, "name": "dog"}]',
    ),
    "objects, floats": (
        ".json",
        '[{"code": 3.0, "name": "hen"}, {"code": 2.0, "name": "fish"},'
        ' {"code": 0.0, "name": "cat"}, {"code": 1.0, "name": "dog"}]',
    ),
    "objects, text": (
        ".json",
        '[{"index": "3", "label": "hen"}, {"index": "2", "label": "fish"},'
        ' {"index": "0", "label": "cat"}, {"index": "1", "label": "dog"}]',
    ),
    "yaml": (
        ".yaml",
        "names:\n- {id: 3, name: hen}\n- {id: 2, name: fish}\n- id: 0\n  name: cat\n- {id: 1, name: dog}\n",
    ),
    "yaml, top": (
        ".yml",
        "- {id: 3, name: hen}\n- {id: 2, name: fish}\n- {id: 0, name: cat}\n- {id: 1, name: dog}\n",
    ),
}


@pytest.mark.parametrize(("suffix", "content"), PLACED_BY_A_COLUMN.values(), ids=PLACED_BY_A_COLUMN)
def test_classes_of_a_table_are_placed_by_the_column_that_numbers_them(
    write: Callable[[str, str | bytes], str], suffix: str, content: str
) -> None:
    loaded = files.load(write(f"x{suffix}", content), 4)
    assert (loaded.names, loaded.ids) == (("cat", "dog", "fish", "hen"), (None,) * 4)


def test_classes_of_a_table_may_be_called_by_numbers(write: Callable[[str, str | bytes], str]) -> None:
    assert files.load(write("x.csv", "index,name\n1,7\n0,3\n"), 2).names == ("3", "7")
    assert files.load(write("x.json", '[{"id": 1, "name": "0"}, {"id": 0, "name": "1"}]'), 2).names == (
        "1",
        "0",
    )


NOT_PLACED = {
    "a gap": (
        "x.csv",
        "code,name\n5,hen\n2,fish\n0,cat\n1,dog\n",
        "column 'code' has neither 0, 1, 2, ... nor 1, 2, 3",
    ),
    "an empty cell": ("x.csv", "code,name\n3,hen\n2,fish\n,cat\n1,dog\n", "column 'code' has neither"),
    "a number twice": ("x.csv", "code,name\n3,hen\n2,fish\n2,cat\n1,dog\n", "column 'code' has neither"),
    "below zero": ("x.csv", "code,name\n2,hen\n1,fish\n-1,cat\n0,dog\n", "column 'code' has neither"),
    "several": ("x.csv", ",code,name\n0,3,hen\n1,2,fish\n2,0,cat\n3,1,dog\n", "whether column '' or 'code' is"),
    "indices in words": (
        "x.csv",
        "label,name\nclass 3,hen\nclass 2,fish\nclass 0,cat\nclass 1,dog\n",
        "column 'label' has neither",
    ),
    "indices in codes": ("x.csv", "id,name\nc3,hen\nc2,fish\nc0,cat\nc1,dog\n", "column 'id' has neither"),
    "objects with a gap": (
        "x.json",
        '[{"label": 5, "name": "hen"}, {"label": 0, "name": "cat"}]',
        "column 'label' has",
    ),
    "one title twice": ("x.csv", "class,class\n3,hen\n2,fish\n0,cat\n1,dog\n", "has no column `name`"),
    "some objects": ("x.json", '[{"id": 1, "name": "hen"}, {"name": "cat"}]', "column 'id' has neither"),
    "some pairs": ("x.json", '[[1, "hen"], "cat"]', "some classes have an index, others none"),
    "images": ("x.csv", "path,label\na/1.jpg,hen\na/2.JPEG,cat\n", "is a list of images, not of classes"),
    "images with numbers": ("x.csv", "label,path\n1,a/1.jpg\n0,a/2.png\n", "is a list of images, not of classes"),
    "images without a header": ("x.txt", "a/1.jpg 1\na/2.jpg 0\n", "is a list of images, not of classes"),
    "objects of images": (
        "x.json",
        '[{"file": "1.jpg", "label": "hen"}, {"file": "2.jpg", "label": "cat"}]',
        "is a list of images, not of classes",
    ),
    "map of images": ("x.json", '{"1.jpg": 1, "2.jpg": 0}', "is a list of images, not of classes"),
}


@pytest.mark.parametrize(("name", "content", "message"), NOT_PLACED.values(), ids=NOT_PLACED)
def test_tables_without_a_certain_index_are_refused(
    write: Callable[[str, str | bytes], str], name: str, content: str, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(LabelsError) as caught:
        files.load(path, 2 if name.endswith(".json") else 4)
    assert caught.value.message.startswith(path)
    assert message in caught.value.message
    assert hint_of(caught.value)


NUMBERED_BY_HAND = (
    *(
        "#{i} {name}",
        "# {i} {name}",
        "#{i}: {name}",
        "({i}) {name}",
        "[{i}] {name}",
        "[{i}]: {name}",
        "{i}) {name}",
    ),
    *("{i} - {name}", "{i} -> {name}", "{i}=>{name}", "{i} \u2013 {name}", "{i}.0,{name}"),
    *("{name} -> {i}", "{name} - {i}", "{name}=>{i}", "{name} ({i})", "{name} [{i}]", "{name} #{i}"),
    *("- {i}: {name}", "* {name}: {i}", "- {{id: {i}, name: {name}}}", "- [{i}, {name}]", "'{name}': {i},"),
)


@pytest.mark.parametrize("form", NUMBERED_BY_HAND)
def test_line_numbers_are_read_with_any_separator(write: Callable[[str, str | bytes], str], form: str) -> None:
    content = "\n".join(
        form.format(i=i, name=name) for i, name in ((3, "hen"), (2, "fish"), (0, "cat"), (1, "dog"))
    )
    assert files.load(write("x.txt", content), 4).names == ("cat", "dog", "fish", "hen")


@pytest.mark.parametrize(
    "form", ["class {i}: {name}", "{i}-{name}", "{name}_{i}", "| {i} | {name} |", "c{i} {name}"]
)
@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_numbers_in_names_for_another_order_are_refused(
    write: Callable[[str, str | bytes], str], form: str, suffix: str
) -> None:
    names = [form.format(i=i, name=name) for i, name in ((3, "hen"), (2, "fish"), (0, "cat"), (1, "dog"))]
    path = write(f"x{suffix}", json.dumps(names) if suffix == ".json" else "\n".join(names))
    with pytest.raises(LabelsError) as caught:
        files.load(path, 4)
    message = f"{path}: nothing says whether the numbers, like that of {names[0]!r}, are indices"
    assert caught.value.message == message


@pytest.mark.parametrize("bullet", ["-", "*", "+", "\u2022"])
def test_bullets_of_every_line_are_left_out(write: Callable[[str, str | bytes], str], bullet: str) -> None:
    assert files.load(write("x.txt", f"{bullet} cat\n{bullet}  red fox\n"), 2).names == ("cat", "red fox")
    assert files.load(write("x.txt", f"{bullet} cat\nfox\n"), 2).names == (f"{bullet} cat", "fox")


def test_objects_of_a_map_agree_with_its_keys(write: Callable[[str, str | bytes], str]) -> None:
    content = '{{"{}": {{"id": 1, "name": "dog"}}, "{}": {{"id": 0, "name": "cat"}}}}'
    assert files.load(write("x.json", content.format(2, 1)), 2).names == ("cat", "dog")
    with pytest.raises(LabelsError, match="nothing says whether column 'key' or 'id' is the class index"):
        files.load(write("x.json", content.format(1, 2)), 2)


def test_numbers_after_a_name_may_be_its_own(write: Callable[[str, str | bytes], str]) -> None:
    assert files.load(write("x.txt", "Airbus 320\nBoeing 707\n"), 2).names == ("Airbus 320", "Boeing 707")


REPEATED = f"a: &a [{'x, ' * 2000}]\nb: &b [{'*a , ' * 2000}]\nnames: [{'*b , ' * 2000}]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        "names: " + "[" * 5000,
        "names: [" + "a, " * 400_000 + "]",
        "names: &a [*a, *a]",
        "names: {0: [a, {b: c}]}",
        REPEATED,
    ],
    ids=["deep", "large", "recursive", "nested", "repeated"],
)
def test_yaml_has_bounds(write: Callable[[str, str | bytes], str], content: str) -> None:
    with pytest.raises(LabelsError):
        files.load(write("x.yaml", content), 2)


@pytest.mark.slow
def test_hostile_lines_do_not_take_long(write: Callable[[str, str | bytes], str]) -> None:
    for line in (" : " * 30_000, "1" * 99_000, "a " * 40_000 + "n0144076", "a:" * 40_000 + "n01440764x"):
        path = write("x.txt", f"a{line}b\n" * 20)
        start = time.perf_counter()
        files.load(path, 20)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("text", ["0\r0\n", "\r\n\r", 'name,"\r0\n', "a\rb"])
def test_carriage_returns_in_lines_are_no_crash(write: Callable[[str, str | bytes], str], text: str) -> None:
    for suffix in (".txt", ".csv", ".tsv"):
        try:
            assert files.load(write(f"x{suffix}", text), 2).names
        except LabelsError as error:
            assert hint_of(error)
