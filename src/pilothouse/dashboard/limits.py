"""How often somebody may try to log in: so many failures a while from one address. Pure but for the clock."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict, deque
from typing import Final

from pilothouse.foundation.clock import Clock

__all__ = ["FailureLimit"]

_MOST_ADDRESSES: Final = 1_024


class FailureLimit:
    """Counts failures by address. most: within `seconds`; after them nothing is tried until the first is so long ago.

    An IPv6 network of 64 bits counts as one address. Of addresses 1,024 are known, those that failed last.
    """

    def __init__(self, clock: Clock, *, most: int = 10, seconds: float = 60.0) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_of(self, address: str) -> int:
        """Return for how many seconds an address has to wait, 0 where it may try."""
        times = self._failures.get(_place(address))
        if times is None or len(times) < self._most:
            return 0
        return max(0, math.ceil(times[0] + self._seconds - self._clock.monotonic()))

    def failed(self, address: str) -> None:
        """Count a failure."""
        place = _place(address)
        self._failures.setdefault(place, deque(maxlen=self._most)).append(self._clock.monotonic())
        self._failures.move_to_end(place)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _place(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)
