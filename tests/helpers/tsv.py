"""Reads what the program writes as tab-separated values."""

from __future__ import annotations


def tsv_text(cell: str) -> str:
    """Return the text that `tsv_line` escaped in a cell."""
    return cell.encode("latin-1", "backslashreplace").decode("unicode_escape")
