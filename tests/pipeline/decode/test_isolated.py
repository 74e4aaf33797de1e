"""Decoding in a process of its own: planted crashes and hangs, and bombs, harm nothing but their own row."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.program import Resnetd
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode import isolated
from resnetd_cli.pipeline.decode.exif_orientation import TURNED
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.preprocess import normalise, preprocess
from resnetd_cli.pipeline.sources.reading import ReadOptions, read_file
from resnetd_cli.results import Preprocessing

SAMPLE = ROOT / "samples" / "coffee.jpg"
# A plug-in for files that begin with PLANT, found by every process that Python starts with this in its path.
# A real decoder hangs in C, holding the interpreter's lock.
PLANT = """
import ctypes, os, signal, sys
from PIL import Image, ImageFile

class Plant(ImageFile.ImageFile):
    format = "PLANT"

    def _open(self):
        self._size, self._mode, self.tile = (8, 8), "RGB", []
        self.deed = self.fp.read().split()[1].decode()
        if self.deed == "crash_on_opening":
            ctypes.string_at(0)

    def load(self):
        if self.deed == "hang":
            ctypes.PyDLL(None).sleep(3600)
        elif self.deed == "loop":
            while True:
                pass
        elif self.deed == "crash":
            ctypes.string_at(0)
        elif self.deed == "abort":
            os.abort()
        elif self.deed == "leave":
            os._exit(0)
        elif self.deed == "print":
            os.write(1, b"chatter")
            os.write(2, b"chatter")
            print("chatter")
        elif self.deed == "hoard":
            self.hoard = [bytearray(2**20) for _ in range(2**14)]
        self.im = Image.new("RGB", self.size).im

Image.register_open("PLANT", Plant, lambda prefix: prefix.startswith(b"PLANT"))
"""
DEEDS = {
    "hang": (ErrorKind.TIMEOUT, "not decoded in 1 seconds"),
    "loop": (ErrorKind.TIMEOUT, "not decoded in 1 seconds"),
    "crash": (ErrorKind.UNDECODABLE, "the decoder crashed on it (SIGSEGV)"),
    "crash_on_opening": (ErrorKind.UNDECODABLE, "the decoder crashed on it (SIGSEGV)"),
    "abort": (ErrorKind.UNDECODABLE, "the decoder crashed on it (SIGABRT)"),
    "leave": (ErrorKind.UNDECODABLE, "the decoder crashed on it (exit code 0)"),
    "hoard": (ErrorKind.TOO_LARGE, "it takes more memory than an image of its size may"),
}
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that, in PYTHONPATH, plants the plug-in."""
    folder = tmp_path / "plant"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANT)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), before))))
    isolated.close()
    yield folder
    isolated.close()


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def error_of(data: bytes, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        decode(data, DecodeOptions(**options))  # type: ignore[arg-type]
    return caught.value


def children() -> list[int]:
    """Return the idle decoding processes."""
    return [child.pid for child in isolated._idle]


# --- one process for many files ---


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "TGA", "SGI"])
def test_it_gives_the_same_pixels_as_decoding_here(format_name: str) -> None:
    photo = Image.open(SAMPLE).convert("RGB").crop((0, 0, 123, 77))
    data = encode(photo, format_name)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data, DecodeOptions(guard="all"))), expected)
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


@pytest.mark.slow
def test_the_usual_formats_need_no_process() -> None:
    isolated.close()
    for format_name in ("JPEG", "PNG", "GIF", "BMP", "PPM"):
        decode(encode(Image.new("RGB", (4, 4)), format_name))
    assert children() == []


@pytest.mark.slow
def test_a_process_serves_many_files() -> None:
    isolated.close()
    data = encode(Image.new("RGB", (4, 4)), "TIFF")
    decode(data)
    first = children()
    for _ in range(5):
        decode(data)
        error_of(data[:100])
    assert children() == first
    assert len(first) == 1


