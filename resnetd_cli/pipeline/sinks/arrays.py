"""Array files of features (.npy, .npz, .safetensors), with an index beside them that names every input."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.errors import OutputError, UsageError
from resnetd_cli.pipeline.sinks.csv_json import row_writer
from resnetd_cli.results import Classified, Embedded, Failure
from resnetd_cli.system.files import TEXT, OutputFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_COLUMNS = ("row", "input", "status", "error")
_ITEM = 4
"""Bytes in a float32."""
Result = Classified | Embedded | Failure
Save = Callable[[IO[bytes], "NDArray[np.float32]"], None]


class _NpyRows:
    """Rows of float32 in a file that is a valid `.npy` after every row.

    Attributes:
        count: the number of rows, N.
        width: the length of a row, D; the first row sets it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.count = 0
        self.width = 0
        self._file = file

    def append(self, result: Classified | Embedded) -> None:
        """Add the features of one input, float32, shape (D,).

        Raises:
            OutputError: the number of features differs from that of earlier inputs.
        """
        row = result.embedding
        assert row is not None
        self.width = self.width or len(row)
        if len(row) != self.width:
            raise OutputError(f"{result.input} gave {len(row)} features, the others {self.width}")
        if not self.count:
            self._file.write(self._header(0))
        self._file.write(row.astype("<f4").tobytes())
        self.settle(self.count + 1)

    def settle(self, count: int) -> None:
        """Write the number of rows into the file's header, and seek back to the end of the rows."""
        header = self._header(count)  # the same length for any count: NumPy pads it
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(len(header) + count * self.width * _ITEM)
        self.count = count

    def _header(self, count: int) -> bytes:
        from numpy.lib import format as npy

        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (count, self.width)})
        return header.getvalue()


class _Sink:
    """The base of both sinks: the shape of the array."""

    _rows: _NpyRows

    @property
    def rows(self) -> int:
        """The number of rows, N."""
        return self._rows.count

    @property
    def width(self) -> int:
        """The length of a row, D. It can only be set while there are no rows."""
        return self._rows.width

    @width.setter
    def width(self, value: int) -> None:
        self._rows.width = value


class ArraySink(_Sink):
    """Writes a float32 array, N x D, whose row i is the i-th successful input, and its index.

    Memory does not grow with N. The array and then the index get their names when the sink closes without error.
    Otherwise the rows so far, if any, are kept in files whose names end in `.partial`.

    Args:
        path: the array file.
        save: writes an array to an open file in another format; None for `.npy`, in which rows are written.
        overwrite: replace existing files.
        keep: keep the rows so far after an error; after an interrupt they are always kept.
        escape_formulas: put an apostrophe before texts in the index that a spreadsheet might run as a formula.

    Attributes:
        kept: the file with the rows that were kept after an error or interrupt.
    """

    def __init__(
        self,
        path: Path,
        save: Save | None = None,
        *,
        overwrite: bool = False,
        keep: bool = True,
        escape_formulas: bool = False,
    ) -> None:
        self.kept: Path | None = None
        self._path = path
        self._save = save
        self._overwrite = overwrite
        self._keep = keep
        self._escape_formulas = escape_formulas
        self._is_finished = False

    def __enter__(self) -> ArraySink:
        with ExitStack() as stack:
            self._file = OutputFile(self._path, overwrite=self._overwrite, suffix=".npy" if self._save else "")
            stack.callback(self._file.discard)
            self._index_file = OutputFile(index_path(self._path), overwrite=self._overwrite)
            stack.callback(self._index_file.discard)
            self._rows = _NpyRows(self._file.open())
            self._index = self._index_file.open("w", **TEXT)
            self._line = row_writer("csv", self._index, escape_formulas=self._escape_formulas)
            self._index.write(self._line(INDEX_COLUMNS))
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        keeps = self._keep or kind is None or not issubclass(kind, Exception)
        try:
            if kind is None:
                self._publish()
                keeps = False
        finally:
            if keeps and self._index_file.records:
                self._keep_partial()
            self._file.discard()
            self._index_file.discard()

    def write(self, result: Result) -> None:
        """Write one row of features; for a failed input, only the error to the index."""
        cells: tuple[object, ...]
        if isinstance(result, Failure):
            cells = None, result.input, "error", f"{result.kind.value}: {result.message}"
        else:
            cells = self.rows, result.input, "ok", None
            with self._file.reporting():
                self._rows.append(result)
            self._file.mark(self.rows)
        with self._index_file.reporting():
            self._index.write(self._line(cells))
        self._index_file.mark(self.rows)

    def _publish(self) -> None:
        with self._file.reporting():
            self._rows.settle(self.rows)
        self._file = self._finished()
        self._is_finished = True
        self._file.publish()
        self._index_file.publish()

    def _finished(self) -> OutputFile:
        """Return the file with the rows in the requested format."""
        self._file.mark(self.rows)
        self._file.rewind()  # an interrupted row may follow
        if self._save is None:
            return self._file
        import numpy as np

        finished = OutputFile(self._path, overwrite=self._overwrite)
        try:
            with finished.reporting():
                self._save(finished.open(), np.load(self._file.partial, mmap_mode="r"))
            finished.mark(self.rows)
        except BaseException:
            finished.discard()
            raise
        self._file.discard()
        return finished

    def _keep_partial(self) -> None:
        """Keep the index and the rows that it names."""
        self._index_file.rewind()
        if not self._is_finished:
            self._file.rewind()
            with suppress(OutputError):  # else they stay as .npy
                with self._file.reporting():
                    self._rows.settle(self._index_file.records)
                self._file = self._finished()
        self._index_file.keep()
        if self._file.keep():
            self.kept = self._file.partial


