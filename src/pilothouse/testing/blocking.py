"""The control plane for programs without asyncio: its loop turns in a thread, and calls wait for their answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from pilothouse.testing.caller import Caller, Object, Predicate

if TYPE_CHECKING:
    from pilothouse.apiserver.model import User
    from pilothouse.testing.plane import ControlPlane

__all__ = ["BlockingCaller", "BlockingPlane", "LoopThread"]

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a thread of its own: uvloop's where it is installed. `close` ends both."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="pilothouse-plane", daemon=True)
        self._thread.start()
        self._started.wait()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there and return what it returns; interrupted meanwhile, it is cancelled."""
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise RuntimeError("this control plane is not running; use it inside of its `with` block")
        loop, outcome, tasks = self._loop, Future[_T](), list[asyncio.Task[_T]]()

        def begin() -> None:
            tasks.append(loop.create_task(work))
            tasks[0].add_done_callback(lambda task: _settle(task, outcome))

        loop.call_soon_threadsafe(begin)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                # what it holds is let go before anybody goes on; `begin` comes first
                loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108  # it may not be there yet
                wait([outcome])
            raise

    def close(self) -> None:
        """Stop the loop, with all that still runs on it, and wait for the thread."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._stop.wait()


class BlockingCaller:
    """What one user may ask a control plane, as `Caller` does it; each call waits for its answer."""

    def __init__(self, caller: Caller, thread: LoopThread) -> None:
        self._caller = caller
        self._thread = thread

    @property
    def user(self) -> User:
        """Who asks."""
        return self._caller.user

    def call(self, method: str, path: str, body: object = None, *, content_type: str = "") -> Any:
        """Send one request and return the decoded answer; see `Caller.call`. Raises ApiStatus."""
        return self._thread.call(self._caller.call(method, path, body, content_type=content_type))

    def watch(self, path: str, *, since: str = "") -> Generator[tuple[str, Object], None, None]:
        """Yield the events of a watch, type and object, until the server ends it; see `Caller.watch`."""
        events = self._caller.watch(path, since=since)
        try:
            while (event := self._thread.call(_next(events))) is not None:
                yield event
        finally:
            self._thread.call(events.aclose())

    def wait_for(self, path: str, predicate: Predicate | None = None, *, timeout: float = 10.0) -> Any:
        """Follow an object or a collection until the predicate holds; see `Caller.wait_for`. Raises TimeoutError."""
        return self._thread.call(self._caller.wait_for(path, predicate, timeout=timeout))


class BlockingPlane(BlockingCaller):
    """A running control plane, as `with ControlPlane() as plane` gives it."""

    def __init__(self, plane: ControlPlane, thread: LoopThread) -> None:
        super().__init__(plane, thread)
        self.plane = plane
        """The control plane itself; only its own thread may call it."""

    def __repr__(self) -> str:
        return repr(self.plane)

    @property
    def kubeconfig(self) -> str:
        """The path of a kubeconfig of the administrator; the first use begins to serve HTTPS on loopback."""
        return self._thread.call(_get(lambda: self.plane.kubeconfig))

    @property
    def url(self) -> str:
        """Where HTTPS is served, begun with the first use."""
        return self._thread.call(_get(lambda: self.plane.url))

    @property
    def ca(self) -> bytes:
        """The certificate of the cluster's CA, PEM."""
        return self.plane.ca

    @property
    def token(self) -> str:
        """What the administrator shows as bearer token over HTTPS."""
        return self.plane.token

    def as_user(self, name: str, groups: Iterable[str] = ()) -> BlockingCaller:
        """Return calls as another user, who may do what RBAC grants."""
        return BlockingCaller(self.plane.as_user(name, groups), self._thread)

    def advance(self, seconds: float) -> None:
        """Move the plane's fake clock and let everything happen that falls due. Raises TypeError for a real clock."""
        self._thread.call(self.plane.advance(seconds))


def _settle(task: asyncio.Task[_T], outcome: Future[_T]) -> None:
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()  # only this wakes `wait`
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


async def _get(read: Callable[[], _T]) -> _T:
    return read()


async def _next(events: Any) -> tuple[str, Object] | None:
    return await anext(events, None)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    return uvloop.new_event_loop
