"""Steps that are made only when something configures them, so that a server without webhooks starts soon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionPlugin, AdmissionRequest, Gvr, Operation, View

__all__ = ["Deferred"]


class Deferred(Plugin):
    """Stands for a step until there is an object of one of the resources that configure it.

    make: makes the step, imports included. resources: full names; each change of them counts as a revision.
    """

    def __init__(self, name: str, view: View, resources: Sequence[str], make: Callable[[], AdmissionPlugin]) -> None:
        self.name = name
        self.revision = 0
        self._view = view
        self._resources = tuple(resources)
        self._make = make
        self._made: AdmissionPlugin | None = None
        for resource in self._resources:
            view.notify(resource, self._changed)

    def _changed(self, namespace: str, name: str) -> None:
        self.revision += 1

    @property
    def step(self) -> AdmissionPlugin:
        """The step itself, made when first asked for."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether the step does, if anything configures it."""
        if self._made is None and not any(self._view.list(one) for one in self._resources):
            return False
        return self.step.handles(operation, resource, subresource)

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let the step do it."""
        return self.step.mutate(request)

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let the step do it."""
        return self.step.validate(request)
