"""Environment settings for the hub, and caches copied by hand: in this process, without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from helpers.fault_server import CERTIFICATE, FaultServer, answer
from helpers.hub import Hub
from helpers.socks_server import SocksServer
from huggingface_hub import constants

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import HubError, UsageError
from resnetd_cli.models import hub_environment
from resnetd_cli.models.hub import CONFIG, WEIGHTS, Downloads, fetch

OFFLINE = Downloads(offline=True)
REPO = "me/tiny"
CONTENT = {"config.json": b'{"architecture": "resnet18"}', "model.safetensors": bytes(range(256)) * 40}
COMMIT = "c0ffee" + "0" * 34
VARIABLES = (
    hub_environment.ENDPOINT,
    hub_environment.TOKEN,
    hub_environment.ETAG_TIMEOUT,
    hub_environment.DOWNLOAD_TIMEOUT,
    *hub_environment.CACHE,
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_XET",
    "HUGGING_FACE_HUB_TOKEN",
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings for the hub; it is restored afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # restored even if a test changes os.environ
        monkeypatch.delenv(name)
    monkeypatch.setattr(hub_environment, "_found", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, CONTENT)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


def failure(*args: object, **options: object) -> HubError:
    with pytest.raises(HubError) as caught:
        fetch(REPO, *args, **options)
    assert "\n" not in caught.value.message
    assert hint_of(caught.value)
    return caught.value


# --- variables ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://hf-mirror.com", "https://hf-mirror.com"),
        ("https://hf-mirror.com/", "https://hf-mirror.com"),
        ("HTTPS://hf-mirror.com//", "https://hf-mirror.com"),
        ("https://host/artifactory/api/huggingfaceml/hub/", "https://host/artifactory/api/huggingfaceml/hub"),
        ("hf-mirror.com", "https://hf-mirror.com"),
        ("//hf-mirror.com/", "https://hf-mirror.com"),
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080/hub", "http://127.0.0.1:8080/hub"),
        ("[::1]:8080", "http://[::1]:8080"),
        (" https://hf-mirror.com\n", "https://hf-mirror.com"),
        ("", None),
        (" ", None),
    ],
)
def test_endpoint_in_any_spelling_is_understood(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    hub_environment.check()
    assert os.environ.get("HF_ENDPOINT") == expected
    hub_environment.check()
    assert os.environ.get("HF_ENDPOINT") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("HF_ENDPOINT", value)
            for value in ("http://[::1", "https://", "ftp://host", "http://host:port", "a b")
        ],
        ("HF_ENDPOINT", "https://host?x=1"),
        ("HF_HUB_ETAG_TIMEOUT", "abc"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "nan"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "60s"),
        ("HF_HUB_OFFLINE", "maybe"),
        ("HF_TOKEN", "hf_\u201cquoted\u201d"),
        ("HF_TOKEN", "hf_two words"),
    ],
)
def test_invalid_variable_is_usage_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    hub_environment.put_in_order()
    assert name not in os.environ  # other imports of huggingface_hub still work
    with pytest.raises(UsageError, match=name) as caught:
        fetch(REPO)
    assert hint_of(caught.value)
    if name == "HF_TOKEN":
        assert value not in caught.value.message


@pytest.mark.parametrize(
    ("value", "expected"), [("2.5", "3"), (" 60 ", "60"), ("1e2", "100"), ("0", None), ("", None)]
)
def test_seconds_are_rounded_up_for_huggingface_hub(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None
) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", value)
    hub_environment.check()
    assert os.environ.get("HF_HUB_ETAG_TIMEOUT") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", "1"), ("True", "1"), ("YES", "1"), (" on ", "1"), ("t", "1"), ("0", "0"), ("False", "0"), ("off", "0")],
)
def test_switches_are_read_in_every_spelling(monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    hub_environment.check()
    assert os.environ["HF_HUB_OFFLINE"] == expected


def test_empty_cache_variable_is_not_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "")
    hub_environment.check()
    assert "HF_HOME" not in os.environ


def test_user_without_home_gets_no_folder_named_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    hub_environment.check()
    assert os.environ["HF_HOME"] == str(tmp_path / "own" / "huggingface")


# --- proxies ---


@pytest.mark.slow
def test_proxy_in_any_spelling_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as proxy:
        path = f"{hub.endpoint}/{REPO}/resolve/main/config.json"
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        monkeypatch.setenv("NO_PROXY", "[::1],fd07:b51a:cc66::/64")
        error = failure(CONFIG)
        assert path in [request.path for request in proxy.requests]
        assert hub.requests == []
        assert error.message == (
            f"cannot get {REPO} from {hub.endpoint} through the proxy {proxy.url} (HTTP_PROXY): "
            "Server disconnected without sending a response."
        )
        assert "HTTP_PROXY" in str(hint_of(error))
        monkeypatch.setenv("NO_PROXY", "[::1],fd07:b51a:cc66::/64, 127.0.0.0/8")
        assert fetch(REPO, CONFIG).read_bytes() == CONTENT["config.json"]


@pytest.mark.parametrize("value", ["socks://127.0.0.1:7891/", "socks5h://127.0.0.1:7891", "ftp://host"])
def test_irrelevant_proxy_is_ignored(hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8,[::1],fd07:b51a:cc66::/64")
    assert fetch(REPO, CONFIG).read_bytes() == CONTENT["config.json"]


def test_unusable_proxy_is_named_in_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://host")
    with pytest.raises(UsageError, match="ALL_PROXY"):
        fetch(REPO)
    assert hub.requests == []


def test_proxy_that_asks_for_a_password_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:secret@"))
        for name in CONTENT:
            proxy.answers[f"/{REPO}/resolve/main/{name}"] = answer(407)
        error = failure(CONFIG)
    assert error.message == f"the proxy {proxy.url} (http_proxy) asks for a name and a password (407)"


# --- tokens and time-outs ---


def test_expired_token_is_not_sent_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses_tokens = True
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert fetch(REPO).read_bytes() == CONTENT["model.safetensors"]
    assert [request.status for request in hub.requests[:2]] == [401, 302]


@pytest.mark.parametrize("where", ["variable", "file"])
def test_refused_token_for_private_repository_is_named_in_error(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    hub.refuses_tokens = True
    if where == "variable":
        monkeypatch.setenv("HF_TOKEN", "hf_expired")
    else:
        (tmp_path / "token").write_text("hf_expired\n")
    source = "HF_TOKEN" if where == "variable" else str(tmp_path / "token")
    with pytest.raises(HubError) as caught:
        fetch("me/private")
    assert caught.value.message == (
        f"me/private is not on {hub.endpoint}, or is private; the token ({source}) is not valid there"
    )
    assert "hf_expired" not in str(hint_of(caught.value))


@pytest.mark.slow
def test_hub_error_names_variable_that_sets_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    hub.fail("*", status=500)
    assert failure().message == f"{hub.endpoint} (HF_ENDPOINT) answered 500 for {REPO}"


def test_hub_error_without_token_does_not_mention_one(hub: Hub) -> None:
    hub.fail("*", status=403)
    assert "token" not in failure().message


@pytest.mark.slow
def test_slow_hub_gets_the_time_its_variables_set(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fail("*/config.json", wait=0.6, at="hub")
    monkeypatch.setattr("resnetd_cli.models.hub._PROBE_SECONDS", 0.2)
    error = failure(CONFIG)
    assert "HF_HUB_ETAG_TIMEOUT=60" in str(hint_of(error))
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "2")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "2")
    assert fetch(REPO, CONFIG).read_bytes() == CONTENT["config.json"]


@pytest.mark.slow
def test_time_out_variable_may_be_shorter_than_default(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fail("*", stall=True)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    began = time.monotonic()
    failure(CONFIG)
    assert time.monotonic() - began < 4


# --- caches copied by hand ---


@pytest.fixture
def staged(hub: Hub, tmp_path: Path) -> Path:
    """The folder of a downloaded repository in the cache."""
    for names in (CONFIG, WEIGHTS):
        fetch(REPO, names)
    hub.forget_requests()
    return tmp_path / "hub" / "models--me--tiny"


def snapshot(folder: Path) -> Path:
    (only,) = (folder / "snapshots").iterdir()
    return only


def dereference(folder: Path) -> None:
    """Copy like `cp -rL`."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    copy.rename(folder)


