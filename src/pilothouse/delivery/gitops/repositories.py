"""All repositories that applications use: a mirror each, asked for news together, whoever needs them told of it."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

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
T = TypeVar("T")
_KEEP: Final = float("inf")
_AFTER_ERROR_SECONDS: Final = 10.0
_AT_ONCE: Final = 2
_PATIENCE_SECONDS: Final = 10.0
_LATE_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before a repository is asked again that does not have yet what a webhook told: some hosts send it earlier."""
_PORT: Final = re.compile(r":\d+$")
_OTHER_NAME: Final = re.compile(r"^(alt)?ssh\.(?=[^.]+\.)")
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
        self._working: dict[tuple[str, str], asyncio.Future[Any]] = {}
        self._late: set[tuple[str, str]] = set()
        self._told: dict[str, tuple[str, int]] = {}

    def mirror(self, url: str, project: str = "") -> Mirror:
        """Return the mirror of a repository. Raises RepositoryError for an address that is not allowed.

        What credentials of one project open is mirrored for that project alone.
        """
        address = parse_address(url, plain_http=self._plain_http)
        access = self._access(address, project)
        key = self._key(url, access)
        found = self._mirrors.get(key)
        if found is None:
            found = Mirror(address, self._directory, self.git, self._clock, self.limits, key=key)
            self._mirrors[key] = found
        found.access = access
        return found

    def access(self, url: str, project: str = "") -> Access:
        """Return what opens a repository of any kind, by its address."""
        return self._access(Address(url, "", urlsplit(url if "://" in url else f"oci://{url}").hostname or ""), project)

    @staticmethod
    def _key(url: str, access: Access) -> str:
        return f"{normalised(url)}#{access.scope}" if access.scope else normalised(url)

    async def look(self, mirror: Mirror) -> tuple[References, str]:
        """Return the references of a repository as they were last seen, and have it asked for news from now on.

        With them comes why they may be old, an empty text otherwise. Raises RepositoryError where none are known.
        """
        try:
            found = await self._patiently((mirror.key, "references"), mirror, lambda: mirror.look(_KEEP))
        except RepositoryError as error:
            self._arm(mirror.key, min(_AFTER_ERROR_SECONDS, self._polling.of(mirror.address)))
            if not mirror.references.commits:
                raise
            return mirror.references, f"{mirror.address.url}: {error}; going on with what was seen of it before"
        self._arm(mirror.key)
        return found, ""

    async def fetched(self, mirror: Mirror, commit: str) -> None:
        """Have a commit in a mirror. Raises SourceError, also where that takes its time: its users are told then."""
        await self._patiently((mirror.key, commit), mirror, lambda: mirror.ensure(commit))

    async def _patiently(self, what: tuple[str, str], mirror: Mirror, work: Callable[[], Awaitable[T]]) -> T:
        """Wait some seconds for work that others may wait for too; a repository that hangs holds up nobody for long."""
        task = self._working.get(what)
        if task is None:
            task = self._working[what] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._worked(what, done))
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        if not done:
            self._late.add(what)
            raise RepositoryError(f"{mirror.address.url}: it is still being asked or fetched")
        return cast("T", task.result())

    def _worked(self, what: tuple[str, str], done: asyncio.Future[Any]) -> None:
        del self._working[what]
        if not done.cancelled():
            done.exception()  # whoever waited has it
        if what in self._late:
            self._late.discard(what)
            self._start(self._tell(what[0]), what[0])

    def retry(self) -> None:
        """Have repositories that did not answer asked anew when they are next looked at, as credentials changed."""
        for mirror in self._mirrors.values():
            if mirror.failing:
                mirror.stale()

    def use(self, user: U, urls: list[str], project: str = "") -> None:
        """Note which repositories somebody uses; none lets go of all."""
        names = set()
        for url in urls:
            try:
                names.add(self.mirror(url, project).key)
            except RepositoryError:
                continue  # told when it is looked at
        for name, users in [*self._users.items()]:
            if name not in names:
                users.discard(user)
                if not users:
                    del self._users[name]
        for name in names:
            self._users.setdefault(name, set()).add(user)

    def news(self, url: str, commit: str = "") -> bool:
        """Have a repository asked at once, as a webhook says; return whether anybody uses it.

        commit: what a branch of it is said to have now; where none has, it is asked some times more.
        """
        found = [key for key in self._users if key.partition("#")[0] == normalised(url)]
        for key in found:
            self._mirrors[key].stale()
            if commit:
                self._told[key] = commit, 0
            # One that waits for its turn will see this news too.
            if self._begun.count(key) < _AT_ONCE:
                self._start(self._poll(key), key)
        return bool(found)

    def matching(self, urls: list[str]) -> list[str]:
        """Return the addresses in use that mean the same as one of these, or differ only in transport and port."""
        wanted = {_bare(normalised(url)) for url in urls}
        used = {key.partition("#")[0] for key in self._users}
        return sorted(name for name in used if _bare(name) in wanted)

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
        self._told.clear()
        self._late.clear()
        under_way = [*self._tasks, *self._working.values()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

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
                self._start(self._poll(name), name)

        self._clock.call_later(every, due)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._begun.append(name)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._begun.remove(name)

        task.add_done_callback(ended)

    async def _tell(self, name: str) -> None:
        await self._changed(self._mirrors[name], [*self._users.get(name, ())])

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
            await self._tell(name)
        self._arm(name, pause)
        self._await_told(name)

    def _await_told(self, name: str) -> None:
        """Ask soon again where a webhook told of a commit that is not to be seen yet."""
        commit, tries = self._told.pop(name, ("", 0))
        is_there = commit in self._mirrors[name].references.commits.values()
        if not commit or is_there or tries == len(_LATE_SECONDS) or name not in self._users:
            return
        self._told[name] = commit, tries + 1

        def due() -> None:
            if self._active() and name in self._told and self._begun.count(name) < _AT_ONCE:
                self._start(self._poll(name), name)

        self._clock.call_later(_LATE_SECONDS[tries], due)


def _bare(url: str) -> str:
    """Return what two addresses of the same repository have in common: `ssh.` is a host's other name for ssh."""
    host, slash, path = url.partition("://")[2].partition("/")
    return f"{_OTHER_NAME.sub('', _PORT.sub('', host))}{slash}{path}"
