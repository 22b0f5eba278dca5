"""Priority levels: how the server's seats are shared among them, and lent while their owner does not need them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pilothouse.apiserver.flow.defaults import EXEMPT, PRIORITY_LEVELS
from pilothouse.apiserver.flow.queues import FairQueues, QueueConfig
from pilothouse.apiserver.ports import Object

__all__ = ["Level", "LevelConfig", "Seats", "read_levels"]


@dataclass(frozen=True, slots=True)
class LevelConfig:
    """One priority level, read from its object. queues: None where requests are refused rather than queued."""

    name: str
    uid: str
    exempt: bool
    shares: int
    lendable: int
    borrowing: int | None
    queues: QueueConfig | None

    @classmethod
    def of(cls, obj: Object) -> LevelConfig | None:
        """Read an object; None for one that contradicts itself, which is then passed over as Kubernetes does."""
        metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
        name, uid = metadata.get("name", ""), metadata.get("uid", "")
        exempt, limited = spec.get("type") == "Exempt", spec.get("limited")
        if exempt != (name == EXEMPT) or exempt == (limited is not None):
            return None
        part: Object = (spec.get("exempt") if exempt else limited) or {}
        response = part.get("limitResponse") or {}
        queuing = response.get("queuing")
        if not exempt and (response.get("type") == "Queue") != (queuing is not None):
            return None
        shares = part.get("nominalConcurrencyShares")
        queues = None
        if queuing is not None:
            queues = QueueConfig(
                queuing.get("queues") or 64, queuing.get("handSize") or 8, queuing.get("queueLengthLimit") or 50
            )
        default = 0 if exempt else 30
        return cls(
            name,
            uid,
            exempt,
            default if shares is None else shares,
            part.get("lendablePercent") or 0,
            part.get("borrowingLimitPercent"),
            queues,
        )


def read_levels(objects: Iterable[Object]) -> dict[str, LevelConfig]:
    """Return the levels by name; the mandatory ones are added where they are missing."""
    found = {level.name: level for level in map(LevelConfig.of, objects) if level is not None}
    for obj in PRIORITY_LEVELS[:2]:
        level = LevelConfig.of(obj)
        if level is not None:
            found.setdefault(level.name, level)
    return found


class Level:
    """The state of one priority level. Limits are in seats.

    minimum: what it never lends. nominal: its share. maximum: nominal and what it may borrow.
    """

    __slots__ = ("__weakref__", "config", "executing", "maximum", "minimum", "nominal", "queues")

    def __init__(self, config: LevelConfig) -> None:
        self.executing = 0
        self.minimum = self.nominal = self.maximum = 0
        self.queues: FairQueues | None = None
        self.config = config
        self.configure(config)

    def configure(self, config: LevelConfig) -> None:
        """Go by another configuration; who executes or waits goes on."""
        self.config = config
        if config.queues is None:
            return
        if self.queues is None:
            self.queues = FairQueues(config.queues)
        else:
            self.queues.configure(config.queues)

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return self.queues.length if self.queues is not None else 0

    @property
    def pressure(self) -> float:
        """How much of its share a level uses: who uses least of it gets the next seat."""
        return self.executing / self.nominal if self.nominal else math.inf


class Seats:
    """The seats of the server. A level's own ones that it does not lend are always there for it.

    Kubernetes adjusts how much is lent every ten seconds by the demand it saw; here a seat is lent for one request,
    and the next free one goes to the level that is furthest below its share.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        """Seats that are shared out; shares are rounded up, so `nominal` of all may be slightly more."""
        self.levels: dict[str, Level] = {}
        self._free = 0
        """Seats that whoever is below its maximum may take, beyond the minimums kept back for their levels."""

    def configure(self, configs: dict[str, LevelConfig]) -> None:
        """Share the seats out anew. A level that is gone stays until it is idle."""
        for name, config in configs.items():
            if name in self.levels:
                self.levels[name].configure(config)
            else:
                self.levels[name] = Level(config)
        for name in [each for each in self.levels if each not in configs]:
            if not self.levels[name].executing and not self.levels[name].waiting:
                del self.levels[name]
        shares = sum(level.config.shares for level in self.levels.values())
        for level in self.levels.values():
            config = level.config
            level.nominal = math.ceil(self.total * config.shares / shares) if shares else 0
            level.minimum = level.nominal - round(level.nominal * config.lendable / 100)
            percent = config.borrowing
            level.maximum = level.nominal + (self.total if percent is None else round(level.nominal * percent / 100))
        limited = [level for level in self.levels.values() if not level.config.exempt]
        nominal = sum(level.nominal for level in limited)
        self._free = nominal - sum(max(level.executing, level.minimum) for level in limited)

    def take(self, level: Level) -> bool:
        """Take a seat for a request of a level if it may have one now."""
        if level.executing < level.minimum or level.config.exempt:
            level.executing += 1
            return True
        if self._free > 0 and level.executing < level.maximum:
            self._free -= 1
            level.executing += 1
            return True
        return False

    def give_back(self, level: Level) -> None:
        """Give a seat back."""
        level.executing -= 1
        if level.executing >= level.minimum and not level.config.exempt:
            self._free += 1

    def next(self) -> Level | None:
        """Take a seat for the waiting level that deserves it most; None where nobody waits or may have one."""
        waiting = sorted((level for level in self.levels.values() if level.waiting), key=lambda each: each.pressure)
        return next((level for level in waiting if self.take(level)), None)
