"""When webhook certificates are made and renewed, and by which authority: a plan from what there is and the time.

A new authority is trusted before it signs. The bundle holds the old and the new one; the serving certificate stays the
old authority's until servers have had the new bundle for the overlap, and is then issued by the new one. The old one
stays in the bundle until it expires. So at no instant is a certificate shown that servers do not trust.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.foundation.tls import Credentials

from .errors import BuildError, OperatorError

__all__ = [
    "CertificateError",
    "CertificatePolicy",
    "Certificates",
    "Plan",
    "fault",
    "not_after",
    "plan",
    "wait_seconds",
]

_SKEW: Final = timedelta(minutes=5)
"""By which certificates of `pilothouse.foundation.tls` begin before they are made."""
_URGENT: Final = 0.1
"""Share of its lifetime that a certificate may have left before it is renewed whatever servers trust."""
_LONGEST_WAIT: Final = 43_200.0
_SHORTEST_WAIT: Final = 1.0


class CertificateError(OperatorError):
    """There is no certificate to serve webhooks with; the message says why and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePolicy:
    """How long certificates of our own are valid. Each is renewed when a third of that is left.

    days: of the serving certificate. ca_days: of the authority. overlap_seconds: for which servers have a new authority
    before it signs.
    """

    days: int = 90
    ca_days: int = 730
    overlap_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        """Refuse what leaves no time to rotate."""
        if self.days < 1 or self.ca_days < 2 * self.days:
            raise BuildError(
                f"CertificatePolicy(days={self.days}, ca_days={self.ca_days}): want at least 1 day, and an authority "
                "that is valid for twice as long"
            )
        if not 0 <= self.overlap_seconds <= self.days * 86_400 / 6:
            raise BuildError(
                f"CertificatePolicy(overlap_seconds={self.overlap_seconds:g}): want at most a sixth of {self.days} days"
            )


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is kept: the authorities' certificates, the newest first, its key, and the serving pair; all PEM."""

    authorities: tuple[bytes, ...]
    ca_key: bytes
    serving: Credentials

    def __repr__(self) -> str:
        return f"Certificates({len(self.authorities)} authorities, serving={self.serving!r}, ca_key=***)"

    @property
    def bundle(self) -> bytes:
        """What servers have to trust."""
        return b"".join(self.authorities)

    def secret_data(self) -> dict[str, bytes]:
        """Return the data of the Secret that keeps them."""
        return {
            "tls.crt": self.serving.certificate,
            "tls.key": self.serving.key,
            "ca.crt": self.bundle,
            "ca.key": self.ca_key,
        }

    @classmethod
    def of_secret(cls, data: Mapping[str, bytes]) -> Certificates | None:
        """Read the data of a Secret; None where it holds none or they are damaged.

        Raises CertificateError for a Secret that somebody else made.
        """
        if "tls.crt" in data and "ca.key" not in data and data["tls.crt"]:
            raise CertificateError(
                "it has tls.crt but no ca.key, so something else made it; name another Secret, or mount this one and "
                "say certificate_dir"
            )
        try:
            authorities = tuple(map(_pem, x509.load_pem_x509_certificates(bytes(data["ca.crt"]))))
            found = cls(authorities, bytes(data["ca.key"]), Credentials(bytes(data["tls.crt"]), bytes(data["tls.key"])))
            x509.load_pem_x509_certificate(found.serving.certificate)
        except (KeyError, ValueError):
            return None
        return found


class Plan(NamedTuple):
    """What is to be kept from now on, and why that is new; empty if nothing is."""

    certificates: Certificates
    why: str


def plan(
    found: Certificates | None,
    hosts: Sequence[str],
    policy: CertificatePolicy,
    clock: Clock,
    *,
    name: str = "webhooks",
    trusted: bool = True,
    ids: Ids | None = None,
) -> Plan:
    """Return what is to be kept: the same where nothing is due.

    trusted: whether servers have the bundle that is kept; a new authority does not sign before, unless it must.
    """
    if found is None:
        ca = _new_ca(name, policy, clock, ids)
        return Plan(_signed((ca.certificate,), ca.key, name, hosts, policy, clock, ids), "there was none")
    now = clock.now()
    authorities = tuple(one for one in found.authorities if _load(one).not_valid_after_utc > now)
    reasons = ["an old authority has expired"] if len(authorities) < len(found.authorities) else []
    ca_key = found.ca_key
    if not authorities or not _is_pair(authorities[0], ca_key) or _left(authorities[0], now) < 1 / 3:
        ca = _new_ca(name, policy, clock, ids)
        authorities, ca_key = (ca.certificate, *authorities), ca.key
        reasons.append("the authority has to be renewed")
    if why := _resign(found.serving, authorities, hosts, policy, now, trusted=trusted):
        return Plan(_signed(authorities, ca_key, name, hosts, policy, clock, ids), "; ".join([*reasons, why]))
    return Plan(Certificates(authorities, ca_key, found.serving), "; ".join(reasons))


