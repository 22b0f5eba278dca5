"""The cluster's DNS: follows services, slices and namespaces, and answers for them; asks others about other names."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from pilothouse.client.listener import Listener
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.foundation.rights import owns_network
from pilothouse.kinds.structs import EndpointSlice, Namespace, Service
from pilothouse.node.services.batches import Batches
from pilothouse.node.services.tracking import service_of
from pilothouse.operator import Manager

from .aliases import follow
from .answers import Answers
from .forwarding import Forwarder, Upstream, UpstreamFailed
from .listening import DnsSockets
from .loopback import change_loopback
from .records import service_records
from .resolvconf import read_resolv_conf
from .wire import REFUSED, SERVFAIL, BadQuery, Query, Tail, error, parse, reply, tail_of
from .zone import Zone

__all__ = ["ClusterDns", "host_resolvers"]

_IN, _ANY_CLASS = 1, 255
_A, _AAAA = 1, 28
_BADVERS: Final = 16
_MOST_TCP: Final = 65_535
_TAKEN_OR_FORBIDDEN: Final = {errno.EACCES, errno.EADDRINUSE, errno.EPERM}
_log = get_logger("pilothouse.node.dns")


def host_resolvers(path: str = "/etc/resolv.conf") -> Callable[[], Sequence[Upstream]]:
    """Return a function that gives the machine's resolvers, read anew when the file has changed."""
    state: dict[str, Any] = {"at": None, "found": ()}

    def read() -> Sequence[Upstream]:
        try:
            at = os.stat(path).st_mtime_ns
            if at != state["at"]:
                with open(path, encoding="utf-8", errors="replace") as file:
                    state["found"] = tuple(Upstream(each) for each in read_resolv_conf(file.read()).servers)
                state["at"] = at
        except OSError:
            return ()
        found: Sequence[Upstream] = state["found"]
        return found

    return read


