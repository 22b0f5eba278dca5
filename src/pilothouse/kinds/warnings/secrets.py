"""Warnings about secrets for TLS: what keeps a certificate and its key from being used together, in Go's words."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

__all__ = ["secret"]

Object = dict[str, Any]
_BLOCK = re.compile(
    rb"(?m)^-----BEGIN (?P<kind>[^\n-]+)-----[ \t\r]*\n(?P<body>[^-]*)^-----END (?P=kind)-----[ \t\r]*$"
)
_KEY, _CERTIFICATE = "PRIVATE KEY", "CERTIFICATE"


def secret(new: Object, old: Object | None) -> list[str]:
    """Warn of a Secret for TLS whose certificate or key cannot be read, or do not belong together."""
    if new.get("type") != "kubernetes.io/tls":
        return []
    data: Object = new.get("data") or {}
    certificate, key = (_decoded(data.get(field)) for field in ("tls.crt", "tls.key"))
    message = _certificate_fault(certificate) or _key_fault(key) or _pair_fault(certificate, key)
    return [message] if message else []


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "", validate=False)
    except (binascii.Error, ValueError):
        return b""


def _blocks(data: bytes) -> list[tuple[str, bytes]]:
    return [(found["kind"].decode("utf-8", "replace"), found[0]) for found in _BLOCK.finditer(data)]


def _certificate_fault(data: bytes) -> str:
    kinds = [kind for kind, _ in _blocks(data)]
    if _CERTIFICATE in kinds:
        return ""
    if not kinds:
        return "tls: failed to find any PEM data in certificate input"
    if len(kinds) == 1 and kinds[0].endswith(_KEY):
        why = "but did find a private key; PEM inputs may have been switched"
        return f"tls: failed to find certificate PEM data in certificate input, {why}"
    why = "in certificate input after skipping PEM blocks of the following types"
    return f'tls: failed to find "CERTIFICATE" PEM block {why}: [{" ".join(kinds)}]'


def _is_key(kind: str) -> bool:
    return kind == _KEY or kind.endswith(f" {_KEY}")


def _key_fault(data: bytes) -> str:
    kinds = [kind for kind, _ in _blocks(data)]
    if any(map(_is_key, kinds)):
        return ""
    if not kinds:
        return "tls: failed to find any PEM data in key input"
    if kinds == [_CERTIFICATE]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    why = "in key input after skipping PEM blocks of the following types"
    return f'tls: failed to find PEM block with type ending in "PRIVATE KEY" {why}: [{" ".join(kinds)}]'


def _pair_fault(certificate: bytes, key: bytes) -> str:
    """Say why two that can be read do not belong together; nothing of certificates that only Go refuses."""
    from cryptography import x509  # noqa: PLC0415  # few programs see secrets for TLS
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    first = next(block for kind, block in _blocks(certificate) if kind == _CERTIFICATE)
    private = next(block for kind, block in _blocks(key) if _is_key(kind))
    try:
        public = x509.load_pem_x509_certificate(first).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    try:
        own = serialization.load_pem_private_key(private, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    if type(own) is not type(public):
        return "tls: private key type does not match public key type"
    return "" if own == public else "tls: private key does not match public key"
