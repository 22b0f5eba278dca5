"""PodSecurity: the Pod Security Standards, as a namespace's labels ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pilothouse.apiserver.admission.plugin import Plugin, forbid, labels_of, requested, warn
from pilothouse.apiserver.admission.podsecurity_checks import Violation, evaluate
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import ErrorList, Path, quote

__all__ = ["Exemptions", "PodSecurity", "Standard", "Standards"]

_PREFIX: Final = "pod-security.kubernetes.io/"
_LEVELS: Final = ("privileged", "baseline", "restricted")
_VERSION: Final = re.compile(r"v1\.(0|[1-9][0-9]{0,5})").fullmatch
_IGNORED: Final = frozenset({"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"})
_TEMPLATES: Final = {
    ("", "replicationcontrollers"): ("spec", "template"),
    ("", "podtemplates"): ("template",),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}
_MOST_PODS: Final = 3000
"""Pods looked at when a namespace asks for more than before."""
_MOST_SECONDS: Final = 1.0


class Standard(NamedTuple):
    """A level and the minor version of its rules, None for the latest."""

    level: str = "privileged"
    minor: int | None = None

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor is None else f'v1.{self.minor}'}"


class Standards(NamedTuple):
    """What is refused, what is noted in the audit log and what is warned of."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()


class Exemptions(NamedTuple):
    """Who need not comply."""

    usernames: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()


def standards_of(labels: Mapping[str, str], defaults: Standards) -> tuple[Standards, ErrorList]:
    """Read a namespace's labels; what cannot be read counts as `restricted` to refuse, `privileged` to tell."""
    errors = ErrorList()
    chosen: dict[str, Standard] = {}
    for mode in ("enforce", "audit", "warn"):
        level, version = labels.get(_PREFIX + mode), labels.get(f"{_PREFIX}{mode}-version")
        standard: Standard = getattr(defaults, mode)
        if level is not None:
            if level not in _LEVELS:
                errors.invalid(_path(mode), level, f"must be one of {', '.join(_LEVELS)}")
                level = "restricted" if mode == "enforce" else "privileged"
            standard = standard._replace(level=level)
        if version is not None:
            standard = standard._replace(minor=_minor(version, mode, errors))
        chosen[mode] = standard
    enforced, warned = chosen["enforce"], chosen["warn"]
    told = labels.get(f"{_PREFIX}enforce") in _LEVELS and f"{_PREFIX}warn" not in labels
    if told and _LEVELS.index(enforced.level) > _LEVELS.index(warned.level):
        minor = warned.minor if f"{_PREFIX}warn-version" in labels else enforced.minor
        chosen["warn"] = Standard(enforced.level, minor)
    return Standards(chosen["enforce"], chosen["audit"], chosen["warn"]), errors


def _path(name: str) -> Path:
    return Path("metadata").child("labels").key(_PREFIX + name)


def _minor(version: str, mode: str, errors: ErrorList) -> int | None:
    if version == "latest":
        return None
    found = _VERSION(version)
    if found is None:
        errors.invalid(_path(f"{mode}-version"), version, 'must be "latest" or "v1.x"')
        return None
    return int(found[1])


def _detail(violations: list[Violation]) -> str:
    return ", ".join(str(one) for one in violations)


