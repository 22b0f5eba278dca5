"""Running a manager as a program: how its server is reached, who may stop it, and errors as one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pilothouse.client import Client, ClientError, ConfigError
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.leaderelection import LeadershipLostError
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.lifeline import Lifeline
from pilothouse.foundation.retry import Backoff, RetriesExhausted, retry
from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.kinds.status import ApiStatus

from .errors import OperatorError
from .manager import Manager

__all__ = ["Beside", "run_manager", "until_changed", "until_served", "until_there"]

_PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 60.0
_COLLECTIONS: Final = (50_000, 20, 100)
"""When Python's collector runs. Objects that are read live on or go at once; looking for cycles among the young ones
after each 700, as it does by default, takes a sixth of the time of a manager that has much to read."""


class Beside(NamedTuple):
    """Another manager of the same process, with a user of its own."""

    make: Callable[[Client], Manager]
    kubeconfig: str


def run_manager(
    make: Callable[[Client], Manager],
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    beside: Sequence[Beside] = (),
    told: Mapping[str, str] | None = None,
) -> None:
    """Run the manager that `make` returns for a client, until SIGINT, SIGTERM or the end of who supervises it.

    kubeconfig, context: as kubectl finds them by default, or within a pod. beside: managers that run as long, and with
    which it ends. told: what who supervises it is to know when it works, such as addresses. A supervised process waits
    for the server, which starts at the same time. Raises CommandError.
    """
    gc.set_threshold(*_COLLECTIONS)
    try:
        _run(_work(make, kubeconfig, context, beside, told or {}))
    except (CacheSyncError, LeadershipLostError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except (ConfigError, tls.TlsError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (OperatorError, ClientError, ValueError) as error:
        raise CommandError(str(error)) from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


async def _work(
    make: Callable[[Client], Manager],
    kubeconfig: str | None,
    context: str | None,
    beside: Sequence[Beside],
    told: Mapping[str, str],
) -> None:
    lifeline = Lifeline.from_environment()
    files = [path for path in (kubeconfig, *(each.kubeconfig for each in beside)) if path]
    if lifeline is not None:
        for path in files:
            await until_there(path)
    chosen = bool(kubeconfig or context)
    async with contextlib.AsyncExitStack() as stack:
        client = Client.from_kubeconfig(kubeconfig, context=context) if chosen else Client.from_environment()
        await stack.enter_async_context(client)
        if lifeline is not None:
            await until_served(client)
        managers = [make(client)]
        for each in beside:
            own = await stack.enter_async_context(Client.from_kubeconfig(each.kubeconfig))
            managers.append(each.make(own))
        await _together(managers, lifeline, files, told)


async def _together(
    managers: Sequence[Manager], lifeline: Lifeline | None, files: Sequence[str], told: Mapping[str, str]
) -> None:
    """Run managers until one of them ends; signals stop the first. Raises what one of them raised."""
    running = [asyncio.create_task(each.run(signals=each is managers[0])) for each in managers]
    helping = None if lifeline is None else asyncio.create_task(_obey(lifeline, managers, files, told))
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for each in managers:
            each.stop()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):  # a second signal
                raise ended
    finally:
        if helping is not None:
            helping.cancel()


async def _obey(lifeline: Lifeline, managers: Sequence[Manager], files: Sequence[str], told: Mapping[str, str]) -> None:
    """Tell who supervises when all work, and stop when that is gone, or when one can be begun with a new kubeconfig."""

    def stop() -> None:
        for each in managers:
            each.stop()

    lifeline.watch(stop)
    for each in managers:
        await each.wait_started()
    lifeline.ready(**told)
    if files:
        changes = [asyncio.ensure_future(until_changed(path)) for path in files]
        try:
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for change in changes:
                change.cancel()
        stop()


async def until_there(path: str) -> None:
    """Wait for the kubeconfig that the server of a new platform writes first."""
    clock, files = SystemClock(), OsFileSystem()
    end = clock.monotonic() + _PATIENCE_SECONDS
    while not files.exists(path) and clock.monotonic() < end:
        await clock.sleep(_PAUSE_SECONDS)


async def until_changed(path: str, *, clock: Clock | None = None) -> None:
    """Wait until a kubeconfig says something else, as after its certificate was renewed. Raises OSError."""
    clock, before = clock or SystemClock(), _content(path)
    while True:
        await clock.sleep(_LOOK_SECONDS)
        with contextlib.suppress(FileNotFoundError):
            if _content(path) != before:
                return


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


async def until_served(client: Client) -> None:
    """Wait for the server; what cannot be waited for shows when caches are filled."""
    soon = Backoff(base=_PAUSE_SECONDS, factor=1.1, cap=1.0, attempts=None, deadline=_PATIENCE_SECONDS)
    with contextlib.suppress(RetriesExhausted):
        await retry(client.version, soon, retryable=(OSError, ApiStatus, ClientError))
