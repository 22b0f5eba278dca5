"""Buttons: promote, pause, resume, abort and retry a rollout, as the user, by the same patches as the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .rights import VERB_RIGHTS

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["SteeringError", "steer"]

_API: Final = ("argoproj.io/v1alpha1", "Rollout")


class SteeringError(Exception):
    """A verb that does not fit the rollout as it is."""


async def steer(client: Client, namespace: str, name: str, verb: str) -> None:
    """Do what a verb says. Raises SteeringError, and what the API server refuses as ApiStatus."""
    if verb not in VERB_RIGHTS:
        raise SteeringError(f"{verb}: want one of {', '.join(VERB_RIGHTS)}")
    rollouts = client.dynamic(*_API)
    change = _change(await rollouts.get(name, namespace), verb)
    if change.status:
        await rollouts.patch(name, dict(change.status), namespace, subresource="status")
    if change.spec:
        await rollouts.patch(name, dict(change.spec), namespace)


def _change(obj: dict[str, Any], verb: str) -> Any:
    from pilothouse.delivery.resources.rollouts import Rollout  # noqa: PLC0415  # only once a button is used
    from pilothouse.delivery.rollouts import verbs  # noqa: PLC0415
    from pilothouse.kinds.structs import StructError, from_dict  # noqa: PLC0415

    try:
        rollout = from_dict(obj, Rollout)
        return verbs.promote(rollout, full=True) if verb == "promote-full" else getattr(verbs, verb)(rollout)
    except (verbs.VerbError, StructError) as error:
        raise SteeringError(str(error)) from error
