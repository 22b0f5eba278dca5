"""The API server called from within, as a user that may do everything: for its own controllers and admission."""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import unquote

import msgspec

from pilothouse.apiserver.model import Answer, Handler, Peer, Request, Response, User
from pilothouse.apiserver.ports import Object
from pilothouse.kinds.status import InternalError, from_dict

__all__ = ["APISERVER", "LocalCaller"]

APISERVER = User("system:apiserver", groups=("system:masters", "system:authenticated"))
_PEER = Peer("127.0.0.1")
_OK = 300


class LocalCaller:
    """Implements `ports.Local` on the server's handler. `user` is who calls, and the agent names it."""

    def __init__(self, handler: Handler, user: User = APISERVER, agent: str = "kube-apiserver") -> None:
        self._handler = handler
        self._user = user
        self._agent = agent

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        """Send one request and return the decoded answer. Raises ApiStatus for refusals."""
        data = msgspec.json.encode(body) if body is not None else b""
        route, _, query = path.partition("?")
        headers = {"user-agent": self._agent}
        if data:
            headers["content-type"] = content_type
        request = Request(method, path, unquote(route), query, headers, data, _PEER, tuple(headers.items()), self._user)
        found = self._handler(request)
        answer: Answer = await found if isinstance(found, Awaitable) else found
        if not isinstance(answer, Response):
            raise InternalError(f"{method} {path}: a stream cannot be called from within")
        raw = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        decoded: Object = msgspec.json.decode(raw) if answer.content_type == "application/json" else {}
        if answer.status >= _OK:
            raise from_dict(decoded, code=answer.status)
        return decoded
