"""A part of the pods' network for each node: which are taken, and which is next. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["AddressesExhaustedError", "NodeNetworks"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MASKS: Final = {4: 24, 6: 64}
_MAX_BITS: Final = 16


class AddressesExhaustedError(RuntimeError):
    """There is no free part of the network left; give a larger network, or smaller parts."""


@dataclass(slots=True)
class NodeNetworks:
    """Cuts a network into parts of a size. network: such as 10.244.0.0/16. mask: of a part, /24 or /64 by default.

    Raises ValueError for a network that cannot be cut so, or into more than 65,536 parts.
    """

    network: str
    mask: int = 0
    _parts: list[_Network] = field(default_factory=list, init=False)
    _taken: dict[str, str] = field(default_factory=dict, init=False)
    _partly: dict[str, set[str]] = field(default_factory=dict, init=False)
    """Who has something of a part, by ranges of any size."""
    _next: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        whole = ipaddress.ip_network(self.network)
        mask = self.mask or max(_MASKS[whole.version], whole.prefixlen)  # a small network is one part
        if not 0 <= mask - whole.prefixlen <= _MAX_BITS:
            raise ValueError(
                f"network {self.network}: parts of /{mask} want a prefix of /{max(mask - _MAX_BITS, 0)} to /{mask}"
            )
        self._parts = [*whole.subnets(new_prefix=mask)]

    def take(self, node: str, network: str) -> None:
        """Note that a node has a network already; another one's stays that one's."""
        self._taken.setdefault(network, node)
        for part in self._overlapping(network):
            self._partly.setdefault(part, set()).add(node)

    def owner(self, network: str) -> str:
        """Return whose a network is, "" for nobody's."""
        return self._taken.get(network, "")

    def of(self, node: str) -> str:
        """Return the network that a node has, "" for none."""
        return next((network for network, owner in self._taken.items() if owner == node), "")

    def allocate(self, node: str) -> str:
        """Give a node the next free network. Raises AddressesExhaustedError."""
        for offset in range(len(self._parts)):
            place = (self._next + offset) % len(self._parts)
            network = str(self._parts[place])
            if network not in self._taken and not self._partly.get(network):
                self._next = place + 1
                self._taken[network] = node
                return network
        raise AddressesExhaustedError(
            f"network {self.network}: all {len(self._parts)} parts are taken, so node {node} gets none; "
            "give a larger network or smaller parts"
        )

    def free(self, node: str, networks: Iterable[str] = ()) -> None:
        """Take back what a node has."""
        for network in networks or [each for each, owner in self._taken.items() if owner == node]:
            if self._taken.get(network) == node:
                del self._taken[network]
            for part in self._overlapping(network):
                self._partly.get(part, set()).discard(node)

    def _overlapping(self, network: str) -> list[str]:
        """Return the parts that a range has something of."""
        given, whole = ipaddress.ip_network(network), ipaddress.ip_network(self.network)
        if given.version != whole.version:
            return []
        size = self._parts[0].num_addresses
        start = (int(given.network_address) - int(whole.network_address)) // size
        end = (int(given.broadcast_address) - int(whole.network_address)) // size
        return [str(part) for part in self._parts[max(start, 0) : max(end + 1, 0)]]
