"""Tensors of `.safetensors` files as numpy arrays, without torch.

What these readers do not know they leave to torch's, which also words the errors.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DTYPES = {
    "float64": ("<f8", "F64", "DoubleStorage"),
    "float32": ("<f4", "F32", "FloatStorage"),
    "float16": ("<f2", "F16", "HalfStorage"),
    "bfloat16": ("<u2", "BF16", "BFloat16Storage"),
    "int64": ("<i8", "I64", "LongStorage"),
    "int32": ("<i4", "I32", "IntStorage"),
    "int16": ("<i2", "I16", "ShortStorage"),
    "int8": ("<i1", "I8", "CharStorage"),
    "uint8": ("<u1", "U8", "ByteStorage"),
    "bool": ("?", "BOOL", "BoolStorage"),
}
"""By torch's names: how numpy reads them, and their names in `.safetensors` and `.pth` files."""
_BY_SAFETENSORS = {names[1]: dtype for dtype, names in DTYPES.items()}


class NeedsTorchError(Exception):
    """A model or file that only timm and torch can judge."""


@dataclass
class PlainTensor:
    """A tensor in a file. It has what `checkpoint_tensors` uses of torch's.

    Attributes:
        dtype: the type of its numbers, by torch's name.
        shape: its sides.
        values: its numbers, mapped from the file; those of bfloat16 are 16-bit integers.
    """

    dtype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | None = None

    @property
    def ndim(self) -> int:
        """The number of its sides."""
        return len(self.shape)

    def numel(self) -> int:
        """Return the number of its elements."""
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        """Return whether its numbers are floating-point numbers."""
        return "float" in self.dtype

    def float32(self) -> NDArray[np.float32]:
        """Return its numbers as float32, contiguous; those of a float32 tensor stay in the mapped file."""
        import numpy as np

        assert self.values is not None
        values = self.values
        if self.dtype == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.require(values, np.float32, ["C", "ALIGNED"])


def read_safetensors(file: Path) -> dict[str, PlainTensor]:
    """Return the tensors of a `.safetensors` file.

    Raises:
        NeedsTorchError: it is damaged, or has tensors of unusual types, or cannot be read.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, "np"):  # it checks the whole header
            pass
        with file.open("rb") as opened:
            start = 8 + int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(start - 8))
            content = map_file(opened.fileno())
        return {name: _tensor(content, start, entry) for name, entry in header.items() if name != "__metadata__"}
    except NeedsTorchError:
        raise
    except Exception as error:  # safetensors raises its own type
        raise NeedsTorchError from error


def _tensor(content: mmap.mmap, start: int, entry: dict[str, Any]) -> PlainTensor:
    dtype = _BY_SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise NeedsTorchError(f"numbers of the type {entry['dtype']}")
    shape, begin = tuple(entry["shape"]), entry["data_offsets"][0]
    return PlainTensor(dtype, shape, numbers(content, dtype, math.prod(shape), start + begin).reshape(shape))


def map_file(descriptor: int) -> mmap.mmap:
    """Map an open file into memory; numpy arrays keep the mapping alive."""
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def numbers(content: mmap.mmap, dtype: str, count: int, offset: int) -> NDArray[Any]:
    """Return numbers in a mapped file.

    Raises:
        NeedsTorchError: the file ends before them.
    """
    import numpy as np

    kind = np.dtype(DTYPES[dtype][0])
    if count < 0 or offset < 0 or offset + count * kind.itemsize > len(content):
        raise NeedsTorchError("it ends too soon")
    return np.frombuffer(content, kind, count, offset) if count else np.zeros(0, kind)
