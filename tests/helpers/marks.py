"""Marks of image files."""

from __future__ import annotations

from resnetd_cli.pipeline.decode.content import mark_of
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode


def mark_of_file(data: bytes) -> bytes:
    """Return the mark of an image file."""
    return mark_of(decode(data, DecodeOptions()))
