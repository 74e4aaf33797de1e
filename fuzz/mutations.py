"""`python -m fuzz.mutations`: a run over thousands of damaged files, and what became of them.

Copies of the sample photographs in several formats are damaged, from a seed, and go through `resnetd predict` as
one folder. There must be a row for each, in order, no traceback, and no growth in memory.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
_VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "jpg": [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 30, "subsampling": 0})],
    "png": [("PNG", {}), ("PNG", {"compress_level": 1})],
    "gif": [("GIF", {})],
    "webp": [("WEBP", {}), ("WEBP", {"lossless": True})],
    "tif": [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"})],
}
_HEADER = 600


def main() -> None:
    """Make the files, run the program over them, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="for `resnetd predict`, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = make(Path(folder), given.count, given.seed)
        print(json.dumps(run(Path(folder), names, given.options), indent=2))


def make(folder: Path, count: int, seed: int) -> list[str]:
    """Write so many damaged files and return their names, sorted."""
    dice = random.Random(seed)  # noqa: S311
    originals = list(_originals())
    names = []
    for number in range(count):
        suffix, data = originals[number % len(originals)]
        names.append(f"{number:06}.{suffix}")
        (folder / names[-1]).write_bytes(damage(data, dice))
    return names


def damage(data: bytes, dice: random.Random) -> bytes:
    """Return the bytes with damage of one or two kinds."""
    damaged = bytearray(data)
    for _ in range(dice.randint(1, 2)):
        dice.choice(_DAMAGES)(damaged, dice)
    return bytes(damaged)


def run(folder: Path, names: list[str], options: list[str]) -> dict[str, object]:
    """Classify the folder and return the figures.

    Raises:
        AssertionError: a row is missing, or in another place, or there was a traceback.
    """
    command = [
        sys.executable,
        "-m",
        "resnetd_cli",
        "predict",
        str(folder),
        "-m",
        "embedded",
        "-f",
        "jsonl",
        "-k",
        "1",
    ]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=errors, text=True) as process:  # noqa: S603
            memory = _Memory(process.pid)
            assert process.stdout is not None
            rows = [json.loads(line) for line in process.stdout]
            code = process.wait()
        seconds = time.monotonic() - began
        errors.seek(0)
        said = errors.read()
    assert [Path(row["input"]).name for row in rows] == names
    assert "Traceback" not in said, said
    kinds = Counter(row["error"]["kind"] if "error" in row else "ok" for row in rows)
    return {
        "files": len(rows),
        "exit_code": code,
        "rows": dict(kinds.most_common()),
        "messages": Counter(_general(row["error"]["message"]) for row in rows if "error" in row).most_common(12),
        "ok_by_format": dict(Counter(Path(row["input"]).suffix for row in rows if "error" not in row)),
        "images_a_second": round(len(rows) / seconds, 1),
        "megabytes": memory.summary(),
    }


class _Memory:
    """Samples how much memory a process and its children have."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[float] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while (size := _resident(self._pid)) is not None:
            self._samples.append(size)
            time.sleep(0.25)

    def summary(self) -> dict[str, object]:
        """Return the medians of each tenth of the run, and the peak: a large image takes what it must."""
        tenth = max(1, len(self._samples) // 10)
        parts = [sorted(self._samples[start : start + tenth]) for start in range(0, len(self._samples), tenth)]
        return {"medians": [part[len(part) // 2] for part in parts], "peak": max(self._samples)}


def _resident(pid: int) -> float | None:
    """Return the megabytes of a process and its children; None when it has ended."""
    total = 0
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for tasks in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += (tasks / "children").read_text().split()
        for number in {str(pid), *children}:
            with suppress(OSError):
                found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{number}/status").read_text())
                total += int(found[1]) if found else 0
    return round(total / 1024, 1) if total else None


def _originals() -> list[tuple[str, bytes]]:
    pictures = []
    for sample in sorted(SAMPLES.glob("*.jpg")):
        photo = Image.open(sample).convert("RGB")
        photo.thumbnail((200, 200))
        for suffix, variants in _VARIANTS.items():
            for format_name, options in variants:
                buffer = io.BytesIO()
                photo.save(buffer, format_name, **options)
                pictures.append((suffix, buffer.getvalue()))
    return pictures


def _general(message: str) -> str:
    """Return a message without its numbers, so that like ones are counted together."""
    return re.sub(r"[0-9][0-9,.]*", "N", message)


def _flip_bits(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _overwrite_header(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 4, 16))):
        data[dice.randrange(min(_HEADER, len(data)))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))


def _truncate(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(1, len(data) + 1) :]


def _end_early(data: bytearray, dice: random.Random) -> None:
    """Cut a file, and end it as a JPEG, a GIF or nothing ends: what shows it fills the rest."""
    del data[dice.randrange(1, len(data) + 1) :]
    data += dice.choice((b"\xff\xd9", b"\0;", bytes(64)))


def _delete(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 16, 500))]
    data += b"" if data else b"\0"


def _insert(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = dice.randbytes(dice.choice((1, 2, 16, 500)))


def _blank(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.choice((4, 64, 2000)))
    data[start:end] = bytes([dice.choice((0, 255))]) * (end - start)


def _repeat(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.choice((8, 200, 4000))]


_DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    *[_flip_bits, _overwrite_header, _truncate, _end_early, _delete, _insert, _blank, _repeat],
]


if __name__ == "__main__":
    main()
