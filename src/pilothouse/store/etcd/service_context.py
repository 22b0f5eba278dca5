"""What the services of one etcd server share: the store, the encoder of its answers, and who may ask what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from pilothouse.foundation.grpc import GrpcCode, GrpcError, ServerCall
from pilothouse.store.auth import AuthInfo
from pilothouse.store.auth_errors import USER_EMPTY
from pilothouse.store.engine import EmbeddedStore
from pilothouse.store.errors import AuthError, StoreError
from pilothouse.store.etcd.errors_map import status_from_error
from pilothouse.store.etcd.responses import ResponseEncoder

__all__ = ["API_VERSION", "ServiceContext", "encoded", "grpc_error"]

API_VERSION = "3.5.21"
"""The release of etcd whose API is served; clients choose by it what they send."""

_RAFT_TERM = 1


class ServiceContext:
    """One store as its gRPC services see it.

    `certificate_users` says that a verified client certificate without a token stands for the user of its common
    name, as etcd does with `--client-cert-auth`.
    """

    __slots__ = ("auth", "certificate_users", "encoder", "keys", "loop", "machine", "sessions", "store")

    def __init__(self, store: EmbeddedStore, *, certificate_users: bool = False) -> None:
        self.store = store
        self.machine = store.machine
        self.keys = store.keys
        self.auth = store.machine.auth
        self.encoder = ResponseEncoder(store.cluster_id, store.member_id, _RAFT_TERM)
        self.loop = asyncio.get_running_loop()
        self.certificate_users = certificate_users
        self.sessions: dict[asyncio.Task[Any], None] = {}

    @property
    def revision(self) -> int:
        """The newest revision applied."""
        return self.keys.revision

    def identify(self, call: ServerCall) -> AuthInfo | None:
        """Return who calls, None where nobody says so; raise `AuthError` for a token that is not good."""
        if not self.auth.enabled:
            return None
        metadata = call.metadata
        token = metadata.get("token") or metadata.get("authorization")
        if isinstance(token, str) and token:
            # A client may send both of etcd's names for it; a name given twice arrives joined by commas.
            return self.auth.identify(token.partition(",")[0])
        if self.certificate_users:
            name = _common_name(call.peer_certificate)
            if name:
                return AuthInfo(name, self.auth.revision)
        return None

    def require_admin(self, call: ServerCall) -> None:
        """Allow only users with the root role."""
        if self.auth.enabled:
            self.auth.require_admin(self.identify(call))

    def require_user(self, call: ServerCall) -> None:
        """Allow whoever is known."""
        if self.auth.enabled and self.identify(call) is None:
            raise AuthError(*USER_EMPTY)

    def open_session(self) -> None:
        """Remember the running task as a call without end, for `end_sessions`."""
        task = asyncio.current_task()
        if task is not None:
            self.sessions[task] = None
            task.add_done_callback(lambda done: self.sessions.pop(done, None))

    def end_sessions(self) -> None:
        """Stop the calls without end; their clients go on elsewhere, or here after a restart."""
        for task in list(self.sessions):
            task.cancel()


def encoded(answer: asyncio.Future[Any], encode: Callable[[Any], bytes]) -> asyncio.Future[bytes]:
    """Return a future of the encoded answer. No task and no coroutine: this is on the path of every write."""
    result: asyncio.Future[bytes] = answer.get_loop().create_future()
    answer.add_done_callback(partial(_settle, result, encode))
    return result


def _settle(result: asyncio.Future[bytes], encode: Callable[[Any], bytes], answer: asyncio.Future[Any]) -> None:
    if answer.cancelled():
        result.cancel()
        return
    error = answer.exception()
    if error is not None:
        result.set_exception(error)
        return
    try:
        result.set_result(encode(answer.result()))
    except Exception as failure:  # noqa: BLE001  # whatever it is, the caller must be told and not wait for ever
        result.set_exception(failure)


def grpc_error(error: Exception) -> GrpcError | None:
    """Return the status for a store's error; None for what is not one."""
    if not isinstance(error, StoreError):
        return None
    code, message = status_from_error(error)
    return GrpcError(GrpcCode(code), message)


def _common_name(certificate: dict[str, Any] | None) -> str:
    if certificate is None:
        return ""
    fields = (field for part in certificate.get("subject", ()) for field in part)
    return next((str(value) for name, value in fields if name == "commonName"), "")
