"""X.509 client certificates: whom a certificate of the cluster's authority stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.apiserver.access.users import CREDENTIAL_ID, with_authenticated
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import Clock, SystemClock

__all__ = ["CertificateError", "CertificateUsers", "Verified"]

_UID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
_MEMO: Final = 2_048
"""Certificates remembered at most; when there are more, all are forgotten and verified again."""
_LARGEST: Final = 16 * 1024
"""Bytes of the largest certificate looked at."""
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the parser says of bytes that are no certificate, part by part."""


class CertificateError(Exception):
    """A certificate does not prove who shows it. For the log: the caller learns only that it was refused."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A certificate that an authority signed, and from when to when it holds."""

    common_name: str
    user: User | None
    """None where the subject has no common name."""
    starts: datetime
    ends: datetime


class CertificateUsers:
    """Reads users out of certificates that one of the authorities signed for clients.

    Verdicts are remembered by the certificate's bytes; whether it is valid now is asked each time.
    """

    def __init__(self, authorities: bytes, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._memo: dict[bytes, Verified | str] = {}
        self._authorities: Sequence[x509.Certificate] = ()
        self.set_authorities(authorities)

    def set_authorities(self, authorities: bytes) -> None:
        """Trust these authorities (PEM) and no others from now on. Raises CertificateError for a text that is none."""
        try:
            self._authorities = x509.load_pem_x509_certificates(authorities)
        except ValueError as error:
            raise CertificateError(f"client CA: holds no valid PEM certificate: {error}") from error
        self._memo.clear()

    def user(self, certificate: bytes) -> User | None:
        """Return whom a certificate (DER) stands for, None where it names nobody. Raises CertificateError."""
        return self.verify(certificate).user

    def verify(self, certificate: bytes) -> Verified:
        """Return what a certificate (DER) says, if it may be believed now. Raises CertificateError."""
        found = self._memo.get(certificate)
        if found is None:
            found = self._judge(certificate)
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            self._memo[certificate] = found
        if isinstance(found, str):
            raise CertificateError(found)
        now = self._clock.now()
        if not found.starts <= now <= found.ends:
            raise CertificateError("x509: certificate has expired or is not yet valid")
        return found

    def _judge(self, der: bytes) -> Verified | str:
        """Return what a certificate says, or what is wrong with it."""
        if len(der) > _LARGEST:
            return f"x509: certificate has {len(der)} bytes; at most {_LARGEST} are looked at"
        try:
            certificate = x509.load_der_x509_certificate(der)
            authority = self._issuer(certificate)
            _may_prove_clients(certificate)
            return Verified(
                _common_name(certificate),
                _user(certificate, der),
                max(certificate.not_valid_before_utc, authority.not_valid_before_utc),
                min(certificate.not_valid_after_utc, authority.not_valid_after_utc),
            )
        except CertificateError as error:
            return str(error)
        except _MALFORMED as error:
            return f"x509: malformed certificate: {error}"

    def _issuer(self, certificate: x509.Certificate) -> x509.Certificate:
        for authority in self._authorities:
            if authority.subject == certificate.issuer and _signed(authority, certificate):
                return authority
        raise CertificateError("x509: certificate signed by unknown authority")


def _signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_MALFORMED):
        return False
    return True


def _may_prove_clients(certificate: x509.Certificate) -> None:
    """Refuse certificates made for other purposes; one without stated purposes may be used for any."""
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
        raise CertificateError("x509: certificate specifies an incompatible key usage")


def _values(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    found = (attribute.value for attribute in certificate.subject.get_attributes_for_oid(oid))
    return [value for value in found if isinstance(value, str)]


def _common_name(certificate: x509.Certificate) -> str:
    names = _values(certificate, NameOID.COMMON_NAME)
    return names[-1] if names else ""


def _user(certificate: x509.Certificate, der: bytes) -> User | None:
    name = _common_name(certificate)
    if not name:
        return None
    groups = tuple(_values(certificate, NameOID.ORGANIZATION_NAME))
    credential = f"X509SHA256={hashlib.sha256(der).hexdigest()}"
    return with_authenticated(User(name, _uid(certificate), groups, {CREDENTIAL_ID: (credential,)}))


def _uid(certificate: x509.Certificate) -> str:
    uids = _values(certificate, _UID)
    if len(uids) > 1:
        raise CertificateError(f"expected 1 UID, but found multiple: {uids}")
    if uids == [""]:
        raise CertificateError("UID cannot be an empty string")
    return uids[0] if uids else ""