def answers(repo: str = REPO) -> None:
    assert fetch(repo, downloads=OFFLINE).read_bytes() == CONTENT["model.safetensors"]
    assert fetch(repo, CONFIG, downloads=OFFLINE).read_bytes() == CONTENT["config.json"]


def test_cache_copied_without_links_is_used(staged: Path) -> None:
    dereference(staged)
    assert not (snapshot(staged) / "model.safetensors").is_symlink()
    answers()


def test_cache_copied_without_blobs_is_used(staged: Path) -> None:
    dereference(staged)
    shutil.rmtree(staged / "blobs")
    answers()


def test_file_copied_in_place_of_link_must_equal_its_blob(staged: Path) -> None:
    dereference(staged)
    file = snapshot(staged) / "model.safetensors"
    file.write_bytes(CONTENT["model.safetensors"][:-1] + b"?")
    assert f"{REPO} is damaged on this machine ({file})" in failure(downloads=OFFLINE).message


def test_cache_without_refs_is_used_if_it_has_one_snapshot(staged: Path) -> None:
    shutil.rmtree(staged / "refs")
    answers()


def test_cache_without_refs_is_refused_if_it_has_several_snapshots(staged: Path) -> None:
    shutil.rmtree(staged / "refs")
    other = staged / "snapshots" / COMMIT
    shutil.copytree(snapshot(staged), other)
    assert failure(downloads=OFFLINE).message.startswith(
        f"{staged} has 2 snapshots, and refs/main names none of them"
    )
    assert fetch(f"{REPO}@{COMMIT}", downloads=OFFLINE) == other / "model.safetensors"
    assert fetch(f"{REPO}@{COMMIT[:7]}", downloads=OFFLINE) == other / "model.safetensors"


