"""Calling what users wrote, within a time limit: coroutines on the loop, plain functions on threads.

A plain function that blocks would stop everything else of the operator if it ran on the loop. On a thread of its own it
only misses its time limit; the thread is given up, and how many there may be is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from pilothouse.foundation.clock import Clock

__all__ = ["Late", "Overloaded", "Runner"]

T = TypeVar("T")

_THREADS: Final = 32


class Overloaded(RuntimeError):
    """As many plain functions as there may be are running, and none has returned."""


class Late(Exception):
    """The time was over."""


class Runner:
    """Calls functions. clock: ends what takes too long. threads: how many plain functions may run at once."""

    def __init__(self, clock: Clock, threads: int = _THREADS) -> None:
        self._clock = clock
        self._threads = threads
        self.busy = 0
        """Threads that run now, given-up ones included."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function or coroutine function and return its result. Raises Overloaded, and what it raises."""
        try:
            if _is_async(function):
                return await function(*arguments)
            found = await self._on_thread(function, arguments)
            return await found if inspect.isawaitable(found) else found
        except SystemExit as error:
            # On its way up it would end the event loop, and with it the whole operator.
            raise RuntimeError(f"it called exit({error.code!r})") from error

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Await something for so long at most; it is given up even if it does not end when cancelled.

        Raises Late, and what it raises.
        """
        loop = asyncio.get_running_loop()
        task, late = loop.create_task(work), loop.create_future()

        def expire() -> None:
            if not late.done():
                late.set_result(None)

        timer = self._clock.call_later(seconds, expire)
        try:
            await asyncio.wait([task, late], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Late
            if task.cancelled():
                raise RuntimeError("it was cancelled from within")
            return task.result()
        finally:
            timer.cancel()
            if not task.done():
                task.cancel()
                task.add_done_callback(_looked_at)

    async def _on_thread(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self.busy >= self._threads:
            raise Overloaded(
                f"{self.busy} plain functions of webhooks do not return; write what waits as a coroutine function"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        self.busy += 1

        def finish(result: Any, error: BaseException | None) -> None:
            self.busy -= 1
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                fits = isinstance(error, Exception | SystemExit) and not isinstance(error, StopIteration)
                future.set_exception(error if fits else RuntimeError(repr(error)))

        def work() -> None:
            result, failed = None, None
            try:
                result = context.run(function, *arguments)
            except BaseException as error:  # noqa: BLE001  handed to whoever waits
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(finish, result, failed)

        # A daemon: one that never returns does not keep the process from ending.
        threading.Thread(target=work, name="webhook", daemon=True).start()
        return await future


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  what it does when called


def _looked_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
