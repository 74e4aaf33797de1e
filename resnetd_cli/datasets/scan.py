"""Read and decode every image once, in a pool of threads; keep its mark and its thumbnail, but no pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.near_copies import THUMBNAIL_BYTES, thumbnail
from resnetd_cli.errors import InputError
from resnetd_cli.pipeline.decode.content import MARK_BYTES, mark_of
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.results import Failure
from resnetd_cli.system.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.datasets.examples import Examples

_CHUNK = 16
"""Images that a thread reads at a time."""
_DECODING = DecodeOptions()


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scan of N images found.

    Attributes:
        marks: of their contents, see `content.mark_of`: uint8, shape (N, 16); zeros for those that failed.
        thumbnails: see `near_copies.thumbnail`: uint8, shape (N, 288); zeros for those that failed.
        failures: the images that cannot be read or decoded, by their positions.
    """

    marks: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]
    failures: Mapping[int, Failure]


@dataclass(frozen=True)
class Sharing:
    """How several processes share a scan: each takes every Nth image, then all gather all results.

    Attributes:
        index: of this process.
        count: number of processes.
        gather: takes this process's result, and returns the result of each process.
    """

    index: int = 0
    count: int = 1
    gather: Callable[[Scan], Sequence[Scan]] = lambda own: [own]

    def scan_images(self, examples: Examples, pool: Pool, **options: Any) -> Scan:
        """Scan images, as the function of this name does."""
        import numpy as np

        own = examples.select(np.arange(self.index, len(examples), self.count))
        found = self.gather(scan_images(own, pool, **options))
        marks = np.zeros((len(examples), MARK_BYTES), np.uint8)
        thumbnails = np.zeros((len(examples), THUMBNAIL_BYTES), np.uint8)
        failures: dict[int, Failure] = {}
        for index, scan in enumerate(found):
            marks[index :: self.count], thumbnails[index :: self.count] = scan.marks, scan.thumbnails
            failures |= {index + self.count * at: failure for at, failure in scan.failures.items()}
        return Scan(marks, thumbnails, dict(sorted(failures.items())))


def scan_images(
    examples: Examples,
    pool: Pool,
    *,
    decoding: DecodeOptions = _DECODING,
    looked: Callable[[int], object] = lambda count: None,
    tell: Callable[[Failure], object] = lambda failure: None,
) -> Scan:
    """Read and decode images.

    Args:
        examples: the images.
        pool: the threads. They are not waited for if `looked`, `tell` or the user interrupts.
        decoding: limits on an image.
        looked: called with the number of images scanned since the last call.
        tell: called with each failure, in the order of the images.
    """
    import numpy as np

    marks = np.zeros((len(examples), MARK_BYTES), np.uint8)
    thumbnails = np.zeros((len(examples), THUMBNAIL_BYTES), np.uint8)
    failures: dict[int, Failure] = {}
    starts = range(0, len(examples), _CHUNK)
    for start, chunk in zip(starts, pool.map(lambda at: _chunk(examples, at, decoding), starts), strict=True):
        for position, found in enumerate(chunk, start):
            if isinstance(found, Failure):
                failures[position] = found
                tell(found)
            else:
                marks[position], thumbnails[position] = (np.frombuffer(data, np.uint8) for data in found)
        looked(len(chunk))
    return Scan(marks, thumbnails, failures)


def _chunk(examples: Examples, start: int, decoding: DecodeOptions) -> list[tuple[bytes, bytes] | Failure]:
    """Return the mark and the thumbnail of each image, or why it could not be decoded."""
    found: list[tuple[bytes, bytes] | Failure] = []
    for position in range(start, min(start + _CHUNK, len(examples))):
        try:
            image = decode(examples.read(position), decoding)
            found.append((mark_of(image), thumbnail(image)))
        except InputError as error:
            found.append(Failure.of(examples.name(position), "", error))
    return found