class PodSecurity(Plugin):
    """Refuses pods below their namespace's level, and warns of templates that would make such.

    defaults: for namespaces that say nothing. clock: bounds the look at existing pods.
    """

    name = "PodSecurity"

    def __init__(
        self, view: View, clock: Clock, defaults: Standards | None = None, exempt: Exemptions | None = None
    ) -> None:
        self._view = view
        self._clock = clock
        self._defaults = defaults or Standards()
        self._exempt = exempt or Exemptions()
        self._known: dict[tuple[tuple[str, str], ...], tuple[Standards, ErrorList]] = {}

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Namespaces, pods and what has a template of pods."""
        group, _, plural = resource
        if operation not in {"CREATE", "UPDATE"}:
            return False
        if (group, plural) == ("", "pods"):
            return subresource not in _IGNORED
        return not subresource and ((group, plural) == ("", "namespaces") or (group, plural) in _TEMPLATES)

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for pods, Invalid for labels; warn of the rest."""
        plural = request.resource[2]
        if plural == "namespaces":
            self._namespace(request)
            return
        if self._is_exempt(request):
            return
        namespace = self._view.get("namespaces", "", request.namespace)
        if namespace is None:
            if plural == "pods":
                raise status.internal_error(f"failed to lookup namespace {quote(request.namespace)}")
            return
        standards, errors = self._standards(labels_of(namespace))
        if plural == "pods":
            self._pod(request, standards, errors)
        elif errors or standards.warn.level != "privileged" or standards.audit.level != "privileged":
            template: Any = requested(request)
            for step in _TEMPLATES[request.resource[0], plural]:
                template = (template or {}).get(step)
            if template:
                self._evaluate(request, standards, errors, template, enforce=False)

    def _is_exempt(self, request: AdmissionRequest) -> bool:
        for found, why in (
            (request.namespace in self._exempt.namespaces, "namespace"),
            (request.user.name in self._exempt.usernames, "user"),
        ):
            if found:
                request.annotate(f"{_PREFIX}exempt", why)
                return True
        return False

    def _standards(self, labels: Mapping[str, str]) -> tuple[Standards, ErrorList]:
        asked = tuple(sorted((key, value) for key, value in labels.items() if key.startswith(_PREFIX)))
        found = self._known.get(asked)
        if found is None:
            if len(self._known) >= 1024:
                self._known.clear()
            found = self._known[asked] = standards_of(dict(asked), self._defaults)
        return found

    def _pod(self, request: AdmissionRequest, standards: Standards, errors: ErrorList) -> None:
        modes = (standards.enforce, standards.audit, standards.warn)
        if not errors and all(one.level == "privileged" for one in modes):
            request.annotate(f"{_PREFIX}enforce-policy", "privileged:latest")
            return
        pod = requested(request)
        if request.operation == "UPDATE" and not _significant(pod, request.old or {}):
            return
        self._evaluate(request, standards, errors, pod, enforce=True)

    def _evaluate(
        self, request: AdmissionRequest, standards: Standards, errors: ErrorList, pod: Object, *, enforce: bool
    ) -> None:
        metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
        if spec.get("runtimeClassName") and spec["runtimeClassName"] in self._exempt.runtime_classes:
            request.annotate(f"{_PREFIX}exempt", "runtimeClass")
            return
        if errors:
            request.annotate(f"{_PREFIX}error", f"Failed to parse policy: {errors.message()}")
        results = {
            standard: evaluate(standard.level, standard.minor, metadata, spec)
            for standard in {standards.audit, standards.warn, *([standards.enforce] if enforce else [])}
        }
        if results[standards.audit]:
            why = f"would violate PodSecurity {quote(str(standards.audit))}: {_detail(results[standards.audit])}"
            request.annotate(f"{_PREFIX}audit-violations", why)
        if enforce:
            request.annotate(f"{_PREFIX}enforce-policy", str(standards.enforce))
            if found := results[standards.enforce]:
                raise forbid(request, f"violates PodSecurity {quote(str(standards.enforce))}: {_detail(found)}")
        if found := results[standards.warn]:
            warn(request, f"would violate PodSecurity {quote(str(standards.warn))}: {_detail(found)}")

    def _namespace(self, request: AdmissionRequest) -> None:
        item, old = requested(request), request.old
        name = (item.get("metadata") or {}).get("name") or request.name
        new, errors = self._standards(labels_of(item))
        if request.operation == "CREATE" or old is None:
            if errors:
                raise status.invalid("", "Namespace", name, errors)
            if name in self._exempt.namespaces:
                self._warn_exempt(request, name, new)
            return
        before, old_errors = self._standards(labels_of(old))
        if errors and (not old_errors or errors != old_errors):
            raise status.invalid("", "Namespace", name, errors)
        if not _stricter(new.enforce, before.enforce):
            return
        if name in self._exempt.namespaces:
            self._warn_exempt(request, name, new)
            return
        for warning in self._existing(name, new.enforce):
            warn(request, warning)

    def _warn_exempt(self, request: AdmissionRequest, name: str, standards: Standards) -> None:
        labels = labels_of(request.object)
        told = [
            f"{mode}={standard}"
            for mode in ("enforce", "audit", "warn")
            if (standard := getattr(standards, mode)).level != "privileged"
            and (_PREFIX + mode in labels or f"{_PREFIX}{mode}-version" in labels)
        ]
        if standards != self._defaults and told:
            ignored = f"and the policy ({', '.join(told)}) will be ignored"
            warn(request, f"namespace {quote(name)} is exempt from Pod Security, {ignored}")

    def _existing(self, namespace: str, standard: Standard) -> list[str]:
        """Return warnings of the pods that a stricter standard would refuse; one pod of each controller goes first."""
        pods = _by_controller([one for one in self._view.list("pods", namespace) if not self._exempt_class(one)])
        end = self._clock.monotonic() + _MOST_SECONDS
        found: dict[str, list[str]] = {}
        checked = 0
        for pod in pods[:_MOST_PODS]:
            checked += 1
            if violations := evaluate(standard.level, standard.minor, pod["metadata"], pod.get("spec") or {}):
                found.setdefault(", ".join(one.reason for one in violations), []).append(pod["metadata"]["name"])
            if self._clock.monotonic() > end:
                break
        warnings = []
        if checked < len(pods):
            looked = f"the first {checked} of {len(pods)} existing pods"
            warnings.append(f"new PodSecurity enforce level only checked against {looked}")
        if found:
            asked = f"violate the new PodSecurity enforce level {quote(str(standard))}"
            warnings.append(f"existing pods in namespace {quote(namespace)} {asked}")
        return warnings + sorted(_counted(names, reason) for reason, names in found.items())

    def _exempt_class(self, pod: Object) -> bool:
        return ((pod.get("spec") or {}).get("runtimeClassName") or "") in self._exempt.runtime_classes


