"""The controller of stateful sets: pods with names, claims and an order, as the plan says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.status import AlreadyExists, ApiStatus, Conflict
from pilothouse.kinds.structs import ControllerRevision, PersistentVolumeClaim, Pod, StatefulSet, replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads import revisions as history
from pilothouse.workloads.podcontrol import claimed, in_growing_batches
from pilothouse.workloads.revisions import HASH_LABEL
from pilothouse.workloads.sources import controller_or_adopters
from pilothouse.workloads.statefulsets import Batch, Plan, Work, history_surplus, is_told, plan
from pilothouse.workloads.statefulsets_claims import ClaimWork
from pilothouse.workloads.statefulsets_pods import is_member, needs_claim

from .history import create_revision, delete_revisions, numbered

__all__ = ["StatefulSetReconciler", "add_statefulsets"]

_CONCURRENCY: Final = 5
_log = get_logger("pilothouse.workloads.statefulset")


class StatefulSetReconciler(Reconciler[StatefulSet]):
    """Takes stateful sets a step further."""

    async def reconcile(self, obj: StatefulSet, context: Context) -> Result | None:
        """See to revisions, pods and claims, then bring the status up to date."""
        try:
            selector = _selector_of(obj)
        except SelectorError as error:
            _log.error("a selector cannot be read", kind="StatefulSet", request=str(context.request), error=str(error))
            return None
        found = await self._revisions(obj, selector, context)
        candidates = [*context.owned(Pod, obj), *context.orphans(Pod)]
        pods = await claimed(context, obj, selector, candidates, also=lambda pod: is_member(obj, pod))
        update, collisions = await self._update_revision(obj, found, context)
        current = next((each for each in found if each.metadata.name == obj.status.current_revision), update)
        made = plan(
            obj,
            pods,
            current,
            update,
            lambda name: context.get(PersistentVolumeClaim, name),
            context.clock.now(),
            collision_count=collisions,
        )
        refused = await self._do(obj, made.batches, context)
        await self._conclude(obj, made, context)
        await delete_revisions(context, history_surplus(obj, pods, found, (current, update)))
        if refused is not None:
            raise refused
        return Result(requeue_after=made.again)

    async def _revisions(self, obj: StatefulSet, selector: Selector, context: Context) -> list[ControllerRevision]:
        """Return the set's revisions, the oldest first."""
        owned = [*context.owned(ControllerRevision, obj), *context.orphans(ControllerRevision)]
        fitting = [each for each in owned if selector.matches(each.metadata.labels)]
        return sorted(await claimed(context, obj, selector, fitting), key=history.by_revision)

    async def _update_revision(
        self, obj: StatefulSet, found: Sequence[ControllerRevision], context: Context
    ) -> tuple[ControllerRevision, int]:
        """Return the revision of the present template, made where there is none, and the count of collisions."""
        collisions = obj.status.collision_count or 0
        data = history.data_of(obj.spec.template)
        equal = [each for each in found if history.has_data(each, data)]
        if equal and history.has_data(found[-1], data):
            return found[-1], collisions
        number = history.next_number(found)
        if equal:  # rolled back
            return await numbered(context, equal[-1], number), collisions
        labels = {**obj.spec.template.metadata.labels, HASH_LABEL: history.data_hash(data, collisions)}

        def wanted(count: int) -> ControllerRevision:
            name = history.revision_name(obj.metadata.name, history.data_hash(data, count))
            return history.new_revision(obj, name, labels, data, number)

        return await create_revision(context, wanted, collisions)

    async def _conclude(self, obj: StatefulSet, made: Plan, context: Context) -> None:
        if not is_told(obj, made.status):
            await ignore_not_found(context.update_status(replace(obj, status=made.status)))

    # Work

    async def _do(self, obj: StatefulSet, batches: Iterable[Batch], context: Context) -> ApiStatus | None:
        """Do what the plan says, batch by batch; return the first refusal, after which there is no more."""

        async def attempt(work: Work) -> ApiStatus | None:
            try:
                await self._work(obj, work, context)
            except ApiStatus as error:
                return error
            return None

        for batch in batches:
            if batch.together:
                refused = await in_growing_batches(batch.works, attempt)
                if refused is not None:
                    return refused
                continue
            for work in batch.works:
                refused = await attempt(work)
                if refused is not None:
                    return refused
        return None

    async def _work(self, obj: StatefulSet, work: Work, context: Context) -> None:
        """Do one piece of work and tell it by an event. Raises ApiStatus."""
        name = f"Pod {work.pod.metadata.name} in StatefulSet {obj.metadata.name}"
        tells = work.action != "claims"
        try:
            await self._see_to_claims(obj, work, context)
            match work.action:
                case "create":
                    await context.create(work.pod)
                case "update":
                    await context.update(work.pod)
                case "delete":
                    await context.delete(work.pod)
        except ApiStatus as error:
            if tells and not _is_passing(error):
                what = f"{work.action.title()} {name} failed error: {error.message}"
                context.recorder.warning(obj, f"Failed{work.action.title()}", what)
            raise
        if tells:
            what = f"{work.action.title()} {name} successful"
            context.recorder.normal(obj, f"Successful{work.action.title()}", what)

    async def _see_to_claims(self, obj: StatefulSet, work: Work, context: Context) -> None:
        """Make claims and give them their owners. Raises ApiStatus for those that cannot be had, after all others."""
        claims: ClaimWork = work.claims
        found = [await self._create_claim(obj, work.pod, claim, context) for claim in claims.create]
        refusals = [error for error in found if error is not None]
        refusals += [_ClaimGoes(f"pvc {name} is being deleted") for name in claims.deleting]
        if refusals:
            texts, first = [error.message for error in refusals], refusals[0]
            raise type(first)(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]", first.details, code=first.code)
        for name in claims.conflicting:
            what = (
                f"PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, "
                "the retention policy is ignored for this claim"
            )
            context.recorder.warning(obj, "ConflictingController", what)
        for claim in claims.update:
            await context.update(claim)

    async def _create_claim(
        self, obj: StatefulSet, pod: Pod, claim: PersistentVolumeClaim, context: Context
    ) -> ApiStatus | None:
        name, where = claim.metadata.name, f"Pod {pod.metadata.name} in StatefulSet {obj.metadata.name}"
        try:
            await context.create(claim)
        except ApiStatus as error:
            if not isinstance(error, AlreadyExists):
                what = f"Create Claim {name} for {where} failed error: {error.message}"
                context.recorder.warning(obj, "FailedCreate", what)
            return type(error)(f"failed to create PVC {name}: {error.message}", error.details, code=error.code)
        context.recorder.normal(obj, "SuccessfulCreate", f"Create Claim {name} {where} success")
        return None


