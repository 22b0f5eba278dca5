"""Certificate requests on a whole server: the times of their conditions, and who signs."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.foundation.clock import FakeClock
from support.apiserverkit import Api, Object, api_server, until

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
NOW = "2026-01-01T00:00:00Z"


def signing_request(name: str) -> Object:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(wanted.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }


def condition(kind: str, **more: str) -> Object:
    return {"type": kind, "status": "True", "reason": "Test", **more}


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def api(clock: FakeClock) -> AsyncIterator[Api]:
    async with api_server(clock=clock) as found:
        yield found


async def test_conditions_of_an_approval_get_their_times(api: Api, clock: FakeClock) -> None:
    made = await api.made(REQUESTS, signing_request("a"))
    made["status"] = {"conditions": [condition("Approved")]}
    first = (await api.put(f"{REQUESTS}/a/approval", made)).body
    assert first["status"]["conditions"] == [condition("Approved", lastUpdateTime=NOW, lastTransitionTime=NOW)]
    clock.advance(60)
    first["status"]["conditions"] = [condition("Approved")]
    second = (await api.put(f"{REQUESTS}/a/approval", first)).body
    later = condition("Approved", lastUpdateTime="2026-01-01T00:01:00Z", lastTransitionTime=NOW)
    assert second["status"]["conditions"] == [later]


async def test_conditions_of_a_status_get_their_times(api: Api) -> None:
    made = await api.made(REQUESTS, signing_request("a"))
    made["status"] = {"conditions": [condition("Failed", lastUpdateTime="2025-01-01T00:00:00Z")]}
    answer = (await api.put(f"{REQUESTS}/a/status", made)).body
    assert answer["status"]["conditions"] == [
        condition("Failed", lastUpdateTime="2025-01-01T00:00:00Z", lastTransitionTime=NOW)
    ]


async def test_only_an_approval_changes_the_decision(api: Api) -> None:
    made = await api.made(REQUESTS, signing_request("a"))
    made["status"] = {"conditions": [condition("Approved")]}
    approved = (await api.put(f"{REQUESTS}/a/approval", made)).body
    other = condition("Approved", message="not as it was decided")
    changed = {**approved, "status": {"conditions": [condition("Failed"), other]}}
    answer = (await api.put(f"{REQUESTS}/a/status", changed)).body
    assert answer["status"]["conditions"][1] == approved["status"]["conditions"][0]
    refused = await api.put(f"{REQUESTS}/a/status", {**answer, "status": {"conditions": [condition("Denied")]}})
    assert refused.status == 422
    assert 'updates may not remove a condition of type "Approved"' in refused.message
    assert 'updates may not add a condition of type "Denied"' in refused.message


@pytest.mark.parametrize("lifecycle", [True, False])
async def test_who_has_controllers_signs(lifecycle: bool) -> None:
    async with api_server(lifecycle=lifecycle) as api:
        made = await api.made(REQUESTS, signing_request("a"))
        made["status"] = {"conditions": [condition("Approved")]}
        await api.put(f"{REQUESTS}/a/approval", made)

        def signed() -> bool:
            found = api.server.view.get("certificatesigningrequests.certificates.k8s.io", "", "a")
            return bool(found and found["status"].get("certificate"))

        if not lifecycle:
            assert not signed()
            return
        await until(signed)
        answer = (await api.get(f"{REQUESTS}/a")).body
        certificate = x509.load_pem_x509_certificate(base64.b64decode(answer["status"]["certificate"]))
        assert certificate.subject.rfc4514_string() == "CN=ann"