def test_ref_that_ends_in_a_line_break_is_read(staged: Path) -> None:
    reference = staged / "refs" / "main"
    reference.write_text(reference.read_text() + "\n")
    answers()


def test_snapshot_that_ref_does_not_name_is_not_used(staged: Path) -> None:
    (staged / "refs" / "main").write_text(COMMIT)
    assert "is not on this machine" in failure(downloads=OFFLINE).message


def test_snapshot_named_like_the_branch_is_used(staged: Path) -> None:
    shutil.rmtree(staged / "refs")
    snapshot(staged).rename(staged / "snapshots" / "main")
    answers()


def test_links_without_blobs_are_named_in_error(staged: Path) -> None:
    shutil.rmtree(staged / "blobs")
    error = failure(downloads=OFFLINE)
    assert str(snapshot(staged) / "model.safetensors") in error.message
    assert "broken link" in error.message


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("file/hub", "cannot keep me/tiny in {tmp}/file/hub: Not a directory"),
        ("/dev/null/resnetd/huggingface/hub", "there is no home folder to keep me/tiny in"),
    ],
)
def test_unwritable_cache_folder_is_named_in_error(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, said: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / folder))
    error = failure()
    assert error.message == said.format(tmp=tmp_path)
    assert "HF_HOME" in str(hint_of(error))


def test_git_lfs_pointer_is_not_used_as_weights(hub: Hub, staged: Path) -> None:
    file = snapshot(staged) / "model.safetensors"
    digest = hashlib.sha256(CONTENT["model.safetensors"]).hexdigest()
    file.unlink()
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 10240\n")
    assert "a Git LFS pointer" in failure(downloads=OFFLINE).message
    assert fetch(REPO).read_bytes() == CONTENT["model.safetensors"]


def test_offline_error_names_the_cache_folder(tmp_path: Path) -> None:
    assert failure(downloads=OFFLINE).message == (
        f"{REPO} is not on this machine ({tmp_path / 'hub'}), and this is an offline run"
    )


def test_hf_home_that_names_cache_itself_gets_a_hint(staged: Path) -> None:
    staged.rename(staged.parents[1] / staged.name)
    assert f"{REPO} is in {staged.parents[1]}, which HF_HUB_CACHE may name" in failure(downloads=OFFLINE).message


def test_damaged_file_in_read_only_cache_is_one_line_error(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    snapshot(staged).joinpath("model.safetensors").resolve().write_bytes(b"damage")
    monkeypatch.setattr(Path, "unlink", refuse)
    error = failure()
    assert "Read-only file system" in error.message
    assert "HF_HOME" in str(hint_of(error))


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
def test_hub_behind_socks_proxy_is_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with SocksServer(hub.port) as socks:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{socks.address}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "10")
        assert fetch(REPO, CONFIG).read_bytes() == CONTENT["config.json"]
        assert set(socks.requests) == {("127.0.0.1", hub.port)}


def test_socks_proxy_without_package_is_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(UsageError, match="ALL_PROXY") as caught:
        fetch(REPO, CONFIG)
    assert "resnetd[socks]" in str(hint_of(caught.value))
    assert hub.requests == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_of_every_variable_are_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with FaultServer(tls=True) as server:
        path = f"/{REPO}/resolve/main/config.json"
        server.answers[path] = answer(404, X_Error_Code="EntryNotFound")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        error = failure(CONFIG)
        assert "certificate verify failed" in error.message
        assert "REQUESTS_CA_BUNDLE=FILE" in str(hint_of(error))
        huggingface_hub.close_session()
        monkeypatch.setenv(variable, str(CERTIFICATE))
        assert failure(CONFIG).message == f"{REPO} on {server.url} has no config.json"
        huggingface_hub.close_session()
        monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
        with pytest.raises(UsageError, match=variable):
            fetch(REPO, CONFIG)
    huggingface_hub.close_session()
