"""Fetching over real sockets: bodies, redirects, retries, timeouts, proxies, and the kind of each failure."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers import fault_server
from helpers.fault_server import BODY, CERTIFICATE, LARGE_SIZE, FaultServer, bomb
from helpers.socks_server import SocksServer

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.net import addresses, connections, fetch, inflating, retries
from resnetd_cli.system.deadline import Deadline

FILES = Path("/proc/self/fd")
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "no_proxy")


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def server(shared_server: FaultServer) -> FaultServer:
    shared_server.forget()
    return shared_server


@pytest.fixture
def secure_server(anew: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    with FaultServer(tls=True) as server:
        yield server


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy, no kept connection, no pending `Retry-After` and no long pauses."""
    for name in (*PROXIES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retries, "_retry_after_ends", {})
    yield
    connections._adapter().close()
    connections._adapter.cache_clear()


def get(url: str, **options: Any) -> bytes:
    """Fetch what may be on loopback, redirected or not."""
    return fetch.fetch(url, **{"allow_private_hosts": True, **options})


def failure(url: str, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        get(url, **options)
    assert caught.value.message
    assert hint_of(caught.value)
    assert "\n" not in caught.value.message
    return caught.value


def is_soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# --- what comes ---


@pytest.mark.parametrize(
    "path",
    [
        "/ok",
        "/no-length",
        "/chunked",
        "/gzip",
        "/gzip-in-two-members",
        "/gzip-and-more",
        "/gzip-twice",
        "/deflate",
        "/raw-deflate",
        "/odd-encoding",
        "/moved",
        "/moved-twice",
        "/moved-in-full",
        "/moved-to-spaces",
    ],
)
def test_body_is_fetched_whole(server: FaultServer, path: str) -> None:
    assert get(server.url + path) == BODY


@pytest.mark.parametrize("path", ["/bad-length", "/negative-length", "/superscript-length"])
def test_invalid_content_length_is_ignored(server: FaultServer, path: str) -> None:
    assert get(server.url + path) == BODY


def test_bytes_after_the_content_length_are_ignored(server: FaultServer) -> None:
    assert get(server.url + "/short-length") == BODY[:1000]
    assert get(server.url + "/ok") == BODY


def test_scheme_in_capitals_is_accepted(server: FaultServer) -> None:
    assert get(server.url.replace("http", "HTTP") + "/ok") == BODY


def test_request_sends_user_agent_and_identity_encoding(server: FaultServer) -> None:
    get(server.url + "/ok")
    headers = server.requests[-1].headers
    assert headers["User-Agent"].startswith("resnetd")
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/é cat.jpg", "/%C3%A9%20cat.jpg"),
        ("/%C3%A9%20cat.jpg", "/%C3%A9%20cat.jpg"),
        ("/b%C3%A4r%2Fcat%231.jpg", "/b%C3%A4r%2Fcat%231.jpg"),
        ("/ok?q=größe&n=1%2B1&empty=", "/ok?q=gr%C3%B6%C3%9Fe&n=1%2B1&empty="),
        ("/ok#part", "/ok"),
    ],
)
def test_paths_and_queries_are_escaped_once(server: FaultServer, written: str, sent: str) -> None:
    assert get(server.url + written) == BODY
    assert server.requests[-1].path == sent


def test_non_ascii_host_is_resolved_in_its_ascii_form(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, _: float) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(connections, "look_up", look_up)
    assert failure("http://bücher.example/dog.jpg").kind is ErrorKind.CONNECTION
    assert asked == ["xn--bcher-kva.example"]


def test_ipv6_url_is_fetched() -> None:
    with FaultServer("::1") as server:
        assert get(server.url + "/ok") == BODY
        assert server.requests[-1].headers["Host"] == f"[::1]:{server.server_port}"


def test_https_url_is_fetched(secure_server: FaultServer) -> None:
    assert get(secure_server.url + "/ok") == BODY
    assert get(secure_server.url.replace("127.0.0.1", "localhost") + "/ok") == BODY


