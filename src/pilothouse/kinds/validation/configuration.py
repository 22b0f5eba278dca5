"""Validation of ConfigMaps, Secrets, Namespaces and quotas."""

from __future__ import annotations

import base64
import binascii
import json

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.quantity import parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.resources import amount, quota_resource_name

__all__ = [
    "config_map",
    "config_map_update",
    "namespace",
    "resource_quota",
    "resource_quota_update",
    "secret",
    "secret_update",
]

_SIZE_MAXIMUM = 1024 * 1024
_DATA = Path("data")
_FROZEN = "field is immutable when `immutable` is set"
_ACCOUNT = "kubernetes.io/service-account.name"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _decoded_size(text: str | None) -> int:
    """Give the size of what base64 text holds, without decoding it; null is empty."""
    if not text:
        return 0
    return len(text) * 3 // 4 - (text.endswith("=") + text.endswith("=="))


def config_map(errors: ErrorList, obj: Object) -> None:
    """Check a ConfigMap, its metadata apart."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    size = 0
    for key, value in data.items():
        checks.name(errors, _DATA.key(key), key, names.config_map_key)
        if key in binary:
            errors.invalid(_DATA.key(key), key, "duplicate of key present in binaryData")
        size += _size(value)
    for key, value in binary.items():
        checks.name(errors, Path("binaryData").key(key), key, names.config_map_key)
        size += _decoded_size(value)
    if size > _SIZE_MAXIMUM:
        errors.too_long(Path("[]"), _SIZE_MAXIMUM)


def config_map_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ConfigMap that replaces another: an immutable one stays as it is."""
    _frozen(errors, new, old, "data", "binaryData")
    config_map(errors, new)


def _frozen(errors: ErrorList, new: Object, old: Object, *fields: str) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errors.forbidden(Path("immutable"), _FROZEN)
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            errors.forbidden(Path(field), _FROZEN)


def secret(errors: ErrorList, obj: Object) -> None:
    """Check a Secret, its metadata apart."""
    data: Object = obj.get("data") or {}
    for key in data:
        checks.name(errors, _DATA.key(key), key, names.config_map_key)
    if sum(map(_decoded_size, data.values())) > _SIZE_MAXIMUM:
        errors.too_long(_DATA, _SIZE_MAXIMUM)
    _secret_type(errors, obj, obj.get("type") or "", data)


def _secret_type(errors: ErrorList, obj: Object, kind: str, data: Object) -> None:
    if kind == "kubernetes.io/service-account-token":
        if not ((obj.get("metadata") or {}).get("annotations") or {}).get(_ACCOUNT):
            errors.required(Path("metadata.annotations").key(_ACCOUNT))
    elif kind in {"kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"}:
        _docker(errors, ".dockercfg" if kind.endswith("dockercfg") else ".dockerconfigjson", data)
    elif kind == "kubernetes.io/basic-auth":
        if not data.keys() & {"username", "password"}:
            _keys(errors, data, "username", "password")
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errors.required(_DATA.key("ssh-privatekey"))
    elif kind == "kubernetes.io/tls":
        _keys(errors, data, "tls.crt", "tls.key")


def _keys(errors: ErrorList, data: Object, *keys: str) -> None:
    for key in keys:
        if key not in data:
            errors.required(_DATA.key(key))


def _docker(errors: ErrorList, key: str, data: Object) -> None:
    if key not in data:
        errors.required(_DATA.key(key))
        return
    try:
        content = json.loads(base64.b64decode(data[key] or ""))
    except (binascii.Error, ValueError):
        content = None
    if content is not None and not isinstance(content, dict):
        text = "json: cannot unmarshal into Go value of type map[string]interface {}"
        errors.invalid(_DATA.key(key), "<secret contents redacted>", text)
    elif content is None and data[key] != base64.b64encode(b"null").decode():
        text = "unexpected end of JSON input" if not data[key] else "invalid character in JSON"
        errors.invalid(_DATA.key(key), "<secret contents redacted>", text)


def secret_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a Secret that replaces another: its type stays, an immutable one stays as it is."""
    checks.immutable(errors, Path("type"), new.get("type") or "", old.get("type") or "")
    _frozen(errors, new, old, "data")
    secret(errors, new)


def namespace(errors: ErrorList, obj: Object) -> None:
    """Check a Namespace, its metadata apart."""
    at = SPEC.child("finalizers")
    for finalizer in items(obj.get("spec") or {}, "finalizers"):
        messages = names.qualified_name(finalizer)
        for message in messages:
            errors.invalid(at, finalizer, message)
        if not messages and "/" not in finalizer and finalizer not in {"kubernetes", "orphan", "foregroundDeletion"}:
            errors.invalid(at, finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def resource_quota(errors: ErrorList, obj: Object) -> None:
    """Check a ResourceQuota, its metadata apart."""
    for name, value in ((obj.get("spec") or {}).get("hard") or {}).items():
        place = SPEC.child("hard").key(name)
        quota_resource_name(errors, place, name)
        amount(errors, place, name, parse(str(value)))


def resource_quota_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ResourceQuota that replaces another: its scopes stay."""
    resource_quota(errors, new)
    scopes, before = (list(items(part.get("spec") or {}, "scopes")) for part in (new, old))
    if set(scopes) != set(before):
        errors.invalid(SPEC.child("scopes"), scopes, checks.IMMUTABLE)
