"""Fields of a pod and resources of its containers as text: what the downward API shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.quantity import Quantity, parse
from pilothouse.kinds.structs.core_containers import Container, EphemeralContainer
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_volumes import ResourceFieldSelector

__all__ = ["FieldError", "PodFacts", "field_value", "resource_value"]

_SUBSCRIPT: Final = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]").fullmatch
_ONE: Final = Quantity(1)


class FieldError(ValueError):
    """A field or resource that cannot be shown."""


class PodFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a pod beyond its object: addresses, first ones first, and what the node can give at most."""

    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = {}


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={quote(value)}" for key, value in sorted(values.items()))


def field_value(pod: Pod, path: str, facts: PodFacts) -> str:
    """Return the text of a field such as `metadata.labels['app']`. Raises `FieldError` for one that is not offered."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    if found := _SUBSCRIPT(path):
        known = meta.labels if found[1] == "metadata.labels" else meta.annotations
        return known.get(found[2], "")
    addresses: dict[str, Sequence[str]] = {
        "status.hostIP": facts.host_ips[:1] or [status.host_ip],
        "status.hostIPs": facts.host_ips or [each.ip for each in status.host_ips],
        "status.podIP": facts.pod_ips[:1] or [status.pod_ip],
        "status.podIPs": facts.pod_ips or [each.ip for each in status.pod_ips],
    }
    if path in addresses:
        return ",".join(addresses[path])
    plain = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.node_name,
        "spec.serviceAccountName": spec.service_account_name,
    }
    if path in plain:
        return plain[path]
    if path == "metadata.labels":
        return _lines(meta.labels)
    if path == "metadata.annotations":
        return _lines(meta.annotations)
    raise FieldError(f"unsupported fieldPath: {path}")


def resource_value(
    pod: Pod, selector: ResourceFieldSelector, own: Container | EphemeralContainer | None, facts: PodFacts
) -> str:
    """Return how much of a resource a container asks for, in units of the divisor, rounded up.

    A limit that is not set is what the node can give; a request that is not set is 0. Raises `FieldError`.
    """
    everything = (own, *pod.spec.containers, *pod.spec.init_containers)
    wanted = selector.container_name or ("" if own is None else own.name)
    container = next((each for each in everything if each is not None and each.name == wanted), None)
    if container is None:
        raise FieldError(f"container {selector.container_name} not found")
    which, _, name = selector.resource.partition(".")
    if which not in {"limits", "requests"} or not name:
        raise FieldError(f"unsupported container resource : {selector.resource}")
    given = container.resources.limits if which == "limits" else container.resources.requests
    text = given.get(name) or (facts.allocatable.get(name) if which == "limits" else None) or "0"
    amount, divisor = parse(str(text)), parse(str(selector.divisor or "0"))
    if not divisor:
        divisor = _ONE
    if name == "cpu":
        return str(-(-amount.milli_value() // divisor.milli_value()))
    return str(-(-amount.value() // max(1, divisor.value())))
