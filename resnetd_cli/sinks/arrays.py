"""Features as array files, with an index beside them that names every input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.errors import OutputError
from resnetd_cli.files import open_atomic, open_atomic_text, write_error
from resnetd_cli.results import Classified, Embedded, Failure
from resnetd_cli.sinks import index_path
from resnetd_cli.sinks.text import row_writer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_COLUMNS = ("row", "input", "status", "error")


class ArraySink:
    """An array of float32, N x D, whose row i is the i-th input that succeeded, and its index.

    The rows go to a nameless file first, so that memory does not grow with N. The array and then the index
    take their names when the sink ends well; otherwise neither does.

    Args:
        path: the array file.
        save: writes an array to an open file in the format wanted.
        escape_formulas: let no text in the index begin like a spreadsheet's formula.
    """

    def __init__(
        self,
        path: Path,
        save: Callable[[IO[bytes], NDArray[np.float32]], None],
        *,
        escape_formulas: bool = False,
    ) -> None:
        self.rows = 0
        self.width = 0
        self._path = path
        self._save = save
        self._escape_formulas = escape_formulas

    def __enter__(self) -> ArraySink:
        with ExitStack() as stack:
            self._rows = stack.enter_context(self._nameless_file())
            self._index = stack.enter_context(open_atomic_text(index_path(self._path)))
            self._line = row_writer("csv", self._index, escape_formulas=self._escape_formulas)
            self._index.write(self._line(INDEX_COLUMNS))
            # Left last in, first out: the array takes its name before the index that speaks of it.
            stack.push(self._save_array)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def write(self, result: Classified | Embedded | Failure) -> None:
        """Write one row of features, or the reason why there is none."""
        if isinstance(result, Failure):
            self._index.write(self._line((None, result.input, "error", f"{result.kind.value}: {result.message}")))
            return
        assert result.embedding is not None
        self.width = self.width or len(result.embedding)
        if len(result.embedding) != self.width:
            raise OutputError(f"{result.input} gave {len(result.embedding)} features, the others {self.width}")
        with self._telling():
            self._rows.write(result.embedding.astype("<f4").tobytes())
            self._index.write(self._line((self.rows, result.input, "ok", None)))
        self.rows += 1

    @contextmanager
    def _nameless_file(self) -> Iterator[IO[bytes]]:
        with self._telling():
            file = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
        try:
            yield file
        finally:
            with suppress(OSError):  # what could not be written has been told before
                file.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self._path, error) from error

    def _save_array(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is not None:
            return
        import numpy as np

        with self._telling():
            self._rows.flush()
        shape = (self.rows, self.width)
        array = np.memmap(self._rows, "<f4", "r", shape=shape) if self.rows else np.empty(shape, "<f4")
        with open_atomic(self._path) as file:
            self._save(file, array)


def npy(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.npy`."""

    def save(file: IO[bytes], array: NDArray[np.float32]) -> None:
        import numpy as np

        np.save(file, array)

    return ArraySink(path, save, **options)


def npz(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.npz`, the array under the name `features`."""

    def save(file: IO[bytes], array: NDArray[np.float32]) -> None:
        import numpy as np

        np.savez(file, features=array)

    return ArraySink(path, save, **options)


def safetensors(path: Path, **options: Any) -> ArraySink:
    """Return a sink for `.safetensors`, the array under the name `features`."""

    def save(file: IO[bytes], array: NDArray[np.float32]) -> None:
        from safetensors.numpy import save

        file.write(save({"features": array}))

    return ArraySink(path, save, **options)
