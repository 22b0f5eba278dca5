"""etcd's Watch service: many watches on one stream, fed by the hub's callbacks without a task each.

A write wakes its watchers while it is applied; what they have to send is collected once an iteration of the loop and
encoded once for all that get the same. A stream that does not read is left alone until it does: its watchers wait in
the hub, and one that overruns the hub's buffer there reads on from history, so that its client never sees a gap.
"""

from __future__ import annotations

import asyncio

from pilothouse.foundation.grpc import GrpcCode, GrpcError, GrpcServer, ServerStream
from pilothouse.store.errors import Unavailable
from pilothouse.store.etcd.requests import WatchCancel, WatchCreate, decode_watch
from pilothouse.store.etcd.service_context import ServiceContext
from pilothouse.store.etcd.watch_session import Wakeups, WatchSession

__all__ = ["WatchService"]


class WatchService:
    """`etcdserverpb.Watch`. `max_bytes` bounds a response that can be split."""

    def __init__(self, context: ServiceContext, *, max_bytes: int) -> None:
        self._context = context
        self._wakeups = Wakeups(context.loop)
        self._max_bytes = max_bytes

    def register(self, server: GrpcServer) -> None:
        """Add the service's method to a server."""
        server.stream("/etcdserverpb.Watch/Watch", self.watch)

    async def watch(self, stream: ServerStream) -> None:
        """Serve one stream until its client leaves; one that only stops asking is still served, as in etcd."""
        self._context.open_session()
        session = WatchSession(self._context, self._wakeups, stream, self._max_bytes)
        try:
            async for message in stream:
                _obey(session, message)
                await stream.drain()
            await self._context.loop.create_future()
        except asyncio.CancelledError:
            if session.failure is not None:
                raise session.failure from None
            if stream.cancelled:
                raise
            raise GrpcError(GrpcCode.UNAVAILABLE, Unavailable.text) from None
        finally:
            session.close()


def _obey(session: WatchSession, message: bytes) -> None:
    request = decode_watch(message)
    if isinstance(request, WatchCreate):
        session.create(request)
    elif isinstance(request, WatchCancel):
        session.cancel(request.watch_id)
    else:
        session.request_progress()
