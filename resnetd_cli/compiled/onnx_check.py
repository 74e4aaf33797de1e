"""Checking an ONNX file before ONNX Runtime opens it: no external data, no unknown operators, no huge tensors.

Only messages that lead to tensors and operators are entered; weights are skipped.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from dataclasses import dataclass, field
from pathlib import Path

from resnetd_cli.system.escaping import printable
from resnetd_cli.system.protobuf import BYTES, VARINT, bytes_field, fields, varints

_DEEPEST = 40
_MOST_MESSAGES = 500_000
_LONGEST_TEXT = 2**26
_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""The allowed operators: those of the standard, and those built into ONNX Runtime."""

# Field numbers of onnx.proto: the fields that hold messages, and what these are.
_INSIDE = {
    "model": {7: "graph", 14: "property", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
_NODE_DOMAIN = 7
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14
_MODEL_PROPERTY = 14
_PROPERTY_KEY, _PROPERTY_VALUE = 1, 2


class UnsafeGraphError(ValueError):
    """The graph uses something that no exported model needs."""


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, after checking that its graph is self-contained.

    Raises:
        UnsafeGraphError: its graph has external data, unknown operators, or impossible tensors.
        ValueError: it is not an ONNX file, or it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        walk = _Walk(content)
        walk.enter("model", 0, len(content), 0)
        return walk.metadata


def property_field(key: str, value: str) -> bytes:
    """Return the bytes of an entry of the metadata, to be appended to an ONNX file."""
    entry = bytes_field(_PROPERTY_KEY, key.encode()) + bytes_field(_PROPERTY_VALUE, value.encode())
    return bytes_field(_MODEL_PROPERTY, entry)


def sha256_without(path: Path, key: str) -> str:
    """Return the SHA-256 of an ONNX file without one entry of its metadata, in hexadecimal.

    Raises:
        ValueError: it is not an ONNX file, or it is damaged.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        walk = _Walk(content)
        start = hashed = 0
        for number, wire, value, end in fields(content, 0, len(content)):
            if (number, wire) == (_MODEL_PROPERTY, BYTES) and walk.property_at(value, end)[0] == key:
                with view[hashed:start] as part:
                    digest.update(part)
                hashed = end
            start = end
        with view[hashed:] as part:
            digest.update(part)
    return digest.hexdigest()


def drop_metadata(path: Path) -> None:
    """Remove all metadata from an ONNX file that ONNX Runtime wrote.

    Raises:
        OSError: it cannot be read or written.
    """
    kept, start = [], 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, _, _, end in fields(content, 0, len(content)):
            if number != _MODEL_PROPERTY:
                kept.append(content[start:end])
            start = end
    path.write_bytes(b"".join(kept))


@dataclass
class _Walk:
    content: mmap.mmap
    metadata: dict[str, str] = field(default_factory=dict)
    messages: int = 0

    def enter(self, kind: str, start: int, stop: int, depth: int) -> None:
        """Check a message and those nested in it."""
        self.messages += 1
        if depth > _DEEPEST or self.messages > _MOST_MESSAGES:
            raise UnsafeGraphError("it is nested too deep, or has too many parts")
        if kind == "sparse":
            raise UnsafeGraphError("it has sparse tensors")
        if kind == "tensor":
            self._check_tensor(start, stop)
        elif kind == "property":
            key, text = self.property_at(start, stop)
            self.metadata[key] = text
        else:
            for number, wire, value, end in fields(self.content, start, stop):
                if wire == BYTES and number in _INSIDE[kind]:
                    self.enter(_INSIDE[kind][number], value, end, depth + 1)
                elif kind == "node" and (number, wire) == (_NODE_DOMAIN, BYTES):
                    self._check_domain(self._text(value, end))

    def _check_domain(self, domain: str) -> None:
        if domain not in _DOMAINS:
            raise UnsafeGraphError(f"it asks for operators of {printable(domain)[:80]}")

    def _check_tensor(self, start: int, stop: int) -> None:
        dims: list[int] = []
        for number, wire, value, end in fields(self.content, start, stop):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value):
                raise UnsafeGraphError("its weights lie in another file")
            if number == _TENSOR_DIMS:
                dims += [value] if wire == VARINT else varints(self.content, value, end)
        # No type packs more than eight values into a byte.
        if any(dim >= 2**63 for dim in dims) or math.prod(dims) > 8 * len(self.content):
            raise UnsafeGraphError("it has a tensor larger than the file")

    def property_at(self, start: int, stop: int) -> tuple[str, str]:
        """Return the key and the text of an entry of the metadata."""
        texts = {
            number: self._text(value, end)
            for number, wire, value, end in fields(self.content, start, stop)
            if wire == BYTES
        }
        return texts.get(_PROPERTY_KEY, ""), texts.get(_PROPERTY_VALUE, "")

    def _text(self, start: int, stop: int) -> str:
        if stop - start > _LONGEST_TEXT:
            raise ValueError("it has an endless text")
        return self.content[start:stop].decode("utf-8", errors="replace")
