"""Certificate requests of nodes: approved where allowed, and deleted when they are over."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.structs import CertificateSigningRequest, from_dict
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.certificates import expires_in, recognize
from pilothouse.workloads.reconcilers.certificates import add_certificate_approval, add_certificate_cleaning

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CLIENT, SERVING = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"
CLIENT_USAGES, SERVING_USAGES = ["digital signature", "client auth"], ["digital signature", "server auth"]


def pem(name: str = "system:node:n", group: str = "system:nodes", host: str = "") -> bytes:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request(
    body: bytes, signer: str = CLIENT, usages: list[str] | None = None, **more: Any
) -> CertificateSigningRequest:
    spec = {
        "request": base64.b64encode(body).decode(),
        "signerName": signer,
        "usages": usages or CLIENT_USAGES,
        "username": "system:node:n",
    }
    return from_dict({"metadata": {"name": "r"}, "spec": spec} | more, CertificateSigningRequest)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (request(pem()), ["selfnodeclient", "nodeclient"]),
        (request(pem("system:node:other")), ["nodeclient"]),
        (request(pem("someone")), []),
        (request(pem(group="system:masters")), []),
        (request(pem(), usages=["server auth"]), []),
        (request(pem(host="n")), []),
        (request(pem(), "example.com/other"), []),
        (request(pem(host="n"), SERVING, SERVING_USAGES), ["selfnodeserver"]),
        (request(pem("system:node:other", host="n"), SERVING, SERVING_USAGES), []),
        (request(pem(), SERVING, SERVING_USAGES), []),
    ],
)
def test_what_is_recognized(found: CertificateSigningRequest, expected: list[str]) -> None:
    assert [each.permission for each in recognize(found)] == expected


def test_what_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="PEM"):
        recognize(request(b"nothing"))


@pytest.mark.parametrize(
    ("conditions", "hours"), [([], 24), ([("Denied", 0)], 1), ([("Failed", 0)], 1), ([("Approved", 0)], 24)]
)
def test_when_requests_are_over(conditions: list[tuple[str, int]], hours: int) -> None:
    time = times.format_seconds(NOW)
    told = [{"type": kind, "status": "True", "lastUpdateTime": time} for kind, _ in conditions]
    found = request(pem(), status={"conditions": told}, metadata={"name": "r", "creationTimestamp": time})
    assert expires_in(found, NOW) == hours * 3600
    assert expires_in(found, NOW + timedelta(hours=hours)) == 0


async def test_a_node_that_may_is_approved_and_signed_and_its_request_goes() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=FakeClock(start=datetime.now(UTC)))
        add_certificate_approval(harness.manager)
        add_certificate_cleaning(harness.manager)
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        spec = {"request": base64.b64encode(pem()).decode(), "signerName": CLIENT, "usages": CLIENT_USAGES}
        body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "spec": spec}
        async with harness:
            await plane.call("POST", path, body | {"metadata": {"name": "allowed"}})
            await harness.converge()
            await plane.wait_for(f"{path}/allowed", lambda found: bool(found["status"].get("certificate")))
            found = await plane.call("GET", f"{path}/allowed")
            assert [each["reason"] for each in found["status"]["conditions"]] == ["AutoApproved"]
            harness.clock.advance(7200)
            await harness.advance(5)
            assert (await plane.call("GET", path))["items"] == []


async def test_nobody_asks_in_the_name_of_another() -> None:
    async with ControlPlane() as plane:
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        spec = {"request": base64.b64encode(pem()).decode(), "signerName": CLIENT, "usages": CLIENT_USAGES}
        forged = spec | {"username": "system:node:n", "groups": ["system:nodes"], "uid": "x", "extra": {"a": ["b"]}}
        body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
        made = await plane.call("POST", path, body | {"metadata": {"name": "forged"}, "spec": forged})
        said = {name: made["spec"].get(name) for name in ("username", "groups", "uid", "extra")}
        groups = ["system:masters", "system:authenticated"]
        assert said == {"username": "kubernetes-admin", "groups": groups, "uid": None, "extra": None}
        changed = await plane.call("PATCH", f"{path}/forged", {"spec": {"username": "system:node:n"}})
        assert changed["spec"]["username"] == "kubernetes-admin"
