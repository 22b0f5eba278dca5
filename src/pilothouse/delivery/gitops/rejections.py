"""Revisions that were judged bad: kept in an annotation, so that self-heal and later syncs do not bring them back.

`pilothouse.dev/rejected-revisions` is a JSON list of objects with `revision` (a commit), `reason`, `at`, and `digest`,
which the controller adds: of what the revision renders to. So a commit elsewhere in the repository, which changes the
commit but nothing of the application, is rejected too; one that changes the application is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from pilothouse.client import Client
from pilothouse.delivery.resources.applications import Application, History
from pilothouse.kinds import times

from .errors import RevisionError
from .rendering import Rendered

__all__ = ["REJECTED", "Rejection", "digest_of", "last_good", "read_rejections", "reject_revision", "rejection_of"]

REJECTED: Final = "pilothouse.dev/rejected-revisions"
_MAX: Final = 50


class Rejection(msgspec.Struct, frozen=True, omit_defaults=True):
    """A revision that must not be synced. digest: of what it renders to, once that is known."""

    revision: str
    reason: str = ""
    at: str = ""
    digest: str = ""


def read_rejections(app: Application) -> list[Rejection]:
    """Return the rejections of an application; a bare list of commits by commas is read too."""
    text = (app.metadata.annotations or {}).get(REJECTED, "").strip()
    if not text:
        return []
    if not text.startswith("["):
        return [Rejection(revision=part.strip()) for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text, type=list[Rejection])[-_MAX:]
    except msgspec.DecodeError:
        return []


def write_rejections(listed: Sequence[Rejection]) -> dict[str, Any]:
    """Return the patch of an application that keeps these."""
    return {"metadata": {"annotations": {REJECTED: msgspec.json.encode([*listed][-_MAX:]).decode()}}}


def digest_of(rendered: Iterable[Rendered]) -> str:
    """Return what is the same for revisions that render to the same."""
    return hashlib.blake2b(b"".join(each.digest for each in rendered), digest_size=16).hexdigest()


def rejection_of(listed: Iterable[Rejection], revisions: Sequence[str], digest: str = "") -> Rejection | None:
    """Return the rejection that concerns revisions, or what they render to."""
    for each in listed:
        if each.revision in revisions or (digest and each.digest == digest):
            return each
    return None


def last_good(app: Application, listed: Sequence[Rejection]) -> History | None:
    """Return the last sync that went well and whose revision is not rejected."""
    for each in reversed(app.status.history):
        if rejection_of(listed, [*each.revisions] or [each.revision]) is None:
            return each
    return None


async def reject_revision(
    client: Client, namespace: str, name: str, *, revision: str = "", reason: str = "", now: datetime
) -> str:
    """Reject a revision of an application, the one synced last where none is given; return it.

    From then on the application is kept at the last sync before that is not rejected. Raises NotFound, and
    RevisionError where nothing was ever synced.
    """
    app = await client.get(Application, name, namespace)
    state = app.status.operation_state
    result = state.sync_result if state is not None else None
    chosen = revision or (result.revision if result is not None else "")
    if not chosen and result is not None and result.revisions:
        chosen = result.revisions[0]
    if not chosen:
        raise RevisionError(f"application {namespace}/{name}: nothing was synced yet, so there is nothing to reject")
    listed = [each for each in read_rejections(app) if each.revision != chosen]
    listed.append(Rejection(revision=chosen, reason=reason[:500], at=times.format_seconds(now)))
    await client.patch(Application, name, write_rejections(listed), namespace)
    return chosen
