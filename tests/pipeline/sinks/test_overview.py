"""Many images on a terminal: a line for each, as wide as the terminal allows, and a summary."""

from __future__ import annotations

import gc
import io
import os
import re
import tracemalloc
from collections.abc import Callable

import pytest

from resnetd_cli.errors import ErrorKind
from resnetd_cli.pipeline.sinks import screen
from resnetd_cli.pipeline.sinks.base import open_sink
from resnetd_cli.pipeline.sinks.screen import columns, fit, fit_name
from resnetd_cli.results import Classified, Failure, Prediction

Result = Classified | Failure
Shown = Callable[..., list[str]]
WIDTHS = (20, 40, 60, 80, 120, 200)
STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return the lines that results have on a terminal of so many columns, with styles left out."""

    def show(results: list[Result], width: int = 80, **options: object) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        stream = Screen()
        sink = open_sink("overview", stream, names=[result.input for result in results], **options)
        for result in results:
            sink.write(result)
        sink.close()
        return [line.rstrip() for line in STYLES.sub("", stream.getvalue()).splitlines()]

    return show


def classified(name: str, label: str = "tabby", probability: float = 0.9546, index: int = 281) -> Classified:
    return Classified(name, "m", (Prediction(1, index, None, label, probability),))


def crane(name: str, index: int, sense: str) -> Classified:
    return Classified(name, "m", (Prediction(1, index, None, "crane", 0.5, sense),))


def failed(name: str, kind: ErrorKind = ErrorKind.EMPTY, message: str = "zero bytes", hint: str = "") -> Failure:
    return Failure(name, "m", kind, message, hint or None)


NAMES = {
    "short": "a.jpg",
    "folders": "photos/2019/summer/IMG_0001.jpg",
    "long": "photos/" + "a-very-long-name-" * 10 + "0001.jpg",
    "url": "https://example.org/" + "images/" * 20 + "dog.jpg?size=large",
    "han": "写真/" + "猫" * 60 + "0001.jpg",
    "emoji": "😀👍🏽❤️" * 20 + "0001.jpg",
    "combining": "e\u0301" * 100 + "0001.jpg",
    "escapes": "\x1b[31m" * 20 + "0001.jpg",
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_line_fits_the_terminal_whatever_the_name(shown: Shown, width: int, name: str) -> None:
    label = "a class with a name that is rather longer than those of ImageNet"
    results = [classified(name, label), failed(name, message="no " * 50), classified("b.jpg", probability=1.0)]
    lines = shown(results, width, summary=False)
    assert len(lines) == 3
    assert max(map(columns, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert lines[1].endswith("…") or width == 200


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_are_aligned(shown: Shown, width: int) -> None:
    results = [classified(name) for name in NAMES.values()]
    starts = {columns(line[: line.index("tabby")]) for line in shown(results, width, summary=False)}
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (20, "…/IMG.jpg  tabby"),
        (35, "…/photos/IMG.jpg   tabby"),
        (36, "…/IMG.jpg      tabby           95.5%"),
        (71, "the/photos/IMG.jpg  tabby                            95.5%"),
        (72, "the/photos/IMG.jpg  tabby                            95.5%  ━━━━━━━━━━"),
        (120, "the/photos/IMG.jpg  tabby                            95.5%  ━━━━━━━━━━━━━━━━━━━"),
    ],
)
def test_a_narrow_terminal_has_fewer_columns(shown: Shown, width: int, line: str) -> None:
    assert shown([classified("the/photos/IMG.jpg")], width)[0] == line


def test_a_failed_input_is_a_line_too(shown: Shown) -> None:
    lines = shown([classified("a.jpg"), failed("b.jpg"), Classified("c.jpg", "m", ())], summary=False)
    assert [line.split() for line in lines] == [
        ["a.jpg", "tabby", "95.5%", "━" * 10],
        ["b.jpg", "error:", "zero", "bytes"],
        ["c.jpg", "abstained"],
    ]


@pytest.mark.slow
def test_the_summary_counts_classes_and_groups_failures(shown: Shown) -> None:
    results: list[Result] = [classified(f"{number}.jpg") for number in range(1200)]
    results += [classified("x.jpg", f"class {index}", index=index) for index in range(11)]
    results += [Classified("y.jpg", "m", ())]
    results += [failed(f"e{number}.jpg", hint="download it again") for number in range(5)]
    results += [failed("u.jpg", ErrorKind.UNDECODABLE, "not an image", "convert it")]
    lines = shown(results)[len(results) :]
    assert lines[0] == ""
    assert (
        re.sub(r"in .* s:", "in T s:", lines[1]) == "1,218 images in T s: 1,211 classified, 1 abstained, 6 failed"
    )
    assert lines[2:] == [
        "  1,200  tabby",
        *(f"      1  class {index}" for index in range(9)),
        "      2  in 2 other classes",
        "      5  empty: e0.jpg, e1.jpg, e2.jpg and 2 more",
        "      1  undecodable: u.jpg",
        "hint: download it again",
        "hint: convert it",
    ]


def test_classes_of_the_same_name_are_counted_separately(shown: Shown) -> None:
    lines = shown([crane("a.jpg", 134, "bird"), crane("b.jpg", 517, "machine"), crane("c.jpg", 517, "machine")])
    assert [line.split("  ")[1] for line in lines[:3]] == ["crane (bird)", "crane (machine)", "crane (machine)"]
    assert lines[5:] == ["  2  crane (machine)", "  1  crane (bird)"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_fits_the_terminal(shown: Shown, width: int) -> None:
    results = [classified("a.jpg", "American Staffordshire terrier"), failed(NAMES["han"], hint="one two " * 20)]
    lines = shown(results, width)
    assert max(map(columns, lines)) <= width
    assert "…" not in "".join(lines[2:]), "a name can be copied from it"
    assert "".join(lines[2:]).replace(" ", "").count("猫" * 60) == 1


def test_one_image_has_no_summary_and_none_has_nothing(shown: Shown) -> None:
    assert len(shown([classified("a.jpg")])) == 1
    assert shown([]) == []


def test_one_image_that_failed_has_its_hint(shown: Shown) -> None:
    assert shown([failed("a.jpg", hint="try again")]) == ["a.jpg  error: zero bytes", "hint: try again"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(Screen):
        def write(self, text: str) -> int:
            return len(text)

    monkeypatch.setenv("COLUMNS", "80")
    sink = open_sink("overview", Nowhere())

    def go_on() -> None:
        for number in range(1000):
            name = "".join(["a", ".jpg"])  # a new object, that Rich's caches know
            sink.write(failed(name, hint=f"hint {number}") if number % 2 else classified(name))
        gc.collect()

    tracemalloc.start()
    go_on()
    before, _ = tracemalloc.get_traced_memory()
    go_on()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 10_000


@pytest.mark.parametrize(
    ("name", "width", "fitted"),
    [
        ("photos/IMG_0001.jpg", 19, "photos/IMG_0001.jpg"),
        ("photos/IMG_0001.jpg", 21, "photos/IMG_0001.jpg  "),
        ("photos/summer/IMG_0001.jpg", 20, "…/IMG_0001.jpg      "),
        ("photos/summer/IMG_0001.jpg", 21, "…/summer/IMG_0001.jpg"),
        ("photos/IMG_0001.jpg", 14, "…/IMG_0001.jpg"),
        ("photos/IMG_0001.jpg", 13, "IMG_0001.jpg "),
        ("photos/IMG_0001.jpg", 11, "IMG…001.jpg"),
        ("a-very-long-name-0001.jpg", 14, "a-ve…-0001.jpg"),
        ("猫の写真0001.jpg", 13, "猫の…0001.jpg"),
        ("猫猫猫猫猫.jpg", 10, "猫…猫.jpg "),
        ("photos/", 5, "…/   "),
    ],
)
def test_a_name_keeps_its_end(name: str, width: int, fitted: str) -> None:
    assert fit_name(name, width) == fitted


def test_a_class_keeps_both_its_ends() -> None:
    assert fit("American Staffordshire terrier", 21) == "American S…re terrier"


@pytest.mark.parametrize(
    ("text", "wide"),
    [("abc", 3), ("猫", 2), ("e\u0301", 1), ("👍🏽", 4), ("❤️", 2), ("ｆ", 2), ("", 0)],
)
def test_a_text_is_measured_as_the_widest_terminal_shows_it(text: str, wide: int) -> None:
    assert columns(text) == wide


@pytest.mark.skipif(os.name == "nt", reason="terminals of Windows show all")
@pytest.mark.parametrize(
    ("codeset", "cut", "drawn"),
    [("ISO-8859-1", "~", "="), ("EUC-JP", "~", "="), ("UTF-8", "…", "━"), ("ANSI_X3.4-1968", "…", "━")],
)
def test_a_terminal_that_is_not_utf_8_gets_bars_and_marks_in_ascii(
    monkeypatch: pytest.MonkeyPatch, shown: Shown, codeset: str, cut: str, drawn: str
) -> None:
    monkeypatch.setattr(screen.locale, "nl_langinfo", lambda _: codeset)
    lines = shown([classified("photos/" * 20 + "a.jpg")], 72, summary=False)
    assert lines[0].split() == [f"{cut}/photos/photos/a.jpg", "tabby", "95.5%", drawn * 10]
