"""Keeping leases alive over one stream for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from pilothouse.foundation.grpc import ClientStream, GrpcError
from pilothouse.store import errors
from pilothouse.store.etcd.balancer import Connection
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.requests import encode_lease_keep_alive
from pilothouse.store.etcd.responses import decode_lease_keep_alive_response
from pilothouse.store.etcd.settings import EtcdOptions

__all__ = ["LeaseKeeper"]

_PATH = "/etcdserverpb.Lease/LeaseKeepAlive"


class LeaseKeeper:
    """Sends keep-alives and gives each answer to the one who has waited longest for that lease.

    A keep-alive can be sent again without harm, so one whose stream broke goes to the next member until the
    request timeout.
    """

    def __init__(self, options: EtcdOptions, caller: Caller) -> None:
        self._options = options
        self._clock = options.clock
        self._caller = caller
        self._waiting: dict[int, deque[asyncio.Future[int]]] = {}
        self._stream: ClientStream | None = None
        self._opening = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    async def keep_alive(self, lease_id: int) -> int:
        """Return the renewed time to live in seconds, 0 when the lease is gone."""
        try:
            async with asyncio.timeout(self._options.request_timeout):
                return await self._until_answered(lease_id)
        except TimeoutError:
            raise errors.Unavailable(
                f"etcd: no answer to the keep-alive of lease {lease_id:x} in {self._options.request_timeout:g} s"
            ) from None

    async def close(self) -> None:
        """End the stream; those who wait are told, and nobody opens it anew."""
        self._closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        self._fail(errors.Unavailable("etcd: the store is closed"))

    async def _until_answered(self, lease_id: int) -> int:
        for delay in self._caller.backoff.delays(self._options.source):
            if self._closed:
                break
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(lease_id, deque()).append(answer)
            try:
                stream = await self._ready()
                stream.send(encode_lease_keep_alive(lease_id))
                return await answer
            except (GrpcError, errors.Unavailable):
                if not self._closed:
                    await self._clock.sleep(delay)
            finally:
                self._forget(lease_id, answer)
        raise errors.Unavailable("etcd: the store is closed")

    async def _ready(self) -> ClientStream:
        async with self._opening:
            if self._stream is None:
                connection, self._stream = await self._caller.open(_PATH)
                self._reader = asyncio.create_task(self._read(connection, self._stream))
            return self._stream

    async def _read(self, connection: Connection, stream: ClientStream) -> None:
        failure: errors.StoreError | None = None
        try:
            async for data in stream:
                lease_id, ttl = decode_lease_keep_alive_response(data)
                waiting = self._waiting.get(lease_id)
                if waiting:
                    answer = waiting.popleft()
                    if not answer.done():
                        answer.set_result(max(ttl, 0))
        except GrpcError as error:
            failure = self._caller.lost(connection, error)
        except errors.StoreError as error:
            failure = error
        finally:
            stream.cancel()
            self._stream = None
        self._fail(failure or errors.Unavailable(f"etcd: the keep-alive stream of {connection.endpoint} ended"))

    def _forget(self, lease_id: int, answer: asyncio.Future[int]) -> None:
        waiting = self._waiting.get(lease_id)
        if waiting is None:
            return
        with contextlib.suppress(ValueError):
            waiting.remove(answer)
        if not waiting:
            del self._waiting[lease_id]

    def _fail(self, error: errors.StoreError) -> None:
        all_waiting, self._waiting = self._waiting, {}
        for waiting in all_waiting.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
                    # Whoever started it may have given up; that is no error of its own.
                    answer.exception()
