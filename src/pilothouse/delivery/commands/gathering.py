"""What a page of rollouts is made of, read from the server: a few lists, whatever the number of rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pilothouse.client import Client, UnknownKind, ignore_not_found
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts.names import REGIONS_PLUGIN
from pilothouse.delivery.rollouts.routing import regions_name, route_keys
from pilothouse.delivery.rollouts.tree import RolloutView, view_of
from pilothouse.delivery.rollouts.view import View
from pilothouse.kinds.labels import from_label_selector
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import Pod, ReplicaSet, Resource, to_dict

__all__ = ["sets_of", "shown", "template_of", "workload_of"]

K = TypeVar("K", bound=Resource)


def _owned(found: Iterable[K], owners: Iterable[Resource]) -> list[K]:
    uids = {owner.metadata.uid for owner in owners}
    return [one for one in found if any(ref.uid in uids for ref in one.metadata.owner_references)]


async def shown(client: Client, rollout: Rollout, now: datetime) -> RolloutView:
    """Return what there is to see of a rollout. Raises ApiStatus and OSError."""
    trials = _owned(await _all(client, Experiment, rollout), [rollout])
    owners = [rollout, *trials]
    workload = await workload_of(client, rollout)
    sets = _owned(await client.list_all(ReplicaSet, rollout.metadata.namespace), owners)
    view = View(
        rollout=rollout,
        sets=sets,
        runs=_owned(await _all(client, AnalysisRun, rollout), owners),
        experiments=trials,
        workload=workload,
        regions=await _regions(client, rollout),
    )
    return view_of(view, _owned(await _pods(client, rollout, workload), sets), now)


async def _all(client: Client, kind: type[K], rollout: Rollout) -> Sequence[K]:
    """Return all objects of a kind in a rollout's namespace, none where the server does not have the kind."""
    try:
        return await client.list_all(kind, rollout.metadata.namespace)
    except NotFound:
        return ()


async def _pods(client: Client, rollout: Rollout, workload: Any) -> Sequence[Pod]:
    selector = rollout.spec.selector
    tree = to_dict(selector) if selector is not None else ((workload or {}).get("spec") or {}).get("selector")
    text = str(from_label_selector(tree)) if tree else ""
    return await client.list_all(Pod, rollout.metadata.namespace, labels=text)


async def _regions(client: Client, rollout: Rollout) -> Any:
    canary = rollout.spec.strategy.canary
    plugins = [step.plugin.name for step in (canary.steps if canary else ()) if step.plugin is not None]
    keys = route_keys(rollout)
    if not keys or REGIONS_PLUGIN not in plugins:
        return None
    handle = client.dynamic("pilothouse.dev/v1alpha1", "RegionWeights")
    try:
        return await ignore_not_found(handle.get(regions_name(rollout), keys[0].namespace))
    except (NotFound, UnknownKind):
        return None


async def sets_of(client: Client, rollout: Rollout) -> list[ReplicaSet]:
    """Return the replica sets of a rollout."""
    return _owned(await client.list_all(ReplicaSet, rollout.metadata.namespace), [rollout])


async def workload_of(client: Client, rollout: Rollout) -> dict[str, Any] | None:
    """Return what workloadRef names, None where it names nothing or that is not there."""
    ref = rollout.spec.workload_ref
    if ref is None or not (ref.kind and ref.name):
        return None
    handle = client.dynamic(ref.api_version or "apps/v1", ref.kind)
    try:
        return await ignore_not_found(handle.get(ref.name, rollout.metadata.namespace))
    except (NotFound, UnknownKind):
        return None


def template_of(workload: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the pod template of a workload."""
    if workload is None:
        return None
    found: dict[str, Any] = (workload.get("spec") or {}).get("template") or {}
    return found
