"""A watch: lines from a stream, events from lines, and going on after the server ended the stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from pilothouse.foundation.clock import Clock
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import ApiStatus, Expired, Gone, TooManyRequests, from_dict

from .calls import Caller
from .codecs import RawEvent, read_events, read_header
from .errors import BadAnswer, TransportError
from .transport import Answer, ByteStream

__all__ = ["IDLE_SECONDS", "ObjectEvent", "event_lines", "lines_of", "raw_events", "refused", "resumed"]

T = TypeVar("T")

IDLE_SECONDS: Final = 90.0
"""Seconds of silence after which a watch with bookmarks counts as dead: servers send one each minute."""
_FAILURES: Final = 500
_MAX_LINE: Final = 64 << 20

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class ObjectEvent(msgspec.Struct, Generic[T], frozen=True):
    """One change that a watch tells of. A BOOKMARK's object has nothing but its resource version."""

    type: EventType
    object: T


async def lines_of(stream: ByteStream) -> AsyncGenerator[list[bytes], None]:
    """Give the whole lines of a stream as they come, those of one piece together. Raises BadAnswer for endless ones."""
    rest: list[bytes] = []
    size = 0
    async for piece in stream:
        if b"\n" not in piece:
            rest.append(piece)
            size += len(piece)
            if size > _MAX_LINE:
                raise BadAnswer(f"watch: a line of over {_MAX_LINE} bytes")
            continue
        lines = piece.split(b"\n")
        if rest:
            lines[0] = b"".join((*rest, lines[0]))
        last = lines.pop()
        rest, size = ([last], len(last)) if last else ([], 0)
        yield [line for line in lines if line]
    if rest:
        raise TransportError("watch: the stream ended within an event")


def refused(event: RawEvent) -> ApiStatus:
    """Make the error that an event of type ERROR carries."""
    try:
        found: Any = msgspec.json.decode(event.object)
    except msgspec.DecodeError:
        found = None
    return from_dict(found if isinstance(found, dict) else {"message": "the watch failed"}, code=500)


async def event_lines(answer: Answer) -> AsyncGenerator[list[bytes], None]:
    """Give the lines of an answer until its end, those that come together at once, and end it in any case."""
    stream = answer.stream
    if stream is None:
        raise BadAnswer("watch: the answer is no stream of events")
    try:
        async with aclosing(lines_of(stream)) as pieces:
            async for lines in pieces:
                yield lines
    finally:
        await stream.aclose()


async def raw_events(answer: Answer) -> AsyncGenerator[RawEvent, None]:
    """Give the events of an answer until its end, and end it in any case. Raises what an ERROR event carries."""
    async with aclosing(event_lines(answer)) as pieces:
        async for lines in pieces:
            for event in read_events(lines):
                if event.type == "ERROR":
                    raise refused(event)
                yield event


async def resumed(
    caller: Caller,
    target: str,
    version: str,
    clock: Clock,
    *,
    accept: str = "",
    idle: float = IDLE_SECONDS,
    backoff: Backoff | None = None,
) -> AsyncGenerator[RawEvent, None]:
    """Watch on and on: after each end and each break, from the last version seen.

    target: without resourceVersion. Raises Expired where that version is gone (list anew), and other refusals but
    those to wait (429) and failures of the server (5xx).
    """
    waits = backoff or Backoff(base=0.8, factor=2.0, jitter=0.5, cap=30.0, attempts=None)
    import random  # noqa: PLC0415  # only for these

    source = random.Random()  # noqa: S311
    delays = waits.delays(source)
    while True:
        since = f"&resourceVersion={version}" if version else ""
        seen = False
        try:
            answer = await caller.request("GET", target + since, stream=True, idle=idle, accept=accept)
            async with aclosing(raw_events(answer)) as events:
                async for event in events:
                    header = read_header(event.object)
                    if header is not None and header.metadata.resource_version:
                        version, seen = header.metadata.resource_version, True
                    yield event
        except Gone as error:
            raise Expired(error.message, error.details) from error
        except ApiStatus as error:
            if error.code < _FAILURES and not isinstance(error, TooManyRequests):
                raise
        except TransportError:
            if not version:
                raise
        if seen:
            delays = waits.delays(source)
        await clock.sleep(next(delays) if not seen else 0)