def _resign(
    serving: Credentials,
    authorities: Sequence[bytes],
    hosts: Sequence[str],
    policy: CertificatePolicy,
    now: datetime,
    *,
    trusted: bool,
) -> str:
    """Say why the serving certificate is to be issued now; empty if it is not."""
    if problem := fault(serving, hosts, now):
        return problem
    signer = next((one for one in authorities if _is_issued(serving.certificate, one)), None)
    if signer is None:
        return "no authority that is trusted issued it"
    newest = authorities[0]
    due = _left(serving.certificate, now) < 1 / 3
    if signer == newest:
        return "the serving certificate has to be renewed" if due else ""
    age = now - (_load(newest).not_valid_before_utc + _SKEW)
    if trusted and age >= timedelta(seconds=policy.overlap_seconds):
        return "the new authority is trusted"
    urgent = min(_left(serving.certificate, now), _left(signer, now)) < _URGENT
    return "the serving certificate ends soon" if urgent else ""


def wait_seconds(found: Certificates, policy: CertificatePolicy, now: datetime) -> float:
    """Return in how many seconds a plan may say something new, twelve hours at most."""
    moments = []
    for one in (found.serving.certificate, *found.authorities):
        loaded = _load(one)
        life = loaded.not_valid_after_utc - loaded.not_valid_before_utc
        moments += [
            loaded.not_valid_after_utc - life / 3,
            loaded.not_valid_after_utc - life * _URGENT,
            loaded.not_valid_after_utc,
            loaded.not_valid_before_utc + _SKEW + timedelta(seconds=policy.overlap_seconds),
        ]
    ahead = [seconds for moment in moments if (seconds := (moment - now).total_seconds()) > 0]
    return min(max(min(ahead, default=_LONGEST_WAIT) + _SHORTEST_WAIT, _SHORTEST_WAIT), _LONGEST_WAIT)


def fault(serving: Credentials, hosts: Sequence[str], now: datetime) -> str:
    """Say why a pair cannot serve these hosts now; empty if it can."""
    try:
        loaded = _load(serving.certificate)
    except ValueError:
        return "the certificate is no PEM certificate"
    if not _is_pair(serving.certificate, serving.key):
        return "the key does not belong to the certificate"
    if loaded.not_valid_after_utc <= now:
        return f"the certificate expired at {loaded.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if loaded.not_valid_before_utc > now:
        return f"the certificate is not valid before {loaded.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    if missing := [host for host in hosts if not _is_for(loaded, host)]:
        return f"the certificate is not for {', '.join(missing)}"
    return ""


def not_after(certificate: bytes) -> datetime:
    """Return when a certificate expires. Raises ValueError for what is none."""
    return _load(certificate).not_valid_after_utc


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        wild = f"*.{host.partition('.')[2]}"
        return not {host.lower(), wild.lower()}.isdisjoint(
            name.lower() for name in names.get_values_for_type(x509.DNSName)
        )
    return address in names.get_values_for_type(x509.IPAddress)


def _is_pair(certificate: bytes, key: bytes) -> bool:
    try:
        private = serialization.load_pem_private_key(key, None)
        return private.public_key() == _load(certificate).public_key()
    except (ValueError, TypeError):
        return False


def _is_issued(certificate: bytes, authority: bytes) -> bool:
    try:
        _load(certificate).verify_directly_issued_by(_load(authority))
    except Exception:  # noqa: BLE001  of another authority, or of a kind that this library cannot check
        return False
    return True


def _left(certificate: bytes, now: datetime) -> float:
    """Return the share of its lifetime that a certificate has left."""
    loaded = _load(certificate)
    life = loaded.not_valid_after_utc - loaded.not_valid_before_utc
    return (loaded.not_valid_after_utc - now) / life if life else 0.0


def _new_ca(name: str, policy: CertificatePolicy, clock: Clock, ids: Ids | None) -> Credentials:
    return tls.make_ca(f"{name[:42]} {clock.now():%Y-%m-%dT%H:%M:%SZ}", days=policy.ca_days, clock=clock, ids=ids)


def _signed(
    authorities: tuple[bytes, ...],
    ca_key: bytes,
    name: str,
    hosts: Sequence[str],
    policy: CertificatePolicy,
    clock: Clock,
    ids: Ids | None,
) -> Certificates:
    ca = Credentials(authorities[0], ca_key)
    serving = tls.issue(ca, name[:64], hosts=hosts, server=True, days=policy.days, clock=clock, ids=ids)
    return Certificates(authorities, ca_key, serving)


def _load(certificate: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
