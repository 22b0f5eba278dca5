"""Limits that several gateways share: a worker's connection to their Redis, within its reactor.

The protocol is hiredis' to read and write; asks of one round go in one write. A request waits for an answer no longer
than the limit's patience; then, and as long as the store cannot be reached, limits go by what they say for that case.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import ipaddress
import math
import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pilothouse.traffic.plane.leases import LEASE_SECONDS, Ask, Leases, Waiter
from pilothouse.traffic.plane.reactor import IN, OUT, Reactor, Timed
from pilothouse.traffic.plane.wires import Counters, Gone, Wire

if TYPE_CHECKING:
    import hiredis

__all__ = ["SCRIPT", "Place", "RateStore", "is_able", "place_of", "store_key"]

SCRIPT: Final = b"""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local step, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local granted = math.min(want, math.floor((now + burst * step - full) / step + 0.000001))
if want > 0 then granted = math.max(granted, 0) else granted = want end
full = math.max(full + granted * step, now)
if granted ~= 0 then
  redis.call('SET', KEYS[1], string.format('%.3f', full), 'PX', math.ceil((full - now) / 1000) + 1)
end
if granted >= want then return {granted, 0} end
return {granted, math.ceil(full + step - burst * step - now)}
"""
"""The generic cell rate algorithm for several tokens at a time, by the store's clock in microseconds.

A key holds when its bucket is full again, and is gone by then. Tokens that come back move that time back."""

_SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
_AGAIN_SECONDS: Final = (0.1, 5.0)
_CONNECT_SECONDS: Final = 2.0
_WAITING: Final = 4096
_ON_THEIR_WAY: Final = 8192
_CLOSED, _RESOLVING, _CONNECTING, _HANDSHAKE, _GREETING, _READY = range(6)


class Place(NamedTuple):
    """Where a store is. shown: for logs, without what is secret."""

    host: str
    port: int
    path: str
    is_tls: bool
    user: str
    password: str
    database: int
    authorities: str
    shown: str


def place_of(url: str) -> Place:
    """Read `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS, or `unix:///PATH[?db=N]`.

    `?ssl_ca_certs=FILE` names the authorities of a server by TLS. Raises ValueError, which does not repeat the URL: it
    may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise ValueError("the store's URL cannot be read; write redis://HOST:PORT/DATABASE") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("the store's URL has to begin with redis://, rediss:// or unix://")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    is_unix = parts.scheme == "unix"
    number = query.get("db", "0" if is_unix else parts.path.strip("/") or "0")
    if not number.isdigit() or (not parts.path if is_unix else not parts.hostname):
        raise ValueError("the store's URL lacks a host, or its database is no number; write redis://HOST:PORT/0")
    return Place(
        parts.hostname or "",
        port,
        parts.path if is_unix else "",
        parts.scheme == "rediss",
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        int(number),
        query.get("ssl_ca_certs", ""),
        _shown(parts, port),
    )


def _shown(parts: SplitResult, port: int) -> str:
    return f"unix://{parts.path}" if parts.scheme == "unix" else f"{parts.scheme}://{parts.hostname}:{port}{parts.path}"


def _packed(*parts: bytes | str | int) -> bytes:
    from hiredis import pack_command  # noqa: PLC0415  # an extra

    packed: bytes = pack_command(cast("tuple[bytes]", parts))  # its types know commands of one word only
    return packed


def is_able() -> bool:
    """Return whether the library is installed that stores need."""
    return importlib.util.find_spec("hiredis") is not None


