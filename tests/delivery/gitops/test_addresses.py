"""Which addresses git is given, and which mean the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.addresses import normalised, parse_address
from pilothouse.delivery.gitops.errors import RepositoryError


@pytest.mark.parametrize(
    ("url", "scheme", "host"),
    [
        ("https://github.com/argoproj/argo-cd.git", "https", "github.com"),
        ("ssh://git@example.com:2222/x.git", "ssh", "example.com"),
        ("git@github.com:argoproj/argo-cd.git", "ssh", "github.com"),
        ("file:///srv/repo", "file", ""),
        ("http://127.0.0.1:8080/x", "http", "127.0.0.1"),
        ("http://localhost/x", "http", "localhost"),
    ],
)
def test_addresses_that_are_taken(url: str, scheme: str, host: str) -> None:
    found = parse_address(url)
    assert (found.scheme, found.host) == (scheme, host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=id",
        "--upload-pack=id",
        "ext::sh -c id",
        "ext::id",
        "git://example.com/x",
        "ftp://example.com/x",
        "https://u:secret@example.com/x",
        "https://",
        "ssh://-oProxyCommand=id/x",
        "file://example.com/x",
        "file://relative",
        "http://example.com/x",
        "https://example.com/a b",
        "https://example.com/x\n",
        "host:-oProxyCommand=id",
        "x" * 3000,
    ],
)
def test_addresses_that_are_refused_show_no_password(url: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        parse_address(url)
    assert "secret" not in str(raised.value)


def test_plain_http_elsewhere_is_a_choice() -> None:
    assert parse_address("http://example.com/x", plain_http=True).host == "example.com"


def test_the_same_repository_is_the_same() -> None:
    same = [
        "https://github.com/A/B.git",
        "https://github.com/a/b",
        "https://x@github.com/a/b/",
        "HTTPS://github.com/a/b",
    ]
    assert len({normalised(url) for url in same}) == 1
    assert normalised("git@github.com:a/b.git") == normalised("ssh://git@github.com/a/b")


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_repository_error(text: str) -> None:
    try:
        found = parse_address(text)
    except RepositoryError:
        return
    assert not found.url.startswith("-")
    assert normalised(normalised(text)) == normalised(text)
