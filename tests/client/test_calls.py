"""Calls: refusals by their reason, and what is tried again, when and how often."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from pilothouse.client import Answer, ConnectFailed, TransportError, TransportTimeout, ignore_not_found
from pilothouse.client.calls import Caller, refusal
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import (
    ApiStatus,
    Conflict,
    Forbidden,
    InternalError,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    not_found,
    too_many_requests,
)

JSON = [("content-type", "application/json")]


class Busy(FakeClock):
    """A clock whose sleepers wake at once, remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)


class Scripted:
    """Answers as told, one after another; the last one for ever."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", **options: Any) -> Answer:
        self.asked.append((method, target, body, dict(headers)))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        return None


def status(error: ApiStatus, **headers: str) -> Answer:
    pairs = [*JSON, *((name.replace("_", "-"), value) for name, value in headers.items())]
    return Answer(error.code, pairs, msgspec.json.encode(error.to_dict()))


GOOD = Answer(200, JSON, b"{}")
BUSY = status(too_many_requests("busy", 1), retry_after="1")


def caller(transport: Scripted, clock: Busy, **options: Any) -> Caller:
    return Caller(transport, clock=clock, source=random.Random(1), **options)


async def test_a_storm_of_429_is_waited_out_as_the_server_says() -> None:
    clock, transport = Busy(), Scripted(*[BUSY] * 5, GOOD)
    assert await caller(transport, clock).call("POST", "/x", b"body") == b"{}"
    assert len(transport.asked) == 6
    assert all(body == b"body" for _, _, body, _ in transport.asked)
    assert clock.monotonic() >= 5  # a second each, at least


async def test_a_storm_without_end_is_given_up_with_the_servers_reason() -> None:
    clock, transport = Busy(), Scripted(BUSY)
    with pytest.raises(TooManyRequests, match="busy") as caught:
        await caller(transport, clock).call("GET", "/x?a=secret")
    assert len(transport.asked) == 10
    assert "GET /x: gave up after 10 attempts" in caught.value.__notes__[0]
    assert clock.monotonic() < 60


async def test_a_server_that_says_to_come_back_much_later_is_believed() -> None:
    transport = Scripted(status(too_many_requests("busy", 600)))
    with pytest.raises(TooManyRequests):
        await caller(transport, Busy()).call("GET", "/x")
    assert len(transport.asked) == 1


@pytest.mark.parametrize(
    ("method", "answer", "times"),
    [
        ("GET", status(ServiceUnavailable("x"), retry_after="1"), 2),
        ("PUT", status(ServiceUnavailable("x"), retry_after="1"), 2),
        ("DELETE", status(ServiceUnavailable("x"), retry_after="1"), 2),
        ("POST", status(ServiceUnavailable("x"), retry_after="1"), 1),
        ("PATCH", status(ServiceUnavailable("x"), retry_after="1"), 1),
        ("GET", status(ServiceUnavailable("x")), 1),
        ("GET", status(InternalError("x"), retry_after="1"), 2),
        ("GET", Answer(429, [], b"slow down"), 2),
        ("POST", Answer(429, [("retry-after", "1")], b"slow down"), 2),
        ("GET", status(Conflict("x")), 1),
        ("GET", status(Forbidden("x")), 1),
        ("GET", TransportError("broke"), 2),
        ("POST", TransportError("broke"), 1),
        ("PUT", TransportError("broke"), 1),
        ("GET", ConnectFailed("not there"), 1),
        ("GET", TransportTimeout("silent"), 1),
    ],
)
async def test_what_is_tried_again(method: str, answer: Answer | Exception, times: int) -> None:
    transport = Scripted(answer, GOOD)
    try:
        await caller(transport, Busy()).call(method, "/x")
    except (ApiStatus, TransportError):
        assert times == 1
    assert len(transport.asked) == times


async def test_an_apply_may_be_done_twice() -> None:
    transport = Scripted(status(ServiceUnavailable("x"), retry_after="1"), GOOD)
    assert await caller(transport, Busy()).call("PATCH", "/x", repeatable=True) == b"{}"


async def test_nothing_is_tried_again_where_told_so() -> None:
    for make in (lambda one: one.once(), lambda one: caller(one.transport, Busy(), backoff=None)):
        transport = Scripted(BUSY)
        with pytest.raises(TooManyRequests):
            await make(caller(transport, Busy())).call("GET", "/x")
        assert len(transport.asked) == 1


async def test_the_wait_grows_where_the_server_names_none() -> None:
    clock, transport = Busy(), Scripted(*[Answer(429, [])] * 4, GOOD)
    await caller(transport, clock, backoff=Backoff(base=1, factor=2, jitter=0)).call("GET", "/x")
    assert clock.slept == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (status(not_found("apps", "deployments", "web")), NotFound, 'deployments.apps "web" not found'),
        (Answer(401, [], b"no"), Unauthorized, "the server has asked for the client to provide credentials"),
        (Answer(403, [("content-type", "text/plain")], b"go away"), Forbidden, "go away"),
        (Answer(502, [("content-type", "text/html")], b"<html>bad gateway"), InternalError, "bad gateway"),
        (Answer(404, JSON, b"{"), NotFound, "could not find the requested resource"),
        (Answer(404, JSON, b"[1]"), NotFound, "could not find the requested resource"),
        (Answer(404, JSON, b'{"kind":"Status","message":5}'), ApiStatus, ""),
        (Answer(418, [], b"teapot"), ApiStatus, "teapot"),
    ],
)
def test_refusals_by_their_reason(answer: Answer, kind: type[ApiStatus], text: str) -> None:
    error = refusal(answer)
    assert isinstance(error, kind)
    assert text in error.message
    assert error.code == answer.status


async def test_what_each_request_has(caplog: pytest.LogCaptureFixture) -> None:
    transport = Scripted(GOOD)
    one = caller(transport, Busy(), headers=[("Impersonate-User", "jane")])
    await one.call("GET", "/a")
    await one.call("POST", "/b", b"x", content_type="text/y", accept="z")
    assert transport.asked == [
        ("GET", "/a", b"", {"Accept": "application/json", "Impersonate-User": "jane"}),
        ("POST", "/b", b"x", {"Accept": "z", "Impersonate-User": "jane", "Content-Type": "text/y"}),
    ]


async def test_warnings_are_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    transport = Scripted(Answer(200, [*JSON, ("warning", '299 - "old version"')], b"{}"))
    one = caller(transport, Busy())
    for _ in range(3):
        await one.call("GET", "/a")
    assert len(one._warned) == 1


async def test_ignore_not_found() -> None:
    async def fails(error: Exception | None) -> int:
        if error is not None:
            raise error
        return 5

    assert await ignore_not_found(fails(None)) == 5
    assert await ignore_not_found(fails(not_found("", "pods", "web"))) is None
    with pytest.raises(NotFound):  # a path that the server does not have
        await ignore_not_found(fails(NotFound("the server could not find the requested resource")))
    with pytest.raises(Forbidden):
        await ignore_not_found(fails(Forbidden("x")))
