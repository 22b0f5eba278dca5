"""What listeners have together that are one gateway's: limits, whom they trust, regions, keys of sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pilothouse.traffic.config import Settings
from pilothouse.traffic.plane.fields import Trusted
from pilothouse.traffic.plane.heads import HeadReader
from pilothouse.traffic.plane.http import Request
from pilothouse.traffic.plane.sessions import Sessions
from pilothouse.traffic.routing import Regions

__all__ = ["Crowd", "Scope", "region_of"]


class Crowd:
    """The connections of one gateway's clients in this worker. open: how many."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0


class Scope:
    """Settings, compiled, as the listeners of one socket go by them. Raises ValueError.

    It stays with its socket over configurations, so that connections go by what holds now. crowd, reader: a worker's.
    """

    def __init__(self, name: str, settings: Settings, keys: Sequence[bytes], wall: Callable[[], float]) -> None:
        self.name = name
        self._made_of = settings, tuple(keys)
        self.limits = settings.limits
        try:
            self.trusted = Trusted(settings.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"trusted_proxies: {error}") from None
        try:
            self.regions = Regions(settings.regions)
        except ValueError as error:
            raise ValueError(f"regions: {error}") from None
        self.region_header = self.regions.request_header.encode()
        self.sessions = Sessions(keys, wall)
        self.crowd: Crowd = Crowd()
        self.reader: HeadReader = _READER

    def is_of(self, settings: Settings, keys: Sequence[bytes]) -> bool:
        """Return whether it was made of the same."""
        return self._made_of == (settings, tuple(keys))

    def copy(self) -> Scope:
        """Return another one of the same, for another socket."""
        other = Scope.__new__(Scope)
        other.become(self)
        return other

    def become(self, other: Scope) -> None:
        """Go by what another says from now on."""
        vars(self).update(vars(other))


_READER: Final = HeadReader()


def region_of(scope: Scope, address: str, client: str, request: Request) -> str:
    """Return the client's region, and have it in the request instead of what the client says of itself."""
    regions = scope.regions
    told = request.header(regions.header) if regions.header else None
    region = regions.of(address, told, client)
    name = scope.region_header
    request.fields = [field for field in request.fields if field[0] != name]
    if region:
        request.fields.append((name, region.encode("latin-1", "replace")))
    return region
