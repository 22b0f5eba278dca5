from __future__ import annotations

import asyncio
import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.apiserver.access.csr import CLIENT, CsrSigner
from pilothouse.apiserver.access.csrcontroller import RESOURCE, CertificateSigning
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound
from support.accessview import MemoryView


def wish(name: str, *conditions: str) -> dict[str, Any]:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    body = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
    return {
        "metadata": {"name": name},
        "spec": {"signerName": CLIENT, "request": body, "usages": ["client auth"]},
        "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions]},
    }


class Local:
    """Writes statuses into a view; the first calls fail with the errors given."""

    def __init__(self, view: MemoryView, *errors: ApiStatus) -> None:
        self.view, self.errors = view, list(errors)
        self.paths: list[str] = []

    async def call(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        self.paths.append(f"{method} {path}")
        if self.errors:
            raise self.errors.pop(0)
        self.view.put(RESOURCE, body)
        return {}


def signed(view: MemoryView, name: str) -> bool:
    found = view.get(RESOURCE, "", name)
    return found is not None and "certificate" in found["status"]


async def test_what_is_approved_is_signed_at_once() -> None:
    view, clock = MemoryView(), FakeClock()
    signer = CsrSigner(tls.make_ca("kubernetes", clock=clock), clock=clock)
    view.put(RESOURCE, wish("early", "Approved"))
    local = Local(view, Conflict("changed"), NotFound("gone"))
    task = asyncio.create_task(CertificateSigning(view, local, signer, clock=clock).run())
    await clock.run(0)
    assert not signed(view, "early")
    await clock.run(1)
    assert not signed(view, "early")  # gone, so that nobody tries again
    assert len(local.paths) == 2
    view.put(RESOURCE, wish("late"))
    await clock.run(0)
    assert len(local.paths) == 2
    view.put(RESOURCE, wish("late", "Approved"))
    await clock.run(0)
    assert signed(view, "late")
    assert local.paths[-1] == "PUT /apis/certificates.k8s.io/v1/certificatesigningrequests/late/status"
    view.remove(RESOURCE, "", "late")
    await clock.run(5)
    assert len(local.paths) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert view.listeners() == 0


async def test_another_ca_signs_from_then_on() -> None:
    view, clock = MemoryView(), FakeClock()
    old, new = (tls.make_ca(name, clock=clock) for name in ("old", "new"))
    controller = CertificateSigning(view, Local(view), CsrSigner(old, clock=clock), clock=clock)
    controller.replace_signer(CsrSigner(new, clock=clock))
    view.put(RESOURCE, wish("jane", "Approved"))
    assert await controller.step()
    found = view.get(RESOURCE, "", "jane")
    assert found is not None
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found["status"]["certificate"]))
    assert certificate.issuer.rfc4514_string() == "CN=new"
