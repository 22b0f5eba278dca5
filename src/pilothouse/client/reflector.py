"""Drives a reflector's core: lists, watches and waits as it says, and never ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from pilothouse.client.deadline import is_being_cancelled, noticing_silence, within
from pilothouse.client.errors import ClientError
from pilothouse.client.listwatch import ListerWatcher
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

_AT_ONCE: Final = 256
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
    silence_seconds: float = 150.0

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
            await self._follow(request)
        except (ApiStatus, OSError) as error:
            return self.core.watch_ended(error, self._clock.monotonic())
        return self.core.watch_ended(None, self._clock.monotonic())

    async def _follow(self, request: WatchRequest) -> None:
        core, consume = self.core, self._consumer.consume
        heard: Any = core.counts
        watched, replaced, taken = core.watched, heard.replaced, 0
        stream = self._lister_watcher.watch(request.options)
        silence = self._timeouts.silence_seconds
        async with aclosing(stream):
            try:
                async with noticing_silence(self._clock, silence, lambda: heard.events, f"watch of {core.name}"):
                    async for event in stream:
                        watched(event)
                        taken += 1
                        if heard.replaced != replaced:
                            replaced = heard.replaced
                            await self._consumer.consume_all()
                        elif taken % _AT_ONCE:
                            consume()
                        else:
                            await self._consumer.consume_all()
                            await self._clock.sleep(0)
            except TimeoutError:
                self.silences += 1
                raise

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
