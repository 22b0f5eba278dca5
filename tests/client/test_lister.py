"""Lists and watches as reflectors ask for them."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from pilothouse.client import Answer, BadAnswer, Client, ObjectEvent, TransportError
from pilothouse.client.listwatch import ListerWatcher, ListOptions, ListResult, WatchEvent, WatchOptions
from pilothouse.foundation.clock import SystemClock
from pilothouse.kinds.status import Expired, TooManyRequests, too_many_requests
from pilothouse.kinds.structs import ConfigMap, Deployment, Node, ObjectMeta
from pilothouse.testing import ControlPlane

JSON = [("content-type", "application/json")]


class Pieces:
    """A stream of what it is given; an error at the end where one is given."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces, self.closed = list(pieces), False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        found = self.pieces.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        self.closed = True


class Hurried(SystemClock):
    """Lets nobody wait."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Scripted:
    """Answers as told."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.targets, self.idle = list(answers), [""][:0], [0.0][:0]

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", **options: Any) -> Answer:
        self.targets.append(target)
        self.idle.append(options["idle"])
        return self.answers.pop(0)

    async def aclose(self) -> None:
        return None


def line(kind: str, **metadata: Any) -> bytes:
    found = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def watch_of(*pieces: bytes | Exception) -> Answer:
    return Answer(200, JSON, stream=Pieces(*pieces))


async def events_of(answer: Answer, **options: Any) -> list[WatchEvent[ConfigMap]]:
    lister = Client.for_transport(Scripted(answer)).list_watch(ConfigMap)
    return [event async for event in lister.watch(WatchOptions(**options))]


def test_it_is_a_lister_watcher_and_says_of_what() -> None:
    client = Client.for_transport(Scripted())
    lister: ListerWatcher[ConfigMap] = client.list_watch(ConfigMap)
    assert lister.description == "configmaps"
    assert client.list_watch(Deployment, "default").description == "deployments.apps in default"
    assert client.list_watch(Node, "default").description == "nodes"


async def test_the_query_of_a_list() -> None:
    metadata = b'{"resourceVersion":"7","continue":"t","remainingItemCount":3}'
    page = b'{"metadata":%b,"items":[{"metadata":{"name":"a"}}]}' % metadata
    transport = Scripted(*[Answer(200, JSON, page)] * 3)
    lister = Client.for_transport(transport).list_watch(ConfigMap, "team", labels={"a": "b"}, fields="metadata.name=x")
    found: ListResult[ConfigMap] = await lister.list(ListOptions())
    assert (found.resource_version, found.continue_, found.remaining) == ("7", "t", 3)
    assert [(one.metadata.name, one.kind, one.api_version) for one in found.items] == [("a", "ConfigMap", "v1")]
    await lister.list(ListOptions(resource_version="0", limit=500, label_selector="c", field_selector="d=e"))
    await lister.list(ListOptions(resource_version="", resource_version_match="Exact", continue_="to/ken="))
    path = "/api/v1/namespaces/team/configmaps"
    own = "labelSelector=a%3Db", "fieldSelector=metadata.name%3Dx"
    assert transport.targets == [
        f"{path}?{'&'.join(own)}",
        f"{path}?{own[0]}%2Cc&{own[1]}%2Cd%3De&resourceVersion=0&limit=500",
        f"{path}?{'&'.join(own)}&resourceVersionMatch=Exact&continue=to%2Fken%3D",
    ]


async def test_the_query_of_a_watch() -> None:
    transport = Scripted(watch_of(), watch_of())
    lister = Client.for_transport(transport).list_watch(ConfigMap)
    initial = WatchOptions(send_initial_events=True, resource_version_match="NotOlderThan", timeout_seconds=300)
    assert [event async for event in lister.watch(initial)] == []
    assert [event async for event in lister.watch(WatchOptions(allow_bookmarks=False, resource_version="5"))] == []
    assert transport.targets == [
        (
            "/api/v1/configmaps?watch=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            "&sendInitialEvents=true&timeoutSeconds=300"
        ),
        "/api/v1/configmaps?watch=true&resourceVersion=5",
    ]
    assert transport.idle == [None, None]


async def test_events_however_the_stream_is_cut() -> None:
    end = {"k8s.io/initial-events-end": "true"}
    data = (
        line("ADDED", name="a", resourceVersion="1")
        + b"\n"
        + line("BOOKMARK", resourceVersion="2", annotations=end)
        + line("DELETED", name="a", resourceVersion="3")
        + line("BOOKMARK", resourceVersion="4")
    )
    for size in (1, 7, 1000):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        found = await events_of(watch_of(*pieces))
        assert [(one.type, one.resource_version, one.initial_events_end) for one in found] == [
            ("ADDED", "1", False),
            ("BOOKMARK", "2", True),
            ("DELETED", "3", False),
            ("BOOKMARK", "4", False),
        ]
        assert [one.object is not None for one in found] == [True, False, True, False]


