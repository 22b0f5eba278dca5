from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.apiserver.access.certificates import CertificateUsers
from pilothouse.apiserver.access.csr import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, CsrSigner
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock

CLOCK = FakeClock()
CA = tls.make_ca("kubernetes", clock=CLOCK)
KEY = ec.generate_private_key(ec.SECP256R1())
CLIENT_USAGES = ["digital signature", "key encipherment", "client auth"]
SERVER_USAGES = ["digital signature", "server auth"]
NODE: dict[str, Any] = {"name": "system:node:n1", "groups": ["system:nodes"]}
HOST = [x509.DNSName("n1")]


def pem(name: str, groups: list[str] | None = None, names: Any = (), key: Any = KEY, *, ca: bool = False) -> bytes:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups or []]
    subject += [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request(signer: str, body: bytes, usages: list[str], *conditions: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr"},
        "spec": {"signerName": signer, "request": base64.b64encode(body).decode(), "usages": usages, **spec},
        "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions or ("Approved",)]},
    }


@pytest.fixture
def signer() -> CsrSigner:
    return CsrSigner(CA, clock=CLOCK)


def signed(signer: CsrSigner, asked: dict[str, Any]) -> x509.Certificate:
    answer = signer.handle(asked)
    assert answer is not None
    assert "certificate" in answer["status"], answer["status"]["conditions"][-1]["message"]
    return x509.load_pem_x509_certificate(base64.b64decode(answer["status"]["certificate"]))


def failed(signer: CsrSigner, asked: dict[str, Any]) -> str:
    answer = signer.handle(asked)
    assert answer is not None
    assert "certificate" not in answer["status"]
    condition = answer["status"]["conditions"][-1]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "Failed",
        "True",
        "SignerValidationFailure",
    )
    assert signer.handle(answer) is None
    message: str = condition["message"]
    return message


def test_a_client_certificate_proves_who_it_was_approved_for(signer: CsrSigner) -> None:
    certificate = signed(signer, request(CLIENT, pem("jane", ["devs"]), CLIENT_USAGES))
    der = certificate.public_bytes(serialization.Encoding.DER)
    user = CertificateUsers(CA.certificate, clock=CLOCK).user(der)
    assert user is not None
    assert (user.name, user.groups) == ("jane", ("devs", "system:authenticated"))
    assert certificate.not_valid_after_utc == CLOCK.now() + timedelta(days=365)
    assert certificate.not_valid_before_utc == CLOCK.now() - timedelta(minutes=5)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)


def test_purposes_alone_make_no_empty_key_usage(signer: CsrSigner) -> None:
    certificate = signed(signer, request(CLIENT, pem("ann"), ["client auth"]))
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.KeyUsage)


def test_no_request_makes_a_ca(signer: CsrSigner) -> None:
    usages = ["cert sign", "crl sign", "any", "digital signature"]
    certificate = signed(signer, request(LEGACY, pem("x", ca=True), usages))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@pytest.mark.parametrize(
    ("seconds", "lives"),
    [(3600, 3600), (1, 600), (86400 * 1000, 86400 * 365), (8 * 3600, 8 * 3600)],
)
def test_how_long_it_lives(signer: CsrSigner, seconds: int, lives: int) -> None:
    certificate = signed(signer, request(CLIENT, pem("jane"), CLIENT_USAGES, expirationSeconds=seconds))
    assert certificate.not_valid_after_utc == CLOCK.now() + timedelta(seconds=lives)
    short = lives <= 8 * 3600
    assert certificate.not_valid_before_utc == CLOCK.now() - (timedelta() if short else timedelta(minutes=5))


def test_it_does_not_outlive_the_ca() -> None:
    clock = FakeClock()
    signer = CsrSigner(CA, clock=clock)
    clock.advance(3600 * 86400)
    ca = x509.load_pem_x509_certificate(CA.certificate)
    asked = request(CLIENT, pem("jane"), CLIENT_USAGES)
    assert signed(signer, asked).not_valid_after_utc == ca.not_valid_after_utc
    clock.advance(100 * 86400)
    assert failed(signer, asked) == "refusing to sign a certificate: the CA has expired"


