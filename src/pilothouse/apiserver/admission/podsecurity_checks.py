"""The Pod Security Standards: what the levels baseline and restricted forbid, by version of Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from pilothouse.apiserver.admission.plugin import containers
from pilothouse.apiserver.ports import Object
from pilothouse.kinds.fielderrors import quote

__all__ = ["NEWEST", "Violation", "evaluate"]

NEWEST: Final = 36
"""The minor version whose rules `latest` and everything newer mean."""


class Violation(NamedTuple):
    """What is forbidden in a pod: in short, and with the names of who does it."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check: TypeAlias = Callable[[Object, Object], Violation | None]
"""Looks at a pod's metadata and spec."""


def _listed(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _plural(word: str, count: int, plural: str = "") -> str:
    return word if count == 1 else plural or f"{word}s"


def _those(names: Sequence[str], what: str = "container") -> str:
    return f"{_plural(what, len(names))} {_listed(names)}"


def _context(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return item.get("securityContext") or {}


def _names(spec: Object, bad: Callable[[Object], object]) -> list[str]:
    return [one.get("name", "") for one in containers(spec) if bad(one)]


def _setters(pod: object, names: Sequence[str]) -> str:
    """Say who sets something: the pod, some containers or both."""
    return " and ".join((["pod"] if pod else []) + ([_those(names)] if names else []))


def _is_windows(spec: Object) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


def _unless_windows(check: Check) -> Check:
    return lambda metadata, spec: None if _is_windows(spec) else check(metadata, spec)


def _unless_own_users(check: Check) -> Check:
    """Do not ask where the pod has its own users: root in it is nobody outside."""
    return lambda metadata, spec: None if spec.get("hostUsers") is False else check(metadata, spec)


def _escalation(metadata: Object, spec: Object) -> Violation | None:
    bad = _names(spec, lambda one: _context(one).get("allowPrivilegeEscalation") is not False)
    if not bad:
        return None
    detail = f"{_those(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


def _apparmor(metadata: Object, spec: Object) -> Violation | None:
    def bad_type(item: Object) -> str | None:
        profile = _context(item).get("appArmorProfile")
        if profile is None or profile.get("type") in {"RuntimeDefault", "Localhost"}:
            return None
        return str(profile.get("type", ""))

    pod = bad_type(spec)
    names = _names(spec, lambda one: bad_type(one) is not None)
    values = {value for one in (spec, *containers(spec)) if (value := bad_type(one)) is not None}
    noted = sorted(
        f"{key}={quote(value)}"
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value not in {"", "runtime/default"} and not value.startswith("localhost/")
    )
    setters = [one for one in (_setters(pod is not None, names),) if one]
    setters += [_plural("annotation", len(noted))] if noted else []
    if not setters:
        return None
    told = [*sorted(values), *noted]
    reason = _plural("forbidden AppArmor profile", len(told))
    return Violation(reason, f"{' and '.join(setters)} must not set AppArmor profile type to {_listed(told)}")


_DEFAULT_CAPABILITIES: Final = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip


def _added(container: Object, allowed: frozenset[str]) -> list[str]:
    return [one for one in (_context(container).get("capabilities") or {}).get("add") or () if one not in allowed]


def _adding(spec: Object, allowed: frozenset[str]) -> str:
    bad = _names(spec, lambda one: _added(one, allowed))
    if not bad:
        return ""
    added = sorted({name for one in containers(spec) for name in _added(one, allowed)})
    return f"{_those(bad)} must not include {_listed(added)} in securityContext.capabilities.add"


def _capabilities(metadata: Object, spec: Object) -> Violation | None:
    detail = _adding(spec, _DEFAULT_CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def _few_capabilities(metadata: Object, spec: Object) -> Violation | None:
    keeping = _names(spec, lambda one: "ALL" not in ((_context(one).get("capabilities") or {}).get("drop") or ()))
    details = [f'{_those(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding := _adding(spec, frozenset({"NET_BIND_SERVICE"})):
        details.append(adding)
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


def _host_namespaces(metadata: Object, spec: Object) -> Violation | None:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def _host_paths(metadata: Object, spec: Object) -> Violation | None:
    bad = [one.get("name", "") for one in spec.get("volumes") or () if one.get("hostPath") is not None]
    return Violation("hostPath volumes", _those(bad, "volume")) if bad else None


def _host_ports(metadata: Object, spec: Object) -> Violation | None:
    def used(container: Object) -> list[str]:
        return [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]

    bad = _names(spec, used)
    if not bad:
        return None
    ports = sorted({port for one in containers(spec) for port in used(one)})
    uses = _plural("uses", len(bad), "use")
    return Violation("hostPort", f"{_those(bad)} {uses} {_plural('hostPort', len(ports))} {', '.join(ports)}")


def _asked_hosts(container: Object) -> set[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(kind) for kind in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(kind) for kind in ("postStart", "preStop")]
    return {
        host
        for handler in handlers
        for action in ("httpGet", "tcpSocket")
        if (host := ((handler or {}).get(action) or {}).get("host"))
    }


def _probe_hosts(metadata: Object, spec: Object) -> Violation | None:
    bad = sorted(set(_names(spec, _asked_hosts)))
    if not bad:
        return None
    hosts = sorted({host for one in containers(spec) for host in _asked_hosts(one)})
    what = _plural("probe or lifecycle host", len(hosts))
    detail = f"{_those(bad)} {_plural('uses', len(bad), 'use')} {what} {_listed(hosts)}"
    return Violation("probe or lifecycle host", detail)


def _privileged(metadata: Object, spec: Object) -> Violation | None:
    bad = _names(spec, lambda one: _context(one).get("privileged"))
    return Violation("privileged", f"{_those(bad)} must not set securityContext.privileged=true") if bad else None


def _proc_mount(metadata: Object, spec: Object) -> Violation | None:
    bad = _names(spec, lambda one: _context(one).get("procMount") not in {None, "Default"})
    if not bad:
        return None
    kinds = {str(_context(one).get("procMount") or "Default") for one in containers(spec)} - {"Default"}
    return Violation("procMount", f"{_those(bad)} must not set securityContext.procMount to {_listed(sorted(kinds))}")


_ALLOWED_VOLUMES: Final = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
    "secret",
)  # fmt: skip
_OTHER_VOLUMES: Final = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd",
    "flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk",
    "photonPersistentDisk", "portworxVolume", "scaleIO", "storageos",
)  # fmt: skip


def _volumes(metadata: Object, spec: Object) -> Violation | None:
    bad = [one for one in spec.get("volumes") or () if not any(one.get(kind) is not None for kind in _ALLOWED_VOLUMES)]
    if not bad:
        return None
    kinds = {next((kind for kind in _OTHER_VOLUMES if one.get(kind) is not None), "unknown") for one in bad}
    names = [one.get("name", "") for one in bad]
    what = _plural("restricted volume type", len(kinds))
    detail = f"{_those(names, 'volume')} {_plural('uses', len(names), 'use')} {what} {_listed(sorted(kinds))}"
    return Violation("restricted volume types", detail)


def _non_root(metadata: Object, spec: Object) -> Violation | None:
    reason = "runAsNonRoot != true"
    pod = _context(spec).get("runAsNonRoot")
    refusing = _names(spec, lambda one: _context(one).get("runAsNonRoot") is False)
    if pod is False or refusing:
        return Violation(reason, f"{_setters(pod is False, refusing)} must not set securityContext.runAsNonRoot=false")
    silent = [] if pod else _names(spec, lambda one: _context(one).get("runAsNonRoot") is None)
    if silent:
        return Violation(reason, f"pod or {_those(silent)} must set securityContext.runAsNonRoot=true")
    return None


def _root_user(metadata: Object, spec: Object) -> Violation | None:
    pod = _context(spec).get("runAsUser") == 0
    bad = _names(spec, lambda one: _context(one).get("runAsUser") == 0)
    return Violation("runAsUser=0", f"{_setters(pod, bad)} must not set runAsUser=0") if pod or bad else None


def _selinux(*types: str) -> Check:
    allowed = frozenset({"", "container_t", "container_init_t", "container_kvm_t", *types})

    def options(item: Mapping[str, Any]) -> Mapping[str, Any]:
        return _context(item).get("seLinuxOptions") or {}

    def bad(item: Mapping[str, Any]) -> bool:
        told = options(item)
        return bool((told.get("type") or "") not in allowed or told.get("user") or told.get("role"))

    def check(metadata: Object, spec: Object) -> Violation | None:
        names = _names(spec, bad)
        if not names and not bad(spec):
            return None
        every = [options(one) for one in (spec, *containers(spec))]
        kinds = sorted({one.get("type") or "" for one in every} - allowed)
        data = [f"{_plural('type', len(kinds))} {_listed(kinds)}"] if kinds else []
        data += [f"{field} may not be set" for field in ("user", "role") if any(one.get(field) for one in every)]
        who = _setters(bad(spec), names)
        return Violation("seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")

    return check


_SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"


def _seccomp_annotations(metadata: Object, spec: Object) -> Violation | None:
    noted = metadata.get("annotations") or {}
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{one.get('name', '')}" for one in containers(spec))]
    bad = sorted({
        f"{key}={quote(noted[key])}"
        for key in keys
        if key in noted
        and noted[key] not in {"runtime/default", "docker/default"}
        and not noted[key].startswith("localhost/")
    })  # fmt: skip
    if not bad:
        return None
    return Violation("seccompProfile", f"forbidden {_plural('annotation', len(bad))} {', '.join(bad)}")


def _seccomp(*, needed: bool) -> Check:
    def profile(item: Mapping[str, Any]) -> str | None:
        found = _context(item).get("seccompProfile")
        return None if found is None else str(found.get("type", ""))

    def bad(item: Mapping[str, Any]) -> bool:
        return profile(item) not in {None, "RuntimeDefault", "Localhost"}

    def check(metadata: Object, spec: Object) -> Violation | None:
        names = _names(spec, bad)
        if names or bad(spec):
            kinds = sorted({str(profile(one)) for one in (spec, *containers(spec)) if bad(one)})
            detail = f"must not set securityContext.seccompProfile.type to {_listed(kinds)}"
            return Violation("seccompProfile", f"{_setters(bad(spec), names)} {detail}")
        silent = _names(spec, lambda one: profile(one) is None) if needed and profile(spec) is None else []
        if silent:
            wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
            return Violation("seccompProfile", f"pod or {_those(silent)} {wanted}")
        return None

    return check


_SYSCTLS: Final = (
    (0, (
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
    )),
    (27, ("net.ipv4.ip_local_reserved_ports",)),
    (29, (
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    )),
    (32, ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")),
)  # fmt: skip


def _sysctls(minor: int) -> Check:
    allowed = frozenset(name for since, names in _SYSCTLS if since <= minor for name in names)

    def check(metadata: Object, spec: Object) -> Violation | None:
        bad = [one.get("name", "") for one in _context(spec).get("sysctls") or () if one.get("name") not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def _host_process(metadata: Object, spec: Object) -> Violation | None:
    def asks(item: Mapping[str, Any]) -> bool:
        return bool((_context(item).get("windowsOptions") or {}).get("hostProcess"))

    bad = _names(spec, asks)
    if not bad and not asks(spec):
        return None
    detail = f"{_setters(asks(spec), bad)} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", detail)


_Versions: TypeAlias = tuple[tuple[int, Check], ...]

_BASELINE: Final[Mapping[str, _Versions]] = {
    "appArmorProfile": ((0, _apparmor),),
    "capabilities_baseline": ((0, _capabilities),),
    "hostNamespaces": ((0, _host_namespaces),),
    "hostPathVolumes": ((0, _host_paths),),
    "hostPorts": ((0, _host_ports),),
    "hostProbesAndHostLifecycle": ((34, _probe_hosts),),
    "privileged": ((0, _privileged),),
    "procMount": ((0, _proc_mount), (35, _unless_own_users(_proc_mount))),
    "seLinuxOptions": ((0, _selinux()), (31, _selinux("container_engine_t"))),
    "seccompProfile_baseline": ((0, _seccomp_annotations), (19, _seccomp(needed=False))),
    "sysctls": tuple((since, _sysctls(since)) for since, _ in _SYSCTLS),
    "windowsHostProcess": ((0, _host_process),),
}
_RESTRICTED: Final[Mapping[str, _Versions]] = {
    "allowPrivilegeEscalation": ((8, _escalation), (25, _unless_windows(_escalation))),
    "capabilities_restricted": ((22, _few_capabilities), (25, _unless_windows(_few_capabilities))),
    "procMount_restricted": ((35, _proc_mount),),
    "restrictedVolumes": ((0, _volumes),),
    "runAsNonRoot": ((0, _non_root), (35, _unless_own_users(_non_root))),
    "runAsUser": ((23, _root_user), (35, _unless_own_users(_root_user))),
    "seccompProfile_restricted": ((19, _seccomp(needed=True)), (25, _unless_windows(_seccomp(needed=True)))),
}
_OVERRIDES: Final = {
    "capabilities_restricted": "capabilities_baseline",
    "procMount_restricted": "procMount",
    "restrictedVolumes": "hostPathVolumes",
    "seccompProfile_restricted": "seccompProfile_baseline",
}


@lru_cache(maxsize=128)
def _checks(level: str, minor: int) -> tuple[Check, ...]:
    """Return the checks of a level and version, the baseline's first, both by name."""
    chosen = [_at(_BASELINE, minor), _at(_RESTRICTED, minor) if level == "restricted" else {}]
    replaced = {_OVERRIDES[name] for name in chosen[1] if name in _OVERRIDES}
    baseline = [check for name, check in sorted(chosen[0].items()) if name not in replaced]
    return (*baseline, *(check for _, check in sorted(chosen[1].items())))


def _at(checks: Mapping[str, _Versions], minor: int) -> dict[str, Check]:
    return {
        name: [check for since, check in versions if since <= minor][-1]
        for name, versions in checks.items()
        if versions[0][0] <= minor
    }


def evaluate(level: str, minor: int | None, metadata: Object, spec: Object) -> list[Violation]:
    """Return what a level forbids in a pod.

    level: `privileged`, `baseline` or `restricted`. minor: the minor version of the standard, None for the latest.
    """
    if level == "privileged":
        return []
    wanted = NEWEST if minor is None else min(minor, NEWEST)
    return [found for check in _checks(level, wanted) if (found := check(metadata, spec)) is not None]
