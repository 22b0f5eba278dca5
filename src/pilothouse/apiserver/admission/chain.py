"""The chain of admission: which steps concern a write, and running them in Kubernetes' order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionPlugin, AdmissionRequest, Gvr, Operation

__all__ = ["AGAIN", "NEEDED", "Admission"]

NEEDED: Final = "reinvocation needed"
"""In `AdmissionRequest.reinvocation`: set by a step whose change earlier steps should see."""
AGAIN: Final = "reinvocation"
"""In `AdmissionRequest.reinvocation`: set while the steps run for the second time."""

_MOST_KEYS: Final = 4096
"""Kinds of writes whose steps are remembered; clients can ask for no resource that is not served."""

Step: TypeAlias = Callable[[AdmissionRequest], Awaitable[None] | None]
Steps: TypeAlias = tuple[Step, ...]


class Admission:
    """All steps of admission.

    plugins: in the order in which they run, mutation of all before validation of all; see `builtins.standard`.
    A write that concerns no plugin costs one look-up. Both methods do their work at once where all steps do.
    """

    def __init__(self, plugins: Sequence[AdmissionPlugin]) -> None:
        self.plugins: Final = tuple(plugins)
        # A plain `revision` of the class never changes; only what has its own is looked at before each write.
        self._changing = tuple(plugin for plugin in self.plugins if not _fixed(plugin))
        self._revisions = [(plugin, -1) for plugin in self._changing]
        self._steps: dict[tuple[str, Gvr, str], tuple[Steps, Steps]] = {}

    def admit(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let all steps change the object. Raises ApiStatus for refusals, now or when awaited.

        Where a step asks for it, all steps that changed or may change the object run once more.
        """
        steps = self._find(request.operation, request.resource, request.subresource)[0]
        if not steps:
            return None
        for position, step in enumerate(steps):
            pending = step(request)
            if pending is not None:
                return self._finish(pending, steps, position + 1, request, once_more=True)
        if request.reinvocation:
            return self._once_more(steps, request)
        return None

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let all steps look at the object as it will be kept. Raises ApiStatus for refusals, now or when awaited."""
        steps = self._find(request.operation, request.resource, request.subresource)[1]
        for position, step in enumerate(steps):
            pending = step(request)
            if pending is not None:
                return self._finish(pending, steps, position + 1, request, once_more=False)
        return None

    def concerns(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether any step may have something to do with such a write."""
        mutating, validating = self._find(operation, resource, subresource)
        return bool(mutating or validating)

    async def _finish(
        self, pending: Awaitable[None], steps: Steps, position: int, request: AdmissionRequest, *, once_more: bool
    ) -> None:
        await pending
        for step in steps[position:]:
            following = step(request)
            if following is not None:
                await following
        if once_more and request.reinvocation:
            again = self._once_more(steps, request)
            if again is not None:
                await again

    def _once_more(self, steps: Steps, request: AdmissionRequest) -> Awaitable[None] | None:
        if AGAIN in request.reinvocation or not request.reinvocation.get(NEEDED):
            return None
        request.reinvocation[AGAIN] = True
        return self._finish(_nothing(), steps, 0, request, once_more=False)

    def _find(self, operation: Operation, resource: Gvr, subresource: str) -> tuple[Steps, Steps]:
        for plugin, seen in self._revisions:
            if plugin.revision != seen:
                self._steps.clear()
                self._revisions = [(one, one.revision) for one in self._changing]
                break
        key = (operation, resource, subresource)
        found = self._steps.get(key)
        if found is None:
            if len(self._steps) >= _MOST_KEYS:
                self._steps.clear()
            concerned = [one for one in self.plugins if one.handles(operation, resource, subresource)]
            mutating = tuple(one.mutate for one in concerned if type(one).mutate is not Plugin.mutate)
            validating = tuple(one.validate for one in concerned if type(one).validate is not Plugin.validate)
            found = self._steps[key] = (mutating, validating)
        return found


def _fixed(plugin: AdmissionPlugin) -> bool:
    return isinstance(plugin, Plugin) and type(plugin).revision == 0 and "revision" not in vars(plugin)


async def _nothing() -> None:
    """Await nothing."""
