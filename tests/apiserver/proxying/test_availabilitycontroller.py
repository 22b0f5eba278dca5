"""The controller of the Available condition, on a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.proxying.aggregation import API_SERVICES, Aggregator
from pilothouse.apiserver.proxying.availabilitycontroller import AvailabilityController
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import conflict
from support.proxykit import FakeView, endpoint_slice, make_service


class Api:
    """Writes statuses into a view, as the server would."""

    def __init__(self, view: FakeView) -> None:
        self.view = view
        self.written: list[tuple[str, str]] = []
        self.conflicts = 0

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        assert method == "PUT"
        assert body is not None
        if self.conflicts:
            self.conflicts -= 1
            raise conflict("apiregistration.k8s.io", "apiservices", body["metadata"]["name"])
        assert path == f"/apis/apiregistration.k8s.io/v1/apiservices/{body['metadata']['name']}/status"
        (condition,) = body["status"]["conditions"]
        self.written.append((body["metadata"]["name"], condition["reason"]))
        self.view.put(API_SERVICES, body)
        return body


class Answering(Aggregator):
    """Asks no server; counts how often it would."""

    fails = False
    asked = 0

    async def _ask(self, route: Any, path: str, accept: str = "") -> tuple[bytes, str, str]:
        self.asked += 1
        await asyncio.sleep(0)
        return b"", "", "no answer" if self.fails else ""


def api_service(name: str, service: str | None) -> Object:
    version, _, group = name.partition(".")
    spec: Object = {"group": group, "version": version}
    if service:
        spec["service"] = {"namespace": "d", "name": service, "port": 443}
    return {"metadata": {"name": name}, "spec": spec}


class World:
    def __init__(self) -> None:
        self.view = FakeView(
            api_services=[api_service("v1.apps", None), api_service("v1.m", "s")],
            services=[make_service("s", [{"port": 443}])],
        )
        self.api, self.clock = Api(self.view), FakeClock()
        self.aggregator = Answering(self.view, ReverseProxy())
        self.controller = AvailabilityController(self.view, self.api, self.aggregator, clock=self.clock)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.controller.run())
    await world.clock.run(0.1)
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.view.subscribers == {}


READY = endpoint_slice("s", [("10.0.0.1", "", True)], [("", 443)])


async def test_conditions_follow_services_and_endpoints(world: World) -> None:
    assert world.api.written == [("v1.apps", "Local"), ("v1.m", "EndpointsNotFound")]
    world.view.put("endpointslices.discovery.k8s.io", READY)
    await world.clock.run(0.1)
    assert world.api.written[2:] == [("v1.m", "Passed")]
    world.view.remove("services", "s")
    await world.clock.run(0.1)
    assert world.api.written[3:] == [("v1.m", "ServiceNotFound")]
    world.view.put("services", make_service("other", []))
    await world.clock.run(0.1)
    assert len(world.api.written) == 4


async def test_nothing_is_written_where_nothing_changed(world: World) -> None:
    await world.clock.run(100)
    assert len(world.api.written) == 2
    assert world.aggregator.asked == 0


async def test_new_ones_are_checked(world: World) -> None:
    world.view.put(API_SERVICES, api_service("v2.apps", None))
    await world.clock.run(0.1)
    assert world.api.written[2:] == [("v2.apps", "Local")]
    world.view.remove(API_SERVICES, "v2.apps")
    await world.clock.run(31)
    assert len(world.api.written) == 3


async def test_a_server_that_does_not_answer_is_asked_again_ever_more_slowly(world: World) -> None:
    world.aggregator.fails = True
    world.view.put("endpointslices.discovery.k8s.io", READY)
    await world.clock.run(0.5)
    assert world.api.written[2:] == [("v1.m", "FailedDiscoveryCheck")]
    counts = []
    for _ in range(8):
        await world.clock.run(1)
        counts.append(world.aggregator.asked // 5)
    assert counts == [2, 2, 3, 3, 3, 3, 4, 4]
    world.aggregator.fails = False
    await world.clock.run(30)
    assert world.api.written[3:] == [("v1.m", "Passed")]


async def test_a_write_that_came_too_late_is_tried_again(world: World) -> None:
    world.api.conflicts = 1
    world.view.put("endpointslices.discovery.k8s.io", READY)
    await world.clock.run(0.5)
    assert len(world.api.written) == 2
    await world.clock.run(1)
    assert world.api.written[2:] == [("v1.m", "Passed")]