def test_untrusted_certificate_is_a_connection_failure(
    secure_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    error = failure(secure_server.url + "/ok")
    assert error.kind is ErrorKind.CONNECTION
    assert "certificate" in error.message


def test_connections_are_reused(server: FaultServer) -> None:
    for _ in range(5):
        get(server.url + "/ok")
    assert len({request.client for request in server.requests}) == 1


# --- what does not come ---


@pytest.mark.parametrize(
    ("path", "status"),
    [("/missing", "404"), ("/forbidden", "403"), ("/broken", "500"), ("/busy", "503"), ("/moved-away", "404")],
)
def test_error_status_is_in_the_message(server: FaultServer, path: str, status: str) -> None:
    error = failure(server.url + path)
    assert error.kind is ErrorKind.HTTP_STATUS
    assert status in error.message


@pytest.mark.parametrize("path", ["/empty", "/no-content"])
def test_body_of_zero_bytes_is_empty(server: FaultServer, path: str) -> None:
    assert failure(server.url + path).kind is ErrorKind.EMPTY


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/cut",
        "/chunked-cut",
        "/bad-chunk",
        "/two-lengths",
        "/hang-up",
        "/babble",
        "/bad-gzip",
        "/gzip-cut",
        "/brotli",
        "/gzip-thrice",
        "/empty-members",
        "/many-encodings",
        "/many-headers",
        "/long-header",
        "/round",
    ],
)
def test_broken_connection_is_a_connection_failure(server: FaultServer, path: str) -> None:
    assert failure(server.url + path).kind is ErrorKind.CONNECTION


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/cut", "127.0.0.1 ended the answer early: 1,000 of 2,000 bytes came"),
        ("/chunked-cut", "127.0.0.1 ended the answer early"),
        ("/bad-chunk", "127.0.0.1 sent invalid HTTP: a chunk without a valid length"),
    ],
)
def test_broken_response_message_is_ours(server: FaultServer, path: str, message: str) -> None:
    error = failure(server.url + path)
    assert (error.kind, error.message, hint_of(error)) == (ErrorKind.CONNECTION, message, "try again")


def test_too_many_redirects_fail(server: FaultServer) -> None:
    assert "redirects" in failure(server.url + "/round").message
    assert len(server.requests) == fetch.MAX_REDIRECTS + 1


def test_refused_connection_names_the_host() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = failure(f"http://127.0.0.1:{port}/dog.jpg")
    assert error.kind is ErrorKind.CONNECTION
    assert "127.0.0.1" in error.message
    assert "refused" in error.message.lower()


# --- bounds ---


@pytest.mark.parametrize("path", ["/ok", "/no-length", "/chunked", "/gzip"])
def test_body_over_max_bytes_is_too_large(server: FaultServer, path: str) -> None:
    assert failure(server.url + path, max_bytes=len(BODY) - 1).kind is ErrorKind.TOO_LARGE
    assert get(server.url + path, max_bytes=len(BODY)) == BODY


def test_max_bytes_bounds_every_layer_of_compression(server: FaultServer) -> None:
    """Nothing comes of the inner layer, so the bytes of the body alone would tell nothing."""
    error = failure(server.url + "/large-inner-layer", max_bytes=2**20)
    assert (error.kind, error.message) == (ErrorKind.TOO_LARGE, "more than 1,048,576 bytes")


def test_gzip_with_many_empty_members_is_refused(server: FaultServer) -> None:
    began = time.monotonic()
    assert failure(server.url + "/empty-members").kind is ErrorKind.CONNECTION
    assert time.monotonic() - began < 2


def test_decompression_stops_at_the_deadline() -> None:
    squeezed = gzip.compress(bytes(2**24))
    with pytest.raises(TimeoutError):
        for _ in inflating.inflate([squeezed], "gzip", fetch._meter(2**30, Deadline(0.0))):
            pass


def test_content_length_over_max_bytes_is_refused_before_the_body(server: FaultServer) -> None:
    # The server stalls in this body: only the header can have told.
    error = failure(server.url + "/announced", max_bytes=2000, timeout=10)
    assert error.kind is ErrorKind.TOO_LARGE
    assert "1,342,177" in error.message


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/flood", "/bomb", "/layered-bomb"])
def test_decompression_bomb_takes_no_more_memory_than_max_bytes(server: FaultServer, path: str) -> None:
    get(server.url + "/ok")
    bomb(2)  # the server makes its answers at the first request for them
    bound = 2**22
    tracemalloc.start()
    try:
        assert failure(server.url + path, max_bytes=bound).kind is ErrorKind.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The server's own buffers count, too: it is in this process.
    assert peak < bound + 4 * 2**20
    if path == "/flood":  # the other bodies are small enough to be sent at once
        assert is_soon(server.gone.is_set)


