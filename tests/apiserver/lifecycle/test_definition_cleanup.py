"""A deleted definition takes its objects with it, and says how that goes."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.lifecycle.definitions import CLEANUP, clean_up
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import ApiStatus, InternalError, ServiceUnavailable
from support.apiserverkit import Api, api_server, until

Object = dict[str, Any]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "widgets.x.io"
WIDGETS = "/apis/x.io/v1/namespaces/default/widgets"
FOREIGN = "example.com/held"


def definition(**metadata: Any) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, **metadata},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }


def terminating(*, established: bool = True) -> Object:
    made = definition(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[CLEANUP, FOREIGN])
    made["status"] = {"conditions": [{"type": "Established", "status": "True" if established else "False"}]}
    return made


class Server:
    """Notes calls, and answers with so many objects left."""

    def __init__(self, left: int = 0, pages: int = 1, refuse: ApiStatus | None = None) -> None:
        self.left = left
        self.pages = pages
        self.refuse = refuse
        self.calls: list[tuple[str, str]] = []
        self.written: list[Object] = []

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        self.calls.append((method, path))
        if method == "PUT":
            assert body is not None
            self.written.append(body)
            return body
        if method == "DELETE":
            if self.refuse is not None:
                raise self.refuse
            self.pages -= 1
            return {"metadata": {"continue": "more&more"} if self.pages else {}, "items": []}
        items: list[Object] = [{}] if self.left else []
        return {"metadata": {"remainingItemCount": self.left - 1} if self.left > 1 else {}, "items": items}

    @property
    def said(self) -> list[tuple[str, str, str]]:
        found = [each["status"]["conditions"][-1] for each in self.written]
        return [(each["status"], each["reason"], each["message"]) for each in found]


async def test_objects_go_page_by_page_then_the_finalizer() -> None:
    server = Server(pages=3)
    await clean_up(terminating(), server, FakeClock())
    assert server.said == [
        ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
        ("False", "InstanceDeletionCompleted", "removed all instances"),
    ]
    deletions = [path for method, path in server.calls if method == "DELETE"]
    assert deletions[0] == "/apis/x.io/v1/widgets?limit=500"
    assert deletions[1:] == ["/apis/x.io/v1/widgets?limit=500&continue=more%26more"] * 2
    assert server.written[-1]["metadata"]["finalizers"] == [FOREIGN]


async def test_what_is_left_is_waited_for() -> None:
    server = Server(left=3)
    with pytest.raises(ServiceUnavailable, match=r'"widgets.x.io": 3 of its objects wait for their finalizers'):
        await clean_up(terminating(), server, FakeClock())
    assert server.said[-1][1] == "InstanceDeletionCheck"
    assert CLEANUP in server.written[-1]["metadata"]["finalizers"]


async def test_refusals_are_told() -> None:
    server = Server(refuse=InternalError("a webhook said no"))
    with pytest.raises(InternalError):
        await clean_up(terminating(), server, FakeClock())
    assert server.said[-1] == ("True", "InstanceDeletionFailed", "could not issue all deletes: a webhook said no")


async def test_never_established_has_no_objects() -> None:
    server = Server(left=3)
    await clean_up(terminating(established=False), server, FakeClock())
    assert server.said[-1] == ("False", "NeverEstablished", "resource was never established")
    assert {method for method, _ in server.calls} == {"PUT"}


async def test_what_is_in_use_is_left_alone() -> None:
    server = Server()
    await clean_up(definition(), server, FakeClock())
    await clean_up(definition(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[FOREIGN]), server, FakeClock())
    assert server.calls == []


async def established(api: Api) -> None:
    await api.made(DEFINITIONS, definition())
    await until(lambda: api.server.catalogue.registry.get("x.io", "v1", "widgets") is not None)


@pytest.mark.parametrize("lifecycle", [False, True])
async def test_whole_server(lifecycle: bool) -> None:
    async with api_server(lifecycle=lifecycle) as api:
        await established(api)
        for name in ("free", "held"):
            metadata = {"name": name, "finalizers": [FOREIGN] if name == "held" else []}
            await api.made(WIDGETS, {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": metadata})
        await api.delete(f"{DEFINITIONS}/{NAME}")
        view = api.server.view
        await until(lambda: view.get(NAME, "default", "free") is None)
        found = (await api.get(f"{DEFINITIONS}/{NAME}")).body
        assert found["metadata"]["finalizers"] == [CLEANUP]
        await api.merge(f"{WIDGETS}/held", {"metadata": {"finalizers": None}})
        await until(lambda: view.get("customresourcedefinitions.apiextensions.k8s.io", "", NAME) is None)
        assert (await api.get(WIDGETS)).status == 404
