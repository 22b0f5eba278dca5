"""Keeps the status of flow schemas: whether the priority level that each one names is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.times import format_seconds

__all__ = ["FlowSchemaStatus", "dangling_condition"]

_log = get_logger(__name__)

_GROUP = "flowcontrol.apiserver.k8s.io"
_SCHEMAS, _LEVELS = f"flowschemas.{_GROUP}", f"prioritylevelconfigurations.{_GROUP}"
_RETRY_SECONDS = 5.0


def dangling_condition(schema: Object, levels: Iterable[str], now: datetime) -> Object | None:
    """Return the condition `Dangling` that a flow schema's status should have; None where it has it already."""
    level = ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name", "")
    intro = f"This FlowSchema references the PriorityLevelConfiguration object named {quote(level)}"
    if level in levels:
        wanted = {"status": "False", "reason": "Found", "message": f"{intro} and it exists"}
    else:
        wanted = {"status": "True", "reason": "NotFound", "message": f"{intro} but there is no such object"}
    for condition in (schema.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Dangling" and all(condition.get(key) == text for key, text in wanted.items()):
            return None
    return {"type": "Dangling", "lastTransitionTime": format_seconds(now), **wanted}


class FlowSchemaStatus:
    """Writes the condition `Dangling` of flow schemas, once by `step` or for as long as `run` runs."""

    def __init__(self, view: View, local: Local, clock: Clock) -> None:
        self._view = view
        self._local = local
        self._clock = clock

    async def run(self) -> None:
        """Write what has to be written after each change, until cancelled."""
        changed = asyncio.Event()
        stops = [self._view.notify(resource, lambda namespace, name: changed.set()) for resource in (_SCHEMAS, _LEVELS)]
        try:
            while True:
                if not await self.step():
                    self._clock.call_later(_RETRY_SECONDS, changed.set)
                await changed.wait()
                changed.clear()
        finally:
            for stop in stops:
                stop()

    async def step(self) -> bool:
        """Write all that is not as it has to be, side by side; return whether all writes went well."""
        levels = {level["metadata"]["name"] for level in self._view.list(_LEVELS)}
        now = self._clock.now()
        wanted = [
            (schema, condition)
            for schema in self._view.list(_SCHEMAS)
            if (condition := dangling_condition(schema, levels, now)) is not None
        ]
        return all(await asyncio.gather(*(self._write(schema, condition) for schema, condition in wanted)))

    async def _write(self, schema: Object, condition: Object) -> bool:
        name, status = schema["metadata"]["name"], schema.get("status") or {}
        others = [each for each in status.get("conditions") or () if each.get("type") != condition["type"]]
        made = {**schema, "status": {**status, "conditions": [*others, condition]}}
        try:
            await self._local.call("PUT", f"/apis/{_GROUP}/v1/flowschemas/{name}/status", made)
        except ApiStatus as error:
            _log.info("a flow schema's status will be written again", flow_schema=name, error=error.message)
            return False
        return True
