"""One connection to a cluster: a healthy member is kept until it fails, then the next one is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilothouse.foundation.grpc import GrpcChannel, GrpcError
from pilothouse.foundation.logs import get_logger
from pilothouse.store import errors
from pilothouse.store.etcd.settings import Endpoint, EtcdOptions

__all__ = ["Balancer", "Connection"]

_log = get_logger("pilothouse.store.etcd")


class Connection:
    """A channel to one member."""

    __slots__ = ("channel", "endpoint")

    def __init__(self, endpoint: Endpoint, channel: GrpcChannel) -> None:
        self.endpoint = endpoint
        self.channel = channel


class Balancer:
    """Connects to one endpoint at a time, starting at a random one so that many clients spread over the members.

    `closed` says that it is of no more use. `failures` is the last error of each endpoint that could not serve, for
    messages.
    """

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._endpoints = options.addresses()
        self._context = options.context() if any(endpoint.secure for endpoint in self._endpoints) else None
        self._next = options.source.randrange(len(self._endpoints))
        self._current: Connection | None = None
        self._connecting = asyncio.Lock()
        self._retired: dict[asyncio.Task[None], GrpcChannel] = {}
        self.closed = False
        self.failures: dict[Endpoint, str] = {}

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, in the order given."""
        return self._endpoints

    def connection(self) -> Connection | None:
        """Return the connection in use, None when there is no live one."""
        current = self._current
        return current if current is not None and current.channel.connected else None

    async def connect(self, deadline: float) -> Connection:
        """Return a live connection; each endpoint is tried once, until `deadline` on the options' clock.

        `Unavailable` names the endpoints and their errors.
        """
        current = self.connection()
        if current is not None:
            return current
        async with self._connecting:
            for _ in self._endpoints:
                if self.closed:
                    raise errors.Unavailable("etcd: the store is closed")
                current = self.connection()
                if current is not None:
                    return current
                left = deadline - self._options.clock.monotonic()
                if left <= 0:
                    break
                current = await self._dial(self._endpoints[self._next], min(left, self._options.dial_timeout))
                if current is not None:
                    self._current = current
                    return current
                self._advance()
        raise errors.Unavailable(self.explain("no endpoint can be reached"))

    async def dial(self, endpoint: Endpoint) -> Connection:
        """Return a connection of its own to one endpoint, for what concerns one member; the caller closes it."""
        connection = await self._dial(endpoint, self._options.dial_timeout)
        if connection is None:
            raise errors.Unavailable(f"etcd: {endpoint} cannot be reached: {self.failures[endpoint]}")
        return connection

    def failed(self, connection: Connection, error: object) -> None:
        """Turn away from a member that could not serve; the next `connect` takes another.

        What still waits for an answer on a connection that lives has a request timeout's time to get it.
        """
        self.failures[connection.endpoint] = str(error)
        if connection is not self._current:
            return
        if connection.channel.connected and len(self._endpoints) == 1:
            return
        _log.info("etcd member left", endpoint=str(connection.endpoint), reason=str(error))
        self._current = None
        self._advance()
        self._retire(connection.channel)

    def explain(self, what: str) -> str:
        """Return `what` and the endpoints with their last errors."""
        tried = "; ".join(f"{one}: {self.failures.get(one, 'not tried')}" for one in self._endpoints)
        return f"etcd: {what} ({tried})"

    async def close(self) -> None:
        """Close what is open."""
        self.closed = True
        current, self._current = self._current, None
        if current is not None:
            await current.channel.close()
        retired = list(self._retired.items())
        for task, channel in retired:
            task.cancel()
            await channel.close()
        await asyncio.gather(*(task for task, _ in retired), return_exceptions=True)

    async def _dial(self, endpoint: Endpoint, seconds: float) -> Connection | None:
        options = self._options
        channel = GrpcChannel(
            endpoint.host,
            endpoint.port,
            tls=self._context if endpoint.secure else None,
            connect_timeout=seconds,
            keepalive_seconds=options.keepalive_seconds,
            keepalive_timeout=options.keepalive_timeout,
            max_message_bytes=options.max_message_bytes,
        )
        try:
            await channel.connect()
        except (OSError, GrpcError) as error:
            self.failures[endpoint] = str(error) or type(error).__name__
            await channel.close()
            return None
        self.failures.pop(endpoint, None)
        return Connection(endpoint, channel)

    def _advance(self) -> None:
        self._next = (self._next + 1) % len(self._endpoints)

    def _retire(self, channel: GrpcChannel) -> None:
        task = asyncio.create_task(self._close_later(channel))
        self._retired[task] = channel
        task.add_done_callback(self._retired.pop)

    async def _close_later(self, channel: GrpcChannel) -> None:
        if channel.connected:
            await self._options.clock.sleep(self._options.request_timeout)
        await channel.close()
