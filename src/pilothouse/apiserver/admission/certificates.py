"""Steps for certificates: who may approve, sign and attest for a signer, and which subjects are not given out."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from pilothouse.apiserver.admission.plugin import Plugin, forbid, requested
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Authorizer
from pilothouse.kinds.fielderrors import quote

__all__ = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "may_act_for_signer",
    "subject_of",
]

_GROUP: Final = "certificates.k8s.io"
_REQUESTS: Final = frozenset({(_GROUP, "certificatesigningrequests")})
_CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client"
_MASTERS: Final = "system:masters"


def may_act_for_signer(authorizer: Authorizer, user: User, verb: str, signer: str) -> bool:
    """Whether somebody may `approve`, `sign` or `attest` for a signer, or for all of its domain."""
    domain = signer.partition("/")[0]
    return any(
        authorizer.authorize(Attributes(user, verb, group=_GROUP, version="*", resource="signers", name=name)).allowed
        for name in (signer, f"{domain}/*")
    )


class CertificateApproval(Plugin):
    """Lets only those approve who may for the signer."""

    OPERATIONS = frozenset({"UPDATE"})
    RESOURCES = _REQUESTS
    SUBRESOURCES = frozenset({"approval"})
    name = "CertificateApproval"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for anybody else; the signer is that of the object as it is."""
        signer = str(((request.old or {}).get("spec") or {}).get("signerName") or "")
        if not may_act_for_signer(self._authorizer, request.user, "approve", signer):
            raise forbid(request, f"user not permitted to approve requests with signerName {quote(signer)}")


class CertificateSigning(Plugin):
    """Lets only those sign who may for the signer."""

    OPERATIONS = frozenset({"UPDATE"})
    RESOURCES = _REQUESTS
    SUBRESOURCES = frozenset({"status"})
    name = "CertificateSigning"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a changed certificate or condition of anybody else."""
        old, new = ((one or {}).get("status") or {} for one in (request.old, request.object))
        if all((old.get(field) or None) == (new.get(field) or None) for field in ("certificate", "conditions")):
            return
        signer = str(((request.old or {}).get("spec") or {}).get("signerName") or "")
        if not may_act_for_signer(self._authorizer, request.user, "sign", signer):
            raise forbid(request, f"user not permitted to sign requests with signerName {quote(signer)}")


class ClusterTrustBundleAttest(Plugin):
    """Lets only those publish what is trusted for a signer who may attest for it."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = frozenset({(_GROUP, "clustertrustbundles")})
    name = "ClusterTrustBundleAttest"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a bundle of a signer that is not the caller's."""
        spec = requested(request).get("spec") or {}
        signer = spec.get("signerName") or ""
        if not signer or (request.operation == "UPDATE" and (request.old or {}).get("spec") == spec):
            return
        if not may_act_for_signer(self._authorizer, request.user, "attest", signer):
            raise forbid(request, f"user not permitted to attest for signerName {quote(signer)}")


class CertificateSubjectRestriction(Plugin):
    """Refuses client certificates for the group that may do everything."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = _REQUESTS
    name = "CertificateSubjectRestriction"

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for such a subject, and for a request that cannot be read."""
        spec = requested(request).get("spec") or {}
        if spec.get("signerName") != _CLIENT_SIGNER:
            return
        try:
            _, organizations = subject_of(str(spec.get("request") or ""))
        except ValueError as error:
            raise forbid(request, f"failed to parse CSR: {error}") from None
        if _MASTERS in organizations:
            raise forbid(request, f"use of {_CLIENT_SIGNER} signer with {_MASTERS} group is not allowed")


def subject_of(encoded: str) -> tuple[str, list[str]]:
    """Return common name and organizations of a certificate request in base64. Raises ValueError for what is none."""
    from cryptography import x509  # noqa: PLC0415 - heavy, and rarely needed
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    try:
        text = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST") from None
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in text:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    subject = x509.load_pem_x509_csr(text).subject
    common = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return common[-1] if common else "", organizations
