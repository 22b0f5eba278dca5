"""How informers behave, and what may be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pilothouse.client.reflector import Timeouts
from pilothouse.client.reflector_options import ReflectorOptions

__all__ = ["RECENT_BYTES", "InformerOptions", "Problem"]

RECENT_BYTES: Final = 8 << 20
"""JSON of objects that is kept as it came; what is read of it takes up to five times as much."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of an informer that is not well: what, and since how many seconds, 0 if that is not known."""

    informer: str
    what: str
    seconds: float = 0.0

    def __str__(self) -> str:
        since = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"informer {self.informer}: {self.what}{since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InformerOptions:
    """How an informer behaves.

    resync_seconds: how often handlers are told of every object again, from the cache; 0 is never, as in client-go. A
    handler may ask for its own. reflector, timeouts: of the list and the watch. sync_alarm_seconds: after which a cache
    that is not filled, or a server that cannot be reached, is a problem. handler_alarm_seconds: the same of a handler's
    coroutine that does not return. tune_collector: pause Python's garbage collector while the first state is read,
    leave a cache of thousands out of its rounds, and give the memory back that was needed meanwhile; it concerns the
    whole process. recent_bytes: how much JSON stays as it came, of the objects that came last, and of how much what was
    read is kept, of those read last; while others wait to be deflated, which is done beside other work, seven times as
    much stays as it came. Who looks at all objects again and again does so faster where all have room.
    """

    resync_seconds: float = 0.0
    reflector: ReflectorOptions = field(default_factory=ReflectorOptions)
    timeouts: Timeouts = field(default_factory=Timeouts)
    sync_alarm_seconds: float = 120.0
    handler_alarm_seconds: float = 60.0
    tune_collector: bool = True
    recent_bytes: int = RECENT_BYTES