@pytest.mark.slow
def test_threads_have_a_process_each() -> None:
    isolated.close()
    pictures = [encode(Image.new("RGB", (300, 300), (value, 0, 0)), "TIFF") for value in range(40)]
    wrong: list[int] = []

    def run(part: range) -> None:
        wrong.extend(value for value in part if decode(pictures[value]).getpixel((9, 9)) != (value, 0, 0))

    threads = [threading.Thread(target=run, args=(range(start, 40, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= len(children()) <= 4


@pytest.mark.slow
def test_it_starts_in_any_folder_and_imports_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "PIL", "re"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(9)")
    monkeypatch.chdir(tmp_path)
    isolated.close()
    assert decode(encode(Image.new("RGB", (4, 4)), "TIFF")).size == (4, 4)


def test_rules_of_decoding_hold_there_too() -> None:
    photo = encode(Image.new("RGB", (8, 6), (200, 0, 0)), "TIFF")
    assert error_of(photo, max_pixels=47).message == "48 pixels, more than 47"
    turned = Image.Exif()
    turned[0x0112] = 6
    webp = encode(Image.new("RGB", (8, 6)), "WEBP", exif=turned)
    assert decode(webp).size == (6, 8)
    assert decode(webp, DecodeOptions(ignore_exif=True)).size == (8, 6)
    tga = encode(Image.new("RGB", (8, 6), (200, 0, 0)), "TGA")[:-60]
    assert error_of(tga).kind is ErrorKind.UNDECODABLE
    assert decode(tga, DecodeOptions(allow_truncated=True)).size == (8, 6)


@pytest.mark.slow
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(160, 120), (120, 160), (5, 3), (2, 3000)])
def test_images_are_resized_there_as_they_are_here(size: tuple[int, int], crop_mode: str) -> None:
    how = Preprocessing((3, 64, 96), 0.9, crop_mode, "bicubic", (0.5,) * 3, (0.2,) * 3)
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encode(Image.open(SAMPLE).convert("RGB").resize(size), "JPEG", exif=turned)
    here, there = (decode(data, DecodeOptions(guard=guard), crop_for=how) for guard in ("suspect", "all"))
    assert there.size == (96, 64)
    assert there.tobytes() == here.tobytes()
    assert there.info[TURNED] is here.info[TURNED] is True
    assert np.array_equal(normalise(there, how), preprocess(decode(data), how))


@pytest.mark.slow
def test_resizing_there_may_take_more_memory_than_a_small_image() -> None:
    how = Preprocessing((3, 4096, 4096), 1.0, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert decode(encode(Image.new("RGB", (4, 4)), "TIFF"), crop_for=how).size == (4096, 4096)


# --- what is planted ---


@posix
@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS)
def test_a_planted_deed_is_one_error(deed: str, plant: Path) -> None:
    kind, message = DEEDS[deed]
    if kind is ErrorKind.TOO_LARGE and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells what a process has allocated")
    error = error_of(f"PLANT {deed} ".encode(), timeout=1.0)
    assert (error.kind, error.message) == (kind, message)
    assert hint_of(error)
    assert decode(encode(Image.new("RGB", (4, 4)), "TIFF")).size == (4, 4)


@pytest.mark.slow
def test_what_a_decoder_prints_goes_nowhere(plant: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert decode(b"PLANT print ").size == (8, 8)
    assert capfd.readouterr() == ("", "")


@posix
@pytest.mark.slow
def test_a_run_goes_on(plant: Path, tmp_path: Path, run_resnetd: Resnetd, without_torch: dict[str, str]) -> None:
    photo = Image.open(SAMPLE).convert("RGB").resize((160, 120))
    for name in ("a.tif", "b.png", "c.webp", "d.jpg"):
        photo.save(tmp_path / name)
    inputs = []
    for deed in DEEDS:
        (tmp_path / f"{deed}.plant").write_text(f"PLANT {deed} ")
        inputs += [f"{deed}.plant", "a.tif", "b.png"]
    inputs += ["c.webp", "d.jpg"]
    done = run_resnetd(
        *["predict", *(str(tmp_path / name) for name in inputs), "-m", "embedded", "-f", "jsonl", "-k", "1"],
        *["--timeout", "1", "--workers", "2"],
        PYTHONPATH=os.environ["PYTHONPATH"],
        **without_torch,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["input"]).name for record in records] == inputs
    for record in records:
        name, _, suffix = Path(record["input"]).name.partition(".")
        if suffix == "plant":
            assert record["error"] == {"kind": DEEDS[name][0].value, "message": DEEDS[name][1]}
        else:
            assert record["predictions"][0]["label"] in ("espresso", "cup", "coffee mug", "eggnog")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@posix
@pytest.mark.slow
def test_with_guard_all_a_usual_format_may_do_its_worst(
    plant: Path, tmp_path: Path, run_resnetd: Resnetd, without_torch: dict[str, str]
) -> None:
    (plant / "sitecustomize.py").write_text(
        "import ctypes\nfrom PIL import JpegImagePlugin\n"
        "load = JpegImagePlugin.JpegImageFile.load\n"
        "def planted(self):\n"
        "    if self.size == (33, 33): ctypes.string_at(0)\n"
        "    if self.size == (44, 44): ctypes.PyDLL(None).sleep(3600)\n"
        "    return load(self)\n"
        "JpegImagePlugin.JpegImageFile.load = planted\n"
    )
    paths = []
    for side in (33, 55, 44, 66):
        paths.append(tmp_path / f"{side}.jpg")
        Image.new("RGB", (side, side)).save(paths[-1])
    done = run_resnetd(
        *["predict", *paths, "-m", "embedded", "-f", "jsonl", "--timeout", "1", "--guard", "all"],
        PYTHONPATH=os.environ["PYTHONPATH"],
        **without_torch,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record.get("error", {}).get("kind", "ok") for record in records] == [
        *["undecodable", "ok", "timeout", "ok"]
    ]


@posix
@pytest.mark.slow
def test_no_process_outlives_its_parent(plant: Path) -> None:
    """Neither an idle one nor one that hangs, though the parent is killed."""
    code = (
        "import sys, threading, time\n"
        "from resnetd_cli.pipeline.decode import isolated\n"
        "from resnetd_cli.pipeline.decode.image import DecodeOptions, decode\n"
        "options = {'timeout': 1.0}\n"
        "threading.Thread(target=decode, args=(b'PLANT hang ', DecodeOptions(timeout=1.0)), daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "child = isolated._Child(); print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    idle = int(parent.stdout.readline())
    hanging = [pid for pid in family(parent.pid) if pid != idle]
    assert len(hanging) == 1
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 20
    while time.monotonic() < end and any(map(is_running, [idle, *hanging])):
        time.sleep(0.05)
    assert not any(map(is_running, [idle, *hanging]))


def family(parent: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in listing.stdout.split()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.slow
def test_where_no_process_can_be_started_it_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    isolated.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    error = error_of(encode(Image.new("RGB", (4, 4)), "TIFF"))
    assert error.kind is ErrorKind.UNREADABLE
    assert error.message == "the process that would decode it cannot be started: no such file or directory"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
@posix
def test_a_process_killed_while_idle_is_replaced(name: str) -> None:
    isolated.close()
    data = encode(Image.new("RGB", (4, 4)), "TIFF")
    decode(data)
    (pid,) = children()
    os.kill(pid, getattr(signal, name))
    while is_running(pid):
        time.sleep(0.01)
    assert decode(data).size == (4, 4)


def test_a_timeout_may_be_endless() -> None:
    data = encode(Image.new("RGB", (4, 4)), "TIFF")
    for timeout in (1e9, float("inf")):
        assert decode(data, DecodeOptions(timeout=timeout)).size == (4, 4)
        assert read_file(str(SAMPLE), ReadOptions(timeout=timeout)) == SAMPLE.read_bytes()
