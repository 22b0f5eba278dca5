"""Validation of containers: names, images, ports, variables, mounts, resources, probes, hooks, security."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items
from pilothouse.kinds.validation.probes import lifecycle, probes
from pilothouse.kinds.validation.resources import container_resources

__all__ = ["containers", "init_containers"]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_INIT_ONLY_SIDECARS = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
_FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_RESOURCE_PATHS = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_NO_SOURCE = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
_ONE_SOURCE = "may not have more than one field specified at a time"
Names = frozenset[str]


def containers(errors: ErrorList, at: Path, group: Sequence[Object], volumes: Names, claims: Names) -> None:
    """Check the ordinary containers of a pod; there must be one."""
    if not group:
        errors.required(at)
        return
    seen: set[str] = set()
    for position, container in enumerate(group):
        place = at.index(position)
        _container(errors, place, container, volumes, claims)
        name = container.get("name") or ""
        if name in seen:
            errors.duplicate(place.child("name"), name)
        seen.add(name)
        lifecycle(errors, place, container)
        probes(errors, place, container)
        policy = container.get("restartPolicy")
        if policy is not None and policy not in _RESTART_POLICIES:
            errors.not_supported(place.child("restartPolicy"), policy, _RESTART_POLICIES)
    _host_ports(errors, at, group)


def init_containers(errors: ErrorList, at: Path, spec: Object, volumes: Names, claims: Names) -> None:
    """Check the init containers of a pod; their names are unique with those of the ordinary ones."""
    seen = {container.get("name") for container in items(spec, "containers")}
    for position, container in enumerate(items(spec, "initContainers")):
        place = at.index(position)
        _container(errors, place, container, volumes, claims)
        name = container.get("name")
        if name in seen:
            errors.duplicate(place.child("name"), name)
        elif name:
            seen.add(name)
        _host_ports(errors, at, (container,))
        if container.get("restartPolicy") == "Always":
            lifecycle(errors, place, container)
            probes(errors, place, container)
            continue
        for field in _INIT_ONLY_SIDECARS:
            if container.get(field) is not None:
                errors.forbidden(place.child(field), "may not be set for init containers without restartPolicy=Always")


def _container(errors: ErrorList, at: Path, container: Object, volumes: Names, claims: Names) -> None:
    if name := container.get("name"):
        for message in names.dns1123_label(name):
            errors.invalid(at.child("name"), name, message)
    else:
        errors.required(at.child("name"))
    if not container.get("image"):
        errors.required(at.child("image"))
    checks.one_of(errors, at, container, "terminationMessagePolicy", _MESSAGE_POLICIES)
    if ports := container.get("ports"):
        _ports(errors, at.child("ports"), ports)
    if variables := container.get("env"):
        _variables(errors, at.child("env"), variables)
    if sources := container.get("envFrom"):
        _variables_from(errors, at.child("envFrom"), sources)
    if container.get("volumeMounts"):
        _mounts(errors, at.child("volumeMounts"), container, volumes)
    checks.one_of(errors, at, container, "imagePullPolicy", _PULL_POLICIES)
    if resources := container.get("resources"):
        container_resources(errors, at.child("resources"), resources, claims)
    if security := container.get("securityContext"):
        _security(errors, at.child("securityContext"), security)


def _ports(errors: ErrorList, at: Path, ports: Sequence[Object]) -> None:
    seen: set[str] = set()
    for position, port in enumerate(ports):
        place = at.index(position)
        if name := port.get("name"):
            messages = names.port_name(name)
            for message in messages:
                errors.invalid(place.child("name"), name, message)
            if not messages and name in seen:
                errors.duplicate(place.child("name"), name)
            seen.add(name)
        if number := port.get("containerPort"):
            if not 0 < number < 65536:
                checks.port(errors, place.child("containerPort"), number)
        else:
            errors.required(place.child("containerPort"))
        if (number := port.get("hostPort")) and not 0 < number < 65536:
            checks.port(errors, place.child("hostPort"), number)
        checks.one_of(errors, place, port, "protocol", _PROTOCOLS)


def _host_ports(errors: ErrorList, at: Path, group: Sequence[Object]) -> None:
    seen: set[str] = set()
    for position, container in enumerate(group):
        for index, port in enumerate(items(container, "ports")):
            if number := port.get("hostPort"):
                key = f"{port.get('protocol', '')}/{port.get('hostIP') or ''}/{number}"
                if key in seen:
                    errors.duplicate(at.index(position).child("ports").index(index).child("hostPort"), key)
                seen.add(key)


def _variables(errors: ErrorList, at: Path, variables: Sequence[Object]) -> None:
    for position, variable in enumerate(variables):
        name = variable.get("name")
        if not name:
            errors.required(at.index(position).child("name"))
        else:
            for message in names.relaxed_environment_name(name):
                errors.invalid(at.index(position).child("name"), name, message)
        source = variable.get("valueFrom")
        if source is not None:
            _value_from(errors, at.index(position).child("valueFrom"), source, variable.get("value") or "")


def _value_from(errors: ErrorList, at: Path, source: Object, value: str) -> None:
    given = [field for field in _SOURCES if source.get(field) is not None]
    for field in given:
        place, reference = at.child(field), source[field]
        if field == "fieldRef":
            _field_ref(errors, place, reference)
        elif field == "resourceFieldRef":
            _resource_ref(errors, place, reference)
        elif field in {"configMapKeyRef", "secretKeyRef"}:
            checks.name(errors, place.child("name"), reference.get("name") or "", names.dns1123_subdomain)
            if checks.required(errors, place, reference, "key"):
                checks.name(errors, place.child("key"), reference["key"], names.config_map_key)
    if not given:
        errors.invalid(at, "", _NO_SOURCE)
    elif value:
        errors.invalid(at, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        errors.invalid(at, "", _ONE_SOURCE)


def _field_ref(errors: ErrorList, at: Path, reference: Object) -> None:
    if not checks.required(errors, at, reference, "fieldPath"):
        return
    path = reference["fieldPath"]
    base, bracket, key = path.partition("[")
    if bracket and path.endswith("']") and base in {"metadata.annotations", "metadata.labels"}:
        key = key.strip("[]'")
        checks.name(errors, at, key.lower() if base == "metadata.annotations" else key, names.qualified_name)
    elif path in {"spec.host", "metadata.annotations", "metadata.labels", "spec.restartPolicy", "status.phase"}:
        errors.not_supported(at.child("fieldPath"), path, _FIELD_PATHS)
    elif path not in _FIELD_PATHS:
        text = f"error converting fieldPath: field label not supported: {path}"
        errors.invalid(at.child("fieldPath"), path, text)


def _resource_ref(errors: ErrorList, at: Path, reference: Object) -> None:
    if not checks.required(errors, at, reference, "resource"):
        return
    resource = reference["resource"]
    if resource not in _RESOURCE_PATHS and not resource.startswith(("limits.hugepages-", "requests.hugepages-")):
        errors.not_supported(at.child("resource"), resource, _RESOURCE_PATHS)


def _variables_from(errors: ErrorList, at: Path, sources: Sequence[Object]) -> None:
    for position, source in enumerate(sources):
        place = at.index(position)
        if prefix := source.get("prefix"):
            checks.name(errors, place.child("prefix"), prefix, names.relaxed_environment_name)
        given = [field for field in ("configMapRef", "secretRef") if source.get(field) is not None]
        for field in given:
            checks.name(errors, place.child(field, "name"), source[field].get("name") or "", names.dns1123_subdomain)
        if not given:
            errors.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            errors.invalid(at, "", _ONE_SOURCE)


def _mounts(errors: ErrorList, at: Path, container: Object, volumes: Names) -> None:
    seen: set[str] = set()
    for position, mount in enumerate(container["volumeMounts"]):
        name, path = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.required(at.index(position).child("name"))
        if name not in volumes:
            errors.not_found(at.index(position).child("name"), name)
        if not path:
            errors.required(at.index(position).child("mountPath"))
        if path in seen:
            errors.invalid(at.index(position).child("mountPath"), path, "must be unique")
        seen.add(path)
        _sub_paths(errors, at, position, mount)
        if mount.get("mountPropagation") is not None:
            _propagation(errors, at.child("mountPropagation"), mount["mountPropagation"], container)


def _sub_paths(errors: ErrorList, at: Path, position: int, mount: Object) -> None:
    # These are reported without the position of the mount, as Kubernetes does.
    for field in ("subPath", "subPathExpr"):
        if sub := mount.get(field):
            if sub.startswith("/"):
                errors.invalid(at.child(field), sub, "must be a relative path")
            checks.no_backsteps(errors, at.child(field), sub)
    if mount.get("subPath") and mount.get("subPathExpr"):
        text = "subPathExpr and subPath are mutually exclusive"
        errors.invalid(at.index(position).child("subPathExpr"), mount["subPathExpr"], text)


def _propagation(errors: ErrorList, at: Path, value: str, container: Object) -> None:
    if value not in _PROPAGATIONS:
        errors.not_supported(at, value, _PROPAGATIONS)
    if value == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        errors.forbidden(at, "Bidirectional mount propagation is available only to privileged containers")


def _security(errors: ErrorList, at: Path, security: Object) -> None:
    for field in ("runAsUser", "runAsGroup"):
        value = security.get(field)
        if value is not None:
            for message in names.user_or_group_id(value):
                errors.invalid(at.child(field), value, message)
    if security.get("allowPrivilegeEscalation") is False and security.get("privileged"):
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.invalid(at, security, text)