async def test_an_object_that_does_not_fit_is_told_and_the_stream_goes_on() -> None:
    wrong = b'{"type":"ADDED","object":{"metadata":{"name":"bad","namespace":"n","resourceVersion":"2"},"data":5}}\n'
    first, bad, last = await events_of(watch_of(line("ADDED", name="a") + wrong + line("ADDED", name="b")))
    assert first.object == ConfigMap(metadata=ObjectMeta(name="a"))
    assert (bad.object, bad.resource_version) == (None, "2")
    assert isinstance(bad.error, ValueError)
    assert "n/bad" in str(bad.error)
    assert last.object is not None


@pytest.mark.parametrize("piece", [b"nonsense\n", b'{"type":"ODD","object":{}}\n', b'{"type":"ADDED"', b"[]\n"])
async def test_what_is_no_event_breaks_the_connection(piece: bytes) -> None:
    answer = watch_of(piece)
    with pytest.raises(TransportError):
        await events_of(answer)
    assert answer.stream is not None
    assert answer.stream.closed  # type: ignore[attr-defined]


async def test_an_error_event_is_raised_by_its_reason() -> None:
    status = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}
    piece = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    with pytest.raises(Expired, match="too old"):
        await events_of(watch_of(piece))


async def test_nothing_is_tried_again() -> None:
    error = too_many_requests("busy", 1)
    transport = Scripted(*[Answer(429, JSON, json.dumps(error.to_dict()).encode())] * 2)
    lister = Client.for_transport(transport).list_watch(ConfigMap)
    with pytest.raises(TooManyRequests):
        await lister.list(ListOptions())
    with pytest.raises(TooManyRequests):
        await anext(lister.watch(WatchOptions()))
    assert len(transport.targets) == 2


async def test_a_list_that_does_not_fit() -> None:
    for body, why in (
        (b'{"items":[{"metadata":{"name":"x","namespace":"n"},"data":[]}]}', "n/x: does not fit the type ConfigMap"),
        (b"[]", "configmaps: the answer is no list"),
        (b"{", "configmaps: the answer is no list"),
    ):
        lister = Client.for_transport(Scripted(Answer(200, JSON, body))).list_watch(ConfigMap)
        with pytest.raises(BadAnswer, match=why) as caught:
            await lister.list(ListOptions())
        assert isinstance(caught.value, ValueError)


async def test_a_list_with_metadata_that_we_do_not_know() -> None:
    body = b'{"kind":"ConfigMapList","odd":1,"metadata":{"resourceVersion":"5","odd":2},"items":null}'
    found = await Client.for_transport(Scripted(Answer(200, JSON, body))).list_watch(ConfigMap).list(ListOptions())
    assert (found.resource_version, list(found.items)) == ("5", [])


async def test_a_resumed_watch_survives_breaks_and_refusals_and_raises_when_it_is_too_old() -> None:
    expired = {"kind": "Status", "reason": "Expired", "code": 410, "message": "too old resource version: 3"}
    transport = Scripted(
        watch_of(line("ADDED", name="a", resourceVersion="1"), TransportError("broke")),
        watch_of(line("BOOKMARK", resourceVersion="2")),
        Answer(500, JSON, b'{"kind":"Status","code":500}'),
        watch_of(line("ADDED", name="b", resourceVersion="3")),
        Answer(410, JSON, json.dumps(expired).encode()),
    )
    seen: list[ObjectEvent[ConfigMap]] = []
    client = Client.for_transport(transport, clock=Hurried())

    async def watch() -> None:
        async for event in client.watch(ConfigMap, since="0", resume=True):
            seen.append(event)  # noqa: PERF401  # kept up to the error

    with pytest.raises(Expired):
        await watch()
    assert [event.object.metadata.name for event in seen] == ["a", "b"]
    assert [target.rpartition("=")[2] for target in transport.targets] == ["0", "1", "2", "2", "3"]


async def test_against_our_server() -> None:
    async with ControlPlane() as plane, Client.from_kubeconfig(plane.kubeconfig) as client:
        await client.create(ConfigMap(metadata=ObjectMeta(name="a")))
        lister = client.list_watch(ConfigMap, "default")
        first = await lister.list(ListOptions(limit=1))
        assert first.continue_
        last = await lister.list(ListOptions(limit=1, continue_=first.continue_))
        assert (last.resource_version, last.continue_) == (first.resource_version, "")
        initial = WatchOptions(send_initial_events=True, resource_version_match="NotOlderThan")
        names = []
        async with aclosing(lister.watch(initial)) as events:
            async for event in events:
                if event.initial_events_end:
                    break
                names.append(event.object.metadata.name if event.object else "")
        assert sorted(names) == ["a", "kube-root-ca.crt"]
