"""The common case: an object stands for others. Say which; they are made, kept, removed, waited for and reported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar, cast

import msgspec

from pilothouse.client import ignore_not_found
from pilothouse.kinds import conditions
from pilothouse.kinds.structs import Resource, Struct, to_dict

from .context import Context
from .errors import AlreadyOwned, BuildError, TerminalError
from .finalizers import add_finalizer, has_finalizer, is_being_deleted, remove_finalizer
from .owners import with_owner
from .readiness import Readiness, readiness_of
from .reconciler import Reconciler, Request, Result

__all__ = ["GenericReconciler", "Readiness", "readiness_of"]

P = TypeVar("P", bound=Resource)
C = TypeVar("C", bound=Resource)

_Key = tuple[type[Resource], str, str]

READY: Final = "Ready"


class _Progress(NamedTuple):
    """How far the children are: the condition Ready, and those that are there."""

    ready: bool
    reason: str
    message: str


class GenericReconciler(Reconciler[P], Generic[P, C]):
    """Keeps the objects that stand behind a parent. Subclass it as `GenericReconciler[Website, Deployment | Service]`.

    owned: the types of the children, which a builder then watches. `children` says which there should be: they are
    applied, those of `owned` that the parent controls and that are wanted no more are deleted, and the parent's status
    gets the condition Ready, `observedGeneration`, and what `status` adds. finalizer: where `finalize` shall be called
    before a parent goes; the children themselves go by garbage collection.
    """

    finalizer: ClassVar[str] = ""

    @abstractmethod
    def children(self, parent: P) -> Iterable[C]:
        """Return the objects that there should be, with the fields that matter; owner and namespace are filled in.

        Raises TerminalError for a parent that cannot be fulfilled as it is.
        """

    def stages(self, parent: P) -> Iterable[Iterable[C]]:
        """Return the children in stages; each is begun when all of the one before are ready. One stage by default."""
        return (self.children(parent),)

    def readiness(self, child: C) -> Readiness:
        """Judge a child, see `readiness_of`."""
        return readiness_of(child)

    def status(self, parent: P, children: Sequence[C]) -> Mapping[str, Any] | Struct | None:
        """Return what else the parent's status says; children: those that are wanted and there, as they are."""
        return None

    async def finalize(self, parent: P, context: Context) -> bool:
        """Clean up what is outside of the cluster; return whether that is finished. Called again after a change."""
        return True

    def check(self, kind: type[Resource]) -> None:
        """Raise BuildError for a type of which the status cannot hold the condition Ready."""
        status = next((one.type for one in msgspec.structs.fields(kind) if one.name == "status"), None)
        known = getattr(status, "__struct_fields__", ())
        missing = [name for name in ("conditions", "observed_generation") if name not in known]
        if missing and (status is None or known):
            lacking = " and no ".join(missing)
            raise BuildError(
                f"{type(self).__name__}: the status of {kind.__name__} has no {lacking}; give it a struct "
                "with `conditions: Sequence[Condition] = ()` and `observed_generation: int = 0`"
            )

    async def reconcile(self, obj: P, context: Context) -> Result | None:
        if is_being_deleted(obj):
            return await self._finalize(obj, context)
        if self.finalizer and not has_finalizer(obj, self.finalizer):
            obj = await add_finalizer(context.client, obj, self.finalizer)
        try:
            stages = [[with_owner(child, obj) for child in stage] for stage in self.stages(obj)]
            self._check([child for stage in stages for child in stage])
        except (TerminalError, ValueError) as error:
            await self._report(obj, context, [], _Progress(False, "Invalid", str(error)))
            raise TerminalError(str(error)) from error
        try:
            there, progress = await self._apply(stages, obj, context)
        except AlreadyOwned as error:
            await self._report(obj, context, [], _Progress(False, "AlreadyOwned", str(error)))
            raise
        await self._prune({_key(child) for stage in stages for child in stage}, obj, context)
        await self._report(obj, context, there, progress)
        return None

    async def _apply(self, stages: list[list[C]], parent: P, context: Context) -> tuple[list[C], _Progress]:
        there: list[C] = []
        for stage in stages:
            waiting = []
            for child in stage:
                found = await context.apply(child, parent)
                there.append(found)
                state = self.readiness(found)
                if not state.ready:
                    waiting.append((f"{found.kind} {found.metadata.name}: {state.message}", state.failed))
            if waiting:
                failed = any(failed for _, failed in waiting)
                message = "; ".join(text for text, _ in waiting)
                return there, _Progress(False, "ChildrenFailed" if failed else "ChildrenNotReady", message)
        return there, _Progress(True, "ChildrenReady", f"{len(there)} objects are ready")

    async def _prune(self, wanted: set[_Key], parent: P, context: Context) -> None:
        for kind in self.owned:
            for child in context.owned(kind, parent):
                if _key(child) not in wanted and not is_being_deleted(child):
                    await context.delete(child)
                    text = f"{child.kind} {child.metadata.name} is wanted no more"
                    context.recorder.normal(parent, "Deleted", text)

    async def _report(self, parent: P, context: Context, children: Sequence[C], progress: _Progress) -> None:
        more = self.status(parent, children) or {}
        tree: dict[str, Any] = to_dict(more) if isinstance(more, Struct) else dict(more)
        present = cast("Mapping[str, Any]", to_dict(parent).get("status") or {})
        # Conditions of others stay theirs; where the list is one field, all that is there has to be said again.
        listed, _ = conditions.set_condition(
            tree.get("conditions") or present.get("conditions"),
            {
                "type": READY,
                "status": str(progress.ready),
                "reason": progress.reason,
                "message": progress.message,
                "observedGeneration": parent.metadata.generation,
            },
            context.clock.now(),
        )
        tree |= {"conditions": listed, "observedGeneration": parent.metadata.generation}
        # One that has gone meanwhile needs no status; whatever was made for it goes by garbage collection.
        await ignore_not_found(context.apply_status(parent, tree))

    async def _finalize(self, parent: P, context: Context) -> Result | None:
        if self.finalizer and has_finalizer(parent, self.finalizer) and await self.finalize(parent, context):
            await remove_finalizer(context.client, parent, self.finalizer)
        return None

    def _check(self, children: Sequence[C]) -> None:
        seen: set[_Key] = set()
        for child in children:
            if type(child) not in self.owned:
                name = type(child).__name__
                raise TypeError(
                    f"{type(self).__name__}: it made a {name}, which is not in `owned`; add it: owned = (..., {name})"
                )
            if _key(child) in seen:
                raise ValueError(f"{child.kind} {Request.of(child)} is wanted twice; give one of both another name")
            seen.add(_key(child))


def _key(child: Resource) -> _Key:
    return type(child), child.metadata.namespace, child.metadata.name
