"""A node's client certificate: asked for by a CertificateSigningRequest, and waited for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.client import Client
from pilothouse.foundation.tls import Credentials
from pilothouse.kinds.structs import CertificateSigningRequest, ObjectMeta
from pilothouse.kinds.structs.certificates import CertificateSigningRequestSpec

__all__ = ["NODES", "RequestRefused", "common_name", "node_credentials", "user_of_node"]

NODES: Final = "system:nodes"
_SIGNER: Final = "kubernetes.io/kube-apiserver-client-kubelet"
_USAGES: Final = ("digital signature", "client auth")
_PAUSE_SECONDS: Final = 0.5


class RequestRefused(Exception):
    """A certificate was denied, could not be signed, or did not come in time; the message names the request."""


def user_of_node(name: str) -> str:
    """Return as whom a node comes."""
    return f"system:node:{name}"


def common_name(certificate: x509.Certificate) -> str:
    """Return the name of a certificate's subject."""
    return "".join(str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


async def node_credentials(client: Client, name: str, *, seconds: float) -> Credentials:
    """Ask for a certificate of a node with a new key, and wait until it is there.

    Raises RequestRefused, and what the client raises.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    spec = CertificateSigningRequestSpec(request=_request(name, key), signer_name=_SIGNER, usages=_USAGES)
    request = CertificateSigningRequest(metadata=ObjectMeta(generate_name="node-csr-"), spec=spec)
    made = await client.create(request)
    identity = made.metadata.name
    try:
        async with asyncio.timeout(seconds):
            certificate = await _signed(client, identity)
    except TimeoutError as error:
        raise RequestRefused(
            f"certificate request {identity}: nobody signed it within {seconds:g} s; see that the controllers run "
            f"there, or approve it: kubectl certificate approve {identity}"
        ) from error
    return Credentials(_checked(certificate, name, key, identity), _private(key))


def _request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES),
        x509.NameAttribute(NameOID.COMMON_NAME, user_of_node(name)),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def _signed(client: Client, identity: str) -> bytes:
    """Follow a request until it has its certificate; a watch that ends begins anew with what is there."""
    while True:
        events = client.watch(CertificateSigningRequest, fields=f"metadata.name={identity}")
        async with aclosing(events):
            async for event in events:
                if event.type == "DELETED":
                    raise RequestRefused(f"certificate request {identity}: was deleted; ask again")
                if found := _outcome(event.object):
                    return found
        await asyncio.sleep(_PAUSE_SECONDS)


def _outcome(request: CertificateSigningRequest) -> bytes:
    for each in request.status.conditions:
        if each.type in {"Denied", "Failed"}:
            raise RequestRefused(
                f"certificate request {request.metadata.name}: {each.type.lower()}: {each.message or each.reason}"
            )
    return request.status.certificate


def _checked(pem: bytes, name: str, key: ec.EllipticCurvePrivateKey, identity: str) -> bytes:
    try:
        found = x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise RequestRefused(f"certificate request {identity}: what was signed is no certificate") from error
    if found.public_key() != key.public_key() or common_name(found) != user_of_node(name):
        raise RequestRefused(f"certificate request {identity}: what was signed is of another key or name")
    return pem
