"""All repositories that applications use: a mirror each, asked for news together, whoever needs them told of it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeVar

from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.operator import Request

from .addresses import Address, normalised, parse_address
from .errors import RepositoryError
from .git import Access, Git
from .mirrors import Limits, Mirror
from .versions import References

__all__ = ["Polling", "Repositories", "User"]

U = TypeVar("U")
_KEEP: Final = float("inf")
_AFTER_ERROR_SECONDS: Final = 10.0
_AT_ONCE: Final = 2
_log = get_logger("pilothouse.delivery.gitops")


class User(NamedTuple):
    """Who uses a repository. kind: `application` or `set`."""

    kind: str
    request: Request


class Polling:
    """How often repositories are asked for news, in seconds. local: those of `file://`. jitter: the share added."""

    def __init__(self, seconds: float = 120.0, local: float = 3.0, jitter: float = 0.25) -> None:
        self.seconds: Final = seconds
        self.local: Final = local
        self.jitter: Final = jitter

    def of(self, address: Address) -> float:
        """Return the seconds for one repository."""
        return self.local if address.scheme == "file" else self.seconds


class Repositories(Generic[U]):
    """The mirrors, by address.

    directory: where they are. access: what opens a repository, of a project. changed: called with one whose references
    have changed, or that answers again, and its users. active: whether to go on asking.
    """

    def __init__(  # noqa: PLR0913  all but four have a default
        self,
        directory: str,
        *,
        access: Callable[[Address, str], Access],
        changed: Callable[[Mirror, list[U]], Awaitable[None]],
        active: Callable[[], bool],
        clock: Clock,
        polling: Polling | None = None,
        limits: Limits | None = None,
        source: random.Random | None = None,
        plain_http: bool = False,
    ) -> None:
        self.limits: Final = limits or Limits()
        self.git: Final = Git(os.path.join(directory, "git"))
        self._directory = os.path.join(directory, "mirrors")
        self._access = access
        self._changed = changed
        self._active = active
        self._clock = clock
        self._polling = polling or Polling()
        self._random = source or random.Random()  # noqa: S311  # jitter
        self._plain_http = plain_http
        self._mirrors: dict[str, Mirror] = {}
        self._users: dict[str, set[U]] = {}
        self._waiting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: list[str] = []

    def mirror(self, url: str, project: str = "") -> Mirror:
        """Return the mirror of a repository. Raises RepositoryError for an address that is not allowed."""
        address = parse_address(url, plain_http=self._plain_http)
        name = normalised(url)
        found = self._mirrors.get(name)
        if found is None:
            found = self._mirrors[name] = Mirror(address, self._directory, self.git, self._clock, self.limits)
        found.access = self._access(address, project)
        return found

    async def look(self, mirror: Mirror) -> References:
        """Return the references of a repository as they were last seen, and have it asked for news from now on."""
        name = normalised(mirror.address.url)
        try:
            found = await mirror.look(_KEEP)
        except RepositoryError:
            self._arm(name, min(_AFTER_ERROR_SECONDS, self._polling.of(mirror.address)))
            raise
        self._arm(name)
        return found

    def retry(self) -> None:
        """Have repositories that did not answer asked anew when they are next looked at, as credentials changed."""
        for mirror in self._mirrors.values():
            if mirror.failing:
                mirror.stale()

    def use(self, user: U, urls: list[str]) -> None:
        """Note which repositories somebody uses; none lets go of all."""
        names = {normalised(url) for url in urls}
        for name, users in [*self._users.items()]:
            if name not in names:
                users.discard(user)
                if not users:
                    del self._users[name]
        for name in names:
            self._users.setdefault(name, set()).add(user)

    def users(self, url: str) -> set[U]:
        """Return who uses a repository."""
        return self._users.get(normalised(url), set())

    def news(self, url: str) -> bool:
        """Have a repository asked at once, as a webhook says; return whether anybody uses it."""
        name = normalised(url)
        if name not in self._mirrors or name not in self._users:
            return False
        self._mirrors[name].stale()
        # One that waits for its turn will see this news too.
        if self._begun.count(name) < _AT_ONCE:
            self._begin(name)
        return True

    def matching(self, urls: list[str]) -> list[str]:
        """Return the addresses in use that mean the same as one of these, or differ only in transport."""
        wanted = {_bare(normalised(url)) for url in urls}
        return [name for name in self._users if _bare(name) in wanted]

    async def idle(self) -> None:
        """Wait until what is asked of repositories now is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def mirrors(self) -> list[Mirror]:
        """All mirrors."""
        return [*self._mirrors.values()]

    async def aclose(self) -> None:
        """End what is under way."""
        self._waiting = set(self._mirrors)  # nothing more is begun
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _arm(self, name: str, seconds: float = 0.0) -> None:
        if name in self._waiting:
            return
        self._waiting.add(name)
        mirror = self._mirrors[name]
        every = seconds or self._polling.of(mirror.address)
        every *= 1 + self._random.random() * self._polling.jitter

        def due() -> None:
            self._waiting.discard(name)
            if self._active() and name in self._users:
                self._begin(name)

        self._clock.call_later(every, due)

    def _begin(self, name: str) -> None:
        self._begun.append(name)
        task = asyncio.get_running_loop().create_task(self._poll(name))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._begun.remove(name)

        task.add_done_callback(ended)

    async def _poll(self, name: str) -> None:
        mirror = self._mirrors[name]
        before, failed = mirror.references, mirror.failing
        pause = 0.0
        mirror.stale()
        try:
            after = await mirror.look(0.0)
        except RepositoryError as error:
            pause = min(_AFTER_ERROR_SECONDS, self._polling.of(mirror.address))
            if not failed:
                _log.error("a repository does not answer", repository=mirror.address.url, error=str(error))
            changed = not failed
        else:
            changed = failed or after != before
        if changed:
            await self._changed(mirror, [*self._users.get(name, ())])
        self._arm(name, pause)


def _bare(url: str) -> str:
    return url.partition("://")[2]
