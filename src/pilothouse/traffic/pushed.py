"""What a gateway's workers were told last: compiled by the parent first, to refuse it, and as a file for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from pilothouse.traffic.changes import Change, difference, replaced
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.opening import in_memory
from pilothouse.traffic.plane.messages import Body

if TYPE_CHECKING:
    from pilothouse.traffic.plane.plan import Plan

__all__ = ["NOTHING", "InvalidConfiguration", "Pushed", "checked"]

_FEW: Final = 16
"""So many routes are compiled in less time than a thread takes to begin."""


class InvalidConfiguration(ValueError):
    """A configuration that was not taken up; the one before stays. The message names the object and the reason."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A configuration that workers were told. number: grows with each push. slots: of the counters of shares."""

    number: int
    configuration: Configuration = Configuration()  # noqa: RUF009  frozen
    slots: dict[str, int] = field(default_factory=dict)
    plan: Plan | None = None

    def file_after(self, before: Pushed, session_keys: tuple[bytes, ...] = ()) -> int:
        """Return a file in memory with what differs from another; the caller closes it.

        session_keys: told to workers where the configuration has none.
        """
        change = difference(before.configuration, self.configuration)
        if session_keys and not self.configuration.session_keys:
            rest = msgspec.structs.replace(change.rest, session_keys=session_keys)
            change = msgspec.structs.replace(change, rest=rest)
        body: Body = change, replaced(before.slots, self.slots)
        return in_memory(msgspec.msgpack.encode(body))


NOTHING: Final = Pushed(0)
"""What a worker has that has just begun."""


async def checked(configuration: Configuration, change: Change, before: Plan | None) -> Plan:
    """Compile a configuration as the workers will, much of it beside the event loop. Raises InvalidConfiguration."""
    if _is_small(change):
        return _compiled(configuration, before)
    return await asyncio.to_thread(_compiled, configuration, before)


def _is_small(change: Change) -> bool:
    routes = sum(not isinstance(each, tuple) for each in change.routes)
    has_doors = bool(change.certificates.new) or not all(isinstance(each, tuple) for each in change.listeners)
    has_tls = any(each.tls is not None for each in change.backends.new.values())
    return routes <= _FEW and not has_doors and not has_tls and change.regions is None and not change.settings.new


def _compiled(configuration: Configuration, before: Plan | None) -> Plan:
    from pilothouse.traffic.plane.plan import Plan  # noqa: PLC0415  # 20 MB that only a parent that pushes needs

    try:
        return Plan(configuration, before)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from error
