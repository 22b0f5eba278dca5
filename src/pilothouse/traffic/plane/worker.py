"""One process of the data plane: its reactor, its configuration, and what its connections ask of it."""

from __future__ import annotations

import math
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pilothouse.traffic.config import Configuration, Limits, RateLimit
from pilothouse.traffic.numbers import Key
from pilothouse.traffic.plane.accepting import Acceptor
from pilothouse.traffic.plane.client1 import Client1
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.counting import Tally
from pilothouse.traffic.plane.decisions import Decision
from pilothouse.traffic.plane.exchange import Exchange
from pilothouse.traffic.plane.fields import traced
from pilothouse.traffic.plane.heads import HeadReader
from pilothouse.traffic.plane.health import Health
from pilothouse.traffic.plane.http import FieldList, Refused, Request, Response
from pilothouse.traffic.plane.mirrors import Mirrored, MirrorRoom
from pilothouse.traffic.plane.plan import Plan, Port
from pilothouse.traffic.plane.pools import Pool
from pilothouse.traffic.plane.ratestore import RateStore, store_key
from pilothouse.traffic.plane.reactor import Reactor, Timed
from pilothouse.traffic.plane.refusals import refusal
from pilothouse.traffic.plane.sampling import FAILURE, SLOW_SECONDS, Sampler
from pilothouse.traffic.plane.scopes import Crowd, Scope
from pilothouse.traffic.plane.sharing import FileCounters
from pilothouse.traffic.plane.switching import NONCE_BYTES
from pilothouse.traffic.plane.tunnels import End, Tunnel
from pilothouse.traffic.plane.upstream import Outgoing
from pilothouse.traffic.plane.wires import SPLICE_LEAST, Buffer, Counters, Pipes, Wire

__all__ = ["Drainable", "Worker"]

_NOWHERE: Final = Key("", "", "", "", "")


class Drainable(Protocol):
    """A connection of a client."""

    def drain(self) -> None:
        """End after what is going on."""

    def on_crash(self) -> None:
        """End at once."""


class _Later(Timed):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work

    def on_deadline(self) -> None:
        self._work()