class ClusterDns:
    """Answers for the cluster's domain, and by the machine's resolvers for all others.

    address: of the cluster's DNS, usually the tenth of the service range; it is put on the loopback device where this
    process may do that and the machine has it not. port: 53, or any (0); where 53 is not allowed another one is taken
    and `problems` says so. ttl: in seconds. pods: whether names such as 10-1-2-3.ns.pod are answered.
    """

    def __init__(  # noqa: PLR0913  # all but two have a default
        self,
        manager: Manager,
        address: str,
        *,
        port: int = 53,
        domain: str = "cluster.local",
        ttl: int = 5,
        pods: bool = True,
        upstreams: Callable[[], Sequence[Upstream]] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.address: Final = address
        self.port = port
        self.domain: Final = domain.strip(".").lower()
        self._ttl = ttl
        self._wanted_port = port
        self._zone = Zone(self.domain)
        self._namespaces: set[str] = set()
        knows = self._namespaces.__contains__ if pods else None
        self._answers = Answers(self._zone, ttl=ttl, knows_namespace=knows)
        self._upstreams = upstreams or host_resolvers()
        self._forwarder = Forwarder(self._others)
        self._sockets = DnsSockets(self.respond)
        self._services = manager.informer(Service)
        self._slices = manager.informer(EndpointSlice)
        self._known_namespaces = manager.informer(Namespace)
        self._slices_of: dict[str, dict[str, EndpointSlice]] = {}
        self._owners: dict[str, str] = {}
        self._service_of: dict[str, Service] = {}
        self._dirty: set[str] = set()
        self._batches = Batches("cluster DNS", self._sync, manager.clock)
        self._listeners: list[Listener[Any]] = []
        self._problems: list[str] = []
        self._is_address_ours = False
        made = metrics or manager.metrics or PROGRAM
        counter = made.counter("pilothouse_node_dns_answers_total", "Questions answered, by where from", ("source",))
        self._own, self._forwarded = counter.labels("cluster"), counter.labels("forwarded")
        self._failed, self._bad = counter.labels("failed"), counter.labels("malformed")
        self._names = made.gauge("pilothouse_node_dns_names", "Names of the cluster that have an answer")

    async def start(self) -> None:
        """Listen, and follow the caches. Raises `OSError` where it may listen nowhere."""
        self._listen_to_caches()
        self._batches.start()
        self._batches.poke()
        self._problems = []
        self._add_address()
        try:
            self.port = await self._sockets.listen(self.address, self._wanted_port)
        except OSError as failure:
            if failure.errno not in _TAKEN_OR_FORBIDDEN or not self._wanted_port:
                raise
            self.port = await self._sockets.listen(self.address, 0)
            why = f"port {self._wanted_port}: {failure.strerror}"
            told = f"cluster DNS listens at port {self.port} of {self.address}: {why}"
            self._problems.append(f"{told}; pods that ask at port {self._wanted_port} get no answer")
            _log.warning(told)

    async def wait_synced(self) -> None:
        """Wait until everything that the caches had at first has its names."""
        for listener in self._listeners:
            await listener.wait_synced()
        await self._sync()

    async def stop(self) -> None:
        """Stop listening, and take the address away that `start` added."""
        for listener in self._listeners:
            listener.remove()
        self._listeners = []
        await self._batches.stop()
        await self._sockets.close()
        await self._forwarder.close()
        if self._is_address_ours:
            self._is_address_ours = False
            with contextlib.suppress(OSError):
                change_loopback(self.address, add=False)

    def problems(self) -> list[str]:
        """Return what is not as it was asked for."""
        failed = [f"cluster DNS: {self._batches.problem}"] if self._batches.problem else []
        return [*self._problems, *failed]

    def respond(self, data: bytes, is_tcp: bool) -> bytes | Awaitable[bytes | None] | None:
        """Return the answer to a message: at once where it is known here, else to be waited for."""
        try:
            query = parse(data)
        except BadQuery as bad:
            self._bad.inc()
            return None if bad.code is None else error(data, bad.code)
        most = _MOST_TCP if is_tcp else query.size
        if query.version:
            return reply(query, Tail(_BADVERS, 0, 0, 0, b""), most=most)
        if query.cls not in {_IN, _ANY_CLASS}:
            return reply(query, Tail(REFUSED, 0, 0, 0, b""), most=most)
        try:
            tail = self._answers.answer(query)
        except Exception as failure:  # noqa: BLE001  # one question that cannot be answered, never the server
            _log.warning("a question could not be answered", name=query.name, error=str(failure))
            return reply(query, Tail(SERVFAIL, 0, 0, 0, b""), most=most)
        if tail is None:
            return self._from_others(query, most)
        self._own.inc()
        if query.kind in {_A, _AAAA} and tail.answers == 1 and self._answers.alias(query.name):
            return self._alias(query, most)
        return reply(query, tail, most=most)

    async def _alias(self, query: Query, most: int) -> bytes:
        return reply(query, await follow(query, self._answers, self._forwarder, self._ttl), most=most)

    async def _from_others(self, query: Query, most: int) -> bytes:
        try:
            answer = await self._forwarder.ask(query)
        except UpstreamFailed as failure:
            self._failed.inc()
            _log.debug("no resolver answers", name=query.name, error=str(failure))
            return reply(query, Tail(SERVFAIL, 0, 0, 0, b"", is_ours=False), most=most)
        self._forwarded.inc()
        return reply(query, tail_of(answer, len(query.question), is_ours=False), most=most)

    def _others(self) -> list[Upstream]:
        """Return resolvers but for this one, which would ask itself for ever."""
        return [each for each in self._upstreams() if each != (self.address, self.port)]

    def _listen_to_caches(self) -> None:
        self._listeners = [
            self._services.add_handler(
                on_add=lambda found, _: self._service(key_of(found), found),
                on_update=lambda _, found: self._service(key_of(found), found),
                on_delete=lambda found: self._service(key_of(found), None),
                name="cluster DNS",
            ),
            self._slices.add_handler(
                on_add=lambda found, _: self._slice(found),
                on_update=lambda _, found: self._slice(found),
                on_delete=self._slice_gone,
                name="cluster DNS",
            ),
            self._known_namespaces.add_handler(
                on_add=lambda found, _: self._namespace(key_of(found), is_there=True),
                on_delete=lambda found: self._namespace(key_of(found), is_there=False),
                name="cluster DNS",
            ),
        ]

    def _service(self, key: str, found: Service | None) -> None:
        if found is None:
            self._service_of.pop(key, None)
        else:
            self._service_of[key] = found
        self._touch(key)

    def _slice(self, found: EndpointSlice) -> None:
        name = key_of(found)
        self._drop_slice(name)
        owner = service_of(found)
        if owner:
            self._owners[name] = owner
            self._slices_of.setdefault(owner, {})[name] = found
            self._touch(owner)

    def _slice_gone(self, found: EndpointSlice | DeletedFinalStateUnknown[EndpointSlice]) -> None:
        self._drop_slice(key_of(found))

    def _drop_slice(self, name: str) -> None:
        owner = self._owners.pop(name, "")
        if owner:
            mine = self._slices_of[owner]
            mine.pop(name, None)
            if not mine:
                del self._slices_of[owner]
            self._touch(owner)

    def _namespace(self, name: str, *, is_there: bool) -> None:
        (self._namespaces.add if is_there else self._namespaces.discard)(name)
        self._answers.forget_pods()

    def _touch(self, key: str) -> None:
        self._dirty.add(key)
        self._batches.poke()

    async def _sync(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            service = self._service_of.get(key)
            slices = [*self._slices_of.get(key, {}).values()]
            try:
                records = [] if service is None else service_records(service, slices, self.domain)
            except ValueError as failure:
                _log.warning("a service has no names", service=key, error=str(failure))
                continue
            self._answers.changed(self._zone.put(key, records))
        self._names.set(len(self._zone))

    def _add_address(self) -> None:
        """Have the loopback device answer at the address, where nobody does yet and we may."""
        if not owns_network() or ipaddress.ip_address(self.address).is_loopback:
            return
        try:
            change_loopback(self.address, add=True)
            self._is_address_ours = True
        except FileExistsError:
            self._is_address_ours = True  # an earlier run of ours left it
        except OSError as failure:
            self._problems.append(f"cluster DNS: {self.address} cannot be added to lo: {failure.strerror}")
