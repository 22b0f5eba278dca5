"""Defaults of pods and of everything that carries a pod template: containers, probes, ports, volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pilothouse.kinds.defaults.fill import Object, Table, child, empties, fill_empty, fill_missing, items
from pilothouse.kinds.defaults.images import pull_policy
from pilothouse.kinds.quantity import ZERO, Quantity, parse

__all__ = ["claim_spec", "persistent_source", "pod", "pod_spec", "pod_template"]

_POD_SPEC: Table = (("dnsPolicy", "ClusterFirst"), ("restartPolicy", "Always"), ("schedulerName", "default-scheduler"))
_CONTAINER: Table = (("terminationMessagePath", "/dev/termination-log"), ("terminationMessagePolicy", "File"))
_PROBE: Table = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))
_HTTP_GET: Table = (("path", "/"), ("scheme", "HTTP"))
_FIELD_REF: Table = (("apiVersion", "v1"),)
_MODE: Table = (("defaultMode", 0o644),)

_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_POD_LEVEL_RESOURCES = ("cpu", "memory")
_HUGE_PAGES = "hugepages-"


def pod(obj: Object) -> None:
    """Default a Pod: its spec, and what only pods get (requests from limits, service links, host ports)."""
    _addresses(obj.get("status"))
    spec = child(obj, "spec")
    pod_spec(spec)
    for name in ("containers", "initContainers"):
        for container in items(spec, name):
            resources = container["resources"]
            limits = resources.get("limits")
            if limits is not None:
                requests = child(resources, "requests")
                resources["requests"] = {**limits, **requests}
    fill_missing(spec, (("enableServiceLinks", True),))
    if spec.get("resources"):
        _pod_level_resources(spec)
    if spec.get("hostNetwork"):
        _host_ports(spec)


def _addresses(status: Object | None) -> None:
    """Let the one address of a pod be among its many, for those who know only one."""
    if status and status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]


def pod_template(holder: Object, name: str = "template") -> Object:
    """Default the pod template in a field and return it."""
    template = child(holder, name)
    child(template, "metadata")
    pod_spec(child(template, "spec"))
    return template


def pod_spec(spec: Object) -> None:
    """Default a pod spec, wherever it stands."""
    fill_empty(spec, _POD_SPEC)
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for name in _CONTAINER_LISTS:
        for container in items(spec, name):
            _container(container)
    for volume in items(spec, "volumes"):
        _volume(volume)


def claim_spec(spec: Object) -> None:
    """Default the spec of a persistent volume claim."""
    child(spec, "resources")
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"


def persistent_source(spec: Object) -> None:
    """Default the volume source in the spec of a persistent volume."""
    for name in spec.keys() & _PERSISTENT_SOURCES.keys():
        source = spec[name]
        if source is not None:
            _PERSISTENT_SOURCES[name](source)


def _container(container: Object) -> None:
    fill_empty(container, _CONTAINER)
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if container.get("resources") is None:
        container["resources"] = {}
    for port in items(container, "ports"):
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in items(container, "env"):
        if source := variable.get("valueFrom"):
            _env_source(source)
    _handlers(container)


def _handlers(container: Object) -> None:
    for name in _PROBES:
        probe = container.get(name)
        if probe is not None:
            fill_empty(probe, _PROBE)
            _http_get(probe)
            if probe.get("grpc") is not None:
                fill_missing(probe["grpc"], (("service", ""),))
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _http_get(hook)


def _env_source(source: Object) -> None:
    if field := source.get("fieldRef"):
        fill_empty(field, _FIELD_REF)
    if resource := source.get("resourceFieldRef"):
        fill_empty(resource, (("divisor", "0"),))
    if file := source.get("fileKeyRef"):
        fill_missing(file, (("optional", False),))


def _http_get(handler: Object) -> None:
    action = handler.get("httpGet")
    if action is not None:
        fill_empty(action, _HTTP_GET)


def _host_ports(spec: Object) -> None:
    for name in ("containers", "initContainers"):
        for container in items(spec, name):
            for port in items(container, "ports"):
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]


def _pod_level_resources(spec: Object) -> None:
    """Complete the resources of the pod as a whole from those of its containers, where it has any (KEP-2837)."""
    resources: Object = spec.get("resources") or {}
    limits, requests = dict(resources.get("limits") or {}), dict(resources.get("requests") or {})
    if not limits and not requests:
        return
    for key, total in _aggregate(spec, "limits").items():
        if key.startswith(_HUGE_PAGES) and key not in requests:
            limits.setdefault(key, str(total))
    if limits:
        for key, total in _aggregate(spec, "requests").items():
            if key in _POD_LEVEL_RESOURCES:
                requests.setdefault(key, str(total))
        for key, value in limits.items():
            if key in _POD_LEVEL_RESOURCES or key.startswith(_HUGE_PAGES):
                requests.setdefault(key, value)
    spec["resources"] |= {name: part for name, part in (("limits", limits), ("requests", requests)) if part}


def _aggregate(spec: Object, field: str) -> dict[str, Quantity]:
    """Add up what containers take at the same time: all ordinary ones and sidecars, or one init container."""
    total = _sum(items(spec, "containers"), field)
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in items(spec, "initContainers"):
        own = _sum((container,), field)
        together = _added(sidecars, own)
        if container.get("restartPolicy") == "Always":
            sidecars = together
            total = _added(total, own)
        peak = {key: max(peak.get(key, ZERO), together.get(key, ZERO)) for key in peak.keys() | together.keys()}
    return {key: max(total.get(key, ZERO), peak.get(key, ZERO)) for key in sorted(total.keys() | peak.keys())}


def _sum(containers: Iterable[Object], field: str) -> dict[str, Quantity]:
    total: dict[str, Quantity] = {}
    for container in containers:
        amounts = container["resources"].get(field) or {}
        total = _added(total, {key: parse(str(value)) for key, value in amounts.items()})
    return total


def _added(left: dict[str, Quantity], right: dict[str, Quantity]) -> dict[str, Quantity]:
    return {**left, **{key: left.get(key, ZERO) + value for key, value in right.items()}}


def _volume(volume: Object) -> None:
    named = False
    for name, source in volume.items():
        if name != "name" and source is not None:
            named = True
            fix = _SOURCES.get(name)
            if fix is not None:
                fix(source)
    if not named:
        volume["emptyDir"] = {}


def _empty(table: Table) -> Callable[[Object], None]:
    return lambda source: fill_empty(source, table)


def _missing(table: Table) -> Callable[[Object], None]:
    return lambda source: fill_missing(source, table)


def _downward_items(source: Object) -> None:
    for file in items(source, "items"):
        if field := file.get("fieldRef"):
            fill_empty(field, _FIELD_REF)
        if resource := file.get("resourceFieldRef"):
            fill_empty(resource, (("divisor", "0"),))


def _downward(source: Object) -> None:
    fill_missing(source, _MODE)
    _downward_items(source)


def _projected(source: Object) -> None:
    fill_missing(source, _MODE)
    if "sources" not in source:
        source["sources"] = None
    for projection in items(source, "sources"):
        if (token := projection.get("serviceAccountToken")) is not None:
            fill_missing(token, (("expirationSeconds", 3600),))
        if (downward := projection.get("downwardAPI")) is not None:
            _downward_items(downward)


def _image(source: Object) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = pull_policy(source.get("reference") or "")


def _ephemeral(source: Object) -> None:
    template = source.get("volumeClaimTemplate")
    if template is not None:
        empties(template, ("metadata", "spec"))
        claim_spec(template["spec"])


def _pick(names: Iterable[str]) -> dict[str, Callable[[Object], None]]:
    return {name: _SOURCES[name] for name in names}


_SOURCES: dict[str, Callable[[Object], None]] = {
    "azureDisk": _missing((("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("readOnly", False), ("kind", "Shared"))),
    "configMap": _missing(_MODE),
    "downwardAPI": _downward,
    "ephemeral": _ephemeral,
    "hostPath": _missing((("type", ""),)),
    "image": _image,
    "iscsi": _empty((("iscsiInterface", "default"),)),
    "projected": _projected,
    "rbd": _empty((("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring"))),
    "scaleIO": _empty((("storageMode", "ThinProvisioned"), ("fsType", "xfs"))),
    "secret": _missing(_MODE),
}
_PERSISTENT_SOURCES = _pick(("azureDisk", "hostPath", "iscsi", "rbd", "scaleIO"))
