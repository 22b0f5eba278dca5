"""The token with which a machine joins: a bootstrap token, and a digest by which the cluster's CA is known. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["ALPHABET", "JoinToken", "TokenError", "authorities", "pin_of", "pinned"]

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_SHAPE: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})\.([0-9a-f]{64})").fullmatch


class TokenError(ValueError):
    """A text is no token of ours."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`ID.SECRET.PIN`: the first two are a bootstrap token as kubeadm has them.

    pin: the SHA-256, in hexadecimal, of the public key (SubjectPublicKeyInfo) of the cluster's CA; kubeadm writes it
    behind `sha256:`.
    """

    identity: str
    secret: str = field(repr=False)
    pin: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token. Raises TokenError, which does not tell it."""
        found = _SHAPE(text.strip())
        if found is None:
            raise TokenError(
                "the token is not of the form ID.SECRET.PIN; `pilothouse token create` on the server prints one"
            )
        return cls(*found.groups())

    @property
    def bearer(self) -> str:
        """What the server is shown."""
        return f"{self.identity}.{self.secret}"

    @property
    def text(self) -> str:
        """The whole token, to be handed over."""
        return f"{self.bearer}.{self.pin}"


def authorities(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle. Raises ValueError."""
    from cryptography import x509  # noqa: PLC0415  # heavy

    return x509.load_pem_x509_certificates(pem)


def pin_of(authority: x509.Certificate) -> str:
    """Return the digest by which a certificate's key is known."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # heavy

    key = authority.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(key).hexdigest()


def pinned(bundle: Iterable[x509.Certificate], pin: str) -> bytes:
    """Return those of a bundle whose key is known, PEM; empty where none is. Others are not to be trusted."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # heavy

    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in bundle if pin_of(each) == pin)
