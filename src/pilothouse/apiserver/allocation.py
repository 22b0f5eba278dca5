"""Addresses and node ports of services: given out once each, given back, and put right where they went astray.

An address is taken by creating its IPAddress object, a node port by creating a key of its own; so several API servers
on one store never give out the same one twice. What is taken is known from the watch cache.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.entries import form_of
from pilothouse.apiserver.families import settle_families
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.engine import Call
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.storing import ChangedError, Storage
from pilothouse.apiserver.strategies.services import needs_cluster_ip, needs_health_port, needs_node_ports
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.status import InternalError
from pilothouse.kinds.times import format_seconds
from pilothouse.store import (
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    prefix_end,
)

__all__ = ["AllocationOptions", "Allocator"]

_PORTS = b"/pilothouse/nodeports/"
_ADDRESSES = "ipaddresses.networking.k8s.io"
_MANAGED = "ipallocator.k8s.io"
_FORM = form_of("networking.k8s.io/v1", "IPAddress", custom=False)
_TRIES = 64
_SPEC = Path("spec")


@dataclass(frozen=True, slots=True)
class AllocationOptions:
    """From where addresses and ports are taken."""

    service_cidr: str = "10.96.0.0/12"
    node_ports: tuple[int, int] = (30000, 32767)


class Allocator:
    """Hooks around the writes of services."""

    def __init__(self, cacher: Cacher, storage: Storage, clock: Clock, ids: Ids, options: AllocationOptions) -> None:
        self._cacher = cacher
        self._storage = storage
        self._clock = clock
        self._ids = ids
        self._network = ipaddress.ip_network(options.service_cidr)
        self._family = f"IPv{self._network.version}"
        self._ports = range(options.node_ports[0], options.node_ports[1] + 1)
        self._lost: set[str] = set()
        """What the last repair found taken by nobody. A service of it may have been on its way."""

    async def before_create(self, served: Served, new: Object, call: Call) -> Callable[[], None] | None:
        """Give a new service what it needs; return how to take it back. Raises Invalid and InternalError."""
        if served.resource.full_name != "services":
            return None
        self._settle(new, {}, call)
        return await self._give(new, {}, call)

    async def before_update(self, served: Served, new: Object, old: Object, call: Call) -> Callable[[], None] | None:
        """Give a service what it needs beyond what it has."""
        if served.resource.full_name != "services" or call.info.subresource:
            return None
        self._settle(new, old["spec"], call)
        return await self._give(new, old["spec"], call)

    def after_update(self, served: Served, new: Object, old: Object, call: Call) -> None:
        """Take back what a service no longer has; not before it is stored so, else another might get it meanwhile."""
        if served.resource.full_name == "services" and not call.info.subresource:
            self._later(_taken(old["spec"]) - _taken(new["spec"]))

    def after_delete(self, served: Served, old: Object) -> None:
        """Take back what a service had."""
        if served.resource.full_name == "services":
            self._later(_taken(old["spec"]))

    def _settle(self, new: Object, before: Object, call: Call) -> None:
        """Fill in the families of a service. Raises Invalid for those that this cluster does not have."""
        if errors := settle_families(new["spec"], before, self._family):
            raise call.refuse(new["metadata"].get("name") or "", errors)

    async def _give(self, new: Object, before: Object, call: Call) -> Callable[[], None] | None:
        spec, taken = new["spec"], set[str]()
        has = _taken(before)
        try:
            await self._give_address(new, spec, has, taken, call)
            await self._give_ports(new, before, has, taken, call)
        except BaseException:
            self._later(taken)
            raise
        return (lambda: self._later(taken)) if taken else None

    # Addresses

    async def _give_address(self, new: Object, spec: Object, has: set[str], taken: set[str], call: Call) -> None:
        if not needs_cluster_ip(spec) or spec.get("clusterIP") == "None":
            return
        wanted = spec.get("clusterIP") or ""
        if f"ip/{wanted}" in has and wanted:
            return
        if wanted:
            self._check_address(new, wanted, call)
            if not await self._claim_address(wanted, new, call):
                raise self._refuse_address(new, wanted, "provided IP is already allocated", call)
        else:
            wanted = await self._free_address(new, call)
        taken.add(f"ip/{wanted}")
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]

    def _check_address(self, new: Object, wanted: str, call: Call) -> None:
        try:
            inside = ipaddress.ip_address(wanted) in self._network
        except ValueError:
            inside = False
        if not inside:
            why = f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {self._network}"
            raise self._refuse_address(new, wanted, why, call)

    def _refuse_address(self, new: Object, wanted: str, why: str, call: Call) -> Exception:
        errors = ErrorList()
        errors.invalid(_SPEC.child("clusterIPs"), [wanted], f"failed to allocate IP {wanted}: {why}")
        return call.refuse(new["metadata"]["name"], errors)

    async def _free_address(self, new: Object, call: Call) -> str:
        """Claim an address that nobody has; the first ones are left to who asks for them by name."""
        cache = self._cacher.named(_ADDRESSES)
        size = self._network.num_addresses
        reserved = min(max(16, size // 16), 256) if size > 32 else 1
        for candidate in self._candidates(reserved, size - 1):
            address = str(self._network[candidate])
            if cache is not None and cache.get(address) is not None:
                continue
            if await self._claim_address(address, new, call):
                return address
        raise InternalError(f"failed to allocate a serviceIP: range is full: {self._network}")

    def _candidates(self, first: int, last: int) -> Iterator[int]:
        span = max(last - first, 1)
        for _ in range(_TRIES):
            yield first + self._ids.int63() % span
        yield from range(first, min(last, first + 65536))
        yield from range(1, first)

    async def _claim_address(self, address: str, new: Object, call: Call) -> bool:
        cache = self._cacher.named(_ADDRESSES)
        if cache is None or call.dry_run:
            return cache is None or cache.get(address) is None
        metadata = new["metadata"]
        made = {
            "kind": "IPAddress",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {
                "name": address,
                "uid": self._ids.uuid(),
                "creationTimestamp": format_seconds(self._clock.now()),
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": self._family,
                    "ipaddress.kubernetes.io/managed-by": _MANAGED,
                },
            },
            "spec": {
                "parentRef": {
                    "resource": "services",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                }
            },
        }
        try:
            await self._storage.create(cache, address, made, _FORM)
        except ChangedError:
            return False
        return True

    # Node ports

    async def _give_ports(self, new: Object, before: Object, has: set[str], taken: set[str], call: Call) -> None:
        spec = new["spec"]
        if needs_health_port(spec):
            asked = spec.get("healthCheckNodePort")
            if not asked:
                spec["healthCheckNodePort"] = await self._free_port(new, taken, call)
            elif f"port/{asked}" not in has:
                await self._give_port(new, _SPEC.child("healthCheckNodePort"), asked, taken, call)
        given: dict[int, int] = {}
        for place, port in enumerate(spec.get("ports") or ()):
            wanted = port.get("nodePort") or 0
            if wanted and f"port/{wanted}" not in has | taken:
                at = _SPEC.child("ports").index(place).child("nodePort")
                await self._give_port(new, at, wanted, taken, call)
            elif not wanted and needs_node_ports(spec):
                # The same port over TCP and UDP gets the same node port, but not where a service is changed.
                number = port.get("port") or 0
                shared = 0 if before else given.get(number, 0)
                given[number] = port["nodePort"] = shared or await self._free_port(new, taken, call)

    async def _give_port(self, new: Object, at: Path, wanted: int, taken: set[str], call: Call) -> None:
        errors = ErrorList()
        if wanted not in self._ports:
            span = f"{self._ports.start}-{self._ports.stop - 1}"
            errors.invalid(at, wanted, f"provided port is not in the valid range. The range of valid ports is {span}")
        elif not await self._claim_port(wanted, new, call):
            errors.invalid(at, wanted, "provided port is already allocated")
        if errors:
            raise call.refuse(new["metadata"]["name"], errors)
        taken.add(f"port/{wanted}")

    async def _free_port(self, new: Object, taken: set[str], call: Call) -> int:
        span = len(self._ports)
        tried = [self._ports.start + self._ids.int63() % span for _ in range(_TRIES)]
        candidates: list[int] = [*tried, *self._ports]
        for port in candidates:
            if f"port/{port}" not in taken and await self._claim_port(port, new, call):
                taken.add(f"port/{port}")
                return port
        raise InternalError("failed to allocate a nodePort: range is full")

    async def _claim_port(self, port: int, new: Object, call: Call) -> bool:
        key = _PORTS + b"%d" % port
        if call.dry_run:
            return not (await self._storage.store.range(RangeRequest(key))).kvs
        metadata = new["metadata"]
        owner = f"{metadata['namespace']}/{metadata['name']}".encode()
        absent = Compare(key, CompareTarget.VERSION, operand=0)
        answer = await self._storage.store.txn(TxnRequest((absent,), (PutRequest(key, owner),)))
        return answer.succeeded

    # Giving back

    def _later(self, names: set[str]) -> None:
        """Give back in the background; what is lost in a crash the next repair finds."""
        if names:
            self._storage.background(self._give_back(set(names)))

    async def _give_back(self, names: set[str]) -> None:
        cache = self._cacher.named(_ADDRESSES)
        for name in names:
            kind, _, value = name.partition("/")
            if kind == "port":
                await self._storage.store.delete_range(DeleteRangeRequest(_PORTS + value.encode()))
            elif cache is not None and (entry := cache.get(value)) is not None:
                try:
                    await self._storage.delete(cache, entry)
                except ChangedError:
                    continue

    async def repair(self) -> list[str]:
        """Make what is taken agree with the services that are there; return what was put right, for the log.

        A taken address or port of a service that is not there, twice in a row, is given back; what a service has and
        nobody took is taken for it; an address that two services have is told.
        """
        told: list[str] = []
        services = self._cacher.named("services")
        if services is None:
            return told
        wanted: dict[str, Object] = {}
        for entry in services.entries():
            service = entry.object
            for name in _taken(service["spec"]):
                if name in wanted:
                    told.append(f"{name} is used by {entry.key} and by {_name(wanted[name])}; recreate one of them")
                else:
                    wanted[name] = service
        have = await self._known()
        call: Any = _RepairCall()
        for name, service in wanted.items():
            if name not in have:
                kind, _, value = name.partition("/")
                if kind == "ip":
                    await self._claim_address(value, service, call)
                else:
                    await self._claim_port(int(value), service, call)
                told.append(f"{name} of {_name(service)} was not taken and is now")
        unused = have - set(wanted)
        lost, self._lost = unused & self._lost, unused
        if lost:
            await self._give_back(lost)
            told += [f"{name} was taken by nobody and is free now" for name in sorted(lost)]
        return told

    async def _known(self) -> set[str]:
        cache = self._cacher.named(_ADDRESSES)
        have = set()
        for entry in cache.entries() if cache is not None else ():
            if entry.metadata.labels.get("ipaddress.kubernetes.io/managed-by") == _MANAGED:
                have.add(f"ip/{entry.key}")
        answer = await self._storage.store.range(RangeRequest(_PORTS, prefix_end(_PORTS), keys_only=True))
        return have | {f"port/{kv.key.removeprefix(_PORTS).decode()}" for kv in answer.kvs}


class _RepairCall:
    dry_run = False


def _name(service: Object) -> str:
    return f"{service['metadata'].get('namespace')}/{service['metadata'].get('name')}"


def _taken(spec: Object) -> set[str]:
    """Return the names of what a service has: `ip/10.96.0.9`, `port/30123`."""
    found = {f"ip/{address}" for address in spec.get("clusterIPs") or () if address and address != "None"}
    found |= {f"port/{port['nodePort']}" for port in spec.get("ports") or () if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        found.add(f"port/{spec['healthCheckNodePort']}")
    return found
