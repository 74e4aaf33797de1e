"""Convert BMP files with bit masks that Pillow does not support: 4 or 10 bits per channel, unusual orders."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILE_HEADER, _INFO_HEADER, _WITH_ALPHA = 14, 40, 56
_BITFIELDS = (3, 6)
_TYPES = {16: "<u2", 32: "<u4"}
_USUAL_MASKS = (0xFF0000, 0xFF00, 0xFF)
_ALPHA = 0xFF000000
_ROWS = 64
"""Rows to convert at once, which limits memory."""


class _Layout(NamedTuple):
    """The fields of a header. The masks are those of red, green, blue and alpha."""

    offset: int
    width: int
    height: int
    bits: int
    masks: tuple[int, int, int, int]


def repaired(data: bytes) -> bytes | None:
    """Return a BMP converted to the usual bit masks, 8 bits per channel; None if it has no bit masks."""
    import numpy as np

    layout = _layout(data)
    if layout is None:
        return None
    stride = (layout.width * layout.bits + 31) // 32 * 4
    rows = min(abs(layout.height), (len(data) - layout.offset) // stride)
    alpha = _ALPHA if layout.masks[3] else 0
    sizes = struct.pack("<Iii", _WITH_ALPHA, layout.width, layout.height)
    header = sizes + struct.pack("<HHIIiiII", 1, 32, 3, 0, 0, 0, 0, 0) + struct.pack("<4I", *_USUAL_MASKS, alpha)
    start = struct.pack("<2sIHHI", b"BM", 0, 0, 0, _FILE_HEADER + len(header))
    parts = [start, header]
    for top in range(0, rows, _ROWS):
        count = min(_ROWS, rows - top) * stride
        stored = np.frombuffer(data, np.uint8, count, layout.offset + top * stride).reshape(-1, stride)
        pixels = np.ascontiguousarray(stored).view(_TYPES[layout.bits])[:, : layout.width]
        red, green, blue, opacity = (_channel(pixels, mask) for mask in layout.masks)
        parts.append(np.stack([blue, green, red, opacity], axis=2).tobytes())
    return b"".join(parts)


def _layout(data: bytes) -> _Layout | None:
    if not data.startswith(b"BM") or len(data) < _FILE_HEADER + _WITH_ALPHA:
        return None
    offset, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if size < _INFO_HEADER or compression not in _BITFIELDS or bits not in _TYPES or width <= 0:
        return None
    red, green, blue, alpha = struct.unpack_from("<4I", data, _FILE_HEADER + _INFO_HEADER)
    has_alpha = size >= _WITH_ALPHA or compression == _BITFIELDS[1]
    return _Layout(offset, width, height, bits, (red, green, blue, alpha if has_alpha else 0))


def _channel(pixels: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """Return the channel under a mask, scaled to 8 bits."""
    import numpy as np

    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    values = (pixels.astype(np.uint64) & mask) >> shift
    return ((values * 255 + most // 2) // most).astype(np.uint8)
