"""Where a client is: as a proxy says whom we trust, else by a table of address ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from pilothouse.traffic.config import RegionTable

__all__ = ["RangeTable", "Regions"]

_KEPT: Final = 8192
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class RangeTable:
    """Values by address range, the longest range wins. Raises ValueError for what is no range."""

    def __init__(self, ranges: Iterable[tuple[str, str]]) -> None:
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}
        for text, value in ranges:
            network = ipaddress.ip_network(text, strict=False)
            shift = network.max_prefixlen - network.prefixlen
            place = self._by_length.setdefault((network.version, shift), {})
            place.setdefault(int(network.network_address) >> shift, value)
        self._shifts = {
            version: sorted(shift for each, shift in self._by_length if each == version) for version in (4, 6)
        }
        self._found: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def get(self, address: str) -> str | None:
        """Return the value of the range that an address is in; None for none, and for what is no address."""
        try:
            return self._found[address]
        except KeyError:
            pass
        if len(self._found) >= _KEPT:
            self._found.clear()
        found = self._found[address] = self._look(address)
        return found

    def _look(self, address: str) -> str | None:
        try:
            parsed: _Address = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        number = int(parsed)
        for shift in self._shifts[parsed.version]:
            found = self._by_length[parsed.version, shift].get(number >> shift)
            if found is not None:
                return found
        return None


class Regions:
    """The region of clients. Raises ValueError for a range that is none."""

    def __init__(self, table: RegionTable) -> None:
        self._trusted = RangeTable((each, "") for each in table.trusted)
        self._ranges = RangeTable(table.ranges)
        self._default = table.default
        self.header: Final = table.header.lower()
        self.request_header: Final = table.request_header.lower()
        self.is_used: Final = bool(table.header or table.ranges or table.default)

    def of(self, peer: str, told: str | None, client: str = "") -> str:
        """Return a client's region, the default where it is not known.

        peer: who sent the request. told: the region's header of it, None for none. client: whose address a trusted
        proxy has told; the peer's counts where empty.
        """
        if told and self.header and self._trusted.get(peer) is not None:
            return told
        found = self._ranges.get(client or peer) if self._ranges else None
        return self._default if found is None else found
