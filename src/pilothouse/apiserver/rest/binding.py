"""A pod put on its node: by splicing its bytes, so that what does not change is neither decoded nor encoded again.

What is not as these functions know it they return None for; the caller then decodes it, which is always right.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse.apiserver.ports import Object
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import conflict

__all__ = ["assigned", "binding_of", "spliced"]

_encode: Final = msgspec.json.Encoder().encode
_EMPTY: Final = b"{}"


class _Named(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    namespace: str
    uid: str


class _Target(msgspec.Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    api_version: str
    kind: str
    name: str


class _Binding(msgspec.Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    api_version: str
    kind: str
    metadata: _Named
    target: _Target


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    deletion_timestamp: str | None = None
    labels: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Spec(msgspec.Struct, rename="camel", gc=False):
    node_name: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    scheduling_gates: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Status(msgspec.Struct, gc=False):
    conditions: list[Object] | msgspec.UnsetType | None = msgspec.UNSET


class _Pod(msgspec.Struct, gc=False):
    metadata: msgspec.Raw
    spec: msgspec.Raw
    status: msgspec.Raw


_binding: Final = msgspec.json.Decoder(_Binding).decode
_pod: Final = msgspec.json.Decoder(_Pod).decode
_metadata: Final = msgspec.json.Decoder(_Metadata).decode
_spec: Final = msgspec.json.Decoder(_Spec).decode
_status: Final = msgspec.json.Decoder(_Status).decode
_object: Final = msgspec.json.Decoder(Object).decode


def binding_of(body: bytes) -> Object | None:
    """Read a binding that says exactly what is needed, in the order and way in which our scheduler writes it.

    It has no unknown, double or empty fields then, so that there is nothing to check, prune or tell.
    """
    try:
        found = _binding(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    named, target = found.metadata, found.target
    if found.kind != "Binding" or found.api_version != "v1" or _encode(found) != body:
        return None
    if not (named.name and named.namespace and named.uid and target.api_version and target.kind and target.name):
        return None
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": named.name, "namespace": named.namespace, "uid": named.uid},
        "target": {"apiVersion": target.api_version, "kind": target.kind, "name": target.name},
    }


def assigned(pod: Object, binding: Object, name: str, condition: Object) -> Object:
    """Put a pod on its node. Raises Conflict where that may not be."""
    metadata, spec = pod["metadata"], pod["spec"]
    uid = binding["metadata"].get("uid")
    if uid and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
        raise conflict("", "pods/binding", name, why)
    if metadata.get("deletionTimestamp"):
        raise conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        why = f"pod {name} is already assigned to node {quote(spec['nodeName'])}"
        raise conflict("", "pods/binding", name, why)
    if spec.get("schedulingGates"):
        raise conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = binding["target"]["name"]
    for field in ("annotations", "labels"):
        if given := binding["metadata"].get(field):
            metadata[field] = {**(metadata.get(field) or {}), **given}
    status = pod.setdefault("status", {})
    kept = [each for each in status.get("conditions") or () if each.get("type") != condition["type"]]
    status["conditions"] = [*kept, condition]
    return pod


def spliced(value: bytes, binding: Object, condition: Object) -> bytes | None:
    """Return the stored bytes of a pod as a binding leaves them, with a condition.

    None also where the pod may not be bound: it is another one, is being deleted, has a node, or is held by gates.
    """
    try:
        found = _pod(value)
        metadata, spec, status = bytes(found.metadata), bytes(found.spec), bytes(found.status)
        fields, known = _metadata(metadata), _spec(spec)
        end = b'%b,"spec":%b,"status":%b}' % (metadata, spec, status)
        if not value.endswith(end) or _EMPTY in {spec, metadata} or not _may_be_bound(fields, known, binding):
            return None
        new = _with_condition(status, condition)
        given = binding["metadata"]
        for name, there in (("annotations", fields.annotations), ("labels", fields.labels)):
            if given.get(name):
                metadata = _merged(metadata, name, there, given[name])
    except (msgspec.MsgspecError, _OddError):
        return None
    node = _encode(binding["target"]["name"])
    return b'%b%b,"spec":%b,"nodeName":%b},"status":%b}' % (value[: -len(end)], metadata, spec[:-1], node, new)


class _OddError(Exception):
    """The bytes are not as they are known."""


def _may_be_bound(fields: _Metadata, spec: _Spec, binding: Object) -> bool:
    uid = binding["metadata"].get("uid")
    if fields.deletion_timestamp or (uid and uid != fields.uid):
        return False
    return spec.node_name is msgspec.UNSET and spec.scheduling_gates is msgspec.UNSET


def _merged(metadata: bytes, name: str, there: msgspec.Raw | msgspec.UnsetType, given: Object) -> bytes:
    """Return metadata with labels or annotations added to those that are there."""
    if there is msgspec.UNSET:
        return b'%b,"%b":%b}' % (metadata[:-1], name.encode(), _encode(given))
    raw = bytes(there)
    before = b'"%b":%b' % (name.encode(), raw)
    if metadata.count(before) != 1:
        raise _OddError
    merged = _encode({**_object(raw), **given})
    return metadata.replace(before, b'"%b":%b' % (name.encode(), merged))


def _with_condition(status: bytes, condition: Object) -> bytes:
    """Return a status with a condition in the place of one of its type."""
    known = _status(status).conditions
    if known is msgspec.UNSET:
        comma = b"" if status == _EMPTY else b","
        return b'%b%b"conditions":[%b]}' % (status[:-1], comma, _encode(condition))
    found = _object(status)
    found["conditions"] = [one for one in known or () if one.get("type") != condition["type"]] + [condition]
    return _encode(found)