def test_body_is_in_memory_only_once(server: FaultServer) -> None:
    tracemalloc.start()
    try:
        assert get(server.url + "/large", max_bytes=LARGE_SIZE) == bytes(LARGE_SIZE)
        peak = tracemalloc.get_traced_memory()[1] - LARGE_SIZE  # what the line above compares it with
    finally:
        tracemalloc.stop()
    assert peak < LARGE_SIZE * 1.5


SLOW = ["/drip", "/drip-status", "/drip-headers", "/drip-chunks", "/drip-continue", "/wait", "/wait-in-the-body"]


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW)
def test_timeout_covers_the_whole_fetch(server: FaultServer, path: str) -> None:
    threads = threading.active_count()
    began = time.monotonic()
    error = failure(server.url + path, timeout=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert error.kind is ErrorKind.TIMEOUT
    assert "0.5 s" in error.message
    assert hint_of(error)
    assert "--timeout" in hint_of(error)
    # The server has lost its client, and its thread has ended; so have those here.
    assert is_soon(server.gone.is_set)
    assert is_soon(lambda: threading.active_count() <= threads)


def test_very_long_timeout_is_accepted(server: FaultServer) -> None:
    for timeout in (1e12, float("inf")):
        assert get(server.url.replace("127.0.0.1", "localhost") + "/moved", timeout=timeout) == BODY


@pytest.mark.slow
def test_timeout_covers_tls(secure_server: FaultServer) -> None:
    for path in ("/drip", "/drip-headers"):
        secure_server.forget()
        began = time.monotonic()
        assert failure(secure_server.url + path, timeout=0.5).kind is ErrorKind.TIMEOUT
        assert time.monotonic() - began < 5
        assert is_soon(secure_server.gone.is_set)


@pytest.mark.slow
def test_timeout_covers_a_tls_handshake_without_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        port = silent.getsockname()[1]
        assert failure(f"https://127.0.0.1:{port}/", timeout=0.5).kind is ErrorKind.TIMEOUT
        assert time.monotonic() - began < 5


def test_timeout_covers_retries_and_redirects(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(server.url + "/slow-round", timeout=0.3).kind is ErrorKind.TIMEOUT
    monkeypatch.setattr(retries, "FIRST_PAUSE", 10.0)
    began = time.monotonic()
    assert "503" in failure(server.url + "/busy", timeout=0.5).message
    assert time.monotonic() - began < 5


def test_timeout_covers_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def ask(host: str, flags: int = 0) -> list[str]:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        go_on.wait(20)
        return []

    monkeypatch.setattr(addresses, "_addresses", ask)
    began = time.monotonic()
    assert failure("http://slow.example/dog.jpg", timeout=0.3).kind is ErrorKind.TIMEOUT
    assert time.monotonic() - began < 5
    go_on.set()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/wait", "/wait-in-the-body"])
def test_single_wait_is_shorter_than_the_timeout(
    server: FaultServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_TIMEOUT", 0.1)
    error = failure(server.url + path, timeout=3)
    assert error.kind is ErrorKind.TIMEOUT
    assert "in time" in error.message
    assert "--timeout" in str(hint_of(error))


def test_single_wait_grows_with_the_timeout() -> None:
    short, long = (connections.RequestLimits(Deadline(seconds), allow_private=True) for seconds in (60, 600))
    assert (short.connect_seconds, short.read_seconds) == (5, 20)
    assert (long.connect_seconds, long.read_seconds) == (50, 200)


@pytest.mark.skipif(not FILES.is_dir(), reason="only Linux tells which files are open")
@pytest.mark.parametrize("path", ["/ok", "/two-lengths", "/cut", "/bad-chunk", "/missing", "/round", "/babble"])
def test_sockets_are_closed_after_failures(server: FaultServer, path: str) -> None:
    before = len(list(FILES.iterdir()))
    error = None
    try:
        get(server.url + path)
    except InputError as caught:
        error = caught  # with all that its traceback holds
    connections._adapter().close()
    assert is_soon(lambda: len(list(FILES.iterdir())) <= before)
    assert (error is None) == (path == "/ok")


# --- retries ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "tries"),
    [
        ("/busy-at-first", 3),
        ("/broken-at-first", 2),
        ("/limited-at-first", 2),
        ("/odd-limit-at-first", 2),
        ("/hangs-up-at-first", 2),
    ],
)
def test_busy_or_broken_server_is_retried(server: FaultServer, path: str, tries: int) -> None:
    assert get(server.url + path) == BODY
    assert len(server.requests) == tries


@pytest.mark.parametrize("path", ["/busy", "/broken", "/hang-up"])
def test_retries_end(server: FaultServer, path: str) -> None:
    failure(server.url + path)
    assert len(server.requests) == retries.TRIES


@pytest.mark.parametrize("path", ["/missing", "/forbidden", "/cut", "/babble", "/bad-gzip", "/empty"])
def test_permanent_failure_is_not_retried(server: FaultServer, path: str) -> None:
    failure(server.url + path)
    assert len(server.requests) == 1


@pytest.mark.slow
def test_server_that_starts_later_is_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    tried = threading.Event()
    real = retries._pause

    def pause(tries: int) -> float:
        tried.set()
        return real(tries) + (0.5 if tries == 1 else 0.0)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(retries, "_pause", pause)
        fetched = pool.submit(get, f"http://127.0.0.1:{port}/ok")
        assert tried.wait(10)
        time.sleep(0.1)
        with FaultServer(port=port):
            assert fetched.result(20) == BODY


def test_pauses_between_retries_grow() -> None:
    pauses = [retries._pause(tries) for tries in (1, 2, 3)]
    assert all(0.01 * 2**number <= pause <= 0.0125 * 2**number for number, pause in enumerate(pauses))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/limited-at-first", "/limited-by-date-at-first"])
def test_retry_after_is_waited_for(server: FaultServer, path: str) -> None:
    began = time.monotonic()
    assert get(server.url + path) == BODY
    assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize("path", ["/limited", "/limited-by-date"])
def test_retry_after_past_the_deadline_fails_at_once(server: FaultServer, path: str) -> None:
    began = time.monotonic()
    error = failure(server.url + path, timeout=30)
    assert time.monotonic() - began < 5
    assert error.kind is ErrorKind.HTTP_STATUS
    assert "429" in error.message
    assert "3,600 s" in error.message or "3,599 s" in error.message
    assert len(server.requests) == 1


def test_retry_after_applies_to_the_whole_host_and_no_other(server: FaultServer) -> None:
    failure(server.url + "/limited")
    error = failure(server.url + "/ok")
    assert error.kind is ErrorKind.HTTP_STATUS
    assert len(server.requests) == 1
    with FaultServer("::1") as other:
        assert get(other.url + "/ok") == BODY


def test_other_urls_of_the_host_wait_for_retry_after(server: FaultServer) -> None:
    retries._note_retry_after("127.0.0.1", 0.4)
    began = time.monotonic()
    assert get(server.url + "/ok") == BODY
    assert time.monotonic() - began >= 0.4


# --- where it leads ---


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/dog.jpg",
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "s3://bucket/dog.jpg",
        "gopher://127.0.0.1/",
        "data://text",
        "://127.0.0.1/",
    ],
)
def test_url_of_another_scheme_is_blocked(url: str) -> None:
    assert failure(url).kind is ErrorKind.BLOCKED


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///dog.jpg",
        "http://user:secret@/dog.jpg",
        "http://user:secret@*/dog.jpg",
        "http://user:secret@[/dog.jpg",
        "http://user:secret@host:99999/dog.jpg",
        "http://[::1",
        "http://[not-an-address]/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://１２７.0.0.1/",
        "http://two words/",
        "http://*/",
        "http://.host/",
        "http://nul\0.host/",
        "http://a..host/",
        f"http://{'label' * 20}.host/dog.jpg",
        "http://%zz/",
        "http://a%2fb/",
        "http://a|b/",
        "http://a<b/",
        'http://a"b/',
        "http://a^b/",
        "http://a{b/",
        "http://a\\b/",
        "http://127.0.0.1%00.host/",
    ],
    ids=ascii,
)
def test_malformed_url_is_blocked(url: str) -> None:
    error = failure(url)
    assert error.kind is ErrorKind.BLOCKED
    assert "secret" not in error.message


