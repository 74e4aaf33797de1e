"""Read a `.pth` file without torch: a dictionary of tensors, as `torch.save` writes it.

The pickle is never loaded. Its opcodes are interpreted, and only those that build dictionaries, lists, numbers,
texts and tensors are known: none of them could import or call anything. All else is left to torch, which reads it
with `weights_only=True` and words the errors.
"""

from __future__ import annotations

import argparse
import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
            is_archive = opened.read(len(ZIP)) == ZIP
            opened.seek(0)
            return _read_archive(opened, content) if is_archive else _read_legacy(opened, content)
    except NeedsTorchError:
        raise
    except Exception as error:  # zipfile and pickletools raise many types
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
        pickle = _Pickle(io.BytesIO(archive.read(pickled)))
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


def _read_legacy(opened: IO[bytes], content: mmap.mmap) -> object:
    """Read a file from before archives: five pickles, then the numbers of each storage after their count."""
    if _Pickle(opened).load() != _LEGACY_MAGIC or _Pickle(opened).load() != _LEGACY_PROTOCOL:
        raise NeedsTorchError("no file of torch.save")
    system = _Pickle(opened).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise NeedsTorchError("another byte order")
    pickle = _Pickle(opened)
    value, keys = pickle.load(), _Pickle(opened).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(pickle.storages):
        raise NeedsTorchError("other storages than its tensors'")
    at = opened.tell()
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
    """A pickle whose opcodes are interpreted.

    Attributes:
        storages: by key, as far as its tensors name them.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stream = stream
        self._tensors: list[tuple[PlainTensor, _Storage, int, tuple[int, ...]]] = []
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> object:
        """Return the value that it holds; the numbers of tensors follow with `fill_tensors`."""
        steps = _STEPS
        for code, argument, _ in islice(pickletools.genops(self._stream), _MOST_OPCODES):
            step = steps.get(code.name)
            if step is not None:
                step(self, argument)
            elif code.name == "STOP":
                (value,) = self._stack
                return value
            elif code.name != "PROTO":
                raise NeedsTorchError(f"the opcode {code.name}")
        raise NeedsTorchError("it has no end")

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

    def name(self, text: str) -> None:
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
        self.push(argparse.Namespace())

    def build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(state) is not dict:
            raise NeedsTorchError("an object's state")
        if type(target) is argparse.Namespace:
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


_STEPS: dict[str, Callable[[_Pickle, Any], None]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Pickle.push),
    "NONE": lambda pickle, _: pickle.push(None),
    "NEWTRUE": lambda pickle, _: pickle.push(True),
    "NEWFALSE": lambda pickle, _: pickle.push(False),
    "EMPTY_DICT": lambda pickle, _: pickle.push({}),
    "EMPTY_LIST": lambda pickle, _: pickle.push([]),
    "EMPTY_TUPLE": lambda pickle, _: pickle.push(()),
    "TUPLE1": lambda pickle, _: pickle.tuple_of(1),
    "TUPLE2": lambda pickle, _: pickle.tuple_of(2),
    "TUPLE3": lambda pickle, _: pickle.tuple_of(3),
    "MARK": _Pickle.mark,
    "TUPLE": _Pickle.tuple_to_mark,
    "BINPUT": _Pickle.put,
    "LONG_BINPUT": _Pickle.put,
    "BINGET": _Pickle.get,
    "LONG_BINGET": _Pickle.get,
    "SETITEM": _Pickle.set_item,
    "SETITEMS": _Pickle.set_items,
    "APPEND": _Pickle.append_item,
    "APPENDS": _Pickle.append_items,
    "GLOBAL": _Pickle.name,
    "REDUCE": _Pickle.reduce,
    "NEWOBJ": _Pickle.new,
    "BUILD": _Pickle.build,
    "BINPERSID": _Pickle.storage,
}
"""What each known opcode does."""
