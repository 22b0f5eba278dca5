"""Which addresses gateways have: one of their own each out of networks, or all share those of the machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

__all__ = ["Addresses", "Assigned", "Pool"]

_MOST = 4096


@dataclass(frozen=True)
class Addresses:
    """What there is. networks: CIDRs or addresses of which each gateway gets its own; they have to be this machine's.

    published: without networks, what statuses say of gateways that listen at all addresses.
    """

    networks: tuple[str, ...] = ()
    published: tuple[str, ...] = ()

    @cached_property
    def _networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        return [ipaddress.ip_network(each, strict=False) for each in self.networks]

    def has(self, address: str) -> bool:
        """Say whether an address is one of these."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return address in self.published or any(found in network for network in self._networks)

    def free(self, taken: set[str]) -> str:
        """Return the first address of the networks that is not taken, empty where there is none."""
        for network in self._networks:
            hosts = network.hosts() if network.num_addresses > 1 else iter([network.network_address])
            for host in islice(hosts, _MOST):
                if str(host) not in taken:
                    return str(host)
        return ""


@dataclass(frozen=True)
class Assigned:
    """The addresses of a gateway. bound: where it listens, "" for all; shown: what its status says."""

    bound: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    unsupported: str = ""
    unusable: str = ""


class Pool:
    """Gives addresses to gateways: those that are asked for first, then those that had one, then the others."""

    def __init__(self, addresses: Addresses, reserved: Iterable[str] = ()) -> None:
        self._addresses = addresses
        self._taken = set(reserved)

    def asked(self, wanted: Sequence[tuple[str, str]]) -> Assigned | None:
        """Return what a gateway gets of the addresses (type, value) it asks for, None where it asks for none."""
        certain = [(kind, value) for kind, value in wanted if value or kind != "IPAddress"]
        if not certain:
            return None
        for kind, value in certain:
            if kind != "IPAddress":
                return Assigned(unsupported=f"addresses of type '{kind}' ('{value}') are not supported; use IPAddress")
        usable = tuple(value for _, value in certain if self._addresses.has(value))
        bad = next((value for _, value in certain if value not in usable), "")
        self._taken.update(usable)
        return Assigned(usable, usable, unusable=bad)

    def kept(self, before: Sequence[str]) -> Assigned | None:
        """Return the address that a gateway had before, where nobody else has it by now."""
        for address in before if self._addresses.networks else ():
            if address not in self._taken and self._addresses.has(address):
                self._taken.add(address)
                return Assigned((address,), (address,))
        return None

    def fresh(self) -> Assigned:
        """Return an address for a gateway that has none; nothing bound where there is none left."""
        if not self._addresses.networks:
            return Assigned(("",), self._addresses.published)
        address = self._addresses.free(self._taken)
        if not address:
            return Assigned()
        self._taken.add(address)
        return Assigned((address,), (address,))
