"""Addresses of pods out of one range, each a file with its owner's name, so that none is lost by a crash."""

from __future__ import annotations

import contextlib
import ipaddress
import os

from pilothouse.node.errors import AddressesExhausted

__all__ = ["AddressPool"]

_MAX_ADDRESSES = 65_536


class AddressPool:
    """The addresses of `cidr`, without its first and last one and `gateway`, which is the first that could be used."""

    def __init__(self, directory: str, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        first = int(self.network.network_address)
        self._size = min(self.network.num_addresses, _MAX_ADDRESSES)
        if self._size < 4:
            raise ValueError(f'pod_cidr "{cidr}": too small; at least a /30 is wanted')
        self.gateway = str(ipaddress.ip_address(first + 1))
        self._first = first
        self._directory = directory
        self._last = 1
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._taken = set(os.listdir(directory))

    @property
    def prefix(self) -> int:
        """The length of the range's prefix."""
        return self.network.prefixlen

    def take(self, owner: str) -> str:
        """Return a free address that is `owner`'s from now on; the one that was free longest, roughly.

        Raises `AddressesExhausted`, `OSError`.
        """
        for step in range(self._size):
            place = 2 + (self._last - 1 + step) % (self._size - 3)
            address = str(ipaddress.ip_address(self._first + place))
            if address in self._taken:
                continue
            try:
                fd = os.open(f"{self._directory}/{address}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                self._taken.add(address)
                continue
            try:
                os.write(fd, owner.encode())
            finally:
                os.close(fd)
            self._taken.add(address)
            self._last = place
            return address
        raise AddressesExhausted(
            f"no address is left in {self.network}: {len(self._taken)} pods have one; make the range larger"
        )

    def give_back(self, address: str) -> None:
        """Let others have an address again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{address}")
        self._taken.discard(address)

    def owners(self) -> dict[str, str]:
        """Return whose each address is."""
        found = {}
        for address in sorted(self._taken):
            with contextlib.suppress(OSError), open(f"{self._directory}/{address}", encoding="utf-8") as file:
                found[address] = file.read()
        return found
