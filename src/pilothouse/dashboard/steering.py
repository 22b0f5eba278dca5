"""Buttons of rollouts: as the user, by the same patches as the command line."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .rights import ROLLOUT_RIGHTS

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["Options", "SteeringError", "steer"]

_API: Final = ("argoproj.io/v1alpha1", "Rollout")


class SteeringError(Exception):
    """A verb that does not fit the object as it is."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a button says beside its verb. revision: to undo to; number: of the history, to roll back to."""

    revision: int = 0
    number: int | None = None
    prune: bool = False
    hard: bool = False
    reason: str = ""


async def steer(client: Client, namespace: str, name: str, verb: str, options: Options, now: datetime) -> None:
    """Do what a verb says to a rollout. Raises SteeringError, and what the API server refuses as ApiStatus."""
    if verb not in ROLLOUT_RIGHTS:
        raise SteeringError(f"{verb}: want one of {', '.join(ROLLOUT_RIGHTS)}")
    rollouts = client.dynamic(*_API)
    obj = await rollouts.get(name, namespace)
    change = await _change(client, obj, verb, options, now)
    if change.status:
        await rollouts.patch(name, dict(change.status), namespace, subresource="status")
    if change.spec:
        await rollouts.patch(name, dict(change.spec), namespace)
    if change.json:
        handle, of = rollouts, name
        ref = (obj.get("spec") or {}).get("workloadRef")
        if change.workload and ref:
            handle = client.dynamic(ref.get("apiVersion") or "apps/v1", ref.get("kind") or "Deployment")
            of = ref.get("name") or ""
        await handle.patch(of, [dict(each) for each in change.json], namespace)


async def _change(client: Client, obj: dict[str, Any], verb: str, options: Options, now: datetime) -> Any:
    from pilothouse.delivery.resources.rollouts import Rollout  # noqa: PLC0415  # only once a button is used
    from pilothouse.delivery.rollouts import verbs  # noqa: PLC0415
    from pilothouse.kinds.structs import StructError, from_dict  # noqa: PLC0415

    try:
        rollout = from_dict(obj, Rollout)
        if verb.startswith("promote"):
            _check_promotable(rollout)
            return verbs.promote(rollout, full=verb == "promote-full")
        if verb == "undo":
            from pilothouse.delivery.commands.gathering import sets_of  # noqa: PLC0415

            return verbs.undo(rollout, await sets_of(client, rollout), options.revision)
        return verbs.restart(rollout, now) if verb == "restart" else getattr(verbs, verb)(rollout)
    except (verbs.VerbError, StructError) as error:
        raise SteeringError(str(error)) from error


def _check_promotable(rollout: Any) -> None:
    """Raise SteeringError where there is nothing to promote, as the command line says it."""
    from pilothouse.delivery.rollouts.tree import phase_now  # noqa: PLC0415

    name = rollout.metadata.name
    if rollout.status.abort:
        raise SteeringError(f"rollout {name}: it is aborted; retry tries it again")
    if phase_now(rollout)[0] == "Healthy" and not rollout.spec.paused:
        raise SteeringError(f"rollout {name}: it is Healthy, so there is nothing to promote")
