"""Calls that survive the loss of a member: what may be sent again is, what may have been done is told so."""

from __future__ import annotations

import asyncio

from pilothouse.foundation.grpc import ClientStream, GrpcCode, GrpcError
from pilothouse.foundation.grpc.status import RefusedError
from pilothouse.foundation.retry import Backoff
from pilothouse.store import errors
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.balancer import Balancer, Connection
from pilothouse.store.etcd.errors_map import error_from_status
from pilothouse.store.etcd.requests import decode_message
from pilothouse.store.etcd.settings import EtcdOptions

__all__ = ["Caller"]

_LEADER = ("hasleader", "true")
"""Ask a member that has lost its leader to say so at once, in place of waiting for one."""

_NOT_DONE = ("etcdserver: no leader", "raft proposal dropped")
"""Refusals before a proposal is made, so that a write can be sent again."""

_GAVE_UP = ("context deadline exceeded", "context canceled")
"""What etcd 3.4 says under the code UNKNOWN when its own waiting has ended."""

_STALE_TOKEN = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
_LOST = {GrpcCode.UNAVAILABLE, GrpcCode.CANCELLED, GrpcCode.DEADLINE_EXCEEDED, GrpcCode.INTERNAL, GrpcCode.UNKNOWN}
_NO_ANSWER = {GrpcCode.UNAVAILABLE, GrpcCode.DEADLINE_EXCEEDED, GrpcCode.CANCELLED}
_MAX_LOGINS = 2


class Caller:
    """Sends unary calls and opens streams on whichever member is healthy, with the token where there is one."""

    def __init__(self, options: EtcdOptions, balancer: Balancer) -> None:
        self._options = options
        self._clock = options.clock
        self._balancer = balancer
        self._token = ""
        self._login = asyncio.Lock()
        # Bounded by the time of the whole call, not by a number.
        self.backoff = Backoff(base=options.retry_base, cap=options.retry_cap, attempts=None)

    async def unary(self, path: str, message: bytes, *, safe: bool, local: bool = False) -> bytes:
        """Call `path` and return the answer.

        `safe`: doing it twice is as doing it once, so it is sent again when its outcome is not known. `local`: a
        member without a leader may answer. Raises the store's error for the status; `Timeout` where a write may or
        may not have been done; `Unavailable` names the endpoints when none served in time.
        """
        deadline = self._clock.monotonic() + self._options.request_timeout
        delays = self.backoff.delays(self._options.source)
        logins = 0
        while True:
            ready = await self._ready(deadline)
            if ready is not None:
                connection, token, left = ready
                answer: asyncio.Future[bytes] | None = None
                try:
                    answer = connection.channel.unary_future(
                        path, message, metadata=self._metadata(token, local), timeout=left
                    )
                    return await answer
                except GrpcError as error:
                    if self.token_is_stale(error.message) and logins < _MAX_LOGINS:
                        logins += 1
                        self.forget_token(token)
                        continue
                    self._judge(connection, error, path, safe or answer is None)
            delay = next(delays)
            if self._clock.monotonic() + delay >= deadline:
                name = path.rpartition("/")[2]
                text = f"{name} was not served within {self._options.request_timeout:g} s"
                raise errors.Unavailable(self._balancer.explain(text))
            await self._clock.sleep(delay)

    async def open(self, path: str, *, local: bool = False) -> tuple[Connection, ClientStream]:
        """Open a stream on a healthy member; `Unavailable` names the endpoints where there is none."""
        deadline = self._clock.monotonic() + self._options.request_timeout
        connection = await self._balancer.connect(deadline)
        token = await self._authenticated(connection, deadline)
        try:
            return connection, connection.channel.stream(path, metadata=self._metadata(token, local))
        except GrpcError as error:
            self._balancer.failed(connection, error)
            raise errors.Unavailable(f"etcd: {connection.endpoint}: {error}") from error

    async def one_member(self, connection: Connection, path: str, message: bytes, seconds: float) -> bytes:
        """Call a member chosen by the caller, once, and wait `seconds` for the answer."""
        token = await self._authenticated(connection, self._clock.monotonic() + seconds)
        try:
            return await connection.channel.unary(
                path, message, metadata=self._metadata(token, local=True), timeout=seconds
            )
        except GrpcError as error:
            raise error_from_status(error.code, f"{error.message} ({connection.endpoint})") from error

    def lost(self, connection: Connection, error: GrpcError) -> errors.StoreError | None:
        """Judge the end of a stream: None where another member may go on with it, else the error for the caller."""
        if self.token_is_stale(error.message):
            self.forget_token(self._token)
            return None
        if error.code in _LOST:
            self._balancer.failed(connection, error)
            return None
        return error_from_status(error.code, error.message)

    def explain(self, what: str) -> str:
        """Return `what` and the endpoints with their last errors."""
        return self._balancer.explain(what)

    def token_is_stale(self, message: str) -> bool:
        """Whether a refusal only means that the token must be renewed."""
        return bool(self._options.username) and any(text in message for text in _STALE_TOKEN)

    def forget_token(self, token: str | None = None) -> None:
        """Let the next call authenticate anew, unless another call has already done so since `token`."""
        if token is None or token == self._token:
            self._token = ""

    async def _ready(self, deadline: float) -> tuple[Connection, str, float] | None:
        """Return a live connection, the token for it and the seconds left; None without one, or without time."""
        try:
            connection = await self._balancer.connect(deadline)
            token = await self._authenticated(connection, deadline)
        except errors.Unavailable:
            if self._balancer.closed:
                raise
            return None
        left = deadline - self._clock.monotonic()
        return (connection, token, left) if left > 0 else None

    def _judge(self, connection: Connection, error: GrpcError, path: str, safe: bool) -> None:
        """Return where the call may be sent again, else raise."""
        code, message = error.code, error.message
        unanswered = code in _NO_ANSWER or message in _GAVE_UP or not connection.channel.connected
        if unanswered or message in _NOT_DONE:
            self._balancer.failed(connection, error)
            if safe or isinstance(error, RefusedError) or message in _NOT_DONE:
                return
            raise errors.Timeout(
                f"{path.rpartition('/')[2]}: {message or code.name} ({connection.endpoint}); "
                "it may or may not have been applied"
            ) from error
        raise error_from_status(code, message) from error

    def _metadata(self, token: str, local: bool) -> tuple[tuple[str, str], ...]:
        if token:
            return (("token", token),) if local else (_LEADER, ("token", token))
        return () if local else (_LEADER,)

    async def _authenticated(self, connection: Connection, deadline: float) -> str:
        token = self._token
        if token or not self._options.username:
            return token
        async with self._login:
            token = self._token
            if token:
                return token
            request = pb.AuthenticateRequest(name=self._options.username, password=self._options.password)
            left = max(deadline - self._clock.monotonic(), 0.001)
            try:
                data = await connection.channel.unary(
                    "/etcdserverpb.Auth/Authenticate", request.SerializeToString(), metadata=(_LEADER,), timeout=left
                )
            except GrpcError as error:
                if error.code in _NO_ANSWER or isinstance(error, RefusedError):
                    self._balancer.failed(connection, error)
                    raise errors.Unavailable(f"etcd: {connection.endpoint}: {error}") from error
                failure = error_from_status(error.code, error.message)
                failure.add_note(f"as user {self._options.username!r} at {connection.endpoint}")
                raise failure from error
            self._token = decode_message(pb.AuthenticateResponse, data).token
            return self._token
