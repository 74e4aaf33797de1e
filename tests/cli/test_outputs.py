"""No output is lost: not the file to be replaced, not that of two runs at once, not that of an aborted run."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import CAT, COFFEE, ROOT
from helpers.program import Cli, Resnetd, is_one_error

from resnetd_cli.cli import record_output
from resnetd_cli.cli.app import run
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.cli.protected_files import checked_inputs, is_image
from resnetd_cli.cli.record_output import Records
from resnetd_cli.errors import ErrorKind, OutputError, UsageError
from resnetd_cli.pipeline.sinks.arrays import ArrayStream, open_array_sink
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Classified, Embedded, Failure, Prediction
from resnetd_cli.system import files
from resnetd_cli.system.files import OutputFile, open_atomic

pytestmark = pytest.mark.usefixtures("compiled")

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files and permissions")


def answer(number: int) -> Classified:
    return Classified(f"{number}.jpg", "m", (Prediction(1, number, None, "cat", 0.5),))


def features(number: int, width: int = 3) -> Embedded:
    return Embedded(f"{number}.jpg", "m", np.full(width, number, np.float32))


FAILURE = Failure("bad.jpg", "m", ErrorKind.NOT_FOUND, "no such file")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- two runs, one name ---


def test_output_created_meanwhile_is_kept_and_ours_is_partial(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    first, second = OutputFile(path, overwrite=False), OutputFile(path, overwrite=False)
    assert (first.partial.name, second.partial.name) == ("x.csv.partial", "x.csv.2.partial")
    first.open().write(b"first")
    second.open().write(b"second")
    second.publish()
    with pytest.raises(OutputError, match=r"x\.csv was created by another program in the meantime") as caught:
        first.publish()
    first.discard()
    assert hint_of(caught.value) == f"the result of this one is in {first.partial}"
    assert path.read_bytes() == b"second"
    assert first.partial.read_bytes() == b"first"
    assert left_in(tmp_path) == ["x.csv", "x.csv.partial"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES])
def test_file_system_without_hard_links_keeps_both_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "x.csv"
    first, second = OutputFile(path, overwrite=False), OutputFile(path, overwrite=False)
    first.open().write(b"first")
    first.publish()
    second.open().write(b"second")
    with pytest.raises(OutputError, match="in the meantime"):
        second.publish()
    assert path.read_bytes() == b"first"
    assert left_in(tmp_path) == ["x.csv", "x.csv.2.partial"]


def test_existing_partial_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.csv.partial").write_text("of yesterday", encoding="utf-8")
    (tmp_path / "x.csv.2.partial").write_text("of the day before", encoding="utf-8")
    with open_atomic(tmp_path / "x.csv", overwrite=False) as file:
        assert left_in(tmp_path) == ["x.csv.2.partial", "x.csv.3.partial", "x.csv.partial"]
        file.write(b"today")
    assert left_in(tmp_path) == ["x.csv", "x.csv.2.partial", "x.csv.partial"]
    assert (tmp_path / "x.csv.partial").read_text(encoding="utf-8") == "of yesterday"


def test_array_created_meanwhile_is_kept_and_ours_is_partial(tmp_path: Path) -> None:
    for name in ("x.npy", "x.npz", "x.safetensors"):
        path = tmp_path / name
        sink = open_array_sink(path)
        with pytest.raises(OutputError, match="in the meantime"), sink:
            sink.write(features(1))
            path.write_bytes(b"of another")
        assert sink.kept == tmp_path / f"{name}.partial"
        assert path.read_bytes() == b"of another"
        assert (tmp_path / f"{name}.index.csv.partial").read_text(encoding="utf-8").splitlines()[
            1
        ] == "0,1.jpg,ok,"
        assert not (tmp_path / f"{name}.index.csv").exists()
    assert np.load(tmp_path / "x.npy.partial").tolist() == [[1, 1, 1]]
    assert np.load(tmp_path / "x.npz.partial")["features"].tolist() == [[1, 1, 1]]


# --- what is replaced ---


@posix
def test_overwrite_writes_through_a_link(tmp_path: Path) -> None:
    target, link, chain = tmp_path / "to" / "target.csv", tmp_path / "link.csv", tmp_path / "chain.csv"
    target.parent.mkdir()
    target.write_text("old", encoding="utf-8")
    link.symlink_to("to/target.csv")
    chain.symlink_to(link)
    with open_atomic(chain, "w") as file:
        file.write("new")
    assert (link.is_symlink(), chain.is_symlink()) == (True, True)
    assert target.read_text(encoding="utf-8") == "new"
    assert left_in(tmp_path / "to") == ["target.csv"]


@posix
@pytest.mark.parametrize("overwrite", [True, False])
def test_dangling_link_gets_its_target_created(tmp_path: Path, overwrite: bool) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to("target.csv")
    files.check_writable(link, overwrite=overwrite)
    with open_atomic(link, "w", overwrite=overwrite) as file:
        file.write("new")
    assert link.is_symlink()
    assert (tmp_path / "target.csv").read_text(encoding="utf-8") == "new"
    assert left_in(tmp_path) == ["link.csv", "target.csv"]


@posix
def test_link_cycles_and_links_into_missing_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="leads back to itself"):
        files.check_writable(tmp_path / "a", overwrite=True)
    (tmp_path / "c").symlink_to("gone/c.csv")
    with pytest.raises(OutputError, match="gone is not a folder"):
        files.check_writable(tmp_path / "c", overwrite=False)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o664, 0o444])
def test_overwrite_keeps_permissions_also_of_the_partial_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old", encoding="utf-8")
    path.chmod(mode)
    with open_atomic(path) as file:
        (partial,) = set(tmp_path.iterdir()) - {path}
        assert stat.S_IMODE(partial.stat().st_mode) == mode
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_overwrite_keeps_the_owner_if_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.touch()
    os.chown(path, 1234, 2345)
    with open_atomic(path) as file:
        file.write(b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@posix
def test_overwrite_does_not_change_other_hard_links(tmp_path: Path) -> None:
    path, other = tmp_path / "x.csv", tmp_path / "backup.csv"
    path.write_text("old", encoding="utf-8")
    os.link(path, other)
    with open_atomic(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


# --- streams ---


@posix
def test_descriptor_of_knows_every_path_of_a_descriptor(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/stdout")
    names = {
        "/dev/stdout": 1,
        "/dev/stderr": 2,
        "/dev/fd/7": 7,
        "/proc/self/fd/12": 12,
        f"/proc/{os.getpid()}/fd/3": 3,
        "/dev/../dev/./fd/3": 3,
        str(link): 1,
        "/proc/1/fd/3": None,
        "/dev/null": None,
        "stdout": None,
        str(tmp_path / "gone"): None,
    }
    assert {name: files.descriptor_of(Path(name)) for name in names} == names


@posix
@pytest.mark.slow
@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_may_append_to_a_file(run_resnetd: Resnetd, tmp_path: Path, output: str) -> None:
    if output.startswith("/proc") and not Path(output).exists():
        pytest.skip("no /proc")
    log = tmp_path / "log"
    log.write_text("before\n", encoding="utf-8")
    with log.open("a", encoding="utf-8") as stdout:
        subprocess.run(
            [sys.executable, "-m", "resnetd_cli", "labels", "espresso", "-f", "tsv", "--no-header", "-o", output],
            env={**run_resnetd.env(), "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            check=True,
        )
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert "espresso" in lines[1]


@posix
def test_descriptor_is_written_to_at_its_position(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        with open_atomic(Path(f"/dev/fd/{file.fileno()}"), overwrite=False) as stream:
            stream.write(b"after\n")
        file.write(b"and on\n")
    assert (tmp_path / "x").read_bytes() == b"before\nafter\nand on\n"


def test_array_can_be_written_to_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        with ArrayStream(lambda: os.fdopen(write, "wb")) as sink:
            sink.write(features(1))
            sink.write(FAILURE)
            sink.write(features(2))
        assert np.load(io.BytesIO(reader.read())).tolist() == [[1, 1, 1], [2, 2, 2]]


# --- a run that ends early ---

ENDS = [KeyboardInterrupt(), SystemExit(3), OutputError("no"), RuntimeError("broke")]


def stopped(path: Path, format_name: str, error: BaseException, *, count: int = 3, keep: bool = True) -> None:
    """Write records until an error comes in the middle of one."""
    with (
        pytest.raises(type(error)),
        Records(path, format_name, overwrite=False, keep=keep) as written,
    ):
        for number in range(count):
            written.write(answer(number))
        written._stream.write("half of a record")
        raise error


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_aborted_run_keeps_complete_records(
    tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x.csv", "x.tsv", "x.jsonl", "x.json"):
        stopped(tmp_path / name, name[2:], error)
        assert (
            capsys.readouterr().err == f"the run ended early: {tmp_path / name}.partial holds the first 3 inputs\n"
        )
        assert not (tmp_path / name).exists()
    texts = {
        name: (tmp_path / f"x.{name}.partial").read_text(encoding="utf-8") for name in ("csv", "jsonl", "json")
    }
    assert [line.partition(",")[0] for line in texts["csv"].splitlines()] == ["input", "0.jpg", "1.jpg", "2.jpg"]
    assert [json.loads(line)["input"] for line in texts["jsonl"].splitlines()] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [record["input"] for record in json.loads(texts["json"])] == ["0.jpg", "1.jpg", "2.jpg"]


def test_aborted_run_without_records_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("csv", "json"):
        stopped(tmp_path / f"x.{name}", name, KeyboardInterrupt(), count=0)
    assert (left_in(tmp_path), capsys.readouterr().err) == ([], "")


def test_fail_fast_keeps_records_only_after_an_interrupt(tmp_path: Path) -> None:
    stopped(tmp_path / "x.csv", "csv", OutputError("no"), keep=False)
    assert left_in(tmp_path) == []
    stopped(tmp_path / "x.csv", "csv", KeyboardInterrupt(), keep=False)
    assert left_in(tmp_path) == ["x.csv.partial"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child")
@pytest.mark.parametrize("name", ["x.jsonl", "x.npy"])
def test_killed_run_leaves_a_partial_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if (child := os.fork()) == 0:
        if name == "x.npy":
            arrays = open_array_sink(path).__enter__()
            for number in range(3):
                arrays.write(features(number))
        else:
            written = Records(path, "jsonl", overwrite=False, keep=True).__enter__()
            for number in range(3):
                written.write(answer(number))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    if name == "x.npy":
        assert np.load(tmp_path / "x.npy.partial").tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
        index = (tmp_path / "x.npy.index.csv.partial").read_text(encoding="utf-8").splitlines()
        assert index[1:] == ["0,0.jpg,ok,", "1,1.jpg,ok,", "2,2.jpg,ok,"]
        assert left_in(tmp_path) == ["x.npy.index.csv.partial", "x.npy.partial"]
    else:
        lines = (tmp_path / "x.jsonl.partial").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["input"] for line in lines] == ["0.jpg", "1.jpg", "2.jpg"]
        assert left_in(tmp_path) == ["x.jsonl.partial"]


def test_full_disk_loses_only_the_last_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = [2000]

    def write(self: files._Raw, data: bytes) -> int:
        if self._drops:
            return len(data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = os.write(self.fileno(), memoryview(data)[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(files._Raw, "write", write)
    with (
        pytest.raises(OutputError, match="no space left"),
        Records(tmp_path / "x.jsonl", "jsonl", overwrite=False, keep=True) as written,
    ):
        for number in range(100):
            written.write(answer(number))
    lines = (tmp_path / "x.jsonl.partial").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["input"] for line in lines] == [f"{n}.jpg" for n in range(len(lines))]
    assert 5 < len(lines) < 100
    assert f"holds the first {len(lines)} inputs" in capsys.readouterr().err


# --- arrays that end early ---


def load(path: Path) -> np.ndarray:
    if ".safetensors" in path.name:
        from safetensors.numpy import load as load_safetensors

        return load_safetensors(path.read_bytes())["features"]
    loaded = np.load(path)
    return loaded["features"] if ".npz" in path.name else loaded


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_aborted_run_keeps_array_rows_and_index(tmp_path: Path, name: str, error: BaseException) -> None:
    with pytest.raises(type(error)), open_array_sink(tmp_path / name) as sink:
        sink.write(features(1))
        sink.write(FAILURE)
        sink.write(features(2))
        sink._rows._file.write(b"half")
        sink._index.write("half")
        raise error
    assert sink.kept == tmp_path / f"{name}.partial"
    assert load(tmp_path / f"{name}.partial").tolist() == [[1, 1, 1], [2, 2, 2]]
    index = (tmp_path / f"{name}.index.csv.partial").read_text(encoding="utf-8").splitlines()
    assert index[1:] == ["0,1.jpg,ok,", ",bad.jpg,error,not_found: no such file", "1,2.jpg,ok,"]
    assert left_in(tmp_path) == [f"{name}.index.csv.partial", f"{name}.partial"]


def test_row_missing_in_the_index_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), open_array_sink(tmp_path / "x.npy") as sink:
        sink.write(features(1))

        def stop(_: object) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr(sink, "_line", stop)
        sink.write(features(2))
    assert load(tmp_path / "x.npy.partial").tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_rows_that_cannot_be_converted_are_kept_as_npy(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = open_array_sink(tmp_path / name)
    sink._save = full
    with pytest.raises(OutputError, match="no space left"), sink:
        sink.write(features(1))
    assert sink.kept == tmp_path / f"{name}.npy.partial"
    assert np.load(sink.kept).tolist() == [[1, 1, 1]]
    assert left_in(tmp_path) == [f"{name}.index.csv.partial", f"{name}.npy.partial"]


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
def test_array_without_rows_has_the_feature_width(tmp_path: Path, name: str) -> None:
    with open_array_sink(tmp_path / name) as sink:
        sink.write(FAILURE)
        sink.width = 7
    assert load(tmp_path / name).shape == (0, 7)
    assert load(tmp_path / name).dtype == np.float32


def test_npy_header_length_does_not_depend_on_the_row_count(tmp_path: Path) -> None:
    with open_array_sink(tmp_path / "x.npy") as sink:
        sink.write(features(0, 2048))
        lengths = {len(sink._rows._header(count)) for count in (0, 1, 9, 10, 10**6, 10**12)}
    assert len(lengths) == 1


# --- inputs and images are never replaced ---


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_image_is_never_replaced(cli: Cli, overwrite: list[str]) -> None:
    for name, data in {"a.jpeg": COFFEE.read_bytes(), "list": COFFEE.read_bytes(), "broken.jpg": b"torn"}.items():
        Path(name).write_bytes(data)
        ended = cli("predict", "-f", "csv", *overwrite, "-o", name, CAT)
        assert is_one_error(ended, 2)
        assert ended.errors == [f"error: {name} is an image, and images are never replaced"]
        assert Path(name).read_bytes() == data
    assert left_in(Path()) == ["a.jpeg", "broken.jpg", "list"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["pull", "embedded", "--verify", "list.txt", "-o"],
        ["predict", "list.txt", "-f", "csv", "-o"],
        ["predict", "x.jpg", "--labels", "list.txt", "-o"],
        ["predict", "x.jpg", "--weights", "list.txt", "-o"],
        ["evaluate", "list.txt", "-o"],
        ["bench", "list.txt", "-o"],
        ["predict", "-m", "model", "x.jpg", "-f", "json", "-o"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
@posix
def test_input_is_never_replaced_under_any_name(cli: Cli, command: list[str]) -> None:
    Path("model").mkdir()
    Path("list.txt").write_text("x.jpg\n", encoding="utf-8")
    os.link("list.txt", "hard.txt")
    Path("soft.txt").symlink_to("list.txt")
    os.link("list.txt", "model/config.json")
    for name in ("list.txt", "hard.txt", "soft.txt"):
        ended = cli(*command, name, "--overwrite")
        assert is_one_error(ended, 2)
        assert ended.errors == [f"error: {name} is one of the inputs"]
        assert Path(name).read_text(encoding="utf-8") == "x.jpg\n"


@pytest.mark.parametrize("option", ["-o", "--features-out"])
def test_array_never_replaces_an_input(cli: Cli, option: str) -> None:
    command = "features" if option == "-o" else "predict"
    Path("x.npy").write_text("a.jpg\n", encoding="utf-8")
    Path("y.npy.index.csv").write_text("a.jpg\n", encoding="utf-8")
    for listed, output in {"x.npy": "x.npy", "y.npy.index.csv": "y.npy"}.items():
        ended = cli(command, listed, option, output, "--overwrite")
        assert is_one_error(ended, 2)
        assert ended.errors == [f"error: {listed} is one of the inputs"]


def test_input_found_later_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "x.csv"
    output.write_text("not lost", encoding="utf-8")
    for later in (f"{tmp_path}/./x.csv", output.as_uri()):
        names = [str(tmp_path / "a.jpg"), later, "b.jpg"]
        sources = checked_inputs((Source(name, bytes) for name in names), None, tmp_path / "y.csv", output)
        assert next(sources).name == names[0]
        with pytest.raises(UsageError, match=r"x\.csv is one of the inputs"):
            next(sources)


def test_list_that_names_the_output_is_an_error(cli: Cli) -> None:
    Path("x.csv").write_text("not lost", encoding="utf-8")
    Path("list").write_text(f"{COFFEE}\nx.csv\n{CAT}\n", encoding="utf-8")
    ended = cli("predict", "--files-from", "list", "-o", "x.csv", "--overwrite", "-k", "1")
    assert ended.code == 2
    assert ended.errors == ["error: x.csv is one of the inputs"]
    assert Path("x.csv").read_text(encoding="utf-8") == "not lost"
    assert "espresso" in Path("x.csv.partial").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("listed", ["list.txt", "-"])
def test_list_is_not_replaced_by_its_own_results(run_resnetd: Resnetd, tmp_path: Path, listed: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text("x.jpg\n", encoding="utf-8")
    with path.open("rb") as stdin:
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "resnetd_cli",
                "predict",
                "--files-from",
                listed,
                "-o",
                "list.txt",
                "--overwrite",
            ],
            cwd=tmp_path,
            env={**run_resnetd.env(), "PYTHONPATH": str(ROOT)},
            stdin=stdin,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (2, "error: list.txt is one of the inputs")
    assert path.read_text(encoding="utf-8") == "x.jpg\n"


@posix
@pytest.mark.slow
def test_results_are_not_appended_to_the_list(run_resnetd: Resnetd, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("x.jpg\n", encoding="utf-8")
    with listed.open("a") as stdout:
        ended = subprocess.run(
            [sys.executable, "-m", "resnetd_cli", "predict", "--files-from", str(listed), "-f", "tsv"],
            env={**run_resnetd.env(), "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (2, "error: standard output is one of the inputs")
    assert listed.read_text(encoding="utf-8") == "x.jpg\n"


@pytest.mark.parametrize(
    ("data", "image"),
    [
        (b"", False),
        (b"input\tstatus\n", False),
        (b'[\n{"input": 1}]', False),
        (b"BM01.jpg\tok\t1\n", False),
        (b"P1 beach.jpg\tok\t1\n", False),
        (b"P3\n1 1\n255\n1 2 3\n", True),
        (b"#define im_width 8\n#define im_height 1\nstatic char im_bits[] = {\n0x01\n};", True),
        (b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0", True),
        (b"\x93NUMPY\x01\x00", False),
        (b"PK\x03\x04", False),
        (b"\xff\xd8\xff\xe0", True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"II*\x00\x08\0\0\0", True),
        (b"FUJIFILMCCD-RAW 0201", True),
        (b"IIRO\x08\0\0\0", True),
        (b"\0\0\0\x18ftypcrx ", True),
        (b"\0\0\0\x1cftypheic\0\0\0\0", True),
    ],
)
def test_is_image_recognises_images_by_their_bytes(tmp_path: Path, data: bytes, image: bool) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    assert is_image(tmp_path / "x.csv") == image


# --- said at the end ---


@pytest.mark.slow
def test_written_file_is_reported(cli: Cli) -> None:
    ended = cli("predict", COFFEE, CAT, "-o", "x.csv", "-k", "1")
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "x.csv: 2 inputs\n")
    ended = cli("predict", COFFEE, "missing.jpg", "-o", "y.csv", "-k", "1")
    assert ended.code == 3
    assert ended.stderr.splitlines()[-1] == "y.csv: 2 inputs, 1 of them failed"
    assert cli("predict", COFFEE, "-o", "z.csv", "-q").stderr == ""


@pytest.mark.slow
def test_features_are_written_to_standard_output_as_npy(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["features", str(COFFEE), "missing.jpg", str(CAT), "-m", "embedded", "-o", "-"]) == 3
    out, err = capsysbinary.readouterr()
    assert np.load(io.BytesIO(out)).shape == (2, 1280)
    assert b"missing.jpg: no such file" in err
    assert err.endswith(b"standard output: 2 x 1280 float32\n")
    assert left_in(tmp_path) == []
    assert run(["features", "missing.jpg", "-m", "embedded", "-o", "/dev/stdout"]) == 3
    assert np.load(io.BytesIO(capsysbinary.readouterr().out)).shape == (0, 1280)


def test_array_to_a_terminal_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_output, "is_tty", lambda _: True)
    assert is_one_error(cli("features", "x.jpg", "-o", "-"), 2)
    assert is_one_error(cli("predict", "x.jpg", "-o", "x.csv", "--features-out", "-"), 2)


def test_two_outputs_to_standard_output_are_refused(cli: Cli) -> None:
    ended = cli("predict", "x.jpg", "--features-out", "-")
    assert is_one_error(ended, 2)
    assert ended.errors == ["error: two outputs would be written to standard output"]


@pytest.mark.slow
def test_array_of_failed_inputs_only_has_the_feature_width(cli: Cli) -> None:
    assert cli("features", "missing.jpg", "-o", "x.npz").code == 3
    assert cli("predict", "missing.jpg", "--features-out", "y.npy").code == 3
    assert (np.load("x.npz")["features"].shape, np.load("y.npy").shape) == ((0, 1280), (0, 1280))


def test_output_named_like_an_image_is_refused(cli: Cli) -> None:
    ended = cli("predict", COFFEE, "-f", "csv", "-o", "new.jpeg")
    assert (ended.code, ended.errors) == (2, ["error: new.jpeg is named like an image"])
    assert not Path("new.jpeg").exists()


@pytest.mark.slow
def test_choices_are_case_insensitive(cli: Cli) -> None:
    ended = cli(
        "predict", COFFEE, "-k", "1", "-f", "JSONL", "--engine", "ONNX", "--device", "CPU", "--guard", "ALL"
    )
    assert (ended.code, json.loads(ended.stdout)["predictions"][0]["label"]) == (0, "espresso")
    ended = cli("predict", COFFEE, "-f", "xml")
    assert ended.code == 2
    assert "'--format' / '-f': 'xml' is not one of 'auto'" in ended.stderr
