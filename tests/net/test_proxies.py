"""Proxies from the environment, in every spelling that people use."""

from __future__ import annotations

import pytest

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UsageError
from resnetd_cli.net import proxies

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


def chosen(url: str = "https://pictures.example/a.jpg") -> tuple[str, str] | None:
    proxy = proxies.proxy_for(url)
    return proxy and (proxy.url, proxy.variable)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128"),
        ("HTTP://Proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("//proxy:3128", "http://proxy:3128"),
        ("https://proxy", "https://proxy:443"),
        ("socks://127.0.0.1:7891/", "socks5://127.0.0.1:7891"),
        ("socks5://127.0.0.1", "socks5://127.0.0.1:1080"),
        ("socks5h://127.0.0.1:9", "socks5h://127.0.0.1:9"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("http://user:p%40ss@proxy:3128", "http://user:p%40ss@proxy:3128"),
        ("http://user:p@ss@proxy:3128", "http://user:p@ss@proxy:3128"),
        (' "http://proxy:3128" ', "http://proxy:3128"),
    ],
)
def test_every_spelling_of_a_proxy_is_parsed(monkeypatch: pytest.MonkeyPatch, value: str, url: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    assert chosen() == (url, "https_proxy")
    assert chosen("http://pictures.example/") is None


@pytest.mark.parametrize(
    "value", ["http://", "http://[", "http://u:se#cret@proxy:1", "http://u:se/cret@proxy:1", ":0"]
)
def test_malformed_proxy_error_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageError, match="ALL_PROXY is malformed") as caught:
        chosen()
    assert "cret" not in caught.value.message + str(hint_of(caught.value))


@pytest.mark.parametrize("value", ["socks4://proxy:1", "ftp://proxy", "quic://proxy"])
def test_unsupported_proxy_error_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageError, match=r"ALL_PROXY: .* proxies are not supported"):
        chosen()


def test_scheme_variable_beats_all_proxy_and_lower_case_beats_upper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "a:1")
    assert chosen() == ("http://a:1", "ALL_PROXY")
    monkeypatch.setenv("all_proxy", "b:1")
    assert chosen() == ("http://b:1", "all_proxy")
    monkeypatch.setenv("HTTPS_PROXY", "c:1")
    assert chosen() == ("http://c:1", "HTTPS_PROXY")
    assert chosen("http://pictures.example/") == ("http://b:1", "all_proxy")
    monkeypatch.setenv("https_proxy", "d:1")
    assert chosen() == ("http://d:1", "https_proxy")
    monkeypatch.setenv("https_proxy", "")
    assert chosen() == ("http://b:1", "all_proxy")


def test_http_proxy_is_ignored_in_a_cgi_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "evil:1")
    assert chosen("http://pictures.example/") == ("http://evil:1", "HTTP_PROXY")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert chosen("http://pictures.example/") is None


# Written by desktops, container engines and administrators.
LONG = "localhost,127.0.0.0/8,127.0.0.1,::1,[::1],fd07:b51a:cc66::/64, .corp.example ,10.0.0.0/8"


@pytest.mark.parametrize(
    ("exceptions", "url", "excepted"),
    [
        (LONG, "http://127.0.0.1:8000/", True),
        (LONG, "http://127.9.9.9/", True),
        (LONG, "http://[::1]:8000/", True),
        (LONG, "http://[fd07:b51a:cc66::2]/", True),
        (LONG, "http://[fd07:b51a:cc67::2]/", False),
        (LONG, "http://localhost/", True),
        (LONG, "http://hub.corp.example/", True),
        (LONG, "http://corp.example/", True),
        (LONG, "http://notcorp.example/", False),
        (LONG, "http://10.1.2.3/", True),
        (LONG, "http://11.1.2.3/", False),
        ("*", "http://pictures.example/", True),
        ("a.example, *", "http://pictures.example/", True),
        ("example", "http://pictures.example/", True),
        ("*.example", "http://pictures.example/", True),
        ("Pictures.Example.", "http://PICTURES.example./", True),
        ("a.example pictures.example", "http://pictures.example/", True),
        ("a.example;pictures.example", "http://pictures.example/", True),
        ("pictures.example:8080", "http://pictures.example/", False),
        ("pictures.example:8080", "http://pictures.example:8080/", True),
        ("pictures.example:443", "https://pictures.example/", True),
        ("http://pictures.example", "http://pictures.example/", True),
        ("[::1]:8080", "http://[::1]:8080/", True),
        ("[::1]:8080", "http://[::1]/", False),
        ("[fd07::]/16", "http://[fd07::5]/", True),
        ("192.168.1.", "http://192.168.1.5/", False),
        ("192.168.*", "http://192.168.1.5/", True),
        ("127.0.0.1/8", "http://127.3.0.1/", True),
        ("ctures.example", "http://pictures.example/", False),
        (",, ,", "http://pictures.example/", False),
        ("[", "http://pictures.example/", False),
        ("a/b/c,:,://", "http://pictures.example/", False),
    ],
)
def test_no_proxy_entries_match_hosts(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, url: str, excepted: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy:1")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert (chosen(url) is None) == excepted


def test_no_proxy_is_read_in_both_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy:1")
    monkeypatch.setenv("NO_PROXY", "a.example")
    monkeypatch.setenv("no_proxy", "b.example")
    assert chosen("http://a.example/") is None
    assert chosen("http://b.example/") is None
    assert chosen("http://c.example/") == ("http://proxy:1", "ALL_PROXY")
