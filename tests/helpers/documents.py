"""The Markdown pages, taken apart: their text, command lines, code, links and names."""

from __future__ import annotations

import re

from helpers.paths import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
}
DOCS = {name: text for name, text in PAGES.items() if name == "README.md" or name.startswith("docs/")}
"""The README and the pages it leads to."""


def blocks(name: str, language: str) -> list[str]:
    """Return what a page has in fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[name], flags=re.MULTILINE | re.DOTALL)


def command_lines(name: str) -> list[str]:
    """Return the command lines of a page's console blocks, without their comments."""
    lines = "".join(blocks(name, "console")).splitlines()
    return [re.sub(r"\s{2,}#\s.*$", "", line) for line in lines if line.strip()]


def commands_in_prose(name: str) -> list[str]:
    """Return the command lines that a page names in its prose: `resnetd export MODEL -o FILE.onnx`."""
    return re.findall(r"`(resnetd [^`]+)`", without_blocks(name))


def without_blocks(name: str) -> str:
    """Return a page without what stands in fences."""
    return re.sub(r"^```.*?^```$", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)


def links(name: str) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(name))


def anchors(name: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(name), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
