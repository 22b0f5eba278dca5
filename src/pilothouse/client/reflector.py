"""Drives a reflector's core: lists, watches and waits as it says, and never ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, Protocol, TypeVar

from pilothouse.client.collector import collector_paused
from pilothouse.client.deadline import is_being_cancelled, noticing_silence, within
from pilothouse.client.errors import ClientError
from pilothouse.client.listwatch import ListerWatcher, WatchEvent, WatchStream
from pilothouse.client.metrics import Distribution
from pilothouse.client.reflector_core import (
    Action,
    ListRequest,
    ReflectorCore,
    Wait,
    WatchRequest,
    is_expired,
)
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus

__all__ = ["Consumer", "Reflector", "Timeouts"]

T = TypeVar("T")

_AT_ONCE: Final = 64
"""Events taken before others get a turn of the event loop."""
_LOUD: Final = 3
"""Failures in a row from which on each is a warning."""

_log = get_logger("pilothouse.client.reflector")


class Consumer(Protocol):
    """What works off the changes that a core has put into its store."""

    def consume(self) -> None:
        """Work off a few changes, without waiting; cheap where there are none."""

    async def consume_all(self) -> None:
        """Work off all of them, letting others have their turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a server may be silent, in seconds.

    list_seconds: for a page of a list. silence_seconds: between two events of a watch; servers send a bookmark a
    minute, so that a connection that is half open shows. The watch is then begun again, which costs one request and
    no list.
    """

    list_seconds: float = 120.0
    silence_seconds: float = 90.0

    def __post_init__(self) -> None:
        """Refuse times that would cut every call."""
        if self.list_seconds <= 0 or self.silence_seconds <= 0:
            raise ValueError(
                f"timeouts: want positive seconds, got list_seconds={self.list_seconds} and "
                f"silence_seconds={self.silence_seconds}"
            )


class Reflector(Generic[T]):
    """Follows one resource of one server until it is cancelled; whatever is raised on the way is only a delay."""

    def __init__(
        self,
        lister_watcher: ListerWatcher[T],
        core: ReflectorCore[T],
        consumer: Consumer,
        *,
        clock: Clock | None = None,
        timeouts: Timeouts | None = None,
        on_error: Callable[[Exception], object] | None = None,
        pause_collector: bool = True,
    ) -> None:
        self.core: Final = core
        self.list_time: Final = Distribution()
        self.silences = 0
        """Watches that were given up because nothing was heard."""
        self._lister_watcher = lister_watcher
        self._consumer = consumer
        self._clock = clock or SystemClock()
        self._timeouts = timeouts or Timeouts()
        self._on_error = on_error
        self._pause_collector = pause_collector

    async def run(self) -> NoReturn:
        """Do what the core says, for ever."""
        action = self.core.begin(self._clock.monotonic())
        while True:
            try:
                action = await self._do(action)
            except (Exception, asyncio.CancelledError) as caught:
                if isinstance(caught, asyncio.CancelledError) and is_being_cancelled():
                    raise
                error = caught if isinstance(caught, Exception) else RuntimeError("what it waited for was cancelled")
                action = self.core.crashed(error, self._clock.monotonic())
                if not isinstance(error, ClientError):
                    _log.error("reflector failed; starting over", resource=self.core.name, exc_info=error)
            if isinstance(action, Wait):
                self._tell(action)

    async def _do(self, action: Action) -> Action:
        if isinstance(action, Wait):
            await self._clock.sleep(action.seconds)
            return self.core.waited(self._clock.monotonic())
        if isinstance(action, ListRequest):
            return await self._list(action)
        return await self._watch(action)

    async def _list(self, request: ListRequest) -> Action:
        if not self._pause_collector:
            return await self._list_all(request)
        with collector_paused(self._clock):
            return await self._list_all(request)

    async def _list_all(self, request: ListRequest) -> Action:
        began = self._clock.monotonic()
        try:
            async with within(self._clock, self._timeouts.list_seconds, f"list of {self.core.name}"):
                result = await self._lister_watcher.list(request.options)
        except (ApiStatus, OSError) as error:
            return self.core.list_failed(error, self._clock.monotonic())
        now = self._clock.monotonic()
        self.list_time.observe(now - began)
        following = self.core.listed(result, now)
        del result
        await self._consumer.consume_all()
        return following

    async def _watch(self, request: WatchRequest) -> Action:
        try:
            with ExitStack() as initial:
                if self.core.phase == "streaming" and self._pause_collector:
                    initial.enter_context(collector_paused(self._clock))
                await self._follow(request, initial)
        except (ApiStatus, OSError) as error:
            return self.core.watch_ended(error, self._clock.monotonic())
        return self.core.watch_ended(None, self._clock.monotonic())

    async def _follow(self, request: WatchRequest, initial: ExitStack) -> None:
        """Take the events of a watch until it ends; `initial` ends with the initial ones."""
        counts, silence = self.core.counts, self._timeouts.silence_seconds
        stream = self._lister_watcher.watch(request.options)
        async with aclosing(stream):
            try:
                async with noticing_silence(self._clock, silence, lambda: counts.events, f"watch of {self.core.name}"):
                    await self._take_all(stream, initial)
            except TimeoutError:
                self.silences += 1
                raise

    async def _take_all(self, stream: WatchStream[WatchEvent[T]], initial: ExitStack) -> None:
        watched, consume, counts = self.core.watched, self._consumer.consume, self.core.counts
        replaced, taken = counts.replaced, 0
        async for event in stream:
            watched(event)
            taken += 1
            if counts.replaced != replaced:
                replaced = counts.replaced
                await self._consumer.consume_all()
                initial.close()
            elif taken % _AT_ONCE:
                consume()
            else:
                await self._consumer.consume_all()
                await self._clock.sleep(0)

    def _tell(self, wait: Wait) -> None:
        error = self.core.last_error
        if error is None:
            return
        if self._on_error is not None:
            self._on_error(error)
        tell = _log.warning if self.core.failing >= _LOUD and not is_expired(error) else _log.info
        tell(
            "list or watch failed",
            resource=self.core.name,
            error=_text(error),
            failures=self.core.failing,
            again_in_seconds=round(wait.seconds, 1),
        )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
