"""`resnetd` with URLs, against a misbehaving server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fault_server import CERTIFICATE, FaultServer
from helpers.paths import ROOT
from helpers.program import Finished, Resnetd, ResnetdHere

pytestmark = pytest.mark.slow

COFFEE = (ROOT / "samples" / "coffee.jpg").read_bytes()
EXPECTED = {
    "ok": [
        "/ok",
        "/no-length",
        "/chunked",
        "/gzip",
        "/é cat.jpg",
        "/b%C3%A4r%2Fcat%231.jpg",
        "/ok?q=größe&n=1%2B1",
        "/bad-length",
        "/negative-length",
        "/superscript-length",
        "/moved-twice",
        "/moved-in-full",
        "/busy-at-first",
        "/broken-at-first",
        "/limited-at-first",
        "/hangs-up-at-first",
    ],
    "http_status": ["/missing", "/forbidden", "/broken", "/busy", "/moved-away"],
    "connection": [
        "/cut",
        "/chunked-cut",
        "/bad-chunk",
        "/two-lengths",
        "/hang-up",
        "/babble",
        "/bad-gzip",
        "/many-encodings",
        "/many-headers",
        "/long-header",
        "/round",
    ],
    "timeout": ["/wait", "/wait-in-the-body", "/drip", "/drip-status", "/drip-headers", "/drip-continue"],
    "too_large": ["/flood", "/bomb", "/layered-bomb"],
    "empty": ["/empty", "/no-content"],
    "undecodable": ["/page", "/short-length"],
    "blocked": ["/to-file", "/to-ftp", "/to-data", "/to-nowhere"],
}
OTHER_SCHEMES = [
    "ftp://127.0.0.1/dog.jpg",
    "s3://bucket/dog.jpg",
    "http://",
    "http://[::1",
]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(body=COFFEE) as server:
        yield server


Predict = Callable[..., Finished]


@pytest.fixture
def predict(run_here: ResnetdHere, without_torch: dict[str, str]) -> Predict:
    """Predict with the compiled embedded model; keywords are environment variables."""

    def _predict(*arguments: str | Path, **env: str) -> Finished:
        options = ("-m", "embedded", "-k", "1", "-f", "jsonl")
        return run_here("predict", *arguments, *options, NO_PROXY="127.0.0.1,localhost", **without_torch, **env)

    return _predict


def records(ended: Finished) -> list[dict[str, Any]]:
    assert "Traceback" not in ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def kind(record: dict[str, Any]) -> str:
    if record["status"] == "ok":
        assert record["predictions"][0]["label"] == "espresso"
        return "ok"
    assert record["error"]["message"]
    return str(record["error"]["kind"])


def listed(tmp_path: Path, urls: list[str]) -> Path:
    path = tmp_path / "urls.txt"
    path.write_text("".join(f"{url}\n" for url in urls), "utf-8")
    return path


def test_every_server_fault_is_a_row_of_its_kind(server: FaultServer, predict: Predict, tmp_path: Path) -> None:
    expected = {server.url + path: kind for kind, paths in EXPECTED.items() for path in paths}
    expected.update((url, "blocked") for url in OTHER_SCHEMES)
    # Mixed, not grouped by kind.
    urls = sorted(expected, key=lambda url: url[::-1])
    ended = predict(
        "--files-from",
        listed(tmp_path, urls),
        "--allow-private-hosts",
        "--timeout",
        "6",
        "--max-bytes",
        "4000000",
    )
    rows = records(ended)
    assert [row["input"] for row in rows] == urls
    assert {row["input"]: kind(row) for row in rows} == expected
    assert ended.returncode == 3
    page = next(row for row in rows if row["input"].endswith("/page"))
    assert "web page" in page["error"]["message"]
    # Messages of libraries are not shown.
    *lines, last = ended.stderr.splitlines()
    assert {line.split()[0] for line in lines} == {"error:", "hint:"}
    assert last == f"{sum(kind != 'ok' for kind in expected.values())} of {len(urls)} inputs failed"


def test_listed_urls_cannot_reach_private_network(server: FaultServer, predict: Predict, tmp_path: Path) -> None:
    port = server.server_port
    urls = [
        *(server.url + path for paths in EXPECTED.values() for path in paths),
        *(f"http://{host}:{port}/ok" for host in ("localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0")),
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
    ]
    ended = predict("--files-from", listed(tmp_path, urls))
    rows = records(ended)
    assert [(row["input"], kind(row)) for row in rows] == [(url, "blocked") for url in urls]
    assert all("private" in row["error"]["message"] for row in rows)
    assert ended.returncode == 3
    assert not server.requests


def test_typed_url_may_be_private_but_redirects_may_not(server: FaultServer, predict: Predict) -> None:
    ended = predict(f"{server.url}/ok", f"{server.url}/moved-in-full")
    assert [kind(row) for row in records(ended)] == ["ok", "blocked"]
    assert "--allow-private-hosts" in ended.stderr


def test_urls_are_fetched_concurrently_and_reported_in_order(predict: Predict, tmp_path: Path) -> None:
    with FaultServer(body=COFFEE) as one, FaultServer("::1", COFFEE) as other:
        urls = [f"{server.url}/at-once-4?{number}" for number in range(6) for server in (one, other)]
        ended = predict("--files-from", listed(tmp_path, urls), "--allow-private-hosts", "--connections", "8")
        assert [(row["input"], kind(row)) for row in records(ended)] == [(url, "ok") for url in urls]
        # Each server reached the limit per host, so eight requests ran at once.
        assert (one.most, other.most) == (4, 4)


def test_one_connection_fetches_one_url_at_a_time(server: FaultServer, predict: Predict) -> None:
    urls = [f"{server.url}/in-a-moment?{number}" for number in range(4)]
    ended = predict(*urls, "--connections", "1")
    assert [kind(row) for row in records(ended)] == ["ok"] * 4
    assert server.most == 1


def test_proxy_from_environment_is_used(server: FaultServer, predict: Predict) -> None:
    url = "http://pictures.example/ok"
    ended = predict(url, http_proxy=server.url, HTTP_PROXY=server.url)
    assert [kind(row) for row in records(ended)] == ["ok"]
    assert [request.path for request in server.requests] == [url]


def test_https_url_is_fetched(predict: Predict) -> None:
    with FaultServer(body=COFFEE, tls=True) as server:
        ended = predict(f"{server.url}/ok", REQUESTS_CA_BUNDLE=str(CERTIFICATE))
        assert [kind(row) for row in records(ended)] == ["ok"]


def test_labels_url_with_other_scheme_is_an_error(predict: Predict) -> None:
    ended = predict(ROOT / "samples" / "coffee.jpg", "--labels", "file:///etc/hostname")
    assert ended.returncode == 1
    assert "file: URLs are not fetched" in ended.stderr


def test_program_ends_without_waiting_for_slow_server(
    server: FaultServer, run_resnetd: Resnetd, without_torch: dict[str, str]
) -> None:
    process = run_resnetd.start(
        "predict",
        f"{server.url}/missing",
        f"{server.url}/drip",
        "-m",
        "embedded",
        "--fail-fast",
        "--timeout",
        "60",
        **without_torch,
    )
    with server.changed:
        assert server.changed.wait_for(lambda: server.seen["/drip"] == 1, 60)
    began = time.monotonic()
    assert run_resnetd.finish(process).returncode == 1
    assert time.monotonic() - began < 30