def store_key(route: str, rule: str, who: str) -> bytes:
    """Return the key of a limit's bucket. Who is only there as a hash: it may be a token."""
    digest = hashlib.blake2b(who.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest() if who else "all"
    return f"pilothouse:rate:{route}:{rule}:{digest}".encode()


class RateStore(Timed):
    """One store of one worker. patience: seconds that a request waits at most.

    told: an event and its facts, for logs.
    """

    def __init__(
        self,
        reactor: Reactor,
        counters: Counters,
        url: str,
        told: Callable[[str, dict[str, str]], object],
    ) -> None:
        super().__init__()
        self.place = place_of(url)
        self.patience = 0.25
        self.is_away = False
        self.leases = Leases()
        self._reactor, self._counters, self._told = reactor, counters, told
        self._state = _CLOSED
        self._wire: Wire | None = None
        self._reader: hiredis.Reader | None = None
        self._sent: deque[tuple[Ask | None, float]] = deque()
        self._held = 0
        self._failures = 0
        self._is_sending = False
        self._resolver: _Resolver | None = None

    # What requests ask

    def spend(self, key: bytes, rate: float, burst: int, waiter: Waiter) -> bool | None:
        """Return whether a request may go on; None where `waiter` is told later.

        Raises OverflowError where the store does not say, being away or asked too much.
        """
        now = self._reactor.now
        answer = self.leases.spend(key, rate, burst, now)
        if answer is None:
            if self.is_away or self._held >= _WAITING or len(self._sent) >= _ON_THEIR_WAY:
                raise OverflowError
            self._held += 1
            self.leases.wait(key, waiter)
        if self.leases.has_asks:
            self._send_soon()
        return answer

    # Opening

    def start(self) -> None:
        """Connect."""
        self._open()

    def stop(self) -> None:
        """Let go; who waits is told that the store does not say."""
        self.deadline = math.inf
        self._close()
        for waiter in self.leases.failed():
            waiter(None)

    def _open(self) -> None:
        place = self.place
        self._reactor.arm(self, self._reactor.now + min(_CONNECT_SECONDS, self.patience))
        if place.path:
            self._connect(socket.AF_UNIX, place.path)
            return
        try:
            version = ipaddress.ip_address(place.host).version
        except ValueError:
            self._state = _RESOLVING
            self._resolver = _Resolver(self._reactor, place.host, place.port, self._resolved)
            return
        self._connect(socket.AF_INET6 if version == 6 else socket.AF_INET, (place.host, place.port))

    def _resolved(self, found: tuple[int, Any] | None) -> None:
        self._resolver = None
        if self._state != _RESOLVING:
            return
        if found is None:
            self._lost("its name cannot be resolved")
        else:
            self._connect(*found)

    def _connect(self, family: int, address: Any) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._lost(str(error))
            return
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._state = _CONNECTING
        failed = sock.connect_ex(address)
        if failed not in {0, errno.EINPROGRESS}:
            sock.close()
            self._lost(os.strerror(failed))
            return
        self._wire = Wire(self._reactor, sock, self._counters)
        self._wire.attach(self, OUT)

    def _connected(self, wire: Wire) -> None:
        failed = wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._lost(os.strerror(failed))
        elif self.place.is_tls:
            context = ssl.create_default_context(cafile=self.place.authorities or None)
            wire.secure(context.wrap_socket(wire.sock, server_hostname=self.place.host, do_handshake_on_connect=False))
            self._state = _HANDSHAKE
            self._shake(wire)
        else:
            self._greet(wire)

    def _shake(self, wire: Wire) -> None:
        assert isinstance(wire.sock, ssl.SSLSocket)  # noqa: S101
        try:
            wire.sock.do_handshake()
        except ssl.SSLWantReadError:
            wire.want(IN)
        except ssl.SSLWantWriteError:
            wire.want(OUT)
        else:
            self._greet(wire)

    def _greet(self, wire: Wire) -> None:
        import hiredis  # noqa: PLC0415  # an extra

        self._state = _GREETING
        self._reader = hiredis.Reader()
        place = self.place
        first: list[tuple[bytes | str | int, ...]] = []  # written at once, answered in this order
        if place.password:
            first.append(("AUTH", place.user, place.password) if place.user else ("AUTH", place.password))
        if place.database:
            first.append(("SELECT", place.database))
        first.append(("SCRIPT", "LOAD", SCRIPT))
        self._sent.extend((None, self._reactor.now) for _ in first)
        wire.want(IN)
        wire.send([_packed(*each) for each in first])

    # Asks and answers

    def _send_soon(self) -> None:
        if not self._is_sending and self._state == _READY:
            self._is_sending = True
            self._reactor.soon(self._send)

    def _send(self) -> None:
        self._is_sending = False
        wire, now = self._wire, self._reactor.now
        if wire is None or self._state != _READY:
            return
        asks = self.leases.asks(now)
        if not asks:
            return
        packed = [
            _packed("EVALSHA", _SHA, 1, each.key, f"{1e6 / each.rate:.3f}", each.burst, each.tokens) for each in asks
        ]
        self._sent.extend((each, now) for each in asks)
        try:
            wire.send((b"".join(packed),))
        except Gone as error:
            self._lost(str(error))
            return
        self._watch()

    def _watch(self) -> None:
        """Look again when the oldest ask is late, or leases are to be given back."""
        late = self._sent[0][1] + self.patience if self._sent else math.inf
        if len(self.leases):
            late = min(late, self._reactor.now + LEASE_SECONDS)
        self._reactor.arm(self, late)

    def on_event(self, events: int) -> None:
        wire = self._wire
        if wire is None:
            return
        try:
            if self._state == _CONNECTING:
                self._connected(wire)
            elif self._state == _HANDSHAKE:
                self._shake(wire)
            else:
                if events & OUT:
                    wire.flush()
                self._read(wire)
        except (Gone, OSError, ValueError) as error:
            self._lost(str(error) or type(error).__name__)

    def _read(self, wire: Wire) -> None:
        reader = self._reader
        while reader is not None and (came := wire.receive()) is not None:
            if not came:
                self._lost("it closed the connection")
                return
            reader.feed(bytes(came))
            while self._wire is wire and (reply := reader.gets()) is not False:
                self._take(reply)
            if self._wire is not wire:
                return

    def _take(self, reply: Any) -> None:
        if not self._sent:
            self._lost("it says what nobody asked")
            return
        ask, _ = self._sent.popleft()
        if isinstance(reply, Exception):
            self._lost(str(reply))
        elif ask is not None:
            self._answered(ask, reply)
        elif not self._sent and self._state == _GREETING:
            self._ready()

    def _ready(self) -> None:
        self._state, self._failures = _READY, 0
        if self.is_away:
            self.is_away = False
            self._told("rate limits go by their store again", {"store": self.place.shown})
        self._send_soon()
        self._watch()

    def _answered(self, ask: Ask, reply: Any) -> None:
        granted, wait = reply
        for waiter, is_allowed in self.leases.answered(ask, int(granted), int(wait) / 1e6, self._reactor.now):
            self._held -= 1
            if waiter(is_allowed) is False and is_allowed:
                self.leases.put_back(ask.key)
        if self.leases.has_asks:
            self._send_soon()
        self._watch()

    # Ends

    def on_deadline(self) -> None:
        now = self._reactor.now
        if self._state == _CLOSED:
            self._open()
            return
        if self._state != _READY:
            self._lost("it cannot be reached in time")
            return
        if self._sent and self._sent[0][1] + self.patience <= now:
            self._lost("it does not answer in time")
            return
        self.leases.sweep(now)
        if self.leases.has_asks:
            self._send()
        self._watch()

    def on_crash(self) -> None:
        self._lost("internal error")

    def _lost(self, reason: str) -> None:
        """Go on without it, and try again after a while."""
        self._close()
        self.is_away = True
        least, most = _AGAIN_SECONDS
        self._reactor.arm(self, self._reactor.now + min(most, least * 2**self._failures))
        self._failures = min(self._failures + 1, 10)
        self._told("rate limits go without their store", {"store": self.place.shown, "reason": reason})
        for waiter in self.leases.failed():
            waiter(None)

    def _close(self) -> None:
        self._state = _CLOSED
        self._sent.clear()
        self._held = 0
        self._reader = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        if self._resolver is not None:
            self._resolver.forget()
            self._resolver = None


class _Resolver:
    """Looks up a name in a thread of its own: the system's resolver blocks."""

    def __init__(
        self, reactor: Reactor, host: str, port: int, done: Callable[[tuple[int, Any] | None], object]
    ) -> None:
        self._reactor, self._done = reactor, done
        self._found: tuple[int, Any] | None = None
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        reactor.register(self._fd, self, IN)
        self._is_forgotten = False
        threading.Thread(target=self._look, args=(host, port), daemon=True, name="resolver").start()

    def _look(self, host: str, port: int) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._found = (family, address)
        os.eventfd_write(self._fd, 1)

    def on_event(self, events: int) -> None:
        del events
        self._reactor.release(self._fd)
        os.close(self._fd)
        if not self._is_forgotten:
            self._done(self._found)

    def on_crash(self) -> None:
        """Leave it: the store tries again."""

    def forget(self) -> None:
        """Tell nobody; the thread ends when the system says something."""
        self._is_forgotten = True
