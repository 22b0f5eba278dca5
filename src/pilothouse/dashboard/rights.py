"""What a user may do, asked of the API server and remembered for a little while."""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import ApiStatus

from .sessions import Session

__all__ = ["VERB_RIGHTS", "may", "rollout_rights"]

_REMEMBER_SECONDS: Final = 20.0
_MOST: Final = 512
_GROUP: Final = "argoproj.io"
_SPEC, _STATUS = "", "status"
VERB_RIGHTS: Final = {
    "promote": (_SPEC, _STATUS),
    "promote-full": (_SPEC, _STATUS),
    "pause": (_SPEC,),
    "resume": (_SPEC,),
    "abort": (_STATUS,),
    "retry": (_STATUS,),
}
"""Of which parts of a rollout a verb's user has to have the right to patch."""


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
    attributes["namespace"] = "" if namespace == "*" else namespace
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


async def rollout_rights(session: Session, clock: Clock, namespace: str) -> list[str]:
    """Return the verbs that a user may use on rollouts of a namespace."""
    parts = {
        part: await may(session, clock, "patch", f"rollouts/{part}".rstrip("/"), namespace, _GROUP)
        for part in (_SPEC, _STATUS)
    }
    return [verb for verb, wanted in VERB_RIGHTS.items() if all(parts[part] for part in wanted)]
