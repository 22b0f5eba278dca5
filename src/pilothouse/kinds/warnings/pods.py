"""Warnings about the spec of a pod or pod template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pilothouse.kinds.fielderrors import Path, quote
from pilothouse.kinds.warnings import parts
from pilothouse.kinds.warnings.volumes import volume_warnings

__all__ = ["pod_warnings"]

Object = dict[str, Any]
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_BYTES = ("memory", "ephemeral-storage")
_ONCE = (("hostAliases", "ip"), ("imagePullSecrets", "name"))
"""Lists in which no value of a field comes twice."""
_NO_SELECTOR = "a null labelSelector results in matching no pod"
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)


def pod_warnings(at: Path, pod: Object, *, is_pod: bool = False) -> list[str]:
    """Return the warnings about a pod or pod template with defaults; at: where it stands."""
    spec: Object = pod.get("spec") or {}
    annotations: Object = (pod.get("metadata") or {}).get("annotations") or {}
    place = at.child("spec")
    warnings: list[str] = []
    if spec.get("nodeSelector") or spec.get("affinity") or spec.get("topologySpreadConstraints"):
        warnings += _nodes(place, spec)
    if volumes := spec.get("volumes"):
        warnings += volume_warnings(place.child("volumes"), volumes)
    for field, key in _ONCE:
        if found := spec.get(field):
            warnings += _repeated(place.child(field), found, key)
    if spec.get("overhead"):
        warnings += parts.fractions(place.child("overhead"), spec["overhead"], *_BYTES)
    if annotations:
        warnings += _profiles(at, spec, annotations, is_pod=is_pod)
    warnings += _containers(place, spec)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        warnings.append(f"{place.child('terminationGracePeriodSeconds')}: {text}")
    if affinity := spec.get("affinity"):
        warnings += _affinity(place.child("affinity"), affinity)
    if spec.get("dnsConfig") or spec.get("hostAliases"):
        warnings += _addresses(place, spec)
    return warnings


def _each(spec: Object) -> Iterator[tuple[str, int, Object]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for position, container in enumerate(spec.get(field) or ()):
            yield field, position, container


def _nodes(at: Path, spec: Object) -> list[str]:
    warnings = [
        f"{at.child('nodeSelector').key(key)}: {text}"
        for key in spec.get("nodeSelector") or ()
        if (text := parts.node_label(key))
    ]
    affinity: Object = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    place = at.child("affinity", "nodeAffinity")
    for position, term in enumerate((affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()):
        warnings += parts.node_term(place.child(_REQUIRED, "nodeSelectorTerms").index(position), term)
    for position, term in enumerate(affinity.get(_PREFERRED) or ()):
        where = place.child(_PREFERRED).index(position).child("preference")
        warnings += parts.node_term(where, term.get("preference") or {}, values=True)
    for position, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, key = at.child("topologySpreadConstraints").index(position), constraint.get("topologyKey") or ""
        if text := parts.node_label(key):
            warnings.append(f"{where.child('topologyKey')}: {key} is {text}")
        if constraint.get("labelSelector") is None:
            warnings.append(f"{where.child('labelSelector')}: {_NO_SELECTOR}")
    return warnings


def _repeated(at: Path, items: list[Object] | None, field: str) -> list[str]:
    seen: set[str] = set()
    warnings: list[str] = []
    for position, item in enumerate(items or ()):
        value = item.get(field) or ""
        if value in seen:
            warnings.append(f"{at.index(position).child(field)}: duplicate {field} {quote(value)}")
        if not value:
            warnings.append(f'{at.index(position).child(field)}: invalid empty {field} ""')
        seen.add(value)
    return warnings


def _profiles(at: Path, spec: Object, annotations: Object, *, is_pod: bool) -> list[str]:
    """Warn of annotations in place of which there are fields now."""
    where, security = at.child("metadata", "annotations"), spec.get("securityContext") or {}
    warnings = [f"{where.key(key)}: {text}" for key, text in _ANNOTATIONS.items() if key in annotations]
    if security.get("seccompProfile") is None and _SECCOMP_POD in annotations:
        warnings.append(f"{where.key(_SECCOMP_POD)}: {_SECCOMP}")
    for _, _, container in _each(spec):
        own = container.get("securityContext") or {}
        key = _SECCOMP_CONTAINER + (container.get("name") or "")
        if key in annotations and own.get("seccompProfile") is None:
            warnings.append(f"{where.key(key)}: {_SECCOMP}")
        key = _APPARMOR + (container.get("name") or "")
        if not is_pod and key in annotations and own.get("appArmorProfile") is None:
            profile = security.get("appArmorProfile")
            if profile is None or profile != _profile(annotations[key]):
                text = 'deprecated since v1.30; use the "appArmorProfile" field instead'
                warnings.append(f"{where.key(key)}: {text}")
    return warnings


def _profile(annotation: str) -> Object | None:
    """Return the field that says what an annotation does."""
    kind, _, name = annotation.partition("/")
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation == "runtime/default":
        return {"type": "RuntimeDefault"}
    return {"type": "Localhost", "localhostProfile": name} if kind == "localhost" and name else None


def _containers(at: Path, spec: Object) -> list[str]:
    warnings: list[str] = []
    ports: list[tuple[str, int, Object]] = []
    for field, position, container in _each(spec):
        if resources := container.get("resources"):
            warnings += _fractions(f"{at}.{field}[{position}].resources", resources)
        if len(variables := container.get("env") or ()) > 1:
            warnings += _variables(at.child(field).index(position).child("env"), variables)
        if found := container.get("ports"):
            ports += [(f"{at}.{field}[{position}].ports", place, port) for place, port in enumerate(found)]
    if len(ports) > 1 or (ports and ports[0][2].get("hostIP")):
        warnings += _ports(ports)
    return warnings


def _fractions(at: str, resources: Object) -> list[str]:
    return [
        warning
        for resource in _BYTES
        for part in ("limits", "requests")
        if (amounts := resources.get(part)) and resource in amounts
        for warning in parts.fractions(Path(f"{at}.{part}"), amounts, resource)
    ]


def _variables(at: Path, variables: Sequence[Object]) -> list[str]:
    seen: set[str] = set()
    warnings = []
    for position, variable in enumerate(variables):
        name, value = variable.get("name") or "", variable.get("value") or ""
        if name in seen:
            itself = f"$({name})"
            if variable.get("valueFrom") is not None or value == itself or itself not in value:
                text = f"hides previous definition of {quote(name)}, which may be dropped when using apply"
                warnings.append(f"{at.index(position)}: {text}")
        seen.add(name)
    return warnings


def _ports(ports: list[tuple[str, int, Object]]) -> list[str]:
    warnings: list[str] = []
    numbers: dict[tuple[int, str], list[tuple[str, Object]]] = {}
    called: dict[str, str] = {}
    repeated: list[str] = []
    for at, position, port in ports:
        where = f"{at}[{position}]"
        if port.get("hostIP") and not port.get("hostPort"):
            warnings.append(f"{where}: hostIP set without hostPort: {_shown(port)}")
        others = numbers.setdefault((port.get("containerPort") or 0, port.get("protocol") or ""), [])
        for other, before in others:
            if how := _clash(port, before):
                warnings.append(f"{where}: {how} port definition with {other}")
        others.append((where, port))
        if name := port.get("name"):
            if first := called.get(name):
                text = f"services and probes that select ports by name will use {first}"
                repeated.append(f"{where}: duplicate port name {quote(name)} with {first}, {text}")
            else:
                called[name] = where
    return warnings + repeated


def _clash(port: Object, other: Object) -> str:
    """Say how two ports with one number and protocol are in each other's way."""
    (here, number), (there, before) = ((each.get("hostIP") or "", each.get("hostPort") or 0) for each in (port, other))
    if (here, number) == (there, before):
        return "duplicate"
    if not number or not before:
        return "overlapping"
    return "dangerously ambiguous" if number == before and (not here) != (not there) else ""


