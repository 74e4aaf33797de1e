"""Pickles are inspected before loading: pickle bombs are rejected."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetd_cli.errors import WeightsError
from resnetd_cli.models import checkpoints, pickles
from resnetd_cli.models.pickles import PickleBombError

TIMES = 60
"""Number of objects that each hold the previous one twice: printing the last would take 2**60 steps."""


def archive(path: Path, body: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", body)
        file.writestr("archive/version", b"3\n")
    return path


def capitals(path: Path, body: bytes) -> Path:
    """Write an archive whose record has another name under which torch still finds it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/DATA.PKL", body)
        file.writestr("archive/version", b"3\n")
    return path


def twice(path: Path, body: bytes) -> Path:
    """Write an archive with two records of the same name."""
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("archive/data.pkl", body)
        file.writestr("archive/data.pkl", pickle.dumps({}, 2))
    return path


def legacy(path: Path, body: bytes) -> Path:
    stream = io.BytesIO()
    torch.save({}, stream, _use_new_zipfile_serialization=False)
    data = stream.getvalue()
    empty = pickle.dumps({}, 2)
    assert data.count(empty) == 1
    path.write_bytes(data.replace(empty, body))
    return path


def bare(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


def doubled(kind: str, times: int = TIMES) -> bytes:
    """Return the pickle of an object that holds another one twice, which holds another one twice, and so on."""
    key = b"X\x01\x00\x00\x00"
    made = {"list": b"]", "tuple": b")", "dict": b"}"}[kind] + b"q\x00"
    for number in range(1, times + 1):
        before = b"h" + bytes([number - 1])
        made += {
            "list": b"](" + before * 2 + b"e",
            "tuple": b"(" + before * 2 + b"t",
            "dict": b"}(" + key + b"a" + before + key + b"b" + before + b"u",
        }[kind]
        made += b"q" + bytes([number])
    return made


def inside_out(times: int = TIMES) -> bytes:
    """Return lists that are nested before the innermost one is filled."""
    made = b"".join(b"]q" + bytes([number]) for number in range(times + 1))
    for number in range(times):
        inner = b"h" + bytes([number + 1])
        made += b"h" + bytes([number]) + b"(" + inner * 2 + b"e0"
    return made


BOMBS = {
    **{kind: b"\x80\x02" + doubled(kind) + b"." for kind in ("list", "tuple", "dict")},
    "inside out": b"\x80\x02" + inside_out() + b".",
    "shown in an error": b"\x80\x02ctorch\nSize\n" + doubled("list") + b"\x85R.",
    "as a key": b"\x80\x02}" + doubled("tuple") + b"K\x01s.",
    "as a name": b"\x80\x02" + doubled("list") + b")R.",
    "before damage": b"\x80\x02ctorch\nSize\n" + doubled("list") + b"\x85R\x00",
    "before the stack is empty": b"\x80\x02ctorch\nSize\n" + doubled("list") + b"\x85R0000000" + b"0" * 99 + b".",
    "with DUP": b"\x80\x02]q\x00" + b"2a" * TIMES + b".",
    "a text often": b"\x80\x02]q\x00X\x00\x00\x01\x00" + b"a" * 2**16 + b"q\x010(" + b"h\x01" * 40_000 + b"l.",
    "keys often": b"\x80\x02" + doubled("tuple", 18) + b"q\x64}" + b"h\x64K\x01s" * 200 + b".",
    "deep": b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
}


@pytest.mark.slow
@pytest.mark.parametrize("write", [archive, capitals, twice, legacy, bare])
@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_pickle_that_grows_without_end_is_refused(
    body: bytes, write: Callable[[Path, bytes], Path], tmp_path: Path
) -> None:
    with pytest.raises(PickleBombError):
        pickles.check(write(tmp_path / "w.pth", body))


def test_many_objects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.models.pickles._MOST_OBJECTS", 1000)
    pickles.check(bare(tmp_path / "few", b"\x80\x02(" + b"}" * 999 + b"l."))
    with pytest.raises(PickleBombError, match="more than 1,000 objects"):
        pickles.check(bare(tmp_path / "many", b"\x80\x02(" + b"}" * 1000 + b"l."))


def test_limit_counts_parts_wherever_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four lists, each twice in the next, have sizes 1, 3, 7 and 15: 26 parts in 4 objects."""
    path = bare(tmp_path / "w", b"\x80\x02" + doubled("list", 3) + b".")
    monkeypatch.setattr("resnetd_cli.models.pickles._GROWTH", 0)
    monkeypatch.setattr("resnetd_cli.models.pickles._ROOM", 26)
    pickles.check(path)
    monkeypatch.setattr("resnetd_cli.models.pickles._ROOM", 25)
    with pytest.raises(PickleBombError):
        pickles.check(path)
    monkeypatch.setattr("resnetd_cli.models.pickles._ROOM", 22)
    monkeypatch.setattr("resnetd_cli.models.pickles._GROWTH", 1)
    pickles.check(path)


@pytest.mark.parametrize("write", [archive, legacy])
def test_pickle_bomb_is_one_line_error(write: Callable[[Path, bytes], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", BOMBS["shown in an error"])
    with pytest.raises(WeightsError) as caught:
        checkpoints.read(path)
    assert caught.value.message == (
        f"{path} is not a weights file, or a damaged one: it holds the same objects over and over, "
        "far beyond its size"
    )


def training_state() -> dict[str, Any]:
    """Training state as scripts save it: weights under several names, optimiser state, a long history."""
    layer = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(300)))
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    weights = layer.state_dict()
    tied = {f"tied.{number}": weights["0.weight"] for number in range(300)}
    return {
        **dict.fromkeys(("state_dict", "state_dict_ema", "best", "last"), weights),
        "tied": tied,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(model="x", betas=(0.9, 0.999), names=["a"] * 1000),
        "losses": [0.5 * number for number in range(100_000)],
        "epochs": [{"loss": 1.0, "size": (4, 4)} for _ in range(2000)],
    }


@pytest.mark.slow
@pytest.mark.parametrize("is_archive", [True, False])
def test_usual_training_state_is_read(is_archive: bool, tmp_path: Path) -> None:
    state = training_state()
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=is_archive)
    pickles.check(tmp_path / "w.pth")
    best = checkpoints.read(tmp_path / "w.pth")[0]
    assert best.path == "state_dict"
    assert len(best.tensors) == 600
    assert torch.equal(best.tensors["7.bias"], state["best"]["7.bias"])


def test_endless_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="endless name"):
        pickles.check(bare(tmp_path / "w", b"\x80\x02c" + b"a." * 600 + b"\nb\n."))
    pickles.check(bare(tmp_path / "w", b"\x80\x02c" + b"a." * 400 + b"\nb\n."))


def test_names_are_those_that_pickles_import(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", pickle.dumps([io.BytesIO, zipfile.ZipFile], 4))
    assert list(pickles.names(path)) == ["_io.BytesIO", "zipfile.ZipFile"]
    assert list(pickles.names(bare(tmp_path / "text", b"no pickle"))) == []
