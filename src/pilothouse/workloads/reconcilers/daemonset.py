"""The controller of daemon sets: a pod on each node where one belongs, as the plan says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.status import AlreadyExists, ApiStatus
from pilothouse.kinds.structs import ControllerRevision, DaemonSet, Node, Pod, replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads import revisions as history
from pilothouse.workloads.daemonsets import BURST, Plan, by_node, new_pods, next_check, plan, status_of
from pilothouse.workloads.daemonsets_backoff import FailedPodsBackoff
from pilothouse.workloads.daemonsets_nodes import Fit, Placement, Site
from pilothouse.workloads.podcontrol import claimed, create_pods, delete_pods
from pilothouse.workloads.revisions import POD_LABEL
from pilothouse.workloads.sources import controller_or_adopters
from pilothouse.workloads.templates import template_hash

from .history import delete_revisions, numbered
from .sites import Sites

__all__ = ["DaemonSetReconciler", "add_daemonsets"]

_CONCURRENCY: Final = 2
_MAX_PLACEMENTS: Final = 1000
_log = get_logger("pilothouse.workloads.daemonset")


class DaemonSetReconciler(Reconciler[DaemonSet]):
    """Keeps a pod on each node where one belongs, and rolls out."""

    def __init__(self, manager: Manager) -> None:
        self._sites = Sites(manager)
        self._placements: OrderedDict[str, tuple[int, Placement]] = OrderedDict()
        self._nodes: dict[str, frozenset[str]] = {}
        self._backoff = FailedPodsBackoff()

    async def reconcile(self, obj: DaemonSet, context: Context) -> Result | None:
        """See to revisions and pods, then bring the status up to date."""
        try:
            selector = _selector_of(obj)
        except SelectorError as error:
            _log.error("a selector cannot be read", kind="DaemonSet", request=str(context.request), error=str(error))
            return None
        if selector.empty:
            what = "This daemon set is selecting all pods. A non-empty selector is required."
            context.recorder.warning(obj, "SelectingAll", what)
            return None
        if obj.metadata.deletion_timestamp is not None:
            return None
        current, old = await self._revisions(obj, selector, context)
        digest = current.metadata.labels.get(POD_LABEL, "")
        fits = self.fits(obj)
        pods = await self._pods(obj, selector, context)
        now = context.clock.now()
        placed = by_node(pods, digest)
        made = plan(obj, fits, placed, digest, lambda key: self._backoff.wait(key, now), now)
        refused = await self._do(obj, made, digest, context)
        if refused is None and old:
            await self._trim(obj, pods, old, context)
        if made:
            pods = await self._pods(obj, selector, context)
            placed = by_node(pods, digest)
        self._nodes[obj.metadata.uid] = frozenset(placed)
        status = status_of(obj, fits, placed, digest, now)
        if status != obj.status:
            await ignore_not_found(context.update_status(replace(obj, status=status)))
        if refused is not None:
            raise refused
        waits = [wait for wait in (made.again, next_check(obj, pods, now)) if wait]
        return Result(requeue_after=min(waits, default=None))

    def fits(self, obj: DaemonSet) -> dict[str, Fit]:
        """Say of each node whether it gets a pod of a set."""
        return self.placement(obj).fits(self._sites.all())

    def placement(self, obj: DaemonSet) -> Placement:
        """Return where a set's pods belong, made where it is not known."""
        uid, generation = obj.metadata.uid, obj.metadata.generation
        known = self._placements.pop(uid, None)
        if known is None or known[0] != generation:
            known = generation, Placement(obj)
        self._placements[uid] = known
        if len(self._placements) > _MAX_PLACEMENTS:
            forgotten, _ = self._placements.popitem(last=False)
            self._nodes.pop(forgotten, None)
        return known[1]

    def is_concerned(self, obj: DaemonSet, site: Site) -> bool:
        """Whether a set has to make or delete a pod on a node that changed, or has one there and some are misplaced."""
        nodes = self._nodes.get(obj.metadata.uid)
        fit = self.placement(obj).fit(site)
        if nodes is None or site.name not in nodes:
            return fit.should_run or nodes is None
        return not fit.should_continue or obj.status.number_misscheduled > 0

    async def _pods(self, obj: DaemonSet, selector: Selector, context: Context) -> list[Pod]:
        return await claimed(context, obj, selector, [*context.owned(Pod, obj), *context.orphans(Pod)])

    async def _do(self, obj: DaemonSet, made: Plan, digest: str, context: Context) -> ApiStatus | None:
        for event in made.events:
            tell = context.recorder.warning if event.warning else context.recorder.normal
            tell(obj, event.reason, event.message)
        for key in made.failed:
            self._backoff.tried(key, context.clock.now())
        refused = await create_pods(context, obj, new_pods(obj, made.create[:BURST], digest))
        return await delete_pods(context, obj, made.delete[:BURST]) or refused

    # Revisions

    async def _revisions(
        self, obj: DaemonSet, selector: Selector, context: Context
    ) -> tuple[ControllerRevision, list[ControllerRevision]]:
        """Return the revision of the present template, made where there is none, and the others."""
        candidates = [*context.owned(ControllerRevision, obj), *context.orphans(ControllerRevision)]
        found = [await _labelled(each, context) for each in await claimed(context, obj, selector, candidates)]
        data = history.data_of(obj.spec.template)
        same = [each for each in found if history.has_data(each, data)]
        old = [each for each in found if each not in same]
        number = history.next_number(old)
        if not same:
            return await self._snapshot(obj, data, number, context), old
        current = await self._only_one(obj, same, selector, context)
        return (await numbered(context, current, number) if current.revision < number else current), old

    async def _snapshot(
        self, obj: DaemonSet, data: dict[str, object], number: int, context: Context
    ) -> ControllerRevision:
        digest = template_hash(obj.spec.template, obj.status.collision_count)
        labels = {**obj.spec.template.metadata.labels, POD_LABEL: digest}
        made = history.new_revision(obj, f"{obj.metadata.name}-{digest}", labels, data, number)
        try:
            return await context.create(made)
        except AlreadyExists:
            there = await context.client.get(ControllerRevision, made.metadata.name, obj.metadata.namespace)
            if history.has_data(there, data):
                return there
            count = (obj.status.collision_count or 0) + 1
            await context.update_status(replace(obj, status__collision_count=count))
            raise

    async def _only_one(
        self, obj: DaemonSet, same: Sequence[ControllerRevision], selector: Selector, context: Context
    ) -> ControllerRevision:
        """Return the last of several revisions that are the same; pods are given over to it and the others go."""
        kept = max(same, key=lambda each: each.revision)
        if len(same) > 1:
            digest = kept.metadata.labels[POD_LABEL]
            for pod in await self._pods(obj, selector, context):
                if pod.metadata.labels.get(POD_LABEL) != digest:
                    await context.patch(pod, {"metadata": {"labels": {POD_LABEL: digest}}})
            await delete_revisions(context, [each for each in same if each is not kept])
        return kept

    async def _trim(
        self, obj: DaemonSet, pods: Iterable[Pod], old: Sequence[ControllerRevision], context: Context
    ) -> None:
        live = {pod.metadata.labels.get(POD_LABEL) for pod in pods}
        idle = [each for each in old if each.metadata.labels.get(POD_LABEL) not in live]
        await delete_revisions(context, history.surplus(old, obj.spec.revision_history_limit, idle=idle))


