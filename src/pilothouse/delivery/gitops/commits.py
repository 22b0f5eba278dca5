"""Which commit brought a version of an object, and when it was made: what is recorded of deploys wants to know that."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import Application
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.structs import Resource

from .evaluation import sources_of
from .targets import TRACKING, owner_of

if TYPE_CHECKING:
    from .repositories import Repositories

__all__ = ["Commits", "committed_at"]

_RECENT: Final = timedelta(minutes=2)
"""So long after a sync what changes is taken to be its doing."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_COMMITTER: Final = re.compile(rb"^committer [^\n]*> (\d{1,12}) [+-]\d{4}$", re.MULTILINE)
_log = get_logger("pilothouse.delivery.gitops")


class Commits:
    """Knows the commits of applications. application: gives one by the name that it has in marks."""

    def __init__(self, repositories: Repositories[Any], application: Callable[[str], Application | None]) -> None:
        self._repositories = repositories
        self._application = application

    async def of(self, obj: Resource, now: datetime) -> tuple[str, str | None] | None:
        """Return the commit that brought an object as it is now, and when it was made where that is known.

        None for one that no application brought, or that changed when none was being synced, as by hand.
        """
        mark = {TRACKING: obj.metadata.annotations.get(TRACKING, "")}
        metadata = {"name": obj.metadata.name, "namespace": obj.metadata.namespace, "annotations": mark}
        instance = owner_of({"apiVersion": obj.api_version, "kind": obj.kind, "metadata": metadata})
        app = self._application(instance) if instance else None
        revision = _revision(app, now) if app is not None else ""
        if app is None or not _COMMIT.fullmatch(revision):
            return None
        try:
            mirror = self._repositories.mirror(sources_of(app)[0].repo_url, app.spec.project)
            return revision, committed_at(await mirror.commit(revision))
        except (DeliveryError, OSError, IndexError) as error:
            _log.debug("when a commit was made is not known", commit=revision, error=str(error))
            return revision, None


def _revision(app: Application, now: datetime) -> str:
    """Return the revision that is being synced, or was just now; empty where none is."""
    state = app.status.operation_state
    if state is None or state.sync_result is None:
        return ""
    if state.finished_at and now - times.parse(state.finished_at) > _RECENT:
        return ""
    return state.sync_result.revision


def committed_at(commit: bytes) -> str | None:
    """Return when a commit was made, of its text as git keeps it."""
    head = commit.partition(b"\n\n")[0]
    found = _COMMITTER.search(head)
    try:
        return times.format_seconds(datetime.fromtimestamp(int(found[1]), UTC)) if found else None
    except (ValueError, OverflowError, OSError):
        return None
