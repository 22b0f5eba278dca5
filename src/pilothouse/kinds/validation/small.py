"""Validation of kinds with few rules: revisions, aggregated APIs, bindings, evictions, scales, tokens."""

from __future__ import annotations

import base64
import binascii

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items

__all__ = [
    "api_service",
    "binding",
    "finalize",
    "revision",
    "revision_update",
    "scale",
    "token_request",
    "trust_bundle",
    "trust_bundle_update",
]

_GROUP_PRIORITY, _VERSION_PRIORITY = 20_000, 1_000
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_BEGIN = b"-----BEGIN CERTIFICATE-----"


def revision(errors: ErrorList, obj: Object) -> None:
    """Check a ControllerRevision, its metadata apart."""
    if obj.get("data") is None:
        errors.required(Path("data"), "data is mandatory")
    checks.non_negative(errors, Path(), obj, "revision")


def revision_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ControllerRevision that replaces another: its data stays."""
    revision(errors, new)
    checks.immutable(errors, Path("data"), new.get("data"), old.get("data"))


def api_service(errors: ErrorList, obj: Object) -> None:
    """Check an APIService, its metadata apart but for its name, which follows from group and version."""
    spec: Object = obj.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    wanted = f"{version}.{group}"
    if name and name != wanted and not names.path_segment(name):
        errors.invalid(Path("metadata.name"), name, f'must be `spec.version+"."+spec.group`: "{wanted}"')
    if not group and version != "v1":
        errors.required(SPEC.child("group"), "only v1 may have an empty group and it better be legacy kube")
    if group:
        checks.name(errors, SPEC.child("group"), group, names.dns1123_subdomain)
    checks.name(errors, SPEC.child("version"), version, names.dns1035_label)
    for field, most in (("groupPriorityMinimum", _GROUP_PRIORITY), ("versionPriority", _VERSION_PRIORITY)):
        value = spec.get(field) or 0
        if not 0 < value <= most:
            errors.invalid(SPEC.child(field), value, f"must be positive and less than {most}")
    if spec.get("service") is None:
        _local_service(errors, spec)
    else:
        _remote_service(errors, spec, spec["service"])


def _local_service(errors: ErrorList, spec: Object) -> None:
    if bundle := spec.get("caBundle"):
        size = len(base64.b64decode(bundle))
        errors.invalid(SPEC.child("caBundle"), f"{size} bytes", "local APIServices may not have a caBundle")
    if insecure := spec.get("insecureSkipTLSVerify"):
        text = "local APIServices may not have insecureSkipTLSVerify"
        errors.invalid(SPEC.child("insecureSkipTLSVerify"), insecure, text)


def _remote_service(errors: ErrorList, spec: Object, service: Object) -> None:
    for field in ("namespace", "name"):
        checks.required(errors, SPEC.child("service"), service, field)
    port, insecure = service.get("port"), spec.get("insecureSkipTLSVerify")
    if port is not None and (messages := names.port_number(port)):
        errors.invalid(SPEC.child("service", "port"), port, f"port is not valid: {', '.join(messages)}")
    if insecure and spec.get("caBundle"):
        errors.invalid(SPEC.child("insecureSkipTLSVerify"), insecure, "may not be true if caBundle is present")


def binding(errors: ErrorList, obj: Object) -> None:
    """Check a Binding of a pod."""
    target: Object = obj.get("target") or {}
    kind = target.get("kind") or ""
    if kind and kind != "Node":
        errors.not_supported(Path("target.kind"), kind, ("Node", "<empty>"))
    checks.required(errors, Path("target"), target, "name")


def scale(errors: ErrorList, obj: Object) -> None:
    """Check a Scale, its metadata apart."""
    checks.non_negative(errors, SPEC, obj.get("spec") or {}, "replicas")


def token_request(errors: ErrorList, obj: Object) -> None:
    """Check a TokenRequest."""
    checks.token_lifetime(errors, SPEC.child("expirationSeconds"), (obj.get("spec") or {}).get("expirationSeconds"))


def finalize(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check what takes finalizers from a Namespace."""
    for position, finalizer in enumerate(items(new.get("spec") or {}, "finalizers")):
        at = SPEC.child("finalizers").index(position)
        checks.name(errors, at, finalizer, names.qualified_name)
        if "/" not in finalizer and finalizer not in _FINALIZERS:
            errors.invalid(at, finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def trust_bundle(errors: ErrorList, obj: Object) -> None:
    """Check a ClusterTrustBundle, its metadata apart but for its name, which begins with its signer's."""
    spec: Object = obj.get("spec") or {}
    signer, name = spec.get("signerName") or "", (obj.get("metadata") or {}).get("name") or ""
    prefix = f"{signer.replace('/', ':')}:"
    if signer and not name.startswith(prefix):
        text = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        errors.invalid(Path("metadata.name"), name, text)
    if not signer and ":" in name:
        text = 'ClusterTrustBundle without signer name must not have ":" in its name'
        errors.invalid(Path("metadata.name"), name, text)
    bundle = (spec.get("trustBundle") or "").encode()
    if _BEGIN not in bundle:
        errors.invalid(SPEC.child("trustBundle"), "<value omitted>", "at least one trust anchor must be provided")
        return
    try:
        from cryptography import x509  # noqa: PLC0415 - few programs create such bundles

        x509.load_pem_x509_certificates(bundle)
    except (ValueError, binascii.Error):
        errors.invalid(SPEC.child("trustBundle"), "<value omitted>", "entry 0 does not parse as X.509")


def trust_bundle_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ClusterTrustBundle that replaces another: its signer stays."""
    trust_bundle(errors, new)
    after, before = ((part.get("spec") or {}).get("signerName") or "" for part in (new, old))
    checks.immutable(errors, SPEC.child("signerName"), after, before)
