"""What a namespace holds in APIs of other servers goes with it, as far as these let it."""

from __future__ import annotations

import json
from typing import Any

from pilothouse.apiserver.discovery import AggregatedVersion
from pilothouse.apiserver.lifecycle.emptying import Emptying
from pilothouse.apiserver.lifecycle.foreign import ForeignContent
from pilothouse.apiserver.model import Answer, Request, Response, Sink, StreamingResponse
from support.dictview import DictView

Object = dict[str, Any]
ALL = ["create", "delete", "deletecollection", "get", "list"]


def resource(plural: str, verbs: list[str], scope: str = "Namespaced") -> Object:
    return {"resource": plural, "scope": scope, "verbs": verbs}


class OtherServer:
    """Holds objects by name, and answers reads as a stream, as proxies do."""

    def __init__(self, **finalizers: list[str]) -> None:
        self.items: dict[str, Object] = {}
        for name, held in finalizers.items():
            self.items[name] = {"metadata": {"name": name, "finalizers": held}}
        self.calls: list[tuple[str, str]] = []
        self.status = 200
        self.raw: bytes | None = None

    def handle(self, request: Request) -> Answer:
        assert request.user is not None
        assert request.user.name == "system:serviceaccount:kube-system:namespace-controller"
        self.calls.append((request.method, request.path))
        answer: Object = {"kind": "List", "items": list(self.items.values())}
        if self.status >= 300:
            answer = {"kind": "Status", "message": "not today", "code": self.status}
        elif request.method == "DELETE":
            last = request.path.rpartition("/")[2]
            for name in [name for name in self.items if last in {"things", name}]:
                if not self.items[name]["metadata"]["finalizers"]:
                    del self.items[name]
        data = json.dumps(answer).encode() if self.raw is None else self.raw

        async def run(sink: Sink) -> None:
            sink.write(data[:5])
            sink.write(data[5:])

        return StreamingResponse(run, self.status) if request.method == "GET" else Response(self.status, data)


def version(*resources: Object, name: str = "v1", priority: int = 10, available: bool = True) -> AggregatedVersion:
    return AggregatedVersion("far.example", name, 100, priority, available, tuple(resources))


async def emptied(server: OtherServer, *versions: AggregatedVersion) -> Emptying:
    found = Emptying()
    await ForeignContent(DictView(), server.handle, lambda: versions).empty("doomed", found)
    return found


async def test_collections_are_deleted() -> None:
    server = OtherServer(one=[], two=[])
    assert (await emptied(server, version(resource("things", ALL)))).done
    path = "/apis/far.example/v1/namespaces/doomed/things"
    assert server.calls == [("DELETE", path), ("GET", path)]


async def test_objects_are_deleted_one_by_one_where_collections_cannot() -> None:
    server = OtherServer(one=[], two=[])
    assert (await emptied(server, version(resource("singles", ["delete", "list"])))).done
    assert [method for method, _ in server.calls] == ["GET", "DELETE", "DELETE", "GET"]


async def test_only_what_can_be_deleted_is_and_in_the_preferred_version() -> None:
    server = OtherServer()
    metrics = resource("pods", ["get", "list"])
    wide = resource("wides", ALL, scope="Cluster")
    old = version(resource("things", ALL), name="v1beta1", priority=1)
    new = version(resource("things", ALL), metrics, wide, name="v2", priority=20)
    await emptied(server, old, new)
    assert {path for _, path in server.calls} == {"/apis/far.example/v2/namespaces/doomed/things"}


async def test_what_remains_is_told() -> None:
    found = await emptied(OtherServer(held=["x.io/f"], free=[]), version(resource("things", ALL)))
    assert found.remaining == {("things", "far.example"): 1}
    assert found.finalizers == {"x.io/f": 1}
    assert found.failures == []
    assert found.seconds == 15


async def test_refusals_and_nonsense_are_failures() -> None:
    server = OtherServer()
    server.status = 503
    assert (await emptied(server, version(resource("things", ALL)))).failures == ["not today"]
    server.status, server.raw = 200, b"<html>"
    (failure,) = (await emptied(server, version(resource("things", ALL)))).failures
    assert failure.endswith("the answer, 200, is no JSON object")


def test_apis_that_do_not_answer() -> None:
    view = DictView()
    for name, spec in {
        "v1.far.example": {"group": "far.example", "version": "v1", "service": {"name": "far"}},
        "v2.far.example": {"group": "far.example", "version": "v2", "service": {"name": "far"}},
        "v1.new.example": {"group": "new.example", "version": "v1", "service": {"name": "new"}},
        "v1.apps": {"group": "apps", "version": "v1"},
    }.items():
        view.put("apiservices.apiregistration.k8s.io", {"metadata": {"name": name}, "spec": spec})
    versions = [version(resource("things", ALL)), version(name="v2", available=False)]
    foreign = ForeignContent(view, OtherServer().handle, lambda: versions)
    assert sorted(foreign.undiscovered()) == ["far.example/v2", "new.example/v1"]
