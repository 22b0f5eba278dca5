"""What is taken of a pasted text, and what is said of one that is nothing to log in with."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.dashboard.pasted import Pasted, PastedError, read_pasted

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: two, context: {cluster: c, user: other}}
- {name: one, context: {cluster: c, user: me}}
clusters:
- {name: c, cluster: {server: "https://evil.example"}}
users:
- {name: other, user: {token: not-this}}
- {name: me, user: {%s}}
"""


def test_a_token_with_and_without_its_scheme() -> None:
    assert read_pasted(" abc.def-1\n") == Pasted(token="abc.def-1")
    assert read_pasted("Bearer abc.def-1").token == "abc.def-1"


def test_of_a_kubeconfig_the_current_users_token() -> None:
    assert read_pasted(KUBECONFIG % "token: this-one") == Pasted(token="this-one")


def test_of_a_kubeconfig_the_embedded_certificate() -> None:
    pair = [base64.b64encode(each).decode() for each in (b"CERT", b"KEY")]
    found = read_pasted(KUBECONFIG % f"client-certificate-data: {pair[0]}, client-key-data: {pair[1]}")
    assert (found.certificate, found.key, found.token) == (b"CERT", b"KEY", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing was given"),
        ("two words", "is no bearer token"),
        ("tökén", "is no bearer token"),
        ("x" * 70_000, "over 64 KiB"),
        ("a: [", "neither a token nor a kubeconfig"),
        ("- 1\n- 2", "neither a token nor a kubeconfig"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("kind: Config\n", "no current-context"),
        (KUBECONFIG % "exec: {command: id}", "neither `token` nor embedded"),
        (KUBECONFIG % "client-certificate: /etc/passwd, client-key: /etc/shadow", "neither `token` nor embedded"),
        (KUBECONFIG % "client-certificate-data: '!', client-key-data: '!'", "is not base64"),
    ],
)
def test_what_is_no_login_is_explained(text: str, said: str) -> None:
    with pytest.raises(PastedError, match=said):
        read_pasted(text)


@settings(max_examples=40)
@given(st.text(max_size=80))
def test_any_text_is_a_login_or_refused_without_being_repeated(text: str) -> None:
    said, found = "", Pasted()
    try:
        found = read_pasted(text)
    except PastedError as error:
        said = str(error)
    if said:
        assert len(text.strip()) < 12 or text.strip() not in said
    else:
        assert found.token or found.certificate
        assert "token=" not in repr(found)
