"""Certificates and authorities that listeners, backends and gateways refer to, or why they cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pilothouse.kinds.structs import ConfigMap, Secret
from pilothouse.traffic.config import Certificate

if TYPE_CHECKING:
    from .kinds.common import LocalReference, ObjectReference, SecretReference
    from .snapshot import Snapshot

__all__ = ["Problem", "authority_of", "certificate_of", "is_pair"]

_KEPT: Final = 1024


class Problem(Exception):
    """A reference cannot be used. reason: the condition's word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def certificate_of(
    snapshot: Snapshot, ref: SecretReference, source: tuple[str, str, str], invalid: str
) -> tuple[str, Certificate]:
    """Return the name and the certificate of a Secret that an object (group, kind, namespace) refers to.

    invalid: the reason where it is no usable Secret. Raises Problem.
    """
    if ref.group or ref.kind != "Secret":
        raise Problem(invalid, f"{ref.group or 'core'}/{ref.kind} '{ref.name}' is no Secret; refer to a Secret")
    key = (ref.namespace or source[2], ref.name)
    if not snapshot.may_refer(source, "", "Secret", key):
        raise Problem("RefNotPermitted", f"no ReferenceGrant in '{key[0]}' allows Secret '{ref.name}' for {source[1]}s")
    secret = snapshot.get(Secret, key)
    if secret is None:
        raise Problem(invalid, f"Secret '{key[0]}/{key[1]}' is not there")
    return f"{key[0]}/{key[1]}", _certificate(secret, invalid)


def _certificate(secret: Secret, invalid: str) -> Certificate:
    chain, key = secret.data.get("tls.crt", b""), secret.data.get("tls.key", b"")
    if not is_pair(chain, key):
        place = f"{secret.metadata.namespace}/{secret.metadata.name}"
        raise Problem(invalid, f"Secret '{place}' has no certificate in tls.crt with its key in tls.key")
    return Certificate(chain=chain, key=key)


def authority_of(
    snapshot: Snapshot,
    refs: Iterable[ObjectReference | LocalReference],
    source: tuple[str, str, str],
    *,
    bad_kind: str,
    invalid: str,
) -> tuple[bytes, list[Problem]]:
    """Return the authorities (PEM) of all ConfigMaps that can be used, and what is wrong with the others."""
    found: list[bytes] = []
    problems: list[Problem] = []
    for ref in refs:
        try:
            found.append(_authority(snapshot, ref, source, bad_kind, invalid))
        except Problem as problem:
            problems.append(problem)
    return b"\n".join(found), problems


def _authority(
    snapshot: Snapshot, ref: ObjectReference | LocalReference, source: tuple[str, str, str], bad_kind: str, invalid: str
) -> bytes:
    if ref.group or ref.kind != "ConfigMap":
        raise Problem(bad_kind, f"{ref.group or 'core'}/{ref.kind} '{ref.name}' is no ConfigMap; refer to a ConfigMap")
    key = (getattr(ref, "namespace", None) or source[2], ref.name)
    if not snapshot.may_refer(source, "", "ConfigMap", key):
        raise Problem("RefNotPermitted", f"no ReferenceGrant in '{key[0]}' allows ConfigMap '{ref.name}'")
    found = snapshot.get(ConfigMap, key)
    if found is None:
        raise Problem(invalid, f"ConfigMap '{key[0]}/{key[1]}' is not there")
    data = found.data.get("ca.crt", "").encode()
    if not _is_chain(data):
        raise Problem(invalid, f"ConfigMap '{key[0]}/{key[1]}' has no certificates (PEM) in ca.crt")
    return data


@lru_cache(_KEPT)
def is_pair(chain: bytes, key: bytes) -> bool:
    """Say whether these are a certificate and its key, both PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  heavy
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    def spelled(public: object) -> bytes:
        told: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
        return told

    try:
        first = load_pem_x509_certificates(chain)[0]
        return spelled(first.public_key()) == spelled(load_pem_private_key(key, None).public_key())
    except (ValueError, TypeError, IndexError, UnsupportedAlgorithm):
        return False


@lru_cache(_KEPT)
def _is_chain(data: bytes) -> bool:
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  heavy

    try:
        return bool(load_pem_x509_certificates(data))
    except ValueError:
        return False
