"""Working until a signal says to stop, from the first moment on at which something may be half done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, NoReturn

__all__ = ["SIGNALS", "leave_when_told", "until_told"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def leave_when_told() -> Callable[[], None]:
    """Have the program end in good order at a signal while there is nothing to put in order yet.

    For the time between a program's start and `until_told`, such as that of loading; in the main thread. Returns what
    gives the signals back to whoever had them.
    """
    before = {number: signal.signal(number, _leave) for number in SIGNALS}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return give_back


async def until_told(work: Coroutine[Any, Any, None], told: asyncio.Event | None = None) -> None:
    """Work until it is done, or until SIGTERM, SIGINT or `told` says to stop: then `work` is cancelled, once.

    Everything that is to be given back belongs into `finally` or context managers of `work`, also what is only begun.
    Raises what `work` raises.
    """
    told = told or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, told.set)
    working = asyncio.create_task(work, name="work")
    stopping = asyncio.create_task(told.wait(), name="told to stop")
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(0)  # raised, it could become another error within what is being loaded