def test_nodes_get_theirs(signer: CsrSigner) -> None:
    client = signed(signer, request(KUBELET_CLIENT, pem(**NODE), CLIENT_USAGES))
    assert client.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    signed(signer, request(KUBELET_CLIENT, pem(**NODE), ["digital signature", "client auth"]))
    server = signed(signer, request(KUBELET_SERVING, pem(**NODE, names=HOST), SERVER_USAGES))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        (CLIENT, (pem("x"), SERVER_USAGES), "invalid usage for client certificate: server auth"),
        (CLIENT, (pem("x"), ["digital signature"]), "missing required usage for client certificate: client auth"),
        (KUBELET_CLIENT, (pem("system:node:a"), CLIENT_USAGES), "subject organization is not system:nodes"),
        (
            KUBELET_CLIENT,
            (pem("system:node:a", ["system:nodes", "system:masters"]), CLIENT_USAGES),
            "subject organization is not system:nodes",
        ),
        (
            KUBELET_CLIENT,
            (pem("root", ["system:nodes"]), CLIENT_USAGES),
            "subject common name does not begin with system:node:",
        ),
        (KUBELET_CLIENT, (pem(**NODE, names=HOST), CLIENT_USAGES), "DNS subjectAltNames are not allowed"),
        (
            KUBELET_CLIENT,
            (pem(**NODE), SERVER_USAGES),
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (KUBELET_SERVING, (pem(**NODE), SERVER_USAGES), "DNS or IP subjectAltName is required"),
        (
            KUBELET_SERVING,
            (pem(**NODE, names=[*HOST, x509.RFC822Name("a@b")]), SERVER_USAGES),
            "Email subjectAltNames are not allowed",
        ),
        (
            KUBELET_SERVING,
            (pem(**NODE, names=[*HOST, x509.UniformResourceIdentifier("a:b")]), SERVER_USAGES),
            "URI subjectAltNames are not allowed",
        ),
        (KUBELET_SERVING, (pem(**NODE, names=HOST), CLIENT_USAGES), "usages did not match"),
        (
            KUBELET_SERVING,
            (pem("n1", ["system:nodes"], HOST), SERVER_USAGES),
            "subject common name does not begin with system:node:",
        ),
        (CLIENT, (b"nonsense", CLIENT_USAGES), "PEM block type must be CERTIFICATE REQUEST"),
        (
            CLIENT,
            (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", CLIENT_USAGES),
            "unable to parse csr",
        ),
        (CLIENT, (pem("x", key=rsa.generate_private_key(65537, 1024)), CLIENT_USAGES), "the key has 1024 bits"),
    ],
)
def test_what_is_not_signed(signer: CsrSigner, name: str, asked: tuple[bytes, list[str]], told: str) -> None:
    assert failed(signer, request(name, *asked)).startswith(told)


def test_a_request_is_signed_with_its_own_key(signer: CsrSigner) -> None:
    good = x509.load_pem_x509_csr(pem("jane")).public_bytes(serialization.Encoding.DER)
    bad = good.replace(b"jane", b"root")
    body = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bad) + b"-----END CERTIFICATE REQUEST-----\n"
    assert failed(signer, request(CLIENT, body, CLIENT_USAGES)) == "the request is not signed with its own key"


def test_what_is_left_alone(signer: CsrSigner) -> None:
    body = pem("jane")
    assert signer.handle(request("example.com/own", body, CLIENT_USAGES)) is None
    assert signer.handle(request(CLIENT, body, CLIENT_USAGES, "Pending")) is None
    assert signer.handle(request(CLIENT, body, CLIENT_USAGES, "Denied")) is None
    assert signer.handle(request(CLIENT, body, CLIENT_USAGES, "Approved", "Denied")) is None
    assert signer.handle(request(CLIENT, body, CLIENT_USAGES, "Approved", "Failed")) is None
    assert signer.handle({"spec": {}}) is None
    asked = request(CLIENT, body, CLIENT_USAGES)
    asked["status"]["certificate"] = "x"
    assert signer.handle(asked) is None
