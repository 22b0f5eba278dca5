"""Writes of single objects to the store: created, replaced and deleted only as the writer believed them to be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.entries import Entry, Form, encode
from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import (
    ApiStatus,
    Details,
    InternalError,
    RequestEntityTooLarge,
    ServiceUnavailable,
    too_many_requests,
)
from pilothouse.store import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    Store,
    StoreError,
    TxnRequest,
)
from pilothouse.store import errors as store_errors

__all__ = ["ChangedError", "Encrypt", "Storage", "store_status"]

_log = logging.getLogger(__name__)

_RETRY = 1
_LEASE_REUSE = 60.0
_REMEMBERED = 30.0


class ChangedError(Exception):
    """The object is not as the writer believed; read it again."""


class Encrypt(Protocol):
    """Makes what the store keeps of an object unreadable without a key."""

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        """Return the bytes to store."""


def store_status(error: StoreError) -> ApiStatus:
    """Return what to answer when the store refuses."""
    text = error.message
    if isinstance(error, store_errors.TooManyRequests):
        return too_many_requests(f"{text}, please try again later", _RETRY)
    if isinstance(error, store_errors.RequestTooLarge):
        return RequestEntityTooLarge(f"Request entity too large: {text}")
    if isinstance(error, store_errors.NoSpace):
        return ServiceUnavailable(text, Details(retry_after_seconds=_RETRY), code=507)
    if isinstance(error, store_errors.Unavailable | store_errors.CorruptAlarm):
        return ServiceUnavailable(text, Details(retry_after_seconds=_RETRY))
    return InternalError(text)


class Storage:
    """Writes to the store and says what became of it. Refusals of the store are raised as `ApiStatus`."""

    def __init__(
        self, store: Store, cacher: Cacher, clock: Clock, encrypts: Mapping[str, Encrypt] | None = None
    ) -> None:
        self.store = store
        self.cacher = cacher
        self._refused = ("", 0.0)
        self._clock = clock
        self._encrypts = dict(encrypts or {})
        self._submit: Any = getattr(store, "submit", None)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases: dict[int, tuple[int, float]] = {}

    @property
    def refusing(self) -> str:
        """Why the store refused the last write for want of space or health; empty after one that went well.

        It is forgotten after a while: a server that says it is not ready gets no writes that could show it is again.
        """
        why, until = self._refused
        return why if self._clock.monotonic() < until else ""

    async def create(
        self, cache: ResourceCache, key: str, obj: dict[str, Any], form: Form, *, seconds: int = 0
    ) -> Entry:
        """Store a new object, for `seconds` only where given. Raises ChangedError where there is one already."""
        full = cache.prefix + key.encode()
        value = encode(obj)
        lease = await self._lease(seconds) if seconds else 0
        put = PutRequest(full, self._stored(cache, full, value), lease)
        return Entry(key, value, await self._write(_unless(full, 0, put)), form)

    async def replace(self, cache: ResourceCache, old: Entry, obj: dict[str, Any], form: Form) -> Entry:
        """Store an object in the place of another. Raises ChangedError where it is not what is there."""
        return await self.put(cache, old, encode(obj), form)

    async def put(self, cache: ResourceCache, old: Entry, value: bytes, form: Form) -> Entry:
        """As `replace`, for an object that is encoded already."""
        full = cache.prefix + old.key.encode()
        put = PutRequest(full, self._stored(cache, full, value))
        return Entry(old.key, value, await self._write(_unless(full, old.rv, put)), form)

    async def rewrite(self, cache: ResourceCache, entry: Entry) -> None:
        """Store an object as it is once more, so that it is encrypted anew. Raises ChangedError."""
        full = cache.prefix + entry.key.encode()
        await self._write(_unless(full, entry.rv, PutRequest(full, self._stored(cache, full, entry.value))))

    async def delete(self, cache: ResourceCache, old: Entry) -> int:
        """Delete an object; return the revision. Raises ChangedError where it is not what is there."""
        full = cache.prefix + old.key.encode()
        return await self._write(_unless(full, old.rv, DeleteRangeRequest(full)))

    def _stored(self, cache: ResourceCache, key: bytes, value: bytes) -> bytes:
        encrypt = self._encrypts.get(cache.name)
        return value if encrypt is None else encrypt.encrypt(key, value)

    async def _write(self, request: TxnRequest) -> int:
        try:
            # What is on its way cannot be called back: who gives up waiting does not know what became of it.
            answer = await (self._submit(request) if self._submit else self._sent(request))
        except StoreError as error:
            if isinstance(error, store_errors.NoSpace | store_errors.Unavailable | store_errors.CorruptAlarm):
                self._refused = error.message, self._clock.monotonic() + _REMEMBERED
            raise store_status(error) from error
        self._refused = ("", 0.0)
        revision: int = answer.revision
        if not answer.succeeded:
            if self.cacher.shared:
                await self.cacher.wait(revision)
            raise ChangedError
        if revision > self.cacher.revision:
            await self.cacher.wait(revision)
        return revision

    async def _sent(self, request: TxnRequest) -> Any:
        """Send a transaction to its end, whoever still waits for it."""
        sending = asyncio.ensure_future(self.store.txn(request))
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(sending)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a write be done that nobody waits for; what becomes of it is logged where it fails."""

        async def run() -> None:
            try:
                await work
            except (StoreError, ApiStatus):
                _log.warning("a write in the background failed", exc_info=True)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the writes in the background."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _lease(self, seconds: int) -> int:
        """Return a lease that ends in about so many seconds; one serves all objects of a minute."""
        now = self._clock.monotonic()
        lease, until = self._leases.get(seconds, (0, 0.0))
        if now >= until:
            try:
                lease = (await self.store.lease_grant(seconds + int(_LEASE_REUSE))).id
            except StoreError as error:
                raise store_status(error) from error
            self._leases[seconds] = lease, now + _LEASE_REUSE
        return lease

    async def is_stored(self, cache: ResourceCache, entry: Entry, test: Callable[[bytes], bool]) -> bool:
        """Whether an object is there, and the bytes that the store has of it pass a test."""
        answer = await self.store.range(RangeRequest(cache.prefix + entry.key.encode()))
        return bool(answer.kvs) and test(answer.kvs[0].value)

    async def at(
        self, cache: ResourceCache, revision: int, start: str, end: bytes, limit: int
    ) -> tuple[list[Entry], int]:
        """Return the objects with keys from `start` on as they were at a revision, and how many more there are.

        end: the first key of the store that is not wanted. Raises StoreError (`Compacted`) where the past is gone.
        """
        answer = await self.store.range(
            RangeRequest(cache.prefix + start.encode(), end, limit=limit, revision=revision)
        )
        entries = [self.cacher.entry(cache, kv) for kv in answer.kvs]
        return entries, answer.count - len(entries)


def _unless(key: bytes, revision: int, op: PutRequest | DeleteRangeRequest) -> TxnRequest:
    guard = Compare(key, CompareTarget.MOD, CompareResult.EQUAL, revision)
    return TxnRequest(compare=(guard,), success=(op,))
