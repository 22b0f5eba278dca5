"""Credentials that nobody gives by accident: refused as such, and nothing else happens."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.access.authenticator import RequestAuthenticator, TokenVerdict
from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.access.csr import CLIENT, CsrError, CsrSigner
from pilothouse.apiserver.access.impersonation import wanted_user
from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.access.signing import KeyRing, new_key, unverified
from pilothouse.apiserver.access.tokens import BootstrapTokens, TokenError
from pilothouse.apiserver.model import ANONYMOUS
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import BadRequest, Unauthorized
from support.accessview import MemoryView, request, service_account

CLOCK = FakeClock()
CA = tls.make_ca("cluster", clock=CLOCK)
ALICE = x509.load_pem_x509_certificate(tls.issue(CA, "alice", client=True, clock=CLOCK).certificate)
DER = ALICE.public_bytes(serialization.Encoding.DER)
VIEW = MemoryView()
VIEW.put("serviceaccounts", service_account("robot"))
KEY = new_key()
TOKENS = ServiceAccountTokens(VIEW, KeyRing(KEY), ["https://issuer"], clock=CLOCK)
GOOD = TOKENS.sign(service_account("robot"), ["https://issuer"], 3600)[0]
AUTHENTICATOR = RequestAuthenticator(
    VIEW,
    certificates=CertificateUsers(CA.certificate, clock=CLOCK),
    tokens=[TOKENS, BootstrapTokens(VIEW, clock=CLOCK)],
    clock=CLOCK,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
claim_names = st.sampled_from(["exp", "nbf", "iat", "aud", "sub", "kubernetes.io", "jti", "iss"])


@given(st.text())
def test_any_text_as_a_token(text: str) -> None:
    verdict = AUTHENTICATOR.check_token(text)
    assert isinstance(verdict, TokenVerdict)
    assert verdict.answer is None


@given(st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_any_three_parts_as_a_token(parts: list[bytes]) -> None:
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    verdict = AUTHENTICATOR.check_token(text)
    assert isinstance(verdict, TokenVerdict)
    assert verdict.answer is None


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "x5c", "zip"]), json_values))
def test_any_header_before_a_good_signature(header: dict[str, Any]) -> None:
    _, payload, signature = GOOD.split(".")
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    with contextlib.suppress(TokenError):
        assert TOKENS.authenticate_token(f"{head}.{payload}.{signature}") is None


@settings(max_examples=50)
@given(st.dictionaries(claim_names, json_values))
def test_any_claims_that_were_signed(claims: dict[str, Any]) -> None:
    """Claims of another shape are refused, whoever signed them, and never make the server fail."""
    whole = {**(unverified(GOOD) or {}), **claims, "iss": "https://issuer"}
    token = KeyRing(KEY).sign(whole)
    with contextlib.suppress(TokenError):
        answer = TOKENS.authenticate_token(token)
        assert answer is not None
        assert answer.user.name == "system:serviceaccount:default:robot"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=150)
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_certificate_with_one_byte_changed(position: int, flip: int) -> None:
    """What is signed cannot be changed; a byte that says how the signature is packed may tell the same otherwise."""
    changed = bytearray(DER)
    changed[position] ^= flip
    signed = DER.find(ALICE.tbs_certificate_bytes)
    with contextlib.suppress(CertificateError):
        user = CertificateUsers(CA.certificate, clock=CLOCK).user(bytes(changed))
        assert user is not None
        assert user.name == "alice"
        assert not signed <= position < signed + len(ALICE.tbs_certificate_bytes)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_certificate(data: bytes) -> None:
    with pytest.raises(Unauthorized):
        AUTHENTICATOR.authenticate(request(certificate=data))


@given(st.text(max_size=60))
def test_any_authorization_header(text: str) -> None:
    with contextlib.suppress(Unauthorized):
        assert AUTHENTICATOR.authenticate(request(("Authorization", text))) is ANONYMOUS


@given(st.text(max_size=60))
def test_any_websocket_protocol(text: str) -> None:
    headers = [("Upgrade", "websocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Protocol", text)]
    with contextlib.suppress(Unauthorized):
        assert AUTHENTICATOR.authenticate(request(*headers)) is ANONYMOUS


names = st.sampled_from(
    ["Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-A", "Impersonate-"]
)


@given(st.lists(st.tuples(names, st.text(max_size=10)), max_size=5))
def test_any_impersonation_headers(headers: list[tuple[str, str]]) -> None:
    with contextlib.suppress(BadRequest):
        wanted = wanted_user(request(*headers))
        assert wanted is None or wanted.name


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_as_a_certificate_request(data: bytes, framed: bool) -> None:
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE REQUEST-----\n"
    body = base64.b64encode(pem if framed else data).decode()
    with pytest.raises(CsrError):
        CsrSigner(CA, clock=CLOCK).sign({"signerName": CLIENT, "request": body, "usages": ["client auth"]})
