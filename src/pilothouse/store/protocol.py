"""The one typed interface to a store, whichever engine is behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from pilothouse.store.model import (
    Alarm,
    AlarmAction,
    AlarmType,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Member,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Status,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
)

__all__ = ["Store", "Watch"]


class Watch(Protocol):
    """A running watch: an async iterator of responses and an async context manager.

    Iteration ends after a response with `canceled` set, and after `cancel`.
    """

    def __aiter__(self) -> AsyncIterator[WatchResponse]:
        """Iterate over responses in revision order."""

    async def __anext__(self) -> WatchResponse:
        """Wait for the next response."""

    def request_progress(self) -> None:
        """Ask for a response without events once everything before now has been delivered."""

    async def cancel(self) -> None:
        """End the watch; pending events are dropped."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """etcd v3's key-value, watch, lease and maintenance operations.

    Errors are those of `pilothouse.store.errors`. Reads are linearizable unless the request says `serializable`.
    """

    async def range(self, request: RangeRequest) -> RangeResponse:
        """Read keys at the current or a past revision."""

    async def put(self, request: PutRequest) -> PutResponse:
        """Write one key; the answer means it is durable."""

    async def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Delete keys; one that matches nothing does not advance the revision."""

    async def txn(self, request: TxnRequest) -> TxnResponse:
        """Run a transaction as one revision."""

    async def compact(self, revision: int, *, physical: bool = False) -> int:
        """Forget revisions older than `revision`; return the current revision. `physical` waits until space is free."""

    def watch(self, request: WatchRequest) -> Watch:
        """Start a watch. A compacted start is the first response (`canceled`, `compact_revision`)."""

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        """Create a lease of `ttl` seconds; 0 lets the store choose the id."""

    async def lease_revoke(self, lease_id: int) -> int:
        """End a lease and delete its keys; return the revision."""

    async def lease_keep_alive(self, lease_id: int) -> int:
        """Start the lease's time to live anew; return it in seconds, 0 when the lease is gone."""

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Return the time left (-1 when the lease is gone)."""

    async def lease_leases(self) -> list[int]:
        """Return the ids of all leases."""

    async def status(self) -> Status:
        """Return revision, sizes, positions and advice."""

    async def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """Hash the key space at `revision` (0: now) as etcd does, to compare two stores."""

    async def alarm(self, action: AlarmAction, alarm: AlarmType = AlarmType.NONE, member_id: int = 0) -> list[Alarm]:
        """List, raise or clear alarms; return those that the action concerned."""

    async def defragment(self) -> None:
        """Give disk space that is no longer needed back to the operating system."""

    def snapshot(self) -> AsyncIterator[bytes]:
        """Stream a consistent copy of the whole store, restorable by the engine that wrote it."""

    async def members(self) -> list[Member]:
        """Return the members that serve this store."""

    async def close(self) -> None:
        """Stop cleanly; open watches end, waiting writes are answered or refused."""
