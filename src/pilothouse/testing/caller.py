"""Requests to a control plane as one user, without sockets: calls, watches, and waiting for what becomes of objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

from pilothouse.apiserver.http import InProcessAnswer, InProcessTransport
from pilothouse.apiserver.model import User
from pilothouse.apiserver.paths import parse
from pilothouse.kinds.status import ApiStatus, Expired, from_dict, generic

__all__ = ["Caller", "Object", "Predicate", "user_of"]

Object: TypeAlias = dict[str, Any]
Predicate: TypeAlias = Callable[[Any], object]
"""Told the object, None while there is none; for a collection the list of its objects."""

_JSON: Final = "application/json"
_PATCHES: Final[dict[type, str]] = {dict: "application/merge-patch+json", list: "application/json-patch+json"}
_REFUSED: Final = 400
_SHOWN: Final = 300
"""Characters of the last state that an error shows."""


def user_of(name: str, groups: Iterable[str] = ()) -> User:
    """Return a user with the groups that authentication would add to those given."""
    found = [*groups]
    if name.startswith("system:serviceaccount:") and name.count(":") == 3:
        found += ["system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}"]
    return User(name, groups=tuple(dict.fromkeys((*found, "system:authenticated"))))


class Caller:
    """What one user may ask a control plane. Objects are plain dictionaries; refusals are raised as `ApiStatus`."""

    def __init__(self, transport: InProcessTransport, user: User) -> None:
        self._transport = transport
        self.user = user

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> InProcessAnswer:
        """Send one request as it is and return the answer, whatever its status."""
        return await self._transport.request(method, path, headers, body, self.user)

    async def call(self, method: str, path: str, body: object = None, *, content_type: str = "") -> Any:
        """Send one request and return the decoded answer; text where the server answers with text.

        path: with its query. content_type: of the body; a PATCH is a merge patch if its body is a dictionary and a
        JSON patch if it is a list, everything else JSON, unless it is said otherwise. Raises ApiStatus.
        """
        headers = [("accept", _JSON)]
        data = b""
        if body is not None:
            data = msgspec.json.encode(body)
            chosen = _PATCHES.get(type(body), _JSON) if method == "PATCH" else _JSON
            headers.append(("content-type", content_type or chosen))
        answer = await self.request(method, path, data, headers)
        raw = await answer.read()
        decoded = _decoded(answer, raw)
        if answer.status >= _REFUSED:
            raise _refusal(answer.status, decoded)
        return decoded

    async def watch(self, path: str, *, since: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """Yield the events of a watch, type and object, until the server ends it.

        path: of a collection. since: the resource version to go on from; without one it begins with an ADDED for each
        object that is there. Raises ApiStatus where it is refused or breaks off with an ERROR event (`Expired`).
        """
        answer = await self.request("GET", _with(path, watch="true", resourceVersion=since))
        if answer.stream is None:
            raise _refusal(answer.status, _decoded(answer, answer.body))
        try:
            async for line in _lines(answer.stream):
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    raise from_dict(event["object"], code=event["object"].get("code", 500))
                yield event["type"], event["object"]
        finally:
            await answer.aclose()

    async def wait_for(self, path: str, predicate: Predicate | None = None, *, timeout: float = 10.0) -> Any:  # noqa: ASYNC109  # tests read best so
        """Follow an object or a collection until the predicate holds and return what it held of.

        path: of an object, whose predicate gets the object or None; or of a collection, whose predicate gets the list
        of objects. Without one it waits until there is something. timeout: seconds of real time, whatever the plane's
        clock. It is told of each change by a watch. Raises TimeoutError with the last state, and ApiStatus.
        """
        holds = predicate or bool
        state: Any = None
        try:
            async with asyncio.timeout(timeout), aclosing(self._states(path)) as states:
                async for state in states:
                    if holds(state):
                        return state
        except TimeoutError:
            shown = msgspec.json.encode(state).decode()
            more = "…" if len(shown) > _SHOWN else ""
            raise TimeoutError(
                f"{path}: what was waited for did not come within {timeout:g} s; the last state is "
                f"{shown[:_SHOWN]}{more}"
            ) from None
        raise AssertionError("the states of an object never end")  # pragma: no cover

    async def _states(self, path: str) -> AsyncGenerator[Any, None]:
        route, _, query = path.partition("?")
        name = parse("GET", route).name
        if name:
            collection = _with(route.rpartition("/")[0], fieldSelector=f"metadata.name={name}")
        else:
            collection = f"{route}?{query}" if query else route
        while True:
            listed = await self.call("GET", collection)
            head = {key: listed[key] for key in ("apiVersion",)} | {"kind": listed["kind"].removesuffix("List")}
            found = {_key(item): head | item for item in listed["items"]}
            yield _state(found, name)
            version = listed["metadata"]["resourceVersion"]
            try:
                async with aclosing(self.watch(collection, since=version)) as events:
                    async for kind, item in events:
                        if kind == "DELETED":
                            found.pop(_key(item), None)
                        elif kind != "BOOKMARK":
                            found[_key(item)] = item
                        yield _state(found, name)
            except Expired:
                continue


def _key(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _state(found: dict[tuple[str, str], Object], name: str) -> Any:
    return next(iter(found.values()), None) if name else list(found.values())


def _with(path: str, **parameters: str) -> str:
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items() if value)
    return f"{path}{'&' if '?' in path else '?'}{added}" if added else path


def _decoded(answer: InProcessAnswer, raw: bytes) -> Any:
    if answer.header("content-type").startswith(_JSON):
        return msgspec.json.decode(raw)
    return raw.decode("utf-8", "replace")


def _refusal(status: int, decoded: Any) -> ApiStatus:
    return from_dict(decoded, code=status) if isinstance(decoded, dict) else generic(status, decoded.strip())


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