def _shown(port: Object) -> str:
    return (
        f"{{Name:{port.get('name') or ''} HostPort:{port.get('hostPort') or 0} "
        f"ContainerPort:{port.get('containerPort') or 0} Protocol:{port.get('protocol') or ''} "
        f"HostIP:{port.get('hostIP') or ''}}}"
    )


def _affinity(at: Path, affinity: Object) -> list[str]:
    warnings = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms: Object = affinity.get(kind) or {}
        for position, term in enumerate(terms.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                where = at.child(kind, _REQUIRED).index(position)
                warnings.append(f"{where.child('labelSelector')}: {_NO_SELECTOR}")
        for position, term in enumerate(terms.get(_PREFERRED) or ()):
            if (term.get("podAffinityTerm") or {}).get("labelSelector") is None:
                where = at.child(kind, _PREFERRED).index(position)
                warnings.append(f"{where.child('podAffinityTerm', 'labelSelector')}: {_NO_SELECTOR}")
    return warnings


def _addresses(at: Path, spec: Object) -> list[str]:
    warnings = []
    for position, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        warnings += parts.address(at.child("dnsConfig", "nameservers").index(position), server)
    for position, alias in enumerate(spec.get("hostAliases") or ()):
        warnings += parts.address(at.child("hostAliases").index(position).child("ip"), alias.get("ip") or "")
    return warnings