def _stricter(new: Standard, old: Standard) -> bool:
    """Whether pods that were fine may be so no longer."""
    if new == old or new.level == "privileged":
        return False
    return new.minor != old.minor or _LEVELS.index(new.level) > _LEVELS.index(old.level)


def _counted(names: list[str], reason: str) -> str:
    others = len(names) - 1
    more = "" if not others else " (and 1 other pod)" if others == 1 else f" (and {others} other pods)"
    return f"{min(names)}{more}: {reason}"


def _by_controller(pods: list[Object]) -> list[Object]:
    seen: set[str] = set()
    first: list[Object] = []
    rest: list[Object] = []
    for pod in pods:
        owners = pod["metadata"].get("ownerReferences") or ()
        owner = next((str(one.get("uid")) for one in owners if one.get("controller")), None)
        if owner is not None and owner in seen:
            rest.append(pod)
            continue
        if owner is not None:
            seen.add(owner)
        first.append(pod)
    return first + rest


def _significant(pod: Object, old: Object) -> bool:
    """Whether an update changes what the standards are about: only images can change in a running pod."""
    new_spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    for kind in ("containers", "initContainers"):
        new_images, old_images = ([one.get("image") for one in spec.get(kind) or ()] for spec in (new_spec, old_spec))
        if new_images != old_images:
            return True
    before = {one.get("name"): one.get("image") for one in old_spec.get("ephemeralContainers") or ()}
    return any(
        one.get("name") not in before or before[one.get("name")] != one.get("image")
        for one in new_spec.get("ephemeralContainers") or ()
    )
