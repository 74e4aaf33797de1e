"""When a compiled model is still right: files whose times alone have changed are the same files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.errors import CacheError
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.results import Preprocessing

HALF_A_SECOND = 500_000_000
HOW = Preprocessing((3, 8, 8), 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BundleKey:
    """A model folder that was compiled."""
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    whole = 1_700_000_000 * 10**9
    os.utime(weights, ns=(whole + HALF_A_SECOND, whole + HALF_A_SECOND))
    key = BundleKey(ModelChoice.of(str(model)))

    def make(folder: Path) -> Bundle:
        (folder / bundles.GRAPH).write_bytes(b"graph")
        names = ClassNames(("a", "b"), (None, None), "model")
        card = Card("m", HOW, names, GraphOrigin(1, "0" * 64, bundles.current_versions()))
        sources = {str(path): bundles.stamp(path) for path in (weights, model / "config.json")}
        return Bundle(folder, card, "0" * 64, sources)

    bundles.write(key, make)
    assert bundles.find(key)
    return key


def weights_of(key: BundleKey) -> Path:
    return Path(key.choice.model.text) / "model.safetensors"


@pytest.mark.parametrize("shift", [-HALF_A_SECOND, 1, 10**9, -(10**15), 10**15], ids=str)
def test_touching_a_file_keeps_the_bundle(key: BundleKey, shift: int) -> None:
    weights = weights_of(key)
    changed = weights.stat().st_mtime_ns + shift
    os.utime(weights, ns=(changed, changed))
    found = bundles.find(key)
    assert found and found.sources[str(weights)].changed == changed
    # From now on the time tells, and nothing is read.
    again = bundles.find(key)
    assert again and again.sources == found.sources


@pytest.mark.parametrize("content", [b"WEIGHTS", b"weights and more", b""])
@pytest.mark.parametrize("shift", [-HALF_A_SECOND, 1])
def test_changed_content_in_the_same_second_invalidates_the_bundle(
    key: BundleKey, content: bytes, shift: int
) -> None:
    weights = weights_of(key)
    changed = weights.stat().st_mtime_ns + shift
    weights.write_bytes(content)
    os.utime(weights, ns=(changed, changed))
    assert bundles.find(key) is None


def test_a_changed_configuration_invalidates_the_bundle(key: BundleKey) -> None:
    (Path(key.choice.model.text) / "config.json").write_text("[]")
    assert bundles.find(key) is None


def test_a_read_only_cache_is_no_error(key: BundleKey, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    os.utime(weights_of(key), ns=(0, 0))
    monkeypatch.setattr(bundles, "write_atomic", refuse)
    assert bundles.find(key) and bundles.find(key)


def test_deleted_weights_keep_the_bundle(key: BundleKey) -> None:
    weights_of(key).unlink()
    assert bundles.find(key)


def test_a_missing_home_folder_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.compiled.bundles.cache_dir", lambda: Path(os.devnull, "resnetd"))
    monkeypatch.setattr("resnetd_cli.system.files.cache_dir", lambda: Path(os.devnull, "resnetd"))
    with pytest.raises(CacheError, match="the compiled model cannot be kept: this user has no home folder"):
        bundles.check_cache()
