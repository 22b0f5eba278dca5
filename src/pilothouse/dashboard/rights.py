"""What a user may do, asked of the API server and remembered for a little while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import ApiStatus

from .feeds import EVERYWHERE
from .sessions import Session

__all__ = ["APPLICATION_RIGHTS", "ROLLOUT_RIGHTS", "Right", "may", "offers"]

_REMEMBER_SECONDS: Final = 20.0
_MOST: Final = 512
_GROUP: Final = "argoproj.io"


class Right(NamedTuple):
    """A verb on a resource, with its subresource after a slash. namespace: where it is not the object's own."""

    verb: str
    resource: str
    group: str = _GROUP
    namespace: str = ""


_SPEC: Final = Right("patch", "rollouts")
_STATUS: Final = Right("patch", "rollouts/status")
_APPLICATION: Final = Right("patch", "applications")
ROLLOUT_RIGHTS: Final[dict[str, tuple[Right, ...]]] = {
    "promote": (_SPEC, _STATUS),
    "promote-full": (_SPEC, _STATUS),
    "pause": (_SPEC,),
    "resume": (_SPEC,),
    "abort": (_STATUS,),
    "retry": (_STATUS,),
    "restart": (_SPEC,),
    "undo": (_SPEC, Right("list", "replicasets", "apps")),
}
"""What a verb's user has to have the right to."""
_CONTROL: Final = "argocd"
APPLICATION_RIGHTS: Final[dict[str, tuple[Right, ...]]] = {
    "sync": (_APPLICATION,),
    "refresh": (_APPLICATION,),
    "rollback": (_APPLICATION,),
    "reject": (_APPLICATION,),
    "compare": (
        *(Right("list", each, namespace=EVERYWHERE) for each in ("applications", "appprojects")),
        *(Right("list", each, "", _CONTROL) for each in ("secrets", "configmaps")),
    ),
}
"""The same for applications. To compare takes what the controller needs for it: repositories' credentials too."""


async def may(session: Session, clock: Clock, verb: str, resource: str, namespace: str, group: str = "") -> bool:
    """Return whether the session's user may; resource: with its subresource after a slash. `*` is all namespaces.

    Where the server does not say, nothing is offered: the answer is no.
    """
    key, now = (verb, group, resource, namespace), clock.monotonic()
    found = session.rights.get(key)
    if found is not None and now - found[0] < _REMEMBER_SECONDS:
        return found[1]
    name, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": name, "subresource": subresource}
    attributes["namespace"] = "" if namespace == EVERYWHERE else namespace
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    body = msgspec.json.encode(review | {"spec": {"resourceAttributes": attributes}})
    try:
        raw = await session.client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        allowed = bool(msgspec.json.decode(raw)["status"]["allowed"])
    except (ApiStatus, OSError, msgspec.DecodeError, KeyError, TypeError):
        return False
    if len(session.rights) >= _MOST:
        session.rights.clear()
    session.rights[key] = (now, allowed)
    return allowed


async def offers(
    session: Session, clock: Clock, namespace: str, rights: dict[str, tuple[Right, ...]]
) -> dict[str, str]:
    """Return by verb why the user may not use it on objects of a namespace; empty where that is allowed."""
    return {verb: await _missing(session, clock, namespace, wanted) for verb, wanted in rights.items()}


async def _missing(session: Session, clock: Clock, namespace: str, wanted: Sequence[Right]) -> str:
    for right in wanted:
        where = right.namespace or namespace
        if not await may(session, clock, right.verb, right.resource, where, right.group):
            place = "in all namespaces" if where == EVERYWHERE else f"in {where}"
            return f"you may not {right.verb} {right.resource} {place}"
    return ""
