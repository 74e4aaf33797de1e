"""Atomic writes, checks of outputs, the cache folder."""

from __future__ import annotations

import getpass
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import OutputError, OutputExists
from resnetd_cli.system import files
from resnetd_cli.system.files import check_writable, open_atomic, write_atomic

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files and permissions")


@pytest.fixture
def umask() -> Iterator[None]:
    """Whatever a test sets the process's umask to, it is set back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_gets_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_atomic(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert left_in(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_failed_write_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, open_atomic(tmp_path / "out.csv") as file:
        file.write(b"half")
        raise error
    assert caught.value is error
    assert left_in(tmp_path) == []


def test_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), open_atomic(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == ["out.csv"]


def test_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old and longer")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert left_in(tmp_path) == ["out.csv"]


def test_file_is_fsynced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 4
        events.append("fsync")
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_atomic(tmp_path / "out.csv", b"data")
    assert events[:2] == ["fsync", "rename"]


def test_text_is_written_with_the_given_options(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_atomic(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write("é\udce9\n")
    assert path.read_bytes() == b"\xc3\xa9\xe9\n"


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o000, 0o666)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: None, mask: int, mode: int) -> None:
    os.umask(mask)
    write_atomic(tmp_path / "out.csv", b"data")
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == mode
    assert os.umask(0o022) == mask  # asking for it has not changed it


def test_write_atomic_creates_the_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "out.bin", b"data")
    assert (tmp_path / "a" / "b" / "out.bin").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["n" * 255, "é" * 120 + ".csv", "猫" * 83 + ".csv"], ids=["ascii", "é", "猫"])
def test_longest_file_names_are_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()  # it does
    write_atomic(tmp_path / name, b"data")
    assert (tmp_path / name).read_bytes() == b"data"


def test_file_in_place_of_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "file" / "out.csv", b"data")


def test_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="no such file or directory"),
        open_atomic(tmp_path / "gone" / "out.csv"),
    ):
        pass


def test_full_disk_is_an_output_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out\.csv: no space left on device"):
        write_atomic(tmp_path / "out.csv", b"data")
    assert left_in(tmp_path) == []


def test_os_error_of_another_file_is_not_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_atomic(tmp_path / "out.csv"):
        (tmp_path / "an-input-that-is-gone.jpg").read_bytes()
    assert left_in(tmp_path) == []


# --- pipes and devices ---


@posix
def test_pipe_is_written_to_directly(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with open_atomic(path) as file:
        file.write(b"through the pipe")
    reader.join(10)
    assert read == [b"through the pipe"]
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert left_in(tmp_path) == ["pipe"]


@posix
def test_device_is_written_to_directly() -> None:
    write_atomic(Path("/dev/null"), b"data")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_device_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="no space left"), open_atomic(Path("/dev/full")) as file:
        file.write(b"data")


@posix
def test_is_stream_is_true_for_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    assert files.is_stream(tmp_path / "pipe")
    assert files.is_stream(Path("/dev/null"))
    assert not files.is_stream(tmp_path / "file")
    assert not files.is_stream(tmp_path)
    assert not files.is_stream(tmp_path / "gone")


# --- told before the work ---


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with pytest.raises(OutputExists, match=r"out\.csv exists") as caught:
        check_writable(path, overwrite=False)
    assert "--overwrite" in (hint_of(caught.value) or "")
    check_writable(path, overwrite=True)
    check_writable(tmp_path / "new.csv", overwrite=False)
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_as_output_is_refused(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path, overwrite=overwrite)


def test_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is not a folder"):
        check_writable(tmp_path / "gone" / "out.csv", overwrite=False)


@posix
def test_write_protected_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.touch()
    monkeypatch.setattr(os, "access", lambda file, mode: file != path)
    with pytest.raises(OutputError, match="is write-protected"):
        check_writable(path, overwrite=True)


@posix
def test_output_in_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="permission denied"):
        check_writable(tmp_path / "out.csv", overwrite=False)


@posix
def test_existing_pipe_and_device_are_accepted_as_outputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe", overwrite=False)
    check_writable(Path("/dev/null"), overwrite=False)


def test_resnetd_cache_sets_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "mine"))
    assert files.cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESNETD_CACHE", "~/mine")
    assert files.cache_dir() == Path("~/mine").expanduser()
    monkeypatch.delenv("RESNETD_CACHE")
    assert files.cache_dir().name == "resnetd"


@posix
def test_write_atomic_replaces_a_link_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"shared")
    (tmp_path / "config.json").symlink_to("blob")
    write_atomic(tmp_path / "config.json", b"mine")
    assert ((tmp_path / "config.json").read_bytes(), (tmp_path / "blob").read_bytes()) == (b"mine", b"shared")


def test_user_unknown_to_the_system_gets_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    pwd = pytest.importorskip("pwd")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", refuse)
    monkeypatch.setenv("USER", "")  # what is set is taken back after the test
    files.name_user()
    assert getpass.getuser() == "nobody"
    monkeypatch.setenv("USER", "somebody")
    files.name_user()
    assert getpass.getuser() == "somebody"
