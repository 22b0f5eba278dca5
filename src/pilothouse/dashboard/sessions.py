"""Who is logged in: a bounded number of sessions, each with its user's own client, and when they end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids

if TYPE_CHECKING:
    from pilothouse.client import Client

    from .feeds import Feeds

__all__ = ["COOKIE", "Session", "Sessions", "TooManySessions", "cookie_of"]

COOKIE: Final = "__Host-pilothouse"
"""The prefix has browsers take it only over TLS and give it to no other host."""


class TooManySessions(Exception):
    """As many are logged in as may be at once."""


@dataclass(slots=True, eq=False)
class Session:
    """One login. csrf: what requests that change something have to show. streams: pages that are open now."""

    user: str
    groups: tuple[str, ...]
    csrf: str
    client: Client = field(repr=False)
    feeds: Feeds = field(repr=False)
    began: float = 0.0
    used: float = 0.0
    streams: int = 0
    namespace: str = "default"
    rights: dict[tuple[str, ...], tuple[float, bool]] = field(default_factory=dict)


class Sessions:
    """Sessions by their cookie's digest; the cookie itself is kept nowhere.

    idle_seconds: without a request and without an open page. most_seconds: from login, however busy. most: at once.
    """

    def __init__(
        self, clock: Clock, ids: Ids, *, idle_seconds: float = 1_800.0, most_seconds: float = 86_400.0, most: int = 64
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._idle = idle_seconds
        self._longest = most_seconds
        self._most = most
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def full(self) -> bool:
        """Whether nobody else can log in now."""
        return len(self._sessions) >= self._most

    def new_csrf(self) -> str:
        """Return a secret for a session."""
        return self._ids.token()

    def add(self, session: Session) -> str:
        """Take up a session and return its cookie's value. Raises TooManySessions."""
        if self.full:
            raise TooManySessions(f"{self._most} people are logged in already; try again when one has logged out")
        cookie = self._ids.token()
        session.began = session.used = self._clock.monotonic()
        self._sessions[_digest(cookie)] = session
        return cookie

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, which counts as its use; None where there is none or it is over."""
        found = self._sessions.get(_digest(cookie)) if cookie else None
        if found is None or self._is_over(found):
            return None
        found.used = self._clock.monotonic()
        return found

    def remove(self, session: Session) -> None:
        """Forget a session; more than once is fine. Its client is the caller's to close."""
        for key, each in self._sessions.items():
            if each is session:
                del self._sessions[key]
                return

    def over(self) -> list[Session]:
        """Remove the sessions whose time is over and return them."""
        ended = [each for each in self._sessions.values() if self._is_over(each)]
        for each in ended:
            self.remove(each)
        return ended

    def is_over(self, session: Session) -> bool:
        """Whether a session's time is over, or it is logged out."""
        return self._is_over(session) or not any(each is session for each in self._sessions.values())

    def __iter__(self) -> Iterator[Session]:
        return iter([*self._sessions.values()])

    def _is_over(self, session: Session) -> bool:
        now = self._clock.monotonic()
        is_idle = not session.streams and now - session.used >= self._idle
        return is_idle or now - session.began >= self._longest


def cookie_of(header: str) -> str:
    """Return our cookie's value out of a Cookie header, empty where it is not there."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
