"""Read a `.pth` file without torch: a dictionary of tensors, as `torch.save` writes it.

The pickle is never loaded. Its opcodes are interpreted, and only those that build dictionaries, lists, numbers,
texts and tensors are known: none of them could import or call anything. All else is left to torch, which reads it
with `weights_only=True` and words the errors.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.models.pickles import ZIP
from resnetd_cli.models.plain_tensors import DTYPES, NeedsTorchError, PlainTensor, map_file, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_OPCODES = 2**20
_MOST_BYTES = 2**26
"""Of a pickle: one of a million tensors' names has fewer."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = 30
_LONGEST_NAME = 1000
_NUMEL_BYTES = 8

# What a pickle may name. These are only compared, never called.
_DICT, _NAMESPACE, _TENSOR, _PARAMETER = object(), object(), object(), object()
_STORAGES = {f"torch {names[2]}": dtype for dtype, names in DTYPES.items()}
_GLOBALS: dict[str, object] = {
    "collections OrderedDict": _DICT,
    "argparse Namespace": _NAMESPACE,
    "torch._utils _rebuild_tensor_v2": _TENSOR,
    "torch._utils _rebuild_parameter": _PARAMETER,
    **_STORAGES,
}


def read(file: Path) -> object:
    """Return the content of a `.pth` file, with its tensors as `PlainTensor`.

    Raises:
        NeedsTorchError: it holds anything but tensors, containers, numbers and texts, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            content = map_file(opened.fileno())
            return _read_archive(opened, content) if content[: len(ZIP)] == ZIP else _read_legacy(content)
    except NeedsTorchError:
        raise
    except Exception as error:  # zipfile raises many types
        raise NeedsTorchError from error


def _read_archive(opened: IO[bytes], content: mmap.mmap) -> object:
    with zipfile.ZipFile(opened) as archive:
        records = {record.filename: record for record in archive.infolist()}
        (pickled,) = (name for name in records if name.endswith("/data.pkl"))
        prefix = pickled.removesuffix("data.pkl")
        is_plain = all(record.compress_type == zipfile.ZIP_STORED for record in records.values())
        if not is_plain or f"{prefix}constants.pkl" in records or records[pickled].file_size > _MOST_BYTES:
            raise NeedsTorchError("another kind of archive")
        order = f"{prefix}byteorder"
        if order in records and archive.read(order) != b"little":
            raise NeedsTorchError("another byte order")
        pickle = _Pickle(archive.read(pickled))
    value = pickle.load()
    for key, storage in pickle.storages.items():
        record = records[f"{prefix}data/{key}"]
        if record.file_size != storage.numel * storage.itemsize:
            raise NeedsTorchError("a storage of another size")
        at = record.header_offset
        name_length, extra_length = (
            int.from_bytes(content[at + place : at + place + 2], "little") for place in (26, 28)
        )
        storage.fill(content, at + _LOCAL_HEADER + name_length + extra_length)
    pickle.fill_tensors()
    return value


def _read_legacy(content: mmap.mmap) -> object:
    """Read a file from before archives: five pickles, then the numbers of each storage after their count."""
    pickle = _Pickle(content)
    if (pickle.load(), pickle.load()) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise NeedsTorchError("no file of torch.save")
    system, value, keys = pickle.load(), pickle.load(), pickle.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise NeedsTorchError("another byte order")
    if not isinstance(keys, list) or sorted(keys) != sorted(pickle.storages):
        raise NeedsTorchError("other storages than its tensors'")
    at = pickle.at
    for key in keys:
        storage = pickle.storages[key]
        if int.from_bytes(content[at : at + _NUMEL_BYTES], "little") != storage.numel:
            raise NeedsTorchError("a storage of another size")
        storage.fill(content, at + _NUMEL_BYTES)
        at += _NUMEL_BYTES + storage.numel * storage.itemsize
    pickle.fill_tensors()
    return value


@dataclass
class _Storage:
    """The numbers that tensors are views of."""

    dtype: str
    numel: int
    values: NDArray[Any] | None = None

    @property
    def itemsize(self) -> int:
        return int(DTYPES[self.dtype][0][-1]) if self.dtype != "bool" else 1

    def fill(self, content: mmap.mmap, offset: int) -> None:
        self.values = numbers(content, self.dtype, self.numel, offset)


class _Pickle:
    """Pickles that follow each other, whose opcodes are interpreted.

    Args:
        content: the pickles, and perhaps other things after them.

    Attributes:
        at: where the next one begins.
        storages: by key, as far as tensors name them.
    """

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self.at = 0
        self.storages: dict[str, _Storage] = {}
        self._content = content
        self._tensors: list[tuple[PlainTensor, _Storage, int, tuple[int, ...]]] = []
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> object:
        """Return the value of the next pickle; the numbers of tensors follow with `fill_tensors`."""
        self._stack, self._below, self._memo = [], [], {}
        for _ in range(_MOST_OPCODES):
            code = self._content[self.at]
            self.at += 1
            if code == _STOP:
                (value,) = self._stack
                return value
            if code not in _STEPS:
                raise NeedsTorchError(f"the opcode {code}")
            argument, step = _STEPS[code]
            step(self, argument and argument(self))
        raise NeedsTorchError("it has no end")

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        taken = self._content[self.at : self.at + count]
        if len(taken) < count:
            raise NeedsTorchError("it is cut off")
        self.at += count
        return taken

    def take_line(self) -> str:
        """Return the next line."""
        end = self._content.find(b"\n", self.at, self.at + _LONGEST_NAME)
        return (self.take(end + 1 - self.at)[:-1] if end >= 0 else b"").decode()

    def fill_tensors(self) -> None:
        """Give every tensor its numbers, after the storages have theirs."""
        from numpy.lib.stride_tricks import as_strided

        for tensor, storage, offset, strides in self._tensors:
            assert storage.values is not None
            last = sum((side - 1) * stride for side, stride in zip(tensor.shape, strides, strict=True))
            if tensor.numel() and offset + last >= storage.numel:
                raise NeedsTorchError("a tensor larger than its storage")
            values = storage.values[offset:]
            in_bytes = tuple(stride * values.itemsize for stride in strides)
            tensor.values = as_strided(values, tensor.shape, in_bytes, writeable=False)

    def push(self, value: object) -> None:
        self._stack.append(value)

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def tuple_to_mark(self, _: object) -> None:
        self.push(tuple(self._to_mark()))

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise NeedsTorchError("an empty stack")
        self._stack[-count:] = [items]

    def set_items(self, _: object) -> None:
        items = self._to_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(key, value)

    def _set(self, key: object, value: object) -> None:
        target = self._stack[-1]
        # The hash of a tuple of tuples of tuples can take forever.
        if type(target) is not dict or type(key) not in (str, int, float, bool, type(None)):
            raise NeedsTorchError("an unusual dictionary")
        target[key] = value

    def append_items(self, _: object) -> None:
        self._extend(self._to_mark())

    def append_item(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise NeedsTorchError("an unusual list")
        target.extend(items)

    def name(self, module: str) -> None:
        text = f"{module} {self.take_line()}"
        if text not in _GLOBALS:
            raise NeedsTorchError(f"it asks for {text}")
        self.push(_GLOBALS[text])

    def reduce(self, _: object) -> None:
        arguments, named = self._stack.pop(), self._stack.pop()
        if named is _DICT and arguments == ():
            self.push({})
        elif named is _TENSOR:
            self.push(self._tensor(*arguments))
        elif named is _PARAMETER and type(arguments[0]) is PlainTensor:
            self.push(arguments[0])
        else:
            raise NeedsTorchError("a call")

    def new(self, _: object) -> None:
        arguments, named = self._stack.pop(), self._stack.pop()
        if named is not _NAMESPACE or arguments != ():
            raise NeedsTorchError("an object")
        self.push(SimpleNamespace())

    def build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(state) is not dict:
            raise NeedsTorchError("an object's state")
        if type(target) is SimpleNamespace:
            target.__dict__.update(state)
        elif type(target) is not dict:  # a dictionary of tensors has a version for each layer, which is not needed
            raise NeedsTorchError("an object's state")

    def storage(self, _: object) -> None:
        word, dtype, key, _location, numel, *views = self._stack.pop()
        if word != "storage" or any(views) or (type(dtype), type(key), type(numel)) != (str, str, int):
            raise NeedsTorchError("an unusual storage")
        storage = self.storages.setdefault(key, _Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise NeedsTorchError("two storages of one name")
        self.push(storage)

    def _tensor(
        self, storage: object, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
    ) -> PlainTensor:
        numbers_given = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or any(type(each) is not int or each < 0 for each in numbers_given):
            raise NeedsTorchError("an unusual tensor")
        if math.prod(shape) > storage.numel:
            raise NeedsTorchError("a tensor larger than its storage")
        tensor = PlainTensor(storage.dtype, tuple(shape))
        self._tensors.append((tensor, storage, offset, tuple(strides)))
        return tensor


def _number(length: int, signed: bool = False) -> Callable[[_Pickle], int]:
    return lambda pickle: int.from_bytes(pickle.take(length), "little", signed=signed)


_STOP = ord(".")
_STEPS: dict[int, tuple[Callable[[_Pickle], Any] | None, Callable[[_Pickle, Any], None]]] = {
    ord(code): step
    for code, step in {
        "\x80": (_number(1), lambda pickle, protocol: None),
        "N": (None, _Pickle.push),
        "\x88": (None, lambda pickle, _: pickle.push(True)),
        "\x89": (None, lambda pickle, _: pickle.push(False)),
        "K": (_number(1), _Pickle.push),
        "M": (_number(2), _Pickle.push),
        "J": (_number(4, signed=True), _Pickle.push),
        "\x8a": (
            lambda pickle: int.from_bytes(pickle.take(pickle.take(1)[0]), "little", signed=True),
            _Pickle.push,
        ),
        "G": (lambda pickle: struct.unpack(">d", pickle.take(8))[0], _Pickle.push),
        "X": (lambda pickle: str(pickle.take(_number(4)(pickle)), "utf-8", "surrogatepass"), _Pickle.push),
        "}": (None, lambda pickle, _: pickle.push({})),
        "]": (None, lambda pickle, _: pickle.push([])),
        ")": (None, lambda pickle, _: pickle.push(())),
        "\x85": (None, lambda pickle, _: pickle.tuple_of(1)),
        "\x86": (None, lambda pickle, _: pickle.tuple_of(2)),
        "\x87": (None, lambda pickle, _: pickle.tuple_of(3)),
        "(": (None, _Pickle.mark),
        "t": (None, _Pickle.tuple_to_mark),
        "q": (_number(1), _Pickle.put),
        "r": (_number(4), _Pickle.put),
        "h": (_number(1), _Pickle.get),
        "j": (_number(4), _Pickle.get),
        "s": (None, _Pickle.set_item),
        "u": (None, _Pickle.set_items),
        "a": (None, _Pickle.append_item),
        "e": (None, _Pickle.append_items),
        "c": (_Pickle.take_line, _Pickle.name),
        "R": (None, _Pickle.reduce),
        "\x81": (None, _Pickle.new),
        "b": (None, _Pickle.build),
        "Q": (None, _Pickle.storage),
    }.items()
}
"""What each known opcode does, and how its argument is read."""
