"""ClusterRoles that gather the rules of others by their labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from pilothouse.apiserver.access.rbac import CLUSTER_ROLES, GROUP
from pilothouse.apiserver.access.rules import PolicyRule
from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import labels
from pilothouse.kinds.status import ApiStatus

__all__ = ["ClusterRoleAggregation", "aggregated", "gathered_rules"]

_log = get_logger(__name__)

_RETRY: Final = 1.0
"""Seconds after which a refused write is tried again."""


def gathered_rules(role: Object, roles: Sequence[Object]) -> list[PolicyRule]:
    """Return the rules that a role has to have by its selectors, in the order of the names of their roles."""
    rules: list[PolicyRule] = []
    others = sorted((one for one in roles if _name(one) != _name(role)), key=_name)
    for selector in _selectors(role):
        for other in others:
            if selector.matches(other["metadata"].get("labels") or {}):
                rules.extend(rule for rule in other.get("rules") or () if rule not in rules)
    return rules


def aggregated(roles: Sequence[Object]) -> Iterator[Object]:
    """Give the roles that gather others and whose rules are not what they have to be, as they have to be."""
    for role in roles:
        if not role.get("aggregationRule"):
            continue
        rules = gathered_rules(role, roles)
        if rules != (role.get("rules") or []):
            yield {**role, "rules": rules}


def _selectors(role: Object) -> Iterable[labels.Selector]:
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        try:
            yield labels.from_label_selector(selector)
        except labels.SelectorError as error:
            _log.warning("a selector of an aggregationRule is ignored", cluster_role=_name(role), error=str(error))


def _name(role: Object) -> str:
    return str(role["metadata"]["name"])


class ClusterRoleAggregation:
    """Keeps gathering ClusterRoles up to date for as long as `run` runs.

    Changes are looked at together: however many roles change in one turn of the loop, each gathering role is computed
    once and written at most once.
    """

    def __init__(self, view: View, local: Local, *, clock: Clock | None = None) -> None:
        self._view = view
        self._local = local
        self._clock = clock or SystemClock()
        self._changed = asyncio.Event()
        self._changed.set()
        self._stop: Callable[[], None] = view.notify(CLUSTER_ROLES, self._note)

    def _note(self, namespace: str, name: str) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Write what has to be written, now and after each change, until cancelled."""
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(0)
                self._changed.clear()
                if not await self.step():
                    await self._clock.sleep(_RETRY)
                    self._changed.set()
        finally:
            self._stop()

    async def step(self) -> bool:
        """Write all roles that are not as they have to be; return whether all writes went well.

        A role that gathers gathering roles is right after as many steps as they are deep, each set off by the last.
        """
        well = True
        for role in list(aggregated(self._view.list(CLUSTER_ROLES))):
            path = f"/apis/{GROUP}/v1/clusterroles/{_name(role)}"
            try:
                await self._local.call("PUT", path, role)
            except ApiStatus as error:
                well = False
                _log.info(
                    "a gathering ClusterRole will be written again", cluster_role=_name(role), error=error.message
                )
        return well
