"""A real terminal, in tmux: output at several widths, colours, and the progress bar."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.paths import COFFEE, ROOT
from helpers.program import Resnetd

TMUX = shutil.which("tmux")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(TMUX is None, reason="needs tmux")]

WIDTHS = (60, 80, 200)
LONG = "/".join(["a-folder-with-a-rather-long-name"] * 5 + ["coffee.jpg"])
DONE = "THE-END"
ERASED = b"\x1b[2K"
"""What the bar begins with each time it is drawn."""


# The terminal's shell: it runs the command lines one after another as they arrive.
SHELL = """
trap : INT
cd work
n=0
while true; do
    n=$((n + 1))
    until [ -e ../next-$n ]; do sleep 0.05; done
    . ../next-$n
    printf 'THE-END-%s %s\\n' "$n" "$?"
done
"""


class Terminal:
    """A tmux server of our own with one shell in it, of so many columns."""

    def __init__(self, home: Path, columns: int, **environment: str) -> None:
        self.columns = columns
        self.home = home
        self.folder = home / "work"
        self.folder.mkdir(parents=True)
        self.raw = home / "raw"
        self.raw.touch()
        self._runs = 0
        (home / "shell").write_text(SHELL, encoding="utf-8")
        changes = {"TERM": "screen-256color", "LC_ALL": "C.UTF-8", **environment}
        settings = Resnetd(home).env(RESNETD_MODEL="embedded", PYTHONPATH=str(ROOT), **changes)
        shell = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in settings.items()), "sh", "shell"])
        # Not the user's configuration.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "50", "-c", str(home), shell)
        # Every byte that the program sends to the terminal, before tmux turns it into a screen.
        self._tmux("pipe-pane", f"cat > {shlex.quote(str(self.raw))}")

    def run(self, arguments: str, *, timeout: float = 60) -> tuple[int, list[str]]:
        """Run `resnetd ARGUMENTS`; return its exit code and the lines it left, without trailing spaces."""
        self.start(arguments)
        return self.end(timeout=timeout)

    def start(self, arguments: str) -> None:
        """Start `resnetd ARGUMENTS`."""
        self._runs += 1
        line = f"{shlex.quote(sys.executable)} -m resnetd_cli {arguments}\n"
        draft = self.home / "draft"
        draft.write_text(line, encoding="utf-8")
        draft.replace(self.home / f"next-{self._runs}")

    def end(self, *, timeout: float = 60) -> tuple[int, list[str]]:
        """Wait for the end of what was started last; return what `run` does."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            lines = self.screen()
            ends = [place for place, line in enumerate(lines) if line.startswith(DONE)]
            if len(ends) == self._runs:
                start = ends[-2] + 1 if len(ends) > 1 else 0
                return int(lines[ends[-1]].split()[1]), lines[start : ends[-1]]
            time.sleep(0.1)
        raise AssertionError("\n".join(["it did not end:", *self.screen()]))

    def wait_for(self, text: str, *, lines: int = 1, timeout: float = 60) -> None:
        """Wait until so many lines hold a text."""
        deadline = time.monotonic() + timeout
        while sum(text in line for line in self.screen()) < lines:
            assert time.monotonic() < deadline, "\n".join(self.screen())
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press a key, named as tmux names it."""
        self._tmux("send-keys", key)

    def resize(self, columns: int) -> None:
        """Make the terminal narrower or wider."""
        self._tmux("resize-window", "-x", str(columns), "-y", "50")

    def screen(self) -> list[str]:
        """Return the lines there are, as they are drawn."""
        text = self._tmux("capture-pane", "-p", "-S", "-")
        return [line.rstrip() for line in text.splitlines()]

    def sent(self, *, timeout: float = 60) -> bytes:
        """Return all that was sent to the terminal, once the end of each command has arrived."""
        self.wait_until_sent(f"{DONE}-{self._runs}".encode(), timeout=timeout)
        return self.raw.read_bytes()

    def wait_until_sent(self, text: bytes, *, timeout: float = 60) -> None:
        """Wait until a text was sent to the terminal, even if it was erased since."""
        deadline = time.monotonic() + timeout
        while text not in self.raw.read_bytes():
            assert time.monotonic() < deadline, self.raw.read_bytes()
            time.sleep(0.05)

    def hold(self, name: str) -> Callable[[], None]:
        """Make a file that the program waits for when it reads it; return what makes it a photograph."""
        fifo = self.folder / name
        os.mkfifo(fifo)
        return threading.Thread(target=fifo.write_bytes, args=[COFFEE.read_bytes()], daemon=True).start

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        finished = subprocess.run(
            [str(TMUX), "-S", str(self.home / "tmux"), *arguments],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        return finished.stdout


@pytest.fixture
def terminal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, without_torch: dict[str, str]
) -> Iterator[Terminal]:
    """A terminal of `request.param`: its columns, and changes to its environment."""
    columns, environment = request.param
    # A socket's path is limited to about a hundred characters.
    opened = Terminal(tmp_path_factory.mktemp("t"), columns, **without_torch, **environment)
    yield opened
    opened.close()


def terminals(*columns: int, **environment: str) -> pytest.MarkDecorator:
    """Parametrise a test by its terminal."""
    return pytest.mark.parametrize(
        "terminal", [(width, environment) for width in columns], ids=map(str, columns), indirect=True
    )


@terminals(*WIDTHS)
def test_table_fits_the_terminal_and_shows_long_paths_whole(terminal: Terminal) -> None:
    path = terminal.folder / LONG
    path.parent.mkdir(parents=True)
    shutil.copy(COFFEE, path)
    code, lines = terminal.run(f"predict {LONG}")
    assert code == 0
    folded = -(-len(LONG) // terminal.columns)
    assert "".join(lines[:folded]) == LONG
    # A line that is too long would be broken by the terminal, and the table with it.
    empty, head, rule, *rows = lines[folded : folded + 8]
    assert empty == ""
    assert (head.split()[:2], head.split()[-1]) == (["#", "class"], "probability")
    assert set(rule.strip()) == {"─"}
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert "espresso" in rows[0]
    assert "95.46%" in rows[0]
    assert ("━" in rows[0]) == (terminal.columns >= 78)
    assert [line for line in lines[folded + 8 :] if line] == []


@terminals(*WIDTHS)
def test_list_models_fits_the_terminal(terminal: Terminal) -> None:
    code, lines = terminal.run("list-models")
    assert code == 0
    head, _, *rows = [line for line in lines if line]
    # No row goes on in a second line.
    assert len(rows) == 15
    assert rows[-1].split()[0] == "resnet200d.ra2_in1k"
    assert head.split()[0] == "model"
    assert ("license" in head) == (terminal.columns == 200)


@terminals(*WIDTHS)
def test_info_fits_the_terminal(terminal: Terminal) -> None:
    code, lines = terminal.run("info resnet50d")
    assert code == 0
    assert lines[0].split() == ["model", "resnet50d.ra2_in1k"]
    # What does not fit goes on in the second column.
    column = lines[0].index("resnet50d")
    assert all(line[:column].strip() in ("", *HEADINGS) for line in lines if line)


HEADINGS = (
    "model",
    "architecture",
    "the D tweak",
    "classes",
    "parameters",
    "work",
    "accuracy",
    "preprocessing",
    "normalised by",
    "--image-size test",
    "license",
    "hub",
    "file size",
    "engine",
    "compiled",
    "weights",
)


@terminals(100)
def test_tables_leave_failures_to_stderr(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict missing.jpg {COFFEE} -k 1 -f table")
    assert code == 3
    assert [line for line in lines if "missing.jpg" in line] == ["error: missing.jpg: no such file or folder"]
    assert lines.index("error: missing.jpg: no such file or folder") < lines.index(str(COFFEE))
    assert lines[-1] == "1 of 2 inputs failed"
    assert b"\x1b[31m" in terminal.sent(), "red for errors"
    assert b"\x1b[32m" in terminal.sent(), "green for bars"


@terminals(20, 40, 60, 80, 120)
def test_overview_of_many_images_fits_the_terminal(terminal: Terminal) -> None:
    names = ("cup.jpg", "猫の写真と長い名前のファイル.jpg", "👍🏽❤️ and some more words to make it long.jpg")
    for name in names:
        shutil.copy(COFFEE, terminal.folder / name)
    code, lines = terminal.run(f"predict {shlex.join(names)} missing.jpg -q")
    wide = terminal.columns
    assert code == 3
    assert len(lines) == 4, "no line is broken in two"
    assert all("espresso" in line for line in lines[:3])
    assert all(("95.5%" in line) == (wide >= 36) for line in lines[:3])
    assert all(("━" in line) == (wide >= 72) for line in lines[:3])
    assert lines[0].startswith("cup.jpg ")
    assert lines[1].split()[0].endswith(".jpg")
    assert "error" in lines[3]
    assert b"\x1b[31m" in terminal.sent(), "red for errors"


@terminals(80)
def test_overview_summary_counts_classes_and_failures(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict missing.jpg {COFFEE} {COFFEE} --min-probability 0.5")
    assert code == 3
    assert lines[0].split("  ")[-1].endswith("error: no such file or folder")
    assert [line.split()[1] for line in lines[1:3]] == ["espresso", "espresso"]
    assert lines[3] == ""
    assert lines[4].startswith("3 images in ")
    assert lines[4].endswith(" s: 2 classified, 1 failed")
    assert lines[5:7] == ["  2  espresso", "  1  not_found: missing.jpg"]
    assert lines[7].startswith("hint: ")
    assert len(lines) == 8, "nothing is said twice"


@terminals(80)
def test_interrupt_prints_the_summary_so_far(terminal: Terminal) -> None:
    terminal.folder.joinpath("list").write_text(f"{COFFEE}\n" * 5000, encoding="utf-8")
    terminal.start("predict --files-from list")
    terminal.wait_for("espresso", lines=2)  # one result has no summary
    terminal.press("C-c")
    code, lines = terminal.end()
    assert code == 130
    assert lines[-1].removeprefix("^C") == "interrupted"
    (summary,) = [place for place, line in enumerate(lines) if line.endswith(" classified")]
    done = lines[summary].split()[0]
    assert lines[summary + 1] == f"  {done}  espresso"


@terminals(120)
def test_resized_terminal_gets_narrower_lines(terminal: Terminal) -> None:
    terminal.folder.joinpath("list").write_text(f"{COFFEE}\n" * 5000, encoding="utf-8")
    terminal.start("predict --files-from list")
    terminal.wait_for("espresso")
    terminal.resize(40)
    terminal.wait_for("…/coffee.jpg     espresso          95.5%")
    terminal.press("C-c")
    assert terminal.end()[0] == 130


@terminals(100, NO_COLOR="1")
def test_no_color_disables_escape_codes(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict {COFFEE} -k 1")
    assert code == 0
    assert str(COFFEE) in lines
    assert b"espresso" in terminal.sent()
    assert terminal.run(f"predict {COFFEE} missing.jpg --no-progress")[0] == 3
    assert b"\x1b" not in terminal.sent()


@terminals(100, TERM="dumb")
def test_dumb_terminal_gets_no_escape_codes_and_no_bar(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict {shlex.join([str(COFFEE)] * 3)} missing.jpg -k 1")
    assert code == 3
    assert [line.split()[1] for line in lines[:4]] == ["espresso"] * 3 + ["error:"]
    assert b"\x1b" not in terminal.sent()


@terminals(100)
def test_failed_input_is_in_the_table_if_stderr_is_redirected(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict missing.jpg {COFFEE} -k 1 -f table 2> errors")
    assert code == 3
    assert lines[:2] == ["missing.jpg", "  not_found: no such file or folder"]
    code, lines = terminal.run(f"predict missing.jpg {COFFEE} 2> errors")
    assert code == 3
    assert lines[0].split() == ["missing.jpg", "error:", "no", "such", "file", "or", "folder"]
    assert "missing.jpg: no such file or folder" in (terminal.folder / "errors").read_text(encoding="utf-8")


@terminals(80)
def test_progress_bar_is_shown_and_erased(terminal: Terminal) -> None:
    let_second, let_fourth = terminal.hold("second.jpg"), terminal.hold("fourth.jpg")
    terminal.start(f"predict {COFFEE} second.jpg {COFFEE} fourth.jpg -k 1 -o out.tsv")
    terminal.wait_until_sent(b"1/4 images")
    let_second()
    terminal.wait_until_sent(b"3/4 images")
    let_fourth()
    code, lines = terminal.end()
    assert (code, [line for line in lines if line]) == (0, ["out.tsv: 4 inputs"]), "nothing stays of the bar"
    assert (terminal.folder / "out.tsv").read_text(encoding="utf-8").count("espresso") == 4
    sent = terminal.sent()
    assert b" images/s" in sent
    assert b" left" in sent
    assert b"\x1b[?25l" not in sent, "a cursor that is hidden stays so when the program is killed"


@terminals(80)
def test_no_progress_bar_for_one_image_or_with_no_progress(terminal: Terminal) -> None:
    for arguments in (f"{COFFEE}", f"{COFFEE} {COFFEE} --no-progress"):
        assert terminal.run(f"predict {arguments} -k 1")[0] == 0
    assert ERASED not in terminal.sent()


@terminals(80)
def test_no_bar_if_stdout_is_a_pipe(terminal: Terminal) -> None:
    code, lines = terminal.run(f"predict {shlex.join([str(COFFEE)] * 4)} -k 1 --no-header | cut -f 2,6")
    assert (code, lines) == (0, ["ok\tespresso".expandtabs()] * 4)
    assert ERASED not in terminal.sent()


@terminals(200)
def test_results_and_bar_do_not_garble_each_other(terminal: Terminal) -> None:
    let_eleventh = terminal.hold("eleventh.jpg")
    names = [str(COFFEE)] * 10 + ["eleventh.jpg"] + [str(COFFEE)] * 9
    terminal.start(f"predict {shlex.join(names)} -k 1 -f tsv --no-header")
    terminal.wait_until_sent(b"10/20 images")
    let_eleventh()
    code, lines = terminal.end()
    assert code == 0
    assert [line.split()[:4] for line in lines if line] == [[name, "ok", "1", "967"] for name in names]