class Worker:
    """All that one process serves. workers: how many there are, among which limits are divided.

    told: takes noteworthy events, at most one a second of a kind. shares: counters of all workers.
    splice_least: bytes from which on bodies are spliced.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        seed: int | None = None,
        told: Callable[[str, dict[str, str]], object] | None = None,
        shares: FileCounters | None = None,
        splice_least: int = SPLICE_LEAST,
    ) -> None:
        self.workers = workers
        self.shares = shares or FileCounters(slots=1)
        self.clock = clock
        self._wall = wall
        self.reactor = Reactor(clock)
        self.counters = Counters()
        self.pipes = Pipes(self.counters, splice_least)
        self.reader = HeadReader()
        self.tally = Tally(self.counters)
        self.sampler = Sampler()
        self.plan = Plan(Configuration())
        self.pools: dict[str, Pool] = {}
        self.clients: set[Drainable] = set()
        self.tunnels: set[Tunnel] = set()
        self.is_draining = False
        self.lines: list[bytes] | None = None
        self.lost_lines = 0
        self.mirrors = MirrorRoom()
        self._chance = random.Random(seed)  # noqa: S311  # balances and makes trace ids, no secrets
        self._acceptors: dict[tuple[str, int], Acceptor] = {}
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._health: dict[str, Health] = {}
        self._stores: dict[str, RateStore] = {}
        self._crowds: dict[str, Crowd] = {}
        self._readers: dict[int, HeadReader] = {}
        self._told = told
        self._told_at: dict[str, float] = {}

    # Configuration

    def listen(self, sock: socket.socket, address: str, port: int) -> None:
        """Have a listening socket, for the configuration that names it."""
        sock.setblocking(False)
        old = self._sockets.get((address, port))
        if old is not None:
            old.close()
        self._sockets[address, port] = sock

    def take(self, configuration: Configuration) -> None:
        """Go on by a configuration. Raises BadConfiguration, and goes on by the old one."""
        plan = Plan(configuration, self.plan, wall=self._wall)
        for key in plan.ports:
            if key not in self._sockets:
                raise ValueError(f"there is no socket for port {key[1]}")
        before, self.plan = self.plan, plan
        self._take_scopes(before, plan)
        self.lines = [] if configuration.access_log and self.lines is None else self.lines
        if plan.connectors is not before.connectors:
            self._take_backends(plan)
        self._take_stores(plan)
        self._take_ports(plan)

    def _take_scopes(self, before: Plan, plan: Plan) -> None:
        """Have sockets that stay, and their connections, go by what holds now."""
        if plan.ports is before.ports and plan.scopes == before.scopes:
            return
        for key, port in plan.ports.items():
            old = before.ports.get(key)
            scope = port.scope = old.scope if old is not None else port.scope
            scope.become(plan.scopes[port.settings])
            scope.crowd = self._crowds.setdefault(port.settings, Crowd())
            scope.reader = self._readers.setdefault(scope.limits.headers, HeadReader(scope.limits.headers))
        used = {port.settings for port in plan.ports.values()}
        for name in [name for name, crowd in self._crowds.items() if not crowd.open and name not in used]:
            del self._crowds[name]

    def _take_stores(self, plan: Plan) -> None:
        for url in [url for url in self._stores if url not in plan.stores]:
            self._stores.pop(url).stop()
        for url, patience in plan.stores.items():
            store = self._stores.get(url)
            if store is None:
                store = self._stores[url] = RateStore(self.reactor, self.counters, url, self._note)
                store.start()
            store.patience = patience

    def _take_backends(self, plan: Plan) -> None:
        for name in [name for name in self.pools if name not in plan.configuration.backends]:
            self.pools.pop(name).leave()
            self._stop_health(name)
        for name, backend in plan.configuration.backends.items():
            pool, tls = self.pools.get(name), plan.connectors.get(name)
            if pool is not None and pool.config is backend and pool.tls is tls:
                continue
            if pool is None:
                pool = self.pools[name] = Pool(name, self.reactor, self.counters, self.reader, self._chance)
            pool.take_config(backend, tls, self.workers)
            health = self._health.get(name)
            if backend.health is None:
                self._stop_health(name)
            elif health is None or health.check != backend.health:
                self._stop_health(name)
                self._health[name] = Health(self.reactor, self.counters, self.reader, pool, backend.health)
                self._health[name].start()

    def _stop_health(self, name: str) -> None:
        health = self._health.pop(name, None)
        if health is not None:
            health.stop()

    def _take_ports(self, plan: Plan) -> None:
        for key in [key for key in self._sockets if key not in plan.ports]:
            acceptor = self._acceptors.pop(key, None)
            if acceptor is not None:
                acceptor.stop()
            self._sockets.pop(key).close()
        for key, port in plan.ports.items():
            acceptor = self._acceptors.get(key)
            if acceptor is None or acceptor.sock is not self._sockets[key]:
                if acceptor is not None:
                    acceptor.stop()
                acceptor = self._acceptors[key] = Acceptor(self, self._sockets[key], port)
            acceptor.port = port
            if not self.is_draining:
                acceptor.start()

    def drain(self, seconds: float, done: Callable[[], object]) -> None:
        """Take no more connections, end those that are idle, and the others after their request or the time."""
        self.is_draining = True
        for acceptor in self._acceptors.values():
            acceptor.stop()
        for client in list(self.clients):
            client.drain()
        end = self.reactor.now + seconds

        def look() -> None:
            if self.reactor.now >= end or not (self.clients or self.tunnels):
                done()
            else:
                self.later(0.02, look)

        look()

    def close(self) -> None:
        """Let go of everything at once."""
        for health in self._health.values():
            health.stop()
        for store in self._stores.values():
            store.stop()
        for client in list(self.clients):
            client.on_crash()
        for tunnel in list(self.tunnels):
            tunnel.abort()
        for mirrored in list(self.mirrors.open):
            mirrored.abort()
        for pool in self.pools.values():
            pool.leave()
        for sock in self._sockets.values():
            sock.close()
        for _ in range(3):  # streams are reset in the first round, the connection they had closes after it
            self.reactor.turn(0.0)
        self.pipes.close()
        self.reactor.close()

    # What connections ask

    def is_full(self, scope: Scope) -> bool:
        """Return whether as many connections are open as a gateway may have."""
        return scope.crowd.open >= math.ceil(scope.limits.connections / self.workers)

    def peer(self, address: str, remote_port: int, scheme: str, port: Port) -> Peer:
        """Return what is known of a connection."""
        return Peer(address, remote_port, scheme, (port.address, port.port), port.scope)

    def speak_http2(self, wire: Wire, peer: Peer, early: bytes = b"") -> bool:
        """Take up a connection of HTTP/2; return False where it is not spoken."""
        from pilothouse.traffic.plane.client2 import Client2  # noqa: PLC0415  # nghttp2 only where a client speaks it

        client = Client2(self, wire, peer)
        self.reactor.replace(wire.fd, client)
        client.begin(early)
        return True

    def upgrade_to_http2(self, client: Client1, early: bytes) -> bool:
        """Take over a connection whose client began with HTTP/2's preface."""
        self.clients.discard(client)
        client.deadline = math.inf
        return self.speak_http2(client.wire, client.peer, early)

    def traced(self, fields: FieldList) -> FieldList:
        """Return fields with a trace."""
        return traced(fields, self._chance)

    def nonce(self) -> bytes:
        """Return random bytes for a WebSocket's key."""
        return self._chance.randbytes(NONCE_BYTES)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do something after a while."""
        if seconds <= 0:
            self.reactor.soon(work)
        else:
            self.reactor.arm(_Later(work), self.reactor.now + seconds)

    def limit(self, decision: Decision, peer: Peer, exchange: Exchange) -> bool:
        """Count a request of a rule with a rate; return whether it goes on now, else it is `released` later.

        Raises Refused (429, or 503 where the store is away and nothing may pass without it).
        """
        rate = decision.rule.rate
        if rate is None:
            return True
        request, who = exchange.request, ""
        if rate.by == "address":
            who = peer.forwarding.client(request.fields)
        elif rate.by:
            who = (request.field(rate.by.lower().encode()) or b"").decode("latin-1")[:256]
        if rate.store:
            return self._limit_together(decision, rate, who, exchange)
        self._limit_alone(decision, rate, who)
        return True

    def _limit_alone(self, decision: Decision, rate: RateLimit, who: str) -> None:
        key = f"{decision.route}\0{decision.rule_name}\0{who}"
        if self.shares.take_token(key, rate.rate, rate.burst, self.reactor.now) > 0:
            raise Refused(429, "rate", "too many requests")

    def _limit_together(self, decision: Decision, rate: RateLimit, who: str, exchange: Exchange) -> bool:
        """Go by the limit that other gateways share."""
        store = self._stores.get(rate.store)
        pool = self.pools.get(decision.backend)
        key = store_key(decision.route, decision.rule_name, who)

        def told(is_allowed: bool | None) -> bool:
            error = None if is_allowed else Refused(429, "rate", "too many requests")
            if is_allowed is None:
                error = self._limit_away(decision, rate, who)
            return exchange.released(pool, error)

        try:
            is_allowed = store.spend(key, rate.rate, rate.burst, told) if store is not None and rate.rate > 0 else False
        except OverflowError:
            error = self._limit_away(decision, rate, who)
            if error is not None:
                raise error from None
            return True
        if is_allowed is False:
            raise Refused(429, "rate", "too many requests")
        return bool(is_allowed)

    def _limit_away(self, decision: Decision, rate: RateLimit, who: str) -> Refused | None:
        """Do what a limit says for when its store is away."""
        self.tally.happen("rate store away")
        if rate.away == "Deny":
            return Refused(503, "rate store", "the rate limit cannot be known now")
        if rate.away == "Local":
            try:
                self._limit_alone(decision, rate, who)
            except Refused as error:
                return error
        return None

    def mirror(
        self, decision: Decision, outgoing: Outgoing, pieces: Sequence[Buffer], trailers: FieldList | None
    ) -> list[Mirrored]:
        """Send copies where it is their turn, without waiting for answers; return those that want more of the body.

        pieces: what there is of it; trailers: behind it, None where more comes.
        """
        found = []
        for each in decision.mirrors:
            pool = self.pools.get(each.backend)
            if pool is not None and self.plan.router.is_mirrored(decision.rule, each, self.shares):
                made = Mirrored(self, pool, outgoing)
                if made.begin(pieces, trailers):
                    found.append(made)
        return found

    def tunnel(self, limits: Limits, left: End, right: End, ended: Callable[[Tunnel], object] | None = None) -> None:
        """Bind two ends to each other."""

        def over(tunnel: Tunnel) -> None:
            self.tunnels.discard(tunnel)
            if ended is not None:
                ended(tunnel)

        idle = max(limits.idle_seconds, limits.body_idle_seconds) * 48
        tunnel = Tunnel(self.reactor, self.pipes, left, right, idle, over)
        self.tunnels.add(tunnel)
        tunnel.begin()

    def refused(self, error: Refused, request: Request | None) -> None:
        """Count what was not let through, and tell of it once a second."""
        self.tally.refuse(error.kind)
        facts = {"status": str(error.status), "reason": str(error)}
        if request is not None:
            facts["host"] = request.host
        self._note(f"refused: {error.kind}", facts)

    def note(self, event: str, **facts: object) -> None:
        """Tell of something noteworthy."""
        self._note(event, {name: str(value) for name, value in facts.items()})

    def _note(self, event: str, facts: dict[str, str]) -> None:
        if self._told is None:
            return
        now = self.reactor.now
        if now - self._told_at.get(event, -math.inf) >= 1.0:
            self._told_at[event] = now
            self._told(event, facts)

    def refusal(self, error: Refused, decision: Decision | None, request: Request | None) -> tuple[Response, bytes]:
        """Return the answer to a request that is refused."""
        return refusal(error, is_grpc=decision is not None and decision.is_grpc, request=request)

    def count(self, exchange: Exchange, decision: Decision | None, began: float) -> None:
        """Count a request that is over, and write its line."""
        seconds = self.clock() - began
        key = exchange.key
        if key is not None:
            self.tally.end(key)
        self.tally.add(key or _NOWHERE, exchange.status, seconds, exchange.bytes_in, exchange.bytes_out)
        if exchange.status >= FAILURE or seconds > SLOW_SECONDS:
            self.sampler.add(exchange, decision, seconds, self._wall())
        if self.lines is not None:
            self._log(exchange, decision, seconds)

    def _log(self, exchange: Exchange, decision: Decision | None, seconds: float) -> None:
        from pilothouse.traffic.plane.accesslog import MOST, line_of  # noqa: PLC0415  # only where it is asked for

        if self.lines is None or len(self.lines) >= MOST:
            self.lost_lines += 1
        else:
            self.lines.append(line_of(exchange, decision, seconds))
