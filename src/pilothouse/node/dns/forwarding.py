"""Questions about other names, asked of the machine's resolvers: one flight for all who ask, answers kept a while."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .wire import NOERROR, NXDOMAIN, BadQuery, Query, ttl_places, without_opt

__all__ = ["Forwarder", "Upstream", "UpstreamFailed"]

_MOST_KEPT: Final = 10_000
_LONGEST_KEPT: Final = 30.0
_MOST_BYTES: Final = 4_096
_EDNS: Final = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


class UpstreamFailed(Exception):
    """No resolver answered, or too many questions wait already."""


class Upstream(NamedTuple):
    """One resolver."""

    address: str
    port: int = 53


class _Kept(NamedTuple):
    answer: bytes
    places: list[tuple[int, int]]
    at: float
    until: float


class Forwarder:
    """Asks resolvers in turn, over UDP and, where an answer is cut, over TCP.

    upstreams: function that returns them as they are now. seconds: for each try. flights: questions at a time; beyond,
    `UpstreamFailed`. Answers are kept as long as they say, 30 s at most, 10,000 of them.
    """

    def __init__(
        self,
        upstreams: Callable[[], Sequence[Upstream]],
        *,
        seconds: float = 2.0,
        flights: int = 512,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._seconds = seconds
        self._most = flights
        self._now = now
        self._kept: OrderedDict[tuple[str, int, int], _Kept] = OrderedDict()
        self._flights: dict[tuple[str, int, int], asyncio.Task[bytes]] = {}
        self.hits = 0
        self.asked = 0

    async def ask(self, query: Query) -> bytes:
        """Return a whole answer, with an id and a question to be replaced. Raises `UpstreamFailed`."""
        key = query.name, query.kind, query.cls
        kept = self._kept.get(key)
        if kept is not None and self._now() < kept.until:
            self.hits += 1
            return _aged(kept, self._now())
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._most:
                raise UpstreamFailed(f"{self._most} questions wait for resolvers already")
            flight = asyncio.get_running_loop().create_task(self._fly(query))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        # One who gives up takes the answer from nobody else.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Give up what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, query: Query) -> bytes:
        reasons = []
        for upstream in self._upstreams():
            try:
                answer = await self._try(upstream, query)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, BadQuery) as error:
                reasons.append(f"{upstream.address}: {str(error) or type(error).__name__}")
                continue
            answer = without_opt(answer)
            self._keep(query, answer)
            return answer
        raise UpstreamFailed("; ".join(reasons) or "there is no resolver")

    async def _try(self, upstream: Upstream, query: Query) -> bytes:
        self.asked += 1
        number = secrets.randbits(16)
        head = number.to_bytes(2, "big") + (query.flags & 0x0110).to_bytes(2, "big") + b"\0\1\0\0\0\0\0\1"
        question = head + query.question + _EDNS
        async with asyncio.timeout(self._seconds):
            answer = await _over_udp(upstream, question)
        if answer[2] & 2:
            async with asyncio.timeout(self._seconds):
                answer = await _over_tcp(upstream, question)
        if answer[:2] != question[:2]:
            raise BadQuery(None)
        return answer

    def _keep(self, query: Query, answer: bytes) -> None:
        if answer[3] & 0x0F not in {NOERROR, NXDOMAIN}:
            return
        try:
            places = ttl_places(answer)
        except BadQuery:
            return
        seconds = min([_LONGEST_KEPT, *(ttl for _, ttl in places)]) if places else 0.0
        if seconds <= 0:
            return
        now = self._now()
        self._kept[query.name, query.kind, query.cls] = _Kept(answer, places, now, now + seconds)
        self._kept.move_to_end((query.name, query.kind, query.cls))
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


class _Asking(asyncio.DatagramProtocol):
    """One question over UDP; only what answers it is taken."""

    def __init__(self, question: bytes) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._question = question

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # it is connected
        asked = self._question[12 : -len(_EDNS)].lower()
        is_fitting = len(data) >= 12 and data[:2] == self._question[:2] and data[2] & 0x80
        if is_fitting and data[12 : 12 + len(asked)].lower() == asked and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(upstream: Upstream, question: bytes) -> bytes:
    # A socket of its own for each question: its port is as hard to guess as its id.
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Asking(question), remote_addr=(upstream.address, upstream.port)
    )
    try:
        transport.sendto(question)
        return await protocol.answer
    finally:
        transport.close()


async def _over_tcp(upstream: Upstream, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(upstream.address, upstream.port)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _aged(kept: _Kept, now: float) -> bytes:
    age = int(now - kept.at)
    if not age:
        return kept.answer
    answer = bytearray(kept.answer)
    for at, ttl in kept.places:
        answer[at : at + 4] = max(ttl - age, 0).to_bytes(4, "big")
    return bytes(answer)
