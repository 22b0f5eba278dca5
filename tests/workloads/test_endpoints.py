"""Slices and Endpoints of pods: what is published, with how few writes, and what is mirrored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kinds.structs import Endpoints, EndpointSlice, Node, ObjectMeta, Pod, Service, from_dict, replace
from pilothouse.workloads.endpoints import TriggerTimes, normal_address
from pilothouse.workloads.endpoints_hints import shares_of
from pilothouse.workloads.endpoints_mirroring import mirror, mirrors
from pilothouse.workloads.endpoints_slices import MAX_ENDPOINTS, Hinting, ServicePlan, plan
from pilothouse.workloads.endpoints_subsets import CAPACITY, OVER_CAPACITY, endpoints_for

NODE = from_dict({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}}, Node)
TIME = "2026-01-01T00:00:00Z"


def service(**spec: Any) -> Service:
    metadata = {"name": "s", "namespace": "ns", "uid": "u", "creationTimestamp": TIME}
    base = {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"a": "b"}, "ports": [{"port": 80}]}
    base["ports"] = [{"port": 80, "targetPort": 80}]
    return from_dict({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": base | spec}, Service)


def pod(number: int, *, ready: bool = True, node: str = "n", **more: Any) -> Pod:
    address = f"10.{1 + number // 62500}.{number // 250 % 250}.{number % 250}"
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": TIME}],
    }
    metadata = {"name": f"p{number:05}", "namespace": "ns", "uid": f"u{number}"}
    spec = {"nodeName": node, "containers": [{"name": "c"}]}
    return from_dict({"metadata": metadata | more, "spec": spec, "status": status}, Pod)


class Store:
    """Slices as a server would have them, and the writes that were made."""

    def __init__(self) -> None:
        self.slices: dict[str, EndpointSlice] = {}
        self.writes = 0
        self._number = 0

    def carry_out(self, made: ServicePlan) -> None:
        for each in made.create:
            self._number += 1
            name = f"s-{self._number}"
            self.slices[name] = replace(each, metadata__name=name)
        for each in made.update:
            self.slices[each.metadata.name] = each
        for each in made.delete:
            del self.slices[each.metadata.name]
        self.writes += len(made.create) + len(made.update) + len(made.delete)

    def step(self, found: Service, pods: Iterable[Pod], hinting: Hinting | None = None) -> ServicePlan:
        node_of = {"n": NODE}.get
        made = plan(found, pods, node_of, self.slices.values(), "", hinting or Hinting())
        self.carry_out(made)
        return made

    def addresses(self) -> list[str]:
        return sorted(one for each in self.slices.values() for end in each.endpoints for one in end.addresses)


def addresses(pods: Iterable[Pod]) -> list[str]:
    return sorted(each.status.pod_ip for each in pods)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 400), max_size=350), min_size=1, max_size=6))
def test_slices_hold_each_endpoint_once_and_then_stay(steps: Sequence[set[int]]) -> None:
    store, found = Store(), service()
    for numbers in steps:
        pods = [pod(number) for number in sorted(numbers)]
        store.step(found, pods)
        assert store.addresses() == addresses(pods)
        assert all(len(each.endpoints) <= MAX_ENDPOINTS for each in store.slices.values())
        assert store.slices
        before = store.writes
        store.step(found, pods)
        assert store.writes == before


def test_one_pod_that_changes_costs_one_write() -> None:
    store, found, pods = Store(), service(), [pod(number) for number in range(1000)]
    store.step(found, pods)
    assert len(store.slices) == 10
    before = store.writes
    pods[500] = pod(500, ready=False)
    store.step(found, pods)
    assert store.writes == before + 1
    pods.pop(3)
    pods.append(pod(2000))
    store.step(found, pods)
    assert store.writes == before + 2
    assert store.addresses() == addresses(pods)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (True, True, False)),
        ({"ready": False}, (False, False, False)),
        ({"deletionTimestamp": TIME}, (False, True, True)),
        ({"ready": False, "deletionTimestamp": TIME}, (False, False, True)),
    ],
)
@pytest.mark.parametrize("published", [False, True])
def test_conditions(change: dict[str, Any], expected: tuple[bool, bool, bool], published: bool) -> None:
    store = Store()
    store.step(service(publishNotReadyAddresses=published), [pod(1, **change)])
    state = next(iter(store.slices.values())).endpoints[0].conditions
    ready = published or expected[0]
    assert (state.ready, state.serving, state.terminating) == (ready, *expected[1:])


def test_a_pod_of_an_unknown_node_is_left_out_and_told() -> None:
    store = Store()
    made = store.step(service(), [pod(1), pod(2, node="gone")])
    assert store.addresses() == ["10.1.0.1"]
    assert [each.metadata.name for each in made.lost] == ["p00002"]
    assert Store().step(service(publishNotReadyAddresses=True), [pod(2, node="gone")]).lost == []


def test_other_ports_use_the_slice_again() -> None:
    store = Store()
    store.step(service(), [pod(1)])
    name = next(iter(store.slices))
    store.step(service(ports=[{"port": 80, "targetPort": 81}]), [pod(1)])
    assert [*store.slices] == [name]
    assert store.slices[name].ports[0].port == 81


def test_both_families_have_slices() -> None:
    store = Store()
    both = replace(
        pod(1), status__pod_ips=[*pod(1).status.pod_ips, from_dict({"ip": "FD00::1"}, type(pod(1).status.pod_ips[0]))]
    )
    store.step(service(ipFamilies=["IPv4", "IPv6"]), [both])
    found = {each.address_type: each.endpoints[0].addresses for each in store.slices.values()}
    assert found == {"IPv4": ["10.1.0.1"], "IPv6": ["fd00::1"]}
    store.step(service(), [both])
    assert {each.address_type for each in store.slices.values()} == {"IPv4"}


def zoned(*zones: str) -> list[Node]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}
    return [
        from_dict(
            {"metadata": {"name": f"n{at}", "labels": {"topology.kubernetes.io/zone": zone}}, "status": ready}, Node
        )
        for at, zone in enumerate(zones)
    ]


def test_hints_share_endpoints_out_among_zones() -> None:
    nodes = zoned("a", "b")
    hinting = Hinting(shares=shares_of(nodes))
    found = replace(service(), metadata__annotations={"service.kubernetes.io/topology-mode": "Auto"})
    pods = [pod(number, node="n0") for number in range(4)]
    node_of = {each.metadata.name: each for each in nodes}.get
    made = plan(found, pods, node_of, (), "", hinting)
    zones = sorted(each.hints.for_zones[0].name for each in made.create[0].endpoints if each.hints)
    assert zones == ["a", "a", "b", "b"]
    assert [note.reason for note in made.notes] == ["TopologyAwareHintsEnabled"]
    few = plan(found, pods[:1], node_of, (), "", hinting)
    assert few.create[0].endpoints[0].hints is None
    assert few.notes[0].message.startswith("Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4")


def test_shares_follow_processors() -> None:
    assert shares_of(zoned("a", "a", "b", "c")) == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert shares_of(zoned("a", "a")) == {}
    assert shares_of(zoned("a", "")) == {}


def test_endpoints_are_cut_at_their_capacity_ready_ones_first() -> None:
    pods = [pod(number, ready=number % 4 != 0) for number in range(1200)]
    made = endpoints_for(service(), pods, None, TIME)
    assert made is not None
    assert made.metadata.annotations[OVER_CAPACITY] == "truncated"
    assert len(made.subsets[0].addresses) == 900
    assert len(made.subsets[0].not_ready_addresses) == CAPACITY - 900
    again = endpoints_for(service(), pods[:10], made, TIME)
    assert again is not None
    assert OVER_CAPACITY not in again.metadata.annotations
    assert endpoints_for(service(), pods[:10], again, "") is None


def test_a_pod_that_is_deleted_leaves_endpoints_unless_all_are_published() -> None:
    ending = [pod(1, deletionTimestamp=TIME)]
    made = endpoints_for(service(), ending, None, "")
    assert made is not None
    assert made.subsets == []
    published = endpoints_for(service(publishNotReadyAddresses=True), ending, None, "")
    assert published is not None
    assert [each.ip for each in published.subsets[0].addresses] == ["10.1.0.1"]


def test_trigger_times_are_those_of_what_changed() -> None:
    times, later = TriggerTimes(), "2026-01-01T00:05:00Z"
    assert times.changed(service(), [pod(1)]) == TIME
    assert times.changed(service(), [pod(1)]) == ""
    changed = replace(pod(2), status__conditions=[replace(pod(2).status.conditions[0], last_transition_time=later)])
    assert times.changed(service(), [pod(1), changed]) == later
    times.forget("ns", "s")
    assert times.changed(service(), [changed]) == TIME


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.0.0.1", "10.0.0.1"), ("010.001.0.1", "10.1.0.1"), ("FD00:0::1", "fd00::1"), ("host", ""), ("1.2.3", "")],
)
def test_addresses_are_written_as_usual(text: str, expected: str) -> None:
    assert normal_address(text) == expected


def written(subsets: list[dict[str, Any]], **metadata: Any) -> Endpoints:
    about = {"name": "s", "namespace": "ns", "uid": "e"}
    tree = {"apiVersion": "v1", "kind": "Endpoints", "metadata": about | metadata, "subsets": subsets}
    return from_dict(tree, Endpoints)


def test_mirrored_slices_say_what_is_wrong() -> None:
    many = [{"ip": f"10.0.{at // 250}.{at % 250}"} for at in range(1100)]
    made = mirror(written([{"addresses": many, "ports": [{"port": 1}]}]), ())
    assert len(made.create[0].endpoints) == 1000
    assert [note.reason for note in made.notes] == ["TooManyAddressesToMirror"]
    assert made.notes[0].message.endswith("100 addresses were skipped")
    bad = mirror(written([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "x"}], "ports": [{"port": 1}]}]), ())
    assert [note.message for note in bad.notes] == ["Skipped 1 invalid IP addresses when mirroring to EndpointSlices"]


def test_a_mirror_is_made_anew_for_other_endpoints_of_the_name() -> None:
    first = written([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}], labels={"a": "b"})
    there = replace(mirror(first, ()).create[0], metadata__name="s-1")
    unchanged = mirror(first, [there])
    assert [*unchanged.create, *unchanged.update, *unchanged.delete] == []
    other = replace(first, metadata__uid="other")
    made = mirror(other, [there])
    assert [each.metadata.owner_references[0].uid for each in made.update] == ["other"]


def test_only_endpoints_of_services_without_selector_are_mirrored() -> None:
    plain, free = written([]), service(selector=None)
    assert mirrors(plain, free)
    assert not mirrors(plain, service())
    assert not mirrors(plain, None)
    assert not mirrors(None, free)
    assert not mirrors(written([], labels={"endpointslice.kubernetes.io/skip-mirror": "true"}), free)
    assert not mirrors(written([], annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}), free)


def test_a_service_that_goes_gets_no_new_slices() -> None:
    going = replace(service(), metadata=ObjectMeta(name="s", namespace="ns", uid="u", deletion_timestamp=TIME))
    assert Store().step(going, [pod(1)]).create == []
