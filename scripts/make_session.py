"""Draw the picture of a terminal session in the README, `docs/session.svg`, from what the program really prints.

    python scripts/make_session.py            # runs resnetd on a terminal of its own and writes the picture
    python scripts/make_session.py --check    # exits 1 if the picture shows anything else

Needs a system with pseudo-terminals.
"""

from __future__ import annotations

import fcntl
import html
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "session.svg"
WIDTH, HEIGHT = 80, 40
"""Of the terminal, in characters."""
COMMANDS = ("resnetd predict samples/coffee.jpg --model embedded", "resnetd predict photos/ --model embedded")
# Rich's own format names fonts on another server.
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def on_a_terminal(command: str, folder: Path) -> str:
    """Run a command in a folder, with all its streams on a terminal, and return what it prints."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    words = [sys.executable, "-m", "resnetd_cli", *shlex.split(command)[1:], "--no-progress"]
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment):
        os.close(theirs)
        printed = b""
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not data:
                break
            printed += data
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def session() -> list[Text]:
    """Return the lines of the session: each command, and what it prints about the samples and a damaged image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "samples", folder / "samples")
        (folder / "photos").mkdir()
        for photo in ("cat.jpg", "coffee.jpg"):
            shutil.copy(ROOT / "samples" / photo, folder / "photos")
        (folder / "photos" / "half.jpg").write_bytes((ROOT / "samples" / "cat.jpg").read_bytes()[:20_000])
        on_a_terminal(COMMANDS[0], folder)  # compiles the model, which the picture does not show
        lines: list[Text] = []
        for command in COMMANDS:
            lines.append(Text.assemble(("$ ", "bold green"), (command, "bold")))
            lines += [
                Text.from_ansi(line.rstrip()) for line in on_a_terminal(command, folder).rstrip().split("\n")
            ]
            lines.append(Text())
        return lines[:-1]


def drawing(lines: list[Text]) -> str:
    """Return the SVG of these lines."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line, no_wrap=True, crop=True)
    svg = console.export_svg(title="resnetd", code_format=FORMAT, unique_id="session")
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def words(svg: str) -> list[str]:
    """Return the words that a drawing shows, in order, without what differs from run to run: the seconds."""
    shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    return re.sub(r"in [\d.]+ s:", "in N s:", html.unescape(shown).replace("\xa0", " ")).split()


def main() -> None:
    """Write the picture, or check it."""
    current = drawing(session())
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(current, encoding="utf-8")
    elif words(current) != words(PICTURE.read_text(encoding="utf-8")):
        sys.exit(f"{PICTURE.relative_to(ROOT)} is not what resnetd prints: run scripts/make_session.py")


if __name__ == "__main__":
    main()