async def _labelled(revision: ControllerRevision, context: Context) -> ControllerRevision:
    """Return a revision that says by which hash it is known: that of very old ones is their name."""
    if POD_LABEL in revision.metadata.labels:
        return revision
    labels = {**revision.metadata.labels, POD_LABEL: revision.metadata.name}
    return await context.update(replace(revision, metadata__labels=labels))


def _selector_of(obj: DaemonSet) -> Selector:
    return from_label_selector(to_dict(obj.spec.selector))


class _Placing(Predicate[Node]):
    """Changes of nodes that bear on where pods belong."""

    def update(self, old: Node, new: Node) -> bool:
        return old.metadata.labels != new.metadata.labels or old.spec.taints != new.spec.taints


def add_daemonsets(manager: Manager) -> None:
    """Add the controller of daemon sets."""
    reconciler = DaemonSetReconciler(manager)

    def of_node(node: Node) -> list[Request]:
        """Wake the sets that have to make or delete a pod on a node, or have one where none belongs."""
        site, sets = Site.of(node), manager.informer(DaemonSet).lister().list()
        return [Request.of(obj) for obj in sets if reconciler.is_concerned(obj, site)]

    (
        controller(manager, "daemonset-controller")
        .for_(DaemonSet)
        .watches(Pod, controller_or_adopters(manager, DaemonSet, _selector_of))
        .watches(ControllerRevision, controller_or_adopters(manager, DaemonSet, _selector_of))
        .watches(Node, of_node, _Placing())
        .with_options(concurrency=_CONCURRENCY)
        .build(reconciler)
    )
