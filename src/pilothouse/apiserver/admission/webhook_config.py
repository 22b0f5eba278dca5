"""Webhooks as their configurations describe them, read once per change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.apiserver.admission.expressions import Conditions
from pilothouse.apiserver.admission.matching import EXEMPT, Criteria
from pilothouse.apiserver.admission.webhook_client import CallError, Target
from pilothouse.apiserver.ports import Gvr, Operation, View

__all__ = ["Hook", "Hooks"]

_TIMEOUT: Final = 10


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook.

    key: tells it from all others. timeout: in seconds. target: where it is, or why it cannot be called.
    """

    key: str
    name: str
    configuration: str
    criteria: Criteria
    conditions: Conditions
    target: Target | str
    ignores_failure: bool
    timeout: float
    side_effects: str
    versions: tuple[str, ...]
    reinvoked: bool

    @classmethod
    def read(cls, found: Mapping[str, Any], configuration: str, position: int) -> Hook:
        """Read a webhook of a configuration."""
        name = str(found.get("name") or "")
        policy = str(found.get("failurePolicy") or "Fail")
        target: Target | str
        try:
            target = Target.read(found.get("clientConfig") or {})
        except CallError as error:
            target = str(error)
        return cls(
            f"{configuration}/{name}/{position}",
            name,
            configuration,
            Criteria(found.get("rules") or (), found),
            Conditions(found.get("matchConditions") or (), policy),
            target,
            policy == "Ignore",
            float(found.get("timeoutSeconds") or _TIMEOUT),
            str(found.get("sideEffects") or ""),
            tuple(found.get("admissionReviewVersions") or ()),
            found.get("reinvocationPolicy") == "IfNeeded",
        )

    def reachable(self) -> Target:
        """Return where it is. Raises CallError where the configuration does not say."""
        if isinstance(self.target, str):
            raise CallError(self.target)
        return self.target


class Hooks:
    """All webhooks of one kind of configuration, ordered by the configurations' names.

    changed: called after each change.
    """

    def __init__(self, view: View, resource: str, changed: Callable[[], None]) -> None:
        self._view = view
        self._resource = resource
        self._tell = changed
        self._hooks: tuple[Hook, ...] | None = None
        view.notify(resource, self._changed)

    def _changed(self, namespace: str, name: str) -> None:
        self._hooks = None
        self._tell()

    def all(self) -> tuple[Hook, ...]:
        """Return the webhooks of now."""
        if self._hooks is None:
            found = sorted(self._view.list(self._resource), key=lambda one: str(one["metadata"]["name"]))
            self._hooks = tuple(
                Hook.read(hook, str(one["metadata"]["name"]), position)
                for one in found
                for position, hook in enumerate(one.get("webhooks") or ())
            )
        return self._hooks

    def concerned(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether any webhook may match requests of this form."""
        if (resource[0], resource[2]) in EXEMPT:
            return False
        return any(hook.criteria.concerns(operation, resource, subresource) for hook in self.all())