@pytest.mark.parametrize("path", ["/to-file", "/to-ftp", "/to-data", "/to-nowhere"])
def test_redirect_to_another_scheme_is_blocked(server: FaultServer, path: str) -> None:
    assert failure(server.url + path).kind is ErrorKind.BLOCKED


def test_url_with_invalid_utf_8_is_blocked() -> None:
    assert failure("http://127.0.0.1:9/caf\udce9.jpg").kind in (ErrorKind.BLOCKED, ErrorKind.CONNECTION)
    assert failure("http://caf\udce9.host/").kind is ErrorKind.BLOCKED


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "localhost",
        "LOCALHOST",
        "[::ffff:127.0.0.1]",
        "user:secret@127.0.0.1",
        "example.org@127.0.0.1",
    ],
)
def test_listed_url_of_this_machine_is_blocked(server: FaultServer, host: str) -> None:
    error = failure(f"http://{host}:{server.server_port}/ok", typed=False, allow_private_hosts=False)
    assert error.kind is ErrorKind.BLOCKED
    assert "private" in error.message
    assert "secret" not in error.message
    assert hint_of(error)
    assert "--allow-private-hosts" in hint_of(error)
    assert not server.requests


def test_listed_url_of_this_machine_is_fetched_with_allow_private_hosts(server: FaultServer) -> None:
    assert get(server.url + "/ok", typed=False, allow_private_hosts=True) == BODY