class ArrayStream(_Sink):
    """Writes the same array as `.npy` to a stream, without an index, at the end: the header contains the length.

    Args:
        stream: opens the stream.
    """

    kept = None

    def __init__(self, stream: Callable[[], AbstractContextManager[IO[bytes]]]) -> None:
        self._stream = stream

    def __enter__(self) -> ArrayStream:
        self._spool: IO[bytes] = tempfile.TemporaryFile()
        self._rows = _NpyRows(self._spool)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._spool:
            if kind is not None:
                return
            self._rows.settle(self.rows)
            self._spool.seek(0)
            with self._stream() as stream:
                shutil.copyfileobj(self._spool, stream)
                stream.flush()

    def write(self, result: Result) -> None:
        """Write one row of features; a failed input has no row."""
        if not isinstance(result, Failure):
            self._rows.append(result)


def npy(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.npy`."""
    return ArraySink(path, **options)


def npz(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.npz`; the array is called `features`."""

    def save(file: IO[bytes], array: NDArray[np.float32]) -> None:
        import numpy as np

        np.savez(file, features=array)

    return ArraySink(path, save, **options)


def safetensors(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.safetensors`; the array is called `features`."""

    def save(file: IO[bytes], array: NDArray[np.float32]) -> None:
        from safetensors.numpy import save

        file.write(save({"features": array}))

    return ArraySink(path, save, **options)


ARRAY_FORMATS = {".npy": npy, ".npz": npz, ".safetensors": safetensors}
"""For each suffix of an array file, what returns its sink."""


def open_array_sink(path: Path, **options: Any) -> ArraySink:
    """Return the sink for an array file, chosen by its suffix; see `ArraySink` for the options.

    Raises:
        UsageError: no array format has this suffix.
    """
    try:
        open_format = ARRAY_FORMATS[path.suffix.lower()]
    except KeyError:
        endings = ", ".join(ARRAY_FORMATS)
        raise UsageError(
            f"{path}: the format is not clear from the name", hint=f"end it in one of {endings}"
        ) from None
    return open_format(path, **options)


def index_path(path: Path) -> Path:
    """Return the path of the index beside an array file."""
    return path.with_name(f"{path.name}.index.csv")
