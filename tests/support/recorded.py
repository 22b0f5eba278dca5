"""What a server answered, kept as text and given again: a transport that records, and one that replays.

A file is lines. `>` is a request; `<` its status and media type; lines of JSON are the body, or the events of a stream;
`!` says how that ended: whole, end (the server closed it), broken, or open (it went on when the recording ended). `=`
says what came of it all, and `#` begins a comment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse.client.errors import TransportError
from pilothouse.client.transport import Answer, ByteStream, Transport

__all__ = ["Exchange", "Recorder", "Replayer", "Take", "read_take", "write_take"]

_MEDIA = "application/json"


@dataclass
class Exchange:
    """A request, and what was answered."""

    request: str
    status: int = 0
    media: str = _MEDIA
    body: bytearray = field(default_factory=bytearray)
    end: str = "open"


@dataclass
class Take:
    """All that one client asked, and what is true afterwards."""

    comment: str
    exchanges: list[Exchange] = field(default_factory=list)
    outcome: dict[str, str] = field(default_factory=dict)


def write_take(take: Take, path: Path) -> None:
    """Write a file."""
    lines = [f"# {line}" for line in take.comment.splitlines()]
    for exchange in take.exchanges:
        lines += ["", f"> {exchange.request}", f"< {exchange.status} {exchange.media}"]
        lines += [line for line in exchange.body.decode().split("\n") if line]
        lines.append(f"! {exchange.end}")
    lines += ["", *(f"= {name} {value}".rstrip() for name, value in take.outcome.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_take(path: Path) -> Take:
    """Read a file."""
    take = Take("")
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, rest = line[:1], line[2:]
        if mark == ">":
            take.exchanges.append(Exchange(rest))
        elif mark == "<":
            status, _, take.exchanges[-1].media = rest.partition(" ")
            take.exchanges[-1].status = int(status)
        elif mark == "!":
            take.exchanges[-1].end = rest
        elif mark == "=":
            name, _, take.outcome[name] = rest.partition(" ")
        elif mark == "#":
            take.comment += f"{rest}\n"
        elif line:
            take.exchanges[-1].body += f"{line}\n".encode()
    return take


class Recorder:
    """Keeps all that another transport answers, without what only hinders reading: compression."""

    def __init__(self, inner: Transport) -> None:
        self.exchanges: list[Exchange] = []
        self._inner = inner

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", **options: Any) -> Answer:
        exchange = Exchange(f"{method} {target}")
        self.exchanges.append(exchange)
        try:
            answer = await self._inner.request(method, target, headers, body, **options)
        except OSError:
            exchange.end = "broken"
            raise
        exchange.status, exchange.media = answer.status, answer.header("content-type")
        if answer.stream is None:
            exchange.body += answer.body
            exchange.end = "whole"
            return answer
        return Answer(answer.status, answer.headers, stream=_Kept(answer.stream, exchange))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Kept:
    def __init__(self, inner: ByteStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._inner.__anext__()
        except StopAsyncIteration:
            self._exchange.end = "end"
            raise
        except OSError:
            self._exchange.end = "broken"
            raise
        self._exchange.body += piece
        return piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class Replayer:
    """Answers as a server did once; it wants to be asked the same, in the same order. `cut`: into pieces of a size."""

    def __init__(self, take: Take, *, cut: int = 1 << 30) -> None:
        self.left = [*take.exchanges]
        self.surprises: list[str] = []
        self._cut = cut

    async def request(self, method: str, target: str, *_: Any, **__: Any) -> Answer:
        asked = f"{method} {target}"
        if not self.left or self.left[0].request != asked:
            wanted = self.left[0].request if self.left else "nothing"
            self.surprises.append(f"asked {asked}, recorded {wanted}")
            raise TransportError(self.surprises[-1])
        exchange = self.left.pop(0)
        if not exchange.status:
            raise TransportError("it broke, as it was recorded")
        headers = [("content-type", exchange.media)]
        if exchange.end == "whole":
            return Answer(exchange.status, headers, bytes(exchange.body))
        return Answer(exchange.status, headers, stream=_Again(exchange, self._cut))

    async def aclose(self) -> None: ...


class _Again:
    def __init__(self, exchange: Exchange, cut: int) -> None:
        body = bytes(exchange.body)
        self._pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
        self._end = exchange.end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self._pieces:
            return self._pieces.pop(0)
        if self._end == "broken":
            raise TransportError("it broke, as it was recorded")
        if self._end == "open":
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._pieces.clear()
