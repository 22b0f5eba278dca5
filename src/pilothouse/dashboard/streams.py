"""Server-sent events: a page's changes at a measured pace, and lines of a log. Follows the HTML standard."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from pilothouse.client.errors import ClientError
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import ApiStatus

from .numbers import Board, sample_for
from .pages import Items, Page, RolloutPage

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["PACE_SECONDS", "Out", "Wake", "difference", "message", "send_log", "send_page"]

PACE_SECONDS: Final = 0.25
"""Between two messages of a page: four a second, however much happens."""
_HEARTBEAT_SECONDS: Final = 15.0
_MOST_HELD: Final = 8
"""Of rounds that a page waits for its lists, so that it comes whole: a browser that comes back shows no empty one."""
_LOG_BATCH: Final = 500
_RETRY_MILLISECONDS: Final = 1_500


class Out(Protocol):
    """Where a stream goes."""

    @property
    def closed(self) -> bool:
        """Whether the peer has gone."""

    def write(self, data: bytes) -> None:
        """Send a piece."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""


class Wake:
    """A bell that can be rung by whoever changes something; as often as it may ring meanwhile, it is one ring."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return once it was rung, or after so long, and be quiet again."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


def message(event: str, data: Any, identity: str = "") -> bytes:
    """Return one message; JSON has no line breaks, so its data is one line."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {event}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def difference(before: Items, now: Items) -> dict[str, Any]:
    """Return what has to be set and what has gone to get from one state to the other; empty where nothing has."""
    changed = {key: each for key, each in now.items() if before.get(key) != each}
    gone = [key for key in before if key not in now]
    return ({"set": changed} if changed else {}) | ({"gone": gone} if gone else {})


async def send_page(
    out: Out,
    page: Page,
    wake: Wake,
    board: Board,
    *,
    last: str,
    is_over: Callable[[], bool],
    sees: Callable[[str], Awaitable[bool]],
) -> None:
    """Send a page whole, then what changes, until the peer goes or the session is over.

    last: the id of the last message that the peer has had, of before its connection broke: it has the numbers until
    then. sees: whether the user may look at routes of a namespace that is not the rollout's own.
    """
    out.write(f"retry: {_RETRY_MILLISECONDS}\n\n".encode())
    before: Items = {}
    seen, is_first, problem, held = int(last) if last.isdecimal() else 0, True, "", 0
    while not out.closed:
        if is_over():
            out.write(message("over", {}))
            return
        now = page.items()
        if is_first and now["about"]["loading"] and held < _MOST_HELD:
            held += 1
            await wake.wait(PACE_SECONDS)
            continue
        change = difference(before, now)
        if change or is_first:
            out.write(message("reset" if is_first else "change", change))
        elif not isinstance(page, RolloutPage):
            out.write(b": still here\n\n")
        before, is_first = now, False
        if isinstance(page, RolloutPage) and (rollout := page.digest) is not None:
            roles = {name: role for role, name in rollout["services"].items() if name}
            fresh = [each for each in board.samples if each.at > seen]
            if fresh:
                seen = fresh[-1].at
                routes = [each for each in rollout["routes"] if await _is_seen(each, rollout["namespace"], sees)]
                made = [sample_for(each, rollout["namespace"], routes, roles) for each in fresh]
                out.write(message("numbers", made, str(seen)))
            if board.problem != problem:
                problem = board.problem
                out.write(message("nonumbers", {"text": problem}))
        await out.drain()
        await asyncio.sleep(PACE_SECONDS)
        await wake.wait(_HEARTBEAT_SECONDS)


async def _is_seen(route: str, namespace: str, sees: Callable[[str], Awaitable[bool]]) -> bool:
    """Whether numbers of a route are shown: whoever makes a rollout may write any route into it."""
    where = route.partition("/")[0]
    return where == namespace or await sees(where)


async def send_log(  # noqa: PLR0913
    out: Out, client: Client, clock: Clock, namespace: str, pod: str, *, container: str, previous: bool, last: str
) -> None:
    """Send the lines of a container's log as they come.

    last: the time of the last line that the peer has had; it goes on after that.
    """
    out.write(f"retry: {_RETRY_MILLISECONDS}\n\n".encode())
    seconds = _since(last, clock.now())
    lines = client.pods.logs(
        pod,
        namespace,
        container=container,
        follow=not previous,
        previous=previous,
        tail_lines=None if seconds else 1_000,
        since_seconds=seconds,
        timestamps=True,
    )
    try:
        async with aclosing(_batched(lines)) as batches:
            async for batch in batches:
                if out.closed:
                    return
                fresh = [each for each in (line.split(" ", 1) for line in batch) if not last or each[0] > last]
                if not batch:
                    out.write(b": still here\n\n")
                elif fresh:
                    made = [{"at": each[0], "text": each[1] if len(each) > 1 else ""} for each in fresh]
                    out.write(message("lines", made, fresh[-1][0]))
                await out.drain()
        out.write(message("end", {"text": "the container has ended, or its log is no longer there"}))
    except ApiStatus as error:
        out.write(message("refused", {"text": error.message}))
    except (ClientError, OSError) as error:
        out.write(message("refused", {"text": str(error)}))


def _since(last: str, now: datetime) -> int:
    try:
        passed = (now - datetime.fromisoformat(last).astimezone(UTC)).total_seconds()
    except ValueError:
        return 0
    return max(1, math.ceil(passed) + 1)


async def _batched(lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[list[str], None]:
    """Give lines that come close together at once, at most so many; nothing now and then where none come."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(_LOG_BATCH)
    reading = asyncio.get_running_loop().create_task(_read(lines, queue))
    try:
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    found = [await queue.get()]
            except TimeoutError:
                yield []
                continue
            while found[-1] is not None and len(found) < _LOG_BATCH and not queue.empty():
                found.append(queue.get_nowait())
            if batch := [each for each in found if each is not None]:
                yield batch
            if found[-1] is None:
                await reading  # raises what went wrong
                return
            await asyncio.sleep(PACE_SECONDS / 2)
    finally:
        reading.cancel()


async def _read(lines: AsyncGenerator[bytes, None], queue: asyncio.Queue[str | None]) -> None:
    """Put lines into a queue, and None at the end."""
    try:
        async with aclosing(lines) as source:
            async for line in source:
                await queue.put(line.decode("utf-8", "replace"))
    except asyncio.CancelledError:
        raise
    except BaseException:
        await queue.put(None)
        raise
    await queue.put(None)