class _ClaimGoes(Conflict):
    """A pod waits for its claim of before to go."""


def _is_passing(error: ApiStatus) -> bool:
    """Whether a refusal only says that somebody was quicker."""
    return isinstance(error, AlreadyExists | Conflict) and not isinstance(error, _ClaimGoes)


def _selector_of(obj: StatefulSet) -> Selector:
    return from_label_selector(to_dict(obj.spec.selector))


class _Gone(Predicate[PersistentVolumeClaim]):
    """Claims that are no more: a pod may wait for the old one to go."""

    reads_head = True

    def create(self, obj: PersistentVolumeClaim) -> bool:
        return False

    def update(self, old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> bool:
        return False


def add_statefulsets(manager: Manager) -> None:
    """Add the controller of stateful sets."""

    def of_claim(claim: PersistentVolumeClaim) -> list[Request]:
        metadata = claim.metadata
        sets = manager.informer(StatefulSet).lister().namespaced(metadata.namespace).list()
        return [Request.of(each) for each in sets if needs_claim(each, metadata.name)]

    (
        controller(manager, "statefulset-controller")
        .for_(StatefulSet)
        .watches(Pod, controller_or_adopters(manager, StatefulSet, _selector_of))
        .watches(ControllerRevision, controller_or_adopters(manager, StatefulSet, _selector_of))
        .watches(PersistentVolumeClaim, of_claim, _Gone())
        .with_options(concurrency=_CONCURRENCY)
        .build(StatefulSetReconciler())
    )
