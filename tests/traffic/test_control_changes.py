"""Changes of objects: that what is translated of them alone is what a translation anew finds, and when it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.client.errors import StreamFailed
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Ingress, IngressClass, Resource, Secret, from_dict
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.control import errands
from pilothouse.traffic.control.errands import Errand
from pilothouse.traffic.control.ingresses import INGRESS_CONTROLLER
from pilothouse.traffic.control.kinds import Gateway, TLSRoute, TrafficPolicy
from pilothouse.traffic.control.snapshot import key_of
from pilothouse.traffic.control.store import Store
from pilothouse.traffic.control.translate import Translation, translate
from support.gatewayobjects import (
    OURS,
    POOL,
    backend,
    gateway,
    grant,
    grpc_route,
    listener,
    listener_set,
    meta,
    namespace,
    route,
    service,
    slices,
    stream_route,
    tls_policy,
    weights,
)
from support.loglines import logged

# Translated


def policy(kind: str, group: str, name: str, **spec: Any) -> TrafficPolicy:
    whole = {"targetRefs": [{"group": group, "kind": kind, "name": name}], **spec}
    return from_dict({"metadata": meta(f"policy-{kind}".lower()), "spec": whole}, TrafficPolicy)


def ingress(name: str) -> Ingress:
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"number": 80}}}}
    spec = {"ingressClassName": "mine", "rules": [{"host": "i.example", "http": {"paths": [path]}}]}
    return from_dict({"metadata": meta("in"), "spec": spec}, Ingress)


def selected(**labels: str) -> Mapping[str, Any]:
    return listener(allowedRoutes={"namespaces": {"from": "Selector", "selector": {"matchLabels": labels}}})


EAST = {"type": "ExtensionRef", "extensionRef": {"group": "pilothouse.dev", "kind": "RegionWeights", "name": "east"}}
SHARE = {"regions": ["cn-east"], "backends": [{"name": "web", "weight": 0}]}
SNI = listener("sni", 443, "TLS", tls={"mode": "Passthrough"})
RATE = {"rateLimit": {"requestsPerSecond": 5}}
OTHERS = ("other", "safe")
VARIANTS: Sequence[Sequence[Resource]] = (
    (
        gateway(listener(hostname="*.example"), listener("two", 81)),
        gateway(listener(), SNI),
        gateway(selected(team="a"), allowedListeners={"namespaces": {"from": "All"}}),
        gateway(listener(allowedRoutes={"namespaces": {"from": "All"}})),
    ),
    (listener_set(listener("three", 82)), listener_set(listener("three", 80))),
    (
        route(name="a"),
        route({"backendRefs": [backend(weight=3), backend("safe")]}, name="a", hostnames=["a.example"]),
        route({"backendRefs": [backend("safe", namespace="other")]}, name="a"),
        route({"backendRefs": [backend()], "filters": [EAST]}, name="a"),
    ),
    (route(name="b", hostnames=["x.test"]), route({"backendRefs": [backend("absent")]}, name="b")),
    (route(name="c", namespace="other"), route(name="c", namespace="other", hostnames=["c.example"])),
    (grpc_route({"backendRefs": [backend()]}),),
    (
        stream_route(TLSRoute, backend(), hostnames=["s.example"]),
        stream_route(TLSRoute, backend("safe"), hostnames=["s.example"]),
    ),
    (service(), service(appProtocol="https"), service(appProtocol="kubernetes.io/none"), service(name="other")),
    (service("safe"),),
    (service("safe", "other"),),
    (slices("10.0.0.1"), slices("10.0.0.1", "10.0.0.2"), slices("10.0.0.1", ready=False)),
    (slices("10.0.0.3", part="2"), slices("10.0.0.3", part="2", name="safe")),
    (tls_policy(), tls_policy(hostname="other.example", wellKnownCACertificates="System")),
    (policy("Service", "", "web", slowStart="3s"), policy("Service", "", "safe", slowStart="3s")),
    (
        policy("HTTPRoute", "gateway.networking.k8s.io", "a", **RATE),
        policy("HTTPRoute", "gateway.networking.k8s.io", "b", **RATE),
        policy(
            "HTTPRoute", "gateway.networking.k8s.io", "a", rateLimit={**RATE["rateLimit"], "storeRef": {"name": "l"}}
        ),
    ),
    (
        Secret(metadata=from_dict({"metadata": meta("l")}, Secret).metadata, data={"url": b"redis://127.0.0.1"}),
        Secret(metadata=from_dict({"metadata": meta("l")}, Secret).metadata, data={"url": b"redis://127.0.0.2"}),
    ),
    (policy("Gateway", "gateway.networking.k8s.io", "front", trustedProxies=["10.0.0.0/8"]),),
    (weights(SHARE), weights({**SHARE, "regions": ["eu"]})),
    (grant("HTTPRoute", "shop", "Service"), grant("HTTPRoute", "shop", "Secret")),
    (namespace("other", team="a"), namespace("other")),
    (from_dict({"metadata": {"name": "mine", "uid": "c"}, "spec": {"controller": INGRESS_CONTROLLER}}, IngressClass),),
    (ingress("web"), ingress("safe")),
)
_STEPS = st.sampled_from([(place, number) for place, some in enumerate(VARIANTS) for number in range(-1, len(some))])


def step(store: Store, place: int, number: int) -> None:
    """Put a variant in the place of others of its place; -1 for none of them."""
    for each in VARIANTS[place]:
        if store.objects[type(each)].get(key_of(each)) is each:
            store.remove(type(each), each)
    if number >= 0:
        store.put(VARIANTS[place][number])


def stocked() -> Store:
    store = Store()
    store.put(OURS)
    for place, _ in enumerate(VARIANTS):
        step(store, place, 0)
    return store


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(_STEPS, min_size=1, max_size=3), min_size=1, max_size=8))
def test_what_is_translated_of_changes_is_what_is_found_anew(changes: list[list[tuple[int, int]]]) -> None:
    store = stocked()
    made = translate(store.snapshot(), POOL)
    assert len(made.configuration.routes) >= 4
    for some in changes:
        for each in some:
            step(store, *each)
        alone = Translation(Configuration(), (), addresses=made.addresses)  # which are kept in any case
        made, anew = translate(store.snapshot(), POOL, made), translate(store.snapshot(), POOL, alone)
        assert made.configuration == anew.configuration
        assert made.statuses == anew.statuses


@pytest.mark.parametrize(
    ("place", "number", "again"),
    [(2, 1, {"shop/a"}), (9, -1, set()), (10, 1, set()), (14, 1, {"shop/a", "shop/b"}), (17, 1, set()), (21, 1, set())],
    ids=["a route", "a service of nobody", "endpoints", "a policy of routes", "weights of nobody", "an ingress"],
)
def test_routes_that_a_change_does_not_concern_are_taken_over(place: int, number: int, again: set[str]) -> None:
    store = stocked()
    before = translate(store.snapshot(), POOL)
    step(store, place, number)
    after = translate(store.snapshot(), POOL, before)
    assert {"/".join(key) for (_, key), each in after.routes.items() if before.routes[_, key] is not each} == again


def test_a_gateway_keeps_its_address_before_its_status_says_so() -> None:
    store = Store()
    for each in (OURS, gateway(listener(), name="a"), gateway(listener(), name="b")):
        store.put(each)
    before = translate(store.snapshot(), POOL)
    assert [each.address for each in before.configuration.listeners] == ["127.5.0.1", "127.5.0.2"]
    store.remove(Gateway, gateway(listener(), name="a"))
    store.put(gateway(listener(), name="c"))
    after = translate(store.snapshot(), POOL, before)
    assert {each.name.split("/")[1]: each.address for each in after.configuration.listeners} == {
        "b": "127.5.0.2",
        "c": "127.5.0.1",
    }


def test_backends_that_a_change_does_not_concern_are_the_same() -> None:
    store = stocked()
    step(store, 2, 1)
    before = translate(store.snapshot(), POOL)
    step(store, 10, 1)
    after = translate(store.snapshot(), POOL, before)
    names = backends_that_differ(before, after)
    assert names
    assert all(name.startswith("shop/web:80") for name in names)
    assert any(name.startswith("shop/safe:80") for name in after.configuration.backends)


def backends_that_differ(before: Translation, after: Translation) -> set[str]:
    known = before.configuration.backends
    return {name for name, each in after.configuration.backends.items() if known.get(name) is not each}


# Done


async def test_an_errand_is_done_once_for_all_who_asked_meanwhile() -> None:
    clock, done = FakeClock(), []

    async def work() -> None:
        done.append(clock.monotonic())

    errand = Errand("it", work, clock, 0.005)
    task = asyncio.create_task(errand.run())
    assert errand.is_idle
    errand.ask()
    await clock.run(0.004)
    errand.ask()
    assert (done, errand.is_idle) == ([], False)
    await clock.run(1)
    assert len(done) == 1
    assert errand.is_idle
    errand.ask()
    await clock.run(1)
    assert len(done) == 2
    task.cancel()


@pytest.mark.parametrize("error", [StreamFailed("away"), ValueError("nobody thought of it")], ids=repr)
async def test_an_errand_that_failed_is_done_again_later_and_later(error: Exception) -> None:
    clock, done = FakeClock(), []

    async def work() -> None:
        done.append(clock.monotonic())
        if len(done) < 4:
            raise error

    errand = Errand("it", work, clock)
    task = asyncio.create_task(errand.run())
    with logged(errands) as records:
        errand.ask()
        await clock.run(60)
    assert done == pytest.approx([0.0, 0.2, 0.6, 1.4])
    assert sum("again" in str(each) for each in records) == 3
    assert errand.is_idle
    task.cancel()
