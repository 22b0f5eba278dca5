"""Requests for certificates of nodes: which are approved by themselves, and which are old enough to go. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import CertificateSigningRequest

__all__ = ["Recognition", "expires_in", "is_decided", "recognize"]

_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING: Final = "kubernetes.io/kubelet-serving"
_CLIENT_USAGES: Final = ({"digital signature", "client auth"}, {"digital signature", "key encipherment", "client auth"})
_SERVING_USAGES: Final = (
    {"digital signature", "server auth"},
    {"digital signature", "key encipherment", "server auth"},
)
_NODE: Final = "system:node:"
_NODES: Final = "system:nodes"
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a request is for. permission: the subresource that its user must be allowed to create."""

    permission: str
    message: str


def recognize(request: CertificateSigningRequest) -> Sequence[Recognition]:
    """Return what a request may be approved as, none for what somebody else decides. Raises ValueError."""
    if request.spec.signer_name not in (_CLIENT, _SERVING):
        return ()
    name, organizations, has_names = _subject(request.spec.request)
    if organizations != [_NODES] or not name.startswith(_NODE):
        return ()
    usages, is_own = set(request.spec.usages), request.spec.username == name
    if request.spec.signer_name == _SERVING:
        if not is_own or usages not in _SERVING_USAGES or not has_names:
            return ()
        return (Recognition("selfnodeserver", "Auto approving kubelet serving certificate after SubjectAccessReview."),)
    if usages not in _CLIENT_USAGES or has_names:
        return ()
    own = Recognition("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
    other = Recognition("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
    return (own, other) if is_own else (other,)


def _subject(pem: bytes) -> tuple[str, list[str], bool]:
    from cryptography import x509  # noqa: PLC0415  heavy
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    found = x509.load_pem_x509_csr(pem)
    names = [str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = [str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    try:
        alternative = bool(list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value))
    except x509.ExtensionNotFound:
        alternative = False
    return (names[0] if len(names) == 1 else ""), organizations, alternative


def is_decided(request: CertificateSigningRequest) -> bool:
    """Whether a request was approved or denied, or has its certificate."""
    return bool(request.status.certificate) or any(
        each.type in ("Approved", "Denied") for each in request.status.conditions
    )


def expires_in(request: CertificateSigningRequest, now: datetime) -> float:
    """Return in how many seconds a request is old enough to go, none for at once.

    Those that nobody decided go after a day, as do those approved and not signed; denied, failed and signed ones after
    an hour; and one whose certificate has run out goes at once.
    """
    ends = [_end_of(request.status.certificate)] if request.status.certificate else []
    conditions = request.status.conditions
    if not conditions:
        ends.append(_time(request.metadata.creation_timestamp, now) + _DAY)
    for each in conditions:
        since = _time(each.last_update_time or request.metadata.creation_timestamp, now)
        if each.type in ("Denied", "Failed"):
            ends.append(since + _HOUR)
        elif each.type == "Approved":
            ends.append(since + (_HOUR if request.status.certificate else _DAY))
    return max(0.0, min((end - now).total_seconds() for end in ends)) if ends else _DAY.total_seconds()


def _time(text: str | None, now: datetime) -> datetime:
    return now if text is None else times.parse(text)


def _end_of(pem: bytes) -> datetime:
    from cryptography import x509  # noqa: PLC0415  heavy

    return x509.load_pem_x509_certificates(pem)[0].not_valid_after_utc
