"""etcd's KV service: range, put, delete, transaction and compaction.

Writes and small reads run inside the read of the socket that completed them, without a task each: decode, submit,
and encode when the answer's future is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from pilothouse.foundation.grpc import GrpcServer, ServerCall
from pilothouse.store.etcd.requests import decode_compact, decode_delete_range, decode_put, decode_range, decode_txn
from pilothouse.store.etcd.service_context import ServiceContext, encoded
from pilothouse.store.etcd.wire import key_values, varint
from pilothouse.store.model import Op, RangeRequest

__all__ = ["KvService"]

_SLICE = 5_000
_KVS = b"\x12"


class KvService:
    """`etcdserverpb.KV`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._store = context.store
        self._auth = context.auth
        self._encoder = context.encoder

    def register(self, server: GrpcServer) -> None:
        """Add the service's methods to a server."""
        prefix = "/etcdserverpb.KV/"
        server.unary(prefix + "Range", self.range)
        server.unary(prefix + "Put", self.put)
        server.unary(prefix + "DeleteRange", self.delete_range)
        server.unary(prefix + "Txn", self.txn)
        server.unary(prefix + "Compact", self.compact)

    def put(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer a `PutRequest`."""
        request = decode_put(message)
        if self._auth.enabled:
            self._permit(request, call)
        return encoded(self._store.submit(request), self._encoder.put)

    def delete_range(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer a `DeleteRangeRequest`."""
        request = decode_delete_range(message)
        if self._auth.enabled:
            self._permit(request, call)
        return encoded(self._store.submit(request), self._encoder.delete_range)

    def txn(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer a `TxnRequest`."""
        request = decode_txn(message)
        if self._auth.enabled:
            self._permit(request, call)
        return encoded(self._store.submit(request), self._encoder.txn)

    def range(self, message: bytes, call: ServerCall) -> bytes | Awaitable[bytes]:
        """Answer a `RangeRequest`, a large one in slices that leave the event loop to others in between."""
        request = decode_range(message)
        if self._auth.enabled:
            self._permit(request, call)
        if self._store.is_large(request):
            return self._large_range(request)
        return self._encoder.range(self._store.read(request))

    async def compact(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `CompactionRequest`."""
        revision, physical = decode_compact(message)
        self._context.require_user(call)
        return self._encoder.header(await self._store.compact(revision, physical=physical))

    def _permit(self, request: Op, call: ServerCall) -> None:
        self._auth.require(self._context.identify(call), request, self._context.machine.leases.keys)

    async def _large_range(self, request: RangeRequest) -> bytes:
        response = await self._store.range(request)
        kvs = response.kvs
        parts = [self._encoder.header(response.revision)]
        for start in range(0, len(kvs), _SLICE):
            parts.append(b"".join(key_values(kvs[start : start + _SLICE], _KVS)))
            await asyncio.sleep(0)
        if response.more:
            parts.append(b"\x18\x01")
        if response.count:
            parts.append(b"\x20" + varint(response.count))
        return b"".join(parts)