def test_typed_url_of_this_machine_is_fetched(server: FaultServer) -> None:
    assert fetch.fetch(server.url + "/ok") == BODY


@pytest.mark.parametrize("path", ["/moved", "/moved-in-full", "/to-private", "/to-metadata"])
def test_redirect_of_a_typed_url_to_this_machine_is_blocked(server: FaultServer, path: str) -> None:
    error = failure(server.url + path, allow_private_hosts=False, timeout=10)
    assert error.kind is ErrorKind.BLOCKED
    assert "private" in error.message
    assert len(server.requests) == 1


def test_listed_url_does_not_reuse_a_private_connection(server: FaultServer) -> None:
    assert fetch.fetch(server.url + "/ok") == BODY
    error = failure(server.url + "/ok", typed=False, allow_private_hosts=False)
    assert error.kind is ErrorKind.BLOCKED
    assert len(server.requests) == 1


def test_host_with_public_and_private_addresses_uses_the_public_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def refuse(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(connections, "look_up", lambda *_: ["10.0.0.1", "198.41.0.4", "::1"])
    monkeypatch.setattr(connections, "create_connection", refuse)
    error = failure("http://both.example/", typed=False, allow_private_hosts=False)
    assert error.kind is ErrorKind.CONNECTION
    assert set(tried) == {"198.41.0.4"}


def test_peer_is_checked_before_anything_is_sent(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the look-up said, the socket leads to loopback."""
    monkeypatch.setattr(connections, "look_up", lambda *_: ["198.41.0.4"])
    real = connections.create_connection
    monkeypatch.setattr(
        connections, "create_connection", lambda address, *args, **kw: real(("127.0.0.1", address[1]), *args, **kw)
    )
    url = f"http://public.example:{server.server_port}/ok"
    assert failure(url, typed=False, allow_private_hosts=False).kind is ErrorKind.BLOCKED
    assert not server.requests


# IANA's registries of special-purpose addresses, of 2025-10-09: https://www.iana.org/assignments/ with
# iana-ipv4-special-registry/ and iana-ipv6-special-registry/. Rows with embedded IPv4 addresses: test_is_public.
SPECIAL = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/31",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::1/128",
    "::/128",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
REACHABLE = ["192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48"]
NEIGHBOURS = ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"]
NEIGHBOURS += ["128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0"]
NEIGHBOURS += ["198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::", "2003::", "3ffe:ffff::"]


@pytest.mark.parametrize(("networks", "expected"), [(SPECIAL, False), (REACHABLE, True), (NEIGHBOURS, True)])
def test_special_purpose_registries_are_not_public(networks: list[str], expected: bool) -> None:
    for text in networks:
        network = ipaddress.ip_network(text)
        middle = network[network.num_addresses // 2]
        for address in (network[0], middle, network[-1]):
            assert addresses.is_public(str(address)) is expected, f"{address} of {network}"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.0.192", False),
        ("2606:4700::5efe:10.0.0.1", False),
        ("2606:4700::200:5efe:10.0.0.1", False),
        ("2606:4700::5efe:8.8.8.8", True),
        ("::ffff:192.0.0.192", False),
        ("::ffff:0:8.8.8.8", False),
        ("::8.8.8.8", False),
        ("fe80::1%eth0", False),
        ("::1%lo", False),
        ("8.8.8.8", True),
        ("198.41.0.4", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("127.255.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.32.0.1", True),
        ("192.0.2.1", False),
        ("192.168.1.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("2002:c0a8:101::1", False),
        ("fc00::1", False),
        ("fd12:3456::1", False),
        ("fe80::1", False),
        ("fe80::1%1", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_is_public(address: str, expected: bool) -> None:
    assert addresses.is_public(address) is expected


# --- passwords ---


def test_password_is_not_sent_to_another_host(server: FaultServer) -> None:
    with_password = server.url.replace("://", "://us%40er:p%C3%A4ss@")
    assert get(with_password + "/locked") == BODY
    basic = "Basic " + base64.b64encode("us@er:päss".encode()).decode()
    assert [request.headers["Authorization"] for request in server.requests] == [basic, basic]

    server.forget()
    assert get(with_password + "/moved-in-full") == BODY  # to localhost, another name
    assert [request.headers.get("Authorization") for request in server.requests] == [basic, None]


def test_netrc_passwords_are_not_sent(server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".netrc").write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    get(server.url + "/ok")
    assert "Authorization" not in server.requests[-1].headers


@pytest.mark.parametrize("path", ["/missing", "/hang-up", "/cut", "/round", "/to-nowhere"])
def test_errors_do_not_show_the_password(server: FaultServer, path: str) -> None:
    error = failure(server.url.replace("://", "://user:secret@") + path)
    assert "secret" not in error.message + str(hint_of(error))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host/a@b", "http://host/a@b"),
        ("http://u:se@cret@host", "http://host"),
        ("http://host/a@b?c=d@e", "http://host/a@b?c=d@e"),
        ("dog.jpg", "dog.jpg"),
    ],
)
def test_without_secrets_removes_user_and_password(url: str, shown: str) -> None:
    assert fetch.without_secrets(url) == shown


# --- proxies ---


@pytest.fixture
def proxy(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("https_proxy", server.url)
    monkeypatch.setenv("NO_PROXY", "direct.example")
    monkeypatch.setattr(connections, "look_up", _no_names)
    connections._addresses_here.cache_clear()
    return server


def _no_names(host: str, seconds: float) -> list[str]:
    """Know addresses alone, as a machine behind a proxy may."""
    return addresses._addresses(host, socket.AI_NUMERICHOST)


def test_http_proxy_resolves_host_unknown_here(proxy: FaultServer) -> None:
    url = "http://pictures.example/ok"
    assert fetch.fetch(url, typed=False) == BODY
    assert [request.path for request in proxy.requests] == [url]


def test_no_proxy_hosts_bypass_the_proxy(proxy: FaultServer) -> None:
    assert failure("http://direct.example/ok").kind is ErrorKind.CONNECTION
    assert not proxy.requests


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "0x7f.1",
        "0x7f.1.",
        "169.254.169.254",
        "192.0.0.192",
        "[::1]",
        "[::1%25lo]",
        "[::1%lo]",
        "[::ffff:10.0.0.1]",
        "[::ffff:127.0.0.1%25lo]",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "localhost.localdomain",
    ],
)
def test_private_host_is_blocked_before_the_http_proxy_is_asked(proxy: FaultServer, host: str) -> None:
    error = failure(f"http://{host}/ok", typed=False, allow_private_hosts=False)
    assert error.kind is ErrorKind.BLOCKED
    assert not proxy.requests
    if "%lo" not in host:
        assert get(f"http://{host}/ok", typed=False) == BODY


@pytest.mark.parametrize("char", [*"%|<>^{}`\\ ", '"', "%2f", "\x7f"], ids=ascii)
def test_host_with_invalid_characters_is_blocked_before_the_proxy_is_asked(proxy: FaultServer, char: str) -> None:
    assert failure(f"http://a{char}b/ok").kind is ErrorKind.BLOCKED
    proxy.answers["/to-odd"] = fault_server.to(f"http://a{char}b/ok")
    assert failure("http://pictures.example/to-odd").kind is ErrorKind.BLOCKED
    assert [request.path for request in proxy.requests] == ["http://pictures.example/to-odd"]


def test_any_library_error_is_a_connection_failure(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(connections, "send", trip)
    assert failure(server.url + "/ok").kind is ErrorKind.BLOCKED
    monkeypatch.setattr(connections, "send", lambda *_: {}["key"])
    assert failure(server.url + "/ok").kind is ErrorKind.CONNECTION


@pytest.mark.slow
def test_proxy_tunnels_https(proxy: FaultServer, secure_server: FaultServer) -> None:
    proxy.behind = ("127.0.0.1", secure_server.server_port)
    port = secure_server.server_port
    assert get(f"https://localhost:{port}/ok") == BODY
    assert [request.path for request in proxy.requests] == [f"localhost:{port}"]
    assert failure(f"https://localhost:{port}/drip", timeout=0.5).kind is ErrorKind.TIMEOUT


@pytest.mark.slow
def test_timeout_covers_the_proxy(proxy: FaultServer) -> None:
    assert failure("http://pictures.example/drip", timeout=0.5).kind is ErrorKind.TIMEOUT
    assert is_soon(proxy.gone.is_set)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://127.0.0.1:9", "no answer from the proxy http://127.0.0.1:9 (http_proxy)"),
        ("127.0.0.1:9", "no answer from the proxy http://127.0.0.1:9 (http_proxy)"),
        ("http://user:secret@127.0.0.1:9/", "no answer from the proxy http://127.0.0.1:9 (http_proxy)"),
        ("socks://127.0.0.1:9", "the proxy socks5://127.0.0.1:9 (http_proxy)"),
        ("http://user:secret#1@127.0.0.1:9", "http_proxy is malformed"),
        ("ftp://user:secret@127.0.0.1:9", "http_proxy: ftp:// proxies are not supported"),
        ("socks5://user:secret@127.0.0.1:9", "no answer from the proxy socks5://127.0.0.1:9 (http_proxy)"),
        ("socks4://user:secret@127.0.0.1:9", "socks4:// proxies are not supported"),
        ("http://user:secret@[", "malformed"),
        ("http://", "proxy"),
    ],
)
def test_unusable_proxy_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("http_proxy", value)
    monkeypatch.setenv("HTTP_PROXY", value)
    monkeypatch.delenv("NO_PROXY")
    error = failure("http://pictures.example/ok")
    assert error.kind is ErrorKind.CONNECTION
    assert said in error.message
    assert "secret" not in error.message + str(hint_of(error))


def test_proxy_that_asks_for_a_password_is_named(proxy: FaultServer, secure_server: FaultServer) -> None:
    proxy.answers["/password"] = fault_server.answer(407)
    error = failure("http://pictures.example/password")
    assert error.kind is ErrorKind.HTTP_STATUS
    assert error.message == f"the proxy {proxy.url} (http_proxy) answered 407 Proxy Authentication Required"


@pytest.fixture
def socks(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocksServer]:
    with SocksServer(server.server_port) as socks:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{socks.address}")
        monkeypatch.setenv("NO_PROXY", "direct.example")
        monkeypatch.setattr(connections, "look_up", _no_names)
        connections._addresses_here.cache_clear()
        yield socks


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
def test_socks5h_proxy_resolves_host_unknown_here(
    server: FaultServer, socks: SocksServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{socks.address}/")
    assert fetch.fetch("http://pictures.example:8080/moved", typed=False) == BODY
    assert set(socks.requests) == {("pictures.example", 8080)}
    assert server.requests[-1].headers["Host"] == "pictures.example:8080"


def test_socks5_connects_to_the_checked_address(socks: SocksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "look_up", lambda host, _: ["127.0.0.1" if "127" in host else "198.41.0.4"])
    fetch.fetch("http://pictures.example/ok", typed=False)
    monkeypatch.setenv("ALL_PROXY", f"socks5://{socks.address}")
    fetch.fetch("http://pictures.example/ok", typed=False)
    assert socks.requests == [("pictures.example", 80), ("198.41.0.4", 80)]


@pytest.mark.slow
def test_socks_proxy_tunnels_https_within_the_timeout(
    socks: SocksServer, secure_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    socks.behind = ("127.0.0.1", secure_server.server_port)
    assert get("https://localhost:8443/ok") == BODY
    assert socks.requests == [("localhost", 8443)]
    assert failure("https://localhost:8443/drip", timeout=0.5).kind is ErrorKind.TIMEOUT


def test_socks_proxy_receives_the_password(
    server: FaultServer, socks: SocksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    socks.login = ("us er", "p@ss")
    error = failure("http://pictures.example/ok")
    assert error.message == (
        f"no answer from the proxy socks5h://{socks.address} (ALL_PROXY): it asks for a name and a password"
    )
    monkeypatch.setenv("ALL_PROXY", f"socks5h://us%20er:p%40ss@{socks.address}")
    assert get("http://pictures.example/ok") == BODY
    monkeypatch.setenv("ALL_PROXY", f"socks5h://us%20er:secret@{socks.address}")
    error = failure("http://pictures.example/ok")
    assert "it does not know the name and password" in error.message
    assert "secret" not in error.message


def test_refusal_of_a_socks_proxy_is_explained(socks: SocksServer) -> None:
    socks.refusal = 4
    error = failure("http://pictures.example/ok")
    assert error.kind is ErrorKind.CONNECTION
    assert "(ALL_PROXY): the host is unreachable" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1.", "localhost", "[::1%25lo]", "169.254.169.254"])
def test_private_host_is_blocked_before_the_socks_proxy_is_asked(socks: SocksServer, host: str) -> None:
    error = failure(f"http://{host}/ok", typed=False, allow_private_hosts=False)
    assert error.kind is ErrorKind.BLOCKED
    assert not socks.requests


def test_listed_url_does_not_reuse_a_private_socks_connection(
    socks: SocksServer,
) -> None:
    assert fetch.fetch("http://127.0.0.1/ok") == BODY
    assert failure("http://127.0.0.1/ok", typed=False, allow_private_hosts=False).kind is ErrorKind.BLOCKED


def test_http_proxy_configured_as_https_gets_a_hint(proxy: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy.url.replace("http:", "https:"))
    error = failure("https://pictures.example/ok")
    assert error.kind is ErrorKind.CONNECTION
    assert "https_proxy=http://HOST:PORT" in str(hint_of(error))


def test_proxy_without_a_scheme_is_used(proxy: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    assert fetch.fetch("http://pictures.example/ok", typed=False) == BODY
    assert [request.path for request in proxy.requests] == ["http://pictures.example/ok"]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_every_certificate_variable_is_honoured(
    secure_server: FaultServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv(variable, str(CERTIFICATE))
    assert get(secure_server.url + "/ok") == BODY


def test_insufficient_certificates_are_named(
    secure_server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert "REQUESTS_CA_BUNDLE=FILE" in str(failure(secure_server.url + "/ok").hint)
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "none.pem"))
    error = failure(secure_server.url + "/ok")
    assert error.kind is ErrorKind.CONNECTION
    assert error.message == f"CURL_CA_BUNDLE={tmp_path / 'none.pem'}: no such file or folder"
    (tmp_path / "none.pem").write_text("not a certificate")
    assert f"CURL_CA_BUNDLE={tmp_path / 'none.pem'}" in str(failure(secure_server.url + "/ok").hint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host/a.jpg", True),
        ("HTTPS://host", True),
        ("s3://bucket/key", True),
        ("git+https://host", True),
        ("dog.jpg", False),
        ("http:/host", False),
        ("C:\\photos\\dog.jpg", False),
        ("photos//dog.jpg", False),
        ("a b://c", False),
        ("://c", False),
        ("", False),
    ],
)
def test_is_url_distinguishes_urls_from_paths(text: str, expected: bool) -> None:
    assert fetch.is_url(text) is expected
