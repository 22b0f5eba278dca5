"""Taints of conditions, tolerations, zones and networks of nodes."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import Node, Pod, from_dict
from pilothouse.kinds.structs.core_nodes import Taint
from pilothouse.kinds.structs.core_scheduling import Toleration
from pilothouse.workloads.nodes import settled, with_evicting, with_unknown, zone_of
from pilothouse.workloads.nodes_addresses import AddressesExhaustedError, NodeNetworks
from pilothouse.workloads.nodes_tolerations import marked_for_eviction, stay_seconds, tolerates
from pilothouse.workloads.nodes_zones import Zones

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(conditions: dict[str, str] | None = None, **more: Any) -> Node:
    found = [{"type": kind, "status": status} for kind, status in (conditions or {}).items()]
    return from_dict({"metadata": {"name": "n"}, "status": {"conditions": found}} | more, Node)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"Ready": "True"}, []),
        ({"Ready": "False"}, ["not-ready"]),
        ({"Ready": "Unknown"}, ["unreachable"]),
        ({"Ready": "True", "MemoryPressure": "True", "DiskPressure": "True"}, ["memory-pressure", "disk-pressure"]),
        ({"PIDPressure": "True", "NetworkUnavailable": "True"}, ["pid-pressure", "network-unavailable"]),
        ({"MemoryPressure": "Unknown"}, []),
    ],
)
def test_taints_follow_conditions_and_others_stay(conditions: dict[str, str], expected: list[str]) -> None:
    mine = {"key": "mine", "effect": "NoSchedule"}
    stale = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    made = settled(node(conditions, spec={"taints": [mine, stale]}), NOW)
    assert [each.key.rpartition("/")[2] for each in made.spec.taints] == ["mine", *expected]
    assert settled(made, NOW) is made


def test_cordoned_nodes_and_labels() -> None:
    labels = {"name": "n", "labels": {"kubernetes.io/arch": "arm64", "beta.kubernetes.io/arch": "old"}}
    made = settled(node({"Ready": "True"}, metadata=labels, spec={"unschedulable": True}), NOW)
    assert [each.key for each in made.spec.taints] == ["node.kubernetes.io/unschedulable"]
    assert made.metadata.labels["beta.kubernetes.io/arch"] == "arm64"


def test_one_evicting_taint_at_most() -> None:
    lost = with_evicting(node(), "node.kubernetes.io/unreachable", NOW)
    other = with_evicting(lost, "node.kubernetes.io/not-ready", NOW)
    assert [each.key for each in other.spec.taints] == ["node.kubernetes.io/not-ready"]
    assert [each.time_added for each in other.spec.taints] == ["2026-01-01T00:00:00Z"]
    assert with_evicting(other, "", NOW).spec.taints == []


def test_what_is_said_of_a_silent_node() -> None:
    made = with_unknown(node({"Ready": "True", "NetworkUnavailable": "False"}), NOW)
    said = {each.type: (each.status, each.reason) for each in made.status.conditions}
    never = ("Unknown", "NodeStatusNeverUpdated")
    assert said == {
        "Ready": ("Unknown", "NodeStatusUnknown"),
        "NetworkUnavailable": ("False", ""),
        "MemoryPressure": never,
        "DiskPressure": never,
        "PIDPressure": never,
    }
    assert with_unknown(made, NOW) is made


def test_zones_are_of_regions() -> None:
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
    assert zone_of(node(metadata={"labels": labels})) == "r:\x00:z"
    assert zone_of(node()) == ""


TAINT = Taint(key="k", value="v", effect="NoExecute")


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key="k", operator="Exists"), True),
        (Toleration(key="k", value="v"), True),
        (Toleration(key="k", operator="Equal", value="w"), False),
        (Toleration(key="k", operator="Exists", effect="NoSchedule"), False),
        (Toleration(key="l", operator="Exists"), False),
    ],
)
def test_tolerations(toleration: Toleration, expected: bool) -> None:
    assert tolerates(toleration, TAINT) is expected


def test_how_long_a_pod_stays() -> None:
    def stay(*tolerations: dict[str, Any], taints: tuple[Taint, ...] = (TAINT,)) -> float:
        return stay_seconds(from_dict({"spec": {"tolerations": [*tolerations]}}, Pod), taints)

    forever, short = {"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists", "tolerationSeconds": 5}
    other = Taint(key="l", effect="NoExecute")
    assert stay() == 0.0
    assert stay(forever) == math.inf
    assert stay(forever, short, taints=(TAINT, other)) == 5.0
    assert stay(forever, taints=(TAINT, other)) == 0.0
    assert stay({**short, "tolerationSeconds": -1}, taints=(other,)) == 0.0


def test_a_pod_says_why_it_goes_once() -> None:
    pod = from_dict({"metadata": {"generation": 2}}, Pod)
    made = marked_for_eviction(pod, NOW)
    assert made is not None
    condition = made.status.conditions[0]
    assert (condition.reason, condition.observed_generation) == ("DeletionByTaintManager", 2)
    assert marked_for_eviction(made, NOW) is None


def fill(zones: Zones, zone: str, ready: int, lost: int) -> None:
    for at in range(ready + lost):
        zones.observe(f"{zone}{at}", zone, at < ready)


@pytest.mark.parametrize(
    ("ready", "lost", "state", "again"),
    [
        (10, 2, "Normal", 10.0),
        (1, 2, "Normal", 10.0),
        (2, 3, "PartialDisruption", math.inf),
        (30, 50, "PartialDisruption", 100.0),
        (0, 5, "FullDisruption", 10.0),
    ],
)
def test_zones_lose_nodes_slowly(ready: int, lost: int, state: str, again: float) -> None:
    zones = Zones()
    fill(zones, "a", ready, lost)
    fill(zones, "b", 3, 0)
    assert zones.state("a") == state
    first = 0.0 if again < math.inf else math.inf
    assert zones.wait("a", 1000.0) == first
    assert zones.wait("a", 1000.0) == again
    assert zones.wait("b", 1000.0) == 0.0


def test_no_node_is_tainted_when_all_are_lost() -> None:
    zones, seen = Zones(), list[bool]()
    seen.append(zones.are_all_lost)
    fill(zones, "a", 0, 2)
    seen.append(zones.are_all_lost)
    assert zones.wait("a", 0.0) == math.inf
    zones.observe("a0", "a", True)
    seen.append(zones.are_all_lost)
    zones.forget("a0")
    seen.append(zones.are_all_lost)
    assert seen == [False, True, False, True]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
def test_no_two_nodes_have_one_network(steps: list[tuple[str, bool]]) -> None:
    networks, has = NodeNetworks("10.0.0.0/21"), dict[str, str]()
    for name, comes in steps:
        if comes and name not in has:
            has[name] = networks.allocate(name)
        elif not comes:
            networks.free(name)
            has.pop(name, None)
        assert len(set(has.values())) == len(has)
        assert all(networks.of(each) == network for each, network in has.items())


def test_ranges_that_nodes_have_chosen_are_taken_whatever_their_size() -> None:
    networks = NodeNetworks("10.0.0.0/21")
    for name, network in (
        ("a", "10.0.0.128/25"),
        ("b", "10.0.0.0/25"),
        ("c", "10.0.2.0/23"),
        ("other", "10.1.0.0/24"),
        ("six", "fd00::/64"),
        ("below", "9.0.0.0/8"),
    ):
        networks.take(name, network)
    assert [networks.allocate(name) for name in ("d", "e")] == ["10.0.1.0/24", "10.0.4.0/24"]
    networks.free("a")
    networks.free("c")
    assert [networks.allocate(name) for name in "fghij"] == [f"10.0.{part}.0/24" for part in (5, 6, 7, 2, 3)]
    with pytest.raises(AddressesExhaustedError):
        networks.allocate("k")
    networks.free("b")
    assert networks.allocate("k") == "10.0.0.0/24"


def test_a_network_ends() -> None:
    networks = NodeNetworks("10.0.0.0/23")
    networks.take("a", "10.0.0.0/24")
    assert networks.allocate("b") == "10.0.1.0/24"
    with pytest.raises(AddressesExhaustedError, match="all 2 parts are taken"):
        networks.allocate("c")
    networks.free("a")
    assert networks.allocate("c") == "10.0.0.0/24"
    assert NodeNetworks("fd00::/56").allocate("a") == "fd00::/64"
    with pytest.raises(ValueError, match="want a prefix"):
        NodeNetworks("0.0.0.0/7")
    with pytest.raises(ValueError, match="want a prefix"):
        NodeNetworks("10.0.0.0/25", mask=24)


def test_a_small_network_is_one_nodes() -> None:
    networks = NodeNetworks("10.0.0.0/29")
    assert networks.allocate("a") == "10.0.0.0/29"
    with pytest.raises(AddressesExhaustedError):
        networks.allocate("b")
