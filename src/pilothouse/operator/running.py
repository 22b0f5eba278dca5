"""Running a manager as a program: how its server is reached, who may stop it, and errors as one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Final

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

__all__ = ["run_manager", "until_changed", "until_served", "until_there"]

_PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 60.0
_COLLECTIONS: Final = (50_000, 20, 100)
"""When Python's collector runs. Objects that are read live on or go at once; looking for cycles among the young ones
after each 700, as it does by default, takes a sixth of the time of a manager that has much to read."""


def run_manager(
    make: Callable[[Client], Manager], *, kubeconfig: str | None = None, context: str | None = None
) -> None:
    """Run the manager that `make` returns for a client, until SIGINT, SIGTERM or the end of who supervises it.

    kubeconfig, context: as kubectl finds them by default, or within a pod. A supervised process waits for the server,
    which starts at the same time. Raises CommandError.
    """
    gc.set_threshold(*_COLLECTIONS)
    try:
        _run(_work(make, kubeconfig, context))
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


async def _work(make: Callable[[Client], Manager], kubeconfig: str | None, context: str | None) -> None:
    lifeline = Lifeline.from_environment()
    if lifeline is not None and kubeconfig:
        await until_there(kubeconfig)
    chosen = bool(kubeconfig or context)
    async with Client.from_kubeconfig(kubeconfig, context=context) if chosen else Client.from_environment() as client:
        if lifeline is not None:
            await until_served(client)
        manager = make(client)
        running = asyncio.create_task(manager.run(signals=True))
        helping = None if lifeline is None else asyncio.create_task(_obey(lifeline, manager, kubeconfig))
        try:
            with contextlib.suppress(asyncio.CancelledError):  # a second signal
                await running
        finally:
            if helping is not None:
                helping.cancel()


async def _obey(lifeline: Lifeline, manager: Manager, kubeconfig: str | None) -> None:
    """Tell who supervises when it works, and stop when that is gone, or when it can be begun with a new kubeconfig."""
    lifeline.watch(manager.stop)
    await manager.wait_started()
    lifeline.ready()
    if kubeconfig:
        await until_changed(kubeconfig)
        manager.stop()


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
