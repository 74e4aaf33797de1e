"""Tables at the widths of terminals: columns go before words break."""

from __future__ import annotations

import io
import re

import pytest

from resnetd_cli.pipeline.sinks.base import open_sink
from resnetd_cli.results import Classified, Prediction
from resnetd_cli.views.evaluation import _write_table
from resnetd_cli.views.listing import write_facts, write_rows

STYLES = re.compile(r"\x1b\[[0-9;]*m")
WORDS = {"American", "Staffordshire", "terrier", "French", "bulldog"}
ANSWER = Classified(
    "a.jpg",
    "m",
    (
        Prediction(1, 180, "n02093428", "American Staffordshire terrier", 0.6),
        Prediction(2, 245, "n02108915", "French bulldog", 0.02),
    ),
)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """Return its lines, without styles and what they end in."""
        return [line.rstrip() for line in STYLES.sub("", self.getvalue()).splitlines()]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (24, []),
        (34, ["#", "class", "probability"]),
        (46, ["#", "class", "id", "probability"]),
        (60, ["#", "class", "index", "id", "probability"]),
    ],
)
def test_a_narrow_table_has_fewer_columns_and_whole_words(
    monkeypatch: pytest.MonkeyPatch, width: int, headings: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    open_sink("table", screen).write(ANSWER)
    lines = screen.shown()
    assert max(map(len, lines)) <= width
    assert {word for line in lines for word in line.split()} >= WORDS | {"60.00%", "2.00%"}
    assert (lines[2].split() == headings) == bool(headings)
    assert "━" not in screen.getvalue()


def test_a_table_with_room_for_it_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    screen = Screen()
    open_sink("table", screen).write(ANSWER)
    assert [line.count("━") for line in screen.shown() if "%" in line] == [12, 0]


@pytest.mark.parametrize(("width", "shown"), [(20, ["index", "name"]), (40, ["index", "id", "name"])])
def test_the_essential_column_of_a_list_stays(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    row = {"index": 0, "id": "n01440764", "name": "tench", "definition": "a fish of Eurasia"}
    write_rows([row], screen, "table", columns={key: key for key in row}, essential="name")
    assert screen.shown()[1].split() == shown


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (20, ["class"]),
        (40, ["class", "images", "precision"]),
        (60, ["class", "images", "precision", "recall", "F1"]),
    ],
)
def test_a_narrow_evaluation_keeps_the_classes(
    monkeypatch: pytest.MonkeyPatch, width: int, headings: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    columns = {"class": False, "images": True, "precision": True, "recall": True, "F1": True}
    _write_table(screen, columns, [("German short-haired pointer", "2", "100.00 %", "50.00 %", "66.67 %")])
    assert screen.shown()[1].split() == headings
    shown = " ".join(screen.shown()).split()
    assert {"German", "short-haired", "pointer"} <= set(shown)
    assert ("66.67" in shown) == (width == 60)


@pytest.mark.parametrize("width", [20, 30, 37, 38, 80])
def test_facts_go_below_their_headings_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    write_facts({}, screen, "table", shown={"architecture": "3 + 4", "--image-size test": "288 x 288"})
    if width < 37:
        assert screen.shown() == ["architecture", "  3 + 4", "--image-size test", "  288 x 288"]
    else:
        assert screen.shown() == ["architecture       3 + 4", "--image-size test  288 x 288"]


def test_facts_as_pairs_are_lines_of_key_and_value() -> None:
    stream = io.StringIO()
    write_facts({"a": 1, "b": None, "c": (1, 2), "d\n": "x\ty"}, stream, "pairs", shown={})
    assert stream.getvalue() == "a\t1\nb\t\nc\t1, 2\nd\\n\tx\\ty\n"
