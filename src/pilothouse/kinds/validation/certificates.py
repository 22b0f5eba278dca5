"""Validation of certificate signing requests: what is asked for, approved and issued."""

from __future__ import annotations

import base64
import binascii

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items

__all__ = ["signing_request", "signing_request_approval", "signing_request_status", "signing_request_update"]

_BEGIN, _REQUEST, _CERTIFICATE = b"-----BEGIN ", b"CERTIFICATE REQUEST", b"CERTIFICATE"
_LEGACY = "kubernetes.io/legacy-unknown"
_DECISIONS, _ALWAYS_TRUE = ("Approved", "Denied"), ("Approved", "Denied", "Failed")
_STATUSES = ("False", "True", "Unknown")
_EXCLUSIVE = "Approved and Denied conditions are mutually exclusive"
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_CONDITIONS, _ISSUED = Path("status.conditions"), Path("status.certificate")
_SIGNER_FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
_SIGNER_DOMAIN = 253


def signing_request(errors: ErrorList, obj: Object) -> None:
    """Check a CertificateSigningRequest, its metadata apart."""
    _check(errors, obj, {})


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def _check(errors: ErrorList, obj: Object, old: Object) -> None:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    request = spec.get("request") or ""
    # What was accepted once need not be parsed again.
    problem = "" if request and request == before.get("request") else _request_problem(_decoded(request))
    if problem:
        errors.invalid(SPEC.child("request"), request, problem)
    _usages(errors, list(items(spec, "usages")), list(items(before, "usages")))
    signer, at = spec.get("signerName") or "", SPEC.child("signerName")
    if signer == _LEGACY and before.get("signerName") != _LEGACY:
        errors.invalid(at, signer, "the legacy signerName is not allowed via this API version")
    else:
        _signer(errors, at, signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.invalid(SPEC.child("expirationSeconds"), seconds, text)
    _conditions(errors, obj, old)
    issued = (obj.get("status") or {}).get("certificate") or ""
    if issued and issued != ((old.get("status") or {}).get("certificate") or ""):
        content = _decoded(issued)
        if not content.lstrip().startswith(_BEGIN + _CERTIFICATE + b"-----"):
            errors.invalid(_ISSUED, "<certificate data>", "must contain at least one CERTIFICATE PEM block")


def _request_problem(content: bytes) -> str:
    if not content.lstrip().startswith(_BEGIN + _REQUEST + b"-----"):
        return "PEM block type must be CERTIFICATE REQUEST"
    # Few programs create such requests, so the library is loaded when one comes.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        good = x509.load_pem_x509_csr(content).is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        return "asn1: structure error: malformed certificate request"
    return "" if good else "x509: signature verification failure"


def _usages(errors: ErrorList, usages: list[str], before: list[str]) -> None:
    at = SPEC.child("usages")
    if not usages:
        errors.required(at)
    if set(before) <= set(_USAGES):
        for position, usage in enumerate(usages):
            if usage not in _USAGES:
                errors.not_supported(at.index(position), usage, _USAGES)
    if len(set(before)) == len(before):
        for position, usage in enumerate(usages):
            if usage in usages[:position]:
                errors.duplicate(at.index(position), usage)


def _signer(errors: ErrorList, at: Path, signer: str) -> None:
    if not signer:
        errors.required(at)
        return
    domain, slash, path = signer.partition("/")
    if not slash or "/" in path:
        errors.invalid(at, signer, _SIGNER_FORM)
        return
    if len(domain) > _SIGNER_DOMAIN:
        errors.too_long(at, _SIGNER_DOMAIN)
    labels = domain.split(".")
    for label in labels:
        for message in names.dns1123_label(label):
            errors.invalid(at, domain, f'validating label "{label}": {message}')
    if len(labels) < 2:
        errors.invalid(at, domain, "should be a domain with at least two segments separated by dots")
    checks.name(errors, at, path, names.dns1123_subdomain)


def _of_type(obj: Object, kind: str) -> list[Object]:
    return [each for each in items(obj.get("status") or {}, "conditions") if each.get("type") == kind]


def _conditions(errors: ErrorList, obj: Object, old: Object) -> None:
    tolerated = all(_of_type(old, kind) for kind in _DECISIONS)
    seen: set[str] = set()
    for position, condition in enumerate(items(obj.get("status") or {}, "conditions")):
        at, kind = _CONDITIONS.index(position), condition.get("type") or ""
        if not kind:
            errors.required(at.child("type"))
        checks.one_of(errors, at, condition, "status", ("True",) if kind in _ALWAYS_TRUE else _STATUSES)
        if kind in _DECISIONS and not tolerated and set(_DECISIONS) - {kind} <= seen:
            errors.invalid(at.child("type"), kind, _EXCLUSIVE)
        if kind in seen:
            errors.duplicate(at.child("type"), kind)
        seen.add(kind)


def signing_request_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a CertificateSigningRequest that replaces another: neither decision nor certificate changes."""
    _update(errors, new, old, decide=False, issue=False)


def signing_request_approval(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the approval or denial of a CertificateSigningRequest."""
    _update(errors, new, old, decide=True, issue=False)


def signing_request_status(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the status of a CertificateSigningRequest: its certificate is given once."""
    _update(errors, new, old, decide=False, issue=True)


def _update(errors: ErrorList, new: Object, old: Object, *, decide: bool, issue: bool) -> None:
    _check(errors, new, old)
    for kind in _ALWAYS_TRUE:
        if len(_of_type(new, kind)) < len(_of_type(old, kind)):
            errors.forbidden(_CONDITIONS, f'updates may not remove a condition of type "{kind}"')
    for kind in () if decide else _DECISIONS:
        after, before = _of_type(new, kind), _of_type(old, kind)
        if len(after) > len(before):
            errors.forbidden(_CONDITIONS, f'updates may not add a condition of type "{kind}"')
        elif len(after) == len(before) and after != before:
            errors.forbidden(_CONDITIONS, f'updates may not modify a condition of type "{kind}"\n')
    issued, former = ((part.get("status") or {}).get("certificate") or "" for part in (new, old))
    if issued != former and not issue:
        errors.forbidden(_ISSUED, "updates may not set certificate content")
    elif issued != former and former:
        errors.forbidden(_ISSUED, "updates may not modify existing certificate content")
