"""Signing of CertificateSigningRequests that were approved, by the rules of the signers of Kubernetes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.apiserver.ports import Object
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.tls import Credentials
from pilothouse.kinds import times

__all__ = ["CLIENT", "KUBELET_CLIENT", "KUBELET_SERVING", "LEGACY", "SIGNERS", "CsrError", "CsrSigner"]

CLIENT: Final = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING: Final = "kubernetes.io/kubelet-serving"
LEGACY: Final = "kubernetes.io/legacy-unknown"

_BACKDATE: Final = timedelta(minutes=5)
_SHORT: Final = timedelta(hours=8)
"""What lives no longer is not backdated: it would lose too much of its life."""
_SHORTEST: Final = timedelta(minutes=10)
_LARGEST: Final = 64 * 1024
_FEWEST_BITS: Final = 2048
_KEY_USAGES: Final = {
    "digital signature": "digital_signature",
    "signing": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_PURPOSES: Final = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}
_NODE_GROUP: Final = "system:nodes"
_NODE_NAME: Final = "system:node:"


class CsrError(Exception):
    """A request cannot be signed; the message is what its condition `Failed` says."""


class CsrSigner:
    """Signs approved requests of the signers of Kubernetes with the cluster's CA.

    ca: the certificate of the CA and its key. lifetime: how long a certificate lives at most; one can ask for less.
    """

    def __init__(
        self,
        ca: Credentials,
        *,
        lifetime: timedelta = timedelta(days=365),
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self._ca = x509.load_pem_x509_certificate(ca.certificate)
        key = serialization.load_pem_private_key(ca.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise CsrError("ca: the key is neither RSA nor ECDSA")
        self._key = key
        self._lifetime = lifetime
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()

    def handle(self, request: Object) -> Object | None:
        """Return a CertificateSigningRequest with its status as it has to be written, None where nothing is to do.

        What is approved, of a signer known here, and neither signed nor failed yet gets its certificate, or the
        condition `Failed` with the reason why not.
        """
        spec, status = request.get("spec") or {}, request.get("status") or {}
        if spec.get("signerName") not in SIGNERS or status.get("certificate"):
            return None
        if not _has(status, "Approved") or _has(status, "Denied") or _has(status, "Failed"):
            return None
        try:
            pem = self.sign(spec)
        except CsrError as error:
            conditions = [*(status.get("conditions") or ()), self._failed(str(error))]
            return {**request, "status": {**status, "conditions": conditions}}
        return {**request, "status": {**status, "certificate": base64.b64encode(pem).decode()}}

    def sign(self, spec: Object) -> bytes:
        """Return the certificate (PEM) that a request's `spec` asks for, approved as it is. Raises CsrError."""
        csr = _parsed(spec.get("request"))
        usages = list(spec.get("usages") or ())
        SIGNERS[spec["signerName"]](csr, usages)
        now = self._clock.now().replace(microsecond=0)
        lifetime = self._duration(spec.get("expirationSeconds"))
        start = now if lifetime <= _SHORT else now - _BACKDATE
        end = min(now + lifetime, self._ca.not_valid_after_utc)
        if end <= now:
            raise CsrError("refusing to sign a certificate: the CA has expired")
        builder = x509.CertificateBuilder().subject_name(csr.subject).issuer_name(self._ca.subject)
        builder = builder.public_key(csr.public_key()).serial_number(self._ids.int63())
        builder = builder.not_valid_before(max(start, self._ca.not_valid_before_utc)).not_valid_after(end)
        for extension, critical in self._extensions(csr, usages):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _extensions(
        self, csr: x509.CertificateSigningRequest, usages: Sequence[str]
    ) -> list[tuple[x509.ExtensionType, bool]]:
        purposes = list(dict.fromkeys(_PURPOSES[usage] for usage in usages if usage in _PURPOSES))
        found: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        ]
        usage = _key_usage(usages)
        if usage is not None:
            found.append((usage, True))
        if purposes:
            found.append((x509.ExtendedKeyUsage(purposes), False))
        names = _alternative_names(csr)
        if names:
            found.append((x509.SubjectAlternativeName(names), False))
        return found

    def _duration(self, seconds: int | None) -> timedelta:
        if seconds is None:
            return self._lifetime
        return min(max(timedelta(seconds=seconds), _SHORTEST), self._lifetime)

    def _failed(self, why: str) -> Object:
        now = times.format_seconds(self._clock.now())
        return {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": why,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }


def _has(status: Object, kind: str) -> bool:
    return any(
        one.get("type") == kind and one.get("status", "True") == "True" for one in status.get("conditions") or ()
    )


def _parsed(request: Any) -> x509.CertificateSigningRequest:
    try:
        pem = base64.b64decode(request or "", validate=True)
        if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem or len(pem) > _LARGEST:
            raise CsrError("PEM block type must be CERTIFICATE REQUEST")
        csr = x509.load_pem_x509_csr(pem)
        valid = csr.is_signature_valid
        key = csr.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CsrError(f"unable to parse csr: {error}") from error
    if not valid:
        raise CsrError("the request is not signed with its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _FEWEST_BITS:
        raise CsrError(f"the key has {key.key_size} bits; at least {_FEWEST_BITS} are needed")
    return csr


def _alternative_names(csr: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise CsrError(f"unable to parse csr: {error}") from error


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage | None:
    """Return what the key is for, None where that is nothing: OpenSSL refuses certificates that say so."""
    wanted = {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}
    agreement = "key_agreement" in wanted
    flags = {name: name in wanted for name in set(_KEY_USAGES.values())}
    # who signs certificates decides that elsewhere: what is signed here is never a CA
    flags.update(key_cert_sign=False, crl_sign=False)
    for name in ("encipher_only", "decipher_only"):
        flags[name] = flags[name] and agreement
    return x509.KeyUsage(**flags) if any(flags.values()) else None


def _subject(csr: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(oid)]


def _check_client(csr: x509.CertificateSigningRequest, usages: Sequence[str]) -> None:
    for usage in usages:
        if usage not in {"digital signature", "key encipherment", "client auth"}:
            raise CsrError(f"invalid usage for client certificate: {usage}")
    if "client auth" not in usages:
        raise CsrError("missing required usage for client certificate: client auth")


def _check_node(csr: x509.CertificateSigningRequest) -> None:
    if _subject(csr, NameOID.ORGANIZATION_NAME) != [_NODE_GROUP]:
        raise CsrError(f"subject organization is not {_NODE_GROUP}")


def _check_name(csr: x509.CertificateSigningRequest) -> None:
    names = _subject(csr, NameOID.COMMON_NAME)
    if not names or not names[-1].startswith(_NODE_NAME):
        raise CsrError(f"subject common name does not begin with {_NODE_NAME}")


_NAME_KINDS: Final = {"DNS": x509.DNSName, "Email": x509.RFC822Name, "IP": x509.IPAddress}


def _refuse_names(csr: x509.CertificateSigningRequest, kinds: Sequence[str]) -> None:
    names = list(_alternative_names(csr) or ())
    for kind in kinds:
        if any(isinstance(name, _NAME_KINDS[kind]) for name in names):
            raise CsrError(f"{kind} subjectAltNames are not allowed")
    if any(isinstance(name, x509.UniformResourceIdentifier) for name in names):
        raise CsrError("URI subjectAltNames are not allowed")


def _check_usages(usages: Sequence[str], purpose: str) -> None:
    required = {"digital signature", "key encipherment", purpose}
    if set(usages) not in (required, required - {"key encipherment"}):
        raise CsrError(f"usages did not match [{' '.join(sorted(required))}]")


def _check_kubelet_client(csr: x509.CertificateSigningRequest, usages: Sequence[str]) -> None:
    _check_node(csr)
    _refuse_names(csr, ("DNS", "Email", "IP"))
    _check_name(csr)
    _check_usages(usages, "client auth")


def _check_kubelet_serving(csr: x509.CertificateSigningRequest, usages: Sequence[str]) -> None:
    _check_node(csr)
    names = list(_alternative_names(csr) or ())
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise CsrError("DNS or IP subjectAltName is required")
    _refuse_names(csr, ("Email",))
    _check_usages(usages, "server auth")
    _check_name(csr)


def _check_legacy(csr: x509.CertificateSigningRequest, usages: Sequence[str]) -> None:
    """Allow all that was approved, as the signer of that name always did."""


SIGNERS: Final[dict[str, Callable[[x509.CertificateSigningRequest, Sequence[str]], None]]] = {
    CLIENT: _check_client,
    KUBELET_CLIENT: _check_kubelet_client,
    KUBELET_SERVING: _check_kubelet_serving,
    LEGACY: _check_legacy,
}
"""What each signer asks of a request: called with it and its usages, raises CsrError."""
