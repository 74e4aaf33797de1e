"""Inspect a pickle without loading it: which names it imports, and whether its objects explode (pickle bombs)."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5
"""Before archives, `torch.save` wrote this many consecutive pickles, followed by raw numbers."""
_LONGEST_NAME = 1000
"""torch would spend hours on a longer one."""
_SEARCHED = 2**20
_MOST_OBJECTS = 2**20
_CHARACTERS = 16
"""Characters of text that count as one part."""
_ROOM = 2**22
_GROWTH = 64
"""Limit on parts, counting each wherever it is used: `_ROOM` plus `_GROWTH` for each part that is created."""
_MUTATES = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})


class PickleBombError(ValueError):
    """A pickle's objects are far larger than the pickle."""


def opcodes(file: Path) -> Iterator[tuple[int, pickletools.OpcodeInfo, Any]]:
    """Yield the opcodes of the pickles that `torch.load` would read, up to the first damage.

    Yields:
        The number of the pickle in the file, the opcode, and its argument.
    """
    try:
        for number, stream in enumerate(_streams(file)):
            for code, argument, _ in pickletools.genops(stream):
                yield number, code, argument
    except Exception:  # any type; torch will report the damage
        return


def names(file: Path) -> Iterator[str]:
    """Yield the names that a file's pickles import."""
    texts: list[str] = []
    for _, code, argument in islice(opcodes(file), _SEARCHED):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif "UNICODE" in code.name:
            texts = [*texts[-1:], str(argument)]


def check(file: Path) -> None:
    """Check that the objects in a file's pickles can be traversed in reasonable time.

    A list that holds the same list twice, and so on, doubles every few bytes, and code that traverses it, such as
    torch's error messages, never finishes.

    Raises:
        PickleBombError: the objects are far larger than the file.
        ValueError: the file asks for something with an endless name.
    """
    objects, current = _Objects(), 0
    for number, code, argument in opcodes(file):
        if number != current:
            objects.check()
            objects, current = _Objects(), number
        if code.name == "GLOBAL" and len(argument) > _LONGEST_NAME:
            raise ValueError("it asks for something with an endless name")
        try:
            objects.step(code.name, argument)
        except (IndexError, KeyError):  # an invalid pickle: torch will stop here too
            break
    objects.check()


def _streams(file: Path) -> Iterator[IO[bytes]]:
    import zipfile

    size = file.stat().st_size  # only a compressed record can be larger, and those are rejected
    with file.open("rb") as stream:
        if stream.read(len(ZIP)) != ZIP:
            stream.seek(0)
            for _ in range(_LEGACY_PICKLES):
                yield stream
            return
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if record.filename.lower().endswith(".pkl"):
                with archive.open(record) as packed:
                    yield io.BytesIO(packed.read(size))  # read from there byte by byte, it takes many times longer


class _Effect(NamedTuple):
    """How an opcode changes the stack.

    Attributes:
        to_mark: it pops everything down to the last mark.
        takes: how many further items it pops.
        mutates: it changes the lowest item that it pops, and leaves it on the stack.
        makes: it pushes something.
    """

    to_mark: bool
    takes: int
    mutates: bool
    makes: bool


def _effect(code: pickletools.OpcodeInfo) -> _Effect:
    before = code.stack_before
    to_mark = pickletools.markobject in before
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    return _Effect(to_mark, takes, code.name in _MUTATES, bool(code.stack_after))


_EFFECTS = {code.name: _effect(code) for code in pickletools.opcodes}
_GETS = frozenset(name for name in _EFFECTS if name.endswith("GET"))
_PUTS = frozenset(name for name in _EFFECTS if name.endswith("PUT"))
_VALUES = frozenset(
    name
    for name, effect in _EFFECTS.items()
    if effect == _Effect(to_mark=False, takes=0, mutates=False, makes=True)
) - {"MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", *_GETS}
"""Opcodes that push a value that never has parts."""


class _Objects:
    """The objects that a pickle creates, by number, and their parts.

    On the stack, an object is its number, a mark is None, and a value without parts is its negated size.
    """

    def __init__(self) -> None:
        self._stack: list[int | None] = []
        self._memo: dict[int, int | None] = {}
        self._sizes: list[int] = []
        self._parts_left: list[int] = []
        self._holders: dict[int, list[int]] = {}
        self._made = 0

    def step(self, name: str, argument: Any) -> None:
        """Execute an opcode."""
        if name in _VALUES:
            size = 1 + (len(argument) // _CHARACTERS if isinstance(argument, (str, bytes)) else 0)
            self._made += size
            self._stack.append(-size)
        elif name in _PUTS:
            self._memo[int(argument)] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name == "MARK":
            self._stack.append(None)
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        else:
            self._apply(_EFFECTS[name])

    def _apply(self, effect: _Effect) -> None:
        taken: list[int] = []
        if effect.to_mark:
            while (item := self._stack.pop()) is not None:
                taken.append(item)
        taken += [item for item in (self._stack.pop() for _ in range(effect.takes)) if item is not None]
        if effect.makes:
            holder = taken.pop() if effect.mutates and taken and taken[-1] >= 0 else self._new()
            self._put(taken, holder)
            self._stack.append(holder)

    def _new(self) -> int:
        if len(self._sizes) >= _MOST_OBJECTS:
            raise PickleBombError(f"it makes more than {_MOST_OBJECTS:,} objects")
        self._sizes.append(1)
        self._parts_left.append(0)
        self._made += 1
        return len(self._sizes) - 1

    def _put(self, parts: Iterable[int], holder: int) -> None:
        for part in parts:
            if part < 0:
                self._sizes[holder] -= part
            else:
                self._parts_left[holder] += 1
                self._holders.setdefault(part, []).append(holder)

    def check(self) -> None:
        """Count the parts of all objects, each wherever it is used, starting from the innermost.

        Raises:
            PickleBombError: there are far more than were created, or objects contain each other.
        """
        bound, total, count = _ROOM + _GROWTH * self._made, 0, 0
        ready = [number for number, left in enumerate(self._parts_left) if not left]
        while ready:
            number = ready.pop()
            count += 1
            total += self._sizes[number]
            if total > bound:
                raise PickleBombError("it holds the same objects over and over, far beyond its size")
            for holder in self._holders.get(number, ()):
                self._sizes[holder] += self._sizes[number]
                self._parts_left[holder] -= 1
                if not self._parts_left[holder]:
                    ready.append(holder)
        if count < len(self._sizes):
            raise PickleBombError("its objects hold each other")
