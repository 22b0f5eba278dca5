"""Routes rewritten for a split: everything else stays, and rewriting twice changes nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.errors import RouteInvalid
from pilothouse.delivery.resources.rollouts import SetHeaderRoute, SetMirrorRoute, WeightDestination
from pilothouse.delivery.rollouts.routes import RouteWants, region_shares, rewritten, shown
from pilothouse.delivery.rollouts.weights import Split
from pilothouse.kinds.structs import from_dict
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.files import problems, read_text
from pilothouse.traffic.control.snapshot import Snapshot
from pilothouse.traffic.control.translate import Options, translate

HEADER = from_dict({"name": "vip", "match": [{"headerName": "x", "headerValue": {"prefix": "a.b"}}]}, SetHeaderRoute)
MIRROR = from_dict(
    {
        "name": "copies",
        "percentage": 10,
        "match": [{"method": {"exact": "GET"}, "path": {"regex": "/a.*"}, "headers": {"y": {"exact": "1"}}}],
    },
    SetMirrorRoute,
)


def backend(name: str, weight: int | None = None, **more: Any) -> dict[str, Any]:
    ref = {"group": "", "kind": "Service", "name": name, "port": 80, **more}
    return ref if weight is None else {**ref, "weight": weight}


def route(*rules: dict[str, Any], kind: str = "HTTPRoute") -> dict[str, Any]:
    metadata = {"name": "shop", "namespace": "web", "resourceVersion": "7", "labels": {"a": "b"}}
    return {"kind": kind, "metadata": metadata, "spec": {"parentRefs": [{"name": "front"}], "rules": [*rules]}}


def rule(path: str = "/", **more: Any) -> dict[str, Any]:
    matches = [{"path": {"type": "PathPrefix", "value": path}}]
    return {"matches": matches, "backendRefs": [backend("stable", 100), backend("canary", 0)], **more}


def wants(split: Split, **more: Any) -> RouteWants:
    return RouteWants("stable", "canary", split, names=("vip", "copies"), regions="shop-regions", **more)


def weights(found: dict[str, Any]) -> list[dict[str, int]]:
    return [{ref["name"]: ref["weight"] for ref in one["backendRefs"]} for one in found["spec"]["rules"]]


def test_weights_are_set_in_every_rule_with_both_services_and_nowhere_else() -> None:
    other = {"backendRefs": [backend("stable", 3), backend("static", 1)]}
    before = route(rule("/a", timeouts={"request": "5s"}), other, rule("/b"))
    kept = copy.deepcopy(before)
    made = rewritten(before, wants(Split(100, 30)))
    assert before == kept
    assert weights(made) == [{"stable": 70, "canary": 30}, {"stable": 3, "static": 1}, {"stable": 70, "canary": 30}]
    assert made["spec"]["rules"][0]["timeouts"] == {"request": "5s"}
    assert made["metadata"] == before["metadata"]
    assert shown(made, wants(Split(100, 30))).weight == 30


def test_header_rules_go_before_and_take_filters_and_matches_along() -> None:
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": []}}]
    made = rewritten(route(rule("/a", filters=filters), rule("/b")), wants(Split(100, 0, managed=(HEADER,))))
    names = [one.get("name") for one in made["spec"]["rules"]]
    assert names == ["vip", "vip-1", None, None]
    first = made["spec"]["rules"][0]
    assert first["filters"] == filters
    assert first["matches"][0]["path"]["value"] == "/a"
    assert first["matches"][0]["headers"] == [{"name": "x", "type": "RegularExpression", "value": "a\\.b.*"}]
    assert first["backendRefs"] == [backend("canary", 1)]


def test_mirrors_send_copies_and_leave_shares_as_they_are() -> None:
    made = rewritten(route(rule()), wants(Split(100, 20, managed=(MIRROR, HEADER))))
    vip, copies, own = made["spec"]["rules"]
    assert (vip["name"], copies["name"]) == ("vip", "copies")
    assert copies["backendRefs"] == own["backendRefs"]
    (mirror,) = copies["filters"]
    assert mirror["requestMirror"] == {"backendRef": backend("canary"), "percent": 10}
    (match,) = copies["matches"]
    assert match["method"] == "GET"
    assert match["path"] == {"type": "RegularExpression", "value": "/a.*"}
    assert match["headers"] == [{"name": "y", "type": "Exact", "value": "1"}]


def test_grpc_routes_take_weights_and_headers_too() -> None:
    grpc = {"matches": [{"method": {"service": "Cart"}}], "backendRefs": [backend("stable"), backend("canary")]}
    made = rewritten(route(grpc, kind="GRPCRoute"), wants(Split(100, 5, managed=(HEADER,))))
    assert made["spec"]["rules"][0]["matches"][0]["method"] == {"service": "Cart"}
    assert weights(made)[1] == {"stable": 95, "canary": 5}


def test_regions_are_a_filter_that_comes_and_goes() -> None:
    split = Split(100, 10, {"cn-east": 60, "cn-north": 60, "eu": 0})
    made = rewritten(route(rule()), wants(split))
    (found,) = made["spec"]["rules"][0]["filters"]
    assert found["extensionRef"] == {"group": "pilothouse.dev", "kind": "RegionWeights", "name": "shop-regions"}
    shares = region_shares(split, "stable", "canary")
    assert [(one["regions"], [each["weight"] for each in one["backends"]]) for one in shares] == [
        (["eu"], [100, 0]),
        (["cn-east", "cn-north"], [40, 60]),
    ]
    assert rewritten(made, wants(Split(100))) == route(rule())


def test_an_experiment_gets_a_share_and_loses_it() -> None:
    share = WeightDestination(weight=5, service_name="base", pod_template_hash="x")
    made = rewritten(route(rule()), wants(Split(100, 20, additional=(share,))))
    assert weights(made) == [{"stable": 75, "canary": 20, "base": 5}]
    back = rewritten(made, wants(Split(100, 20), former=frozenset({"base"})))
    assert weights(back) == [{"stable": 80, "canary": 20}]


def test_a_route_that_cannot_carry_it_is_named() -> None:
    with pytest.raises(RouteInvalid, match="HTTPRoute web/shop: no rule has backendRefs to both stable and canary"):
        rewritten(route({"backendRefs": [backend("stable")]}), wants(Split()))
    with pytest.raises(RouteInvalid, match="at most 16"):
        rewritten(route(*[rule(f"/{n}") for n in range(9)]), wants(Split(100, 0, managed=(HEADER,))))


splits = st.builds(
    Split,
    st.just(100),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 100)),
    managed=st.sampled_from([(), (HEADER,), (MIRROR,), (MIRROR, HEADER)]),
)


@given(splits, splits)
def test_rewriting_is_final_and_forgets_what_was_before(first: Split, second: Split) -> None:
    base = route(rule("/a"), rule("/b", filters=[{"type": "URLRewrite"}]))
    once = rewritten(base, wants(first))
    assert rewritten(once, wants(first)) == once
    assert rewritten(once, wants(second)) == rewritten(base, wants(second))
    for one in once["spec"]["rules"]:
        if "name" not in one:
            assert sum(ref["weight"] for ref in one["backendRefs"]) == 100


def test_our_gateway_understands_them() -> None:
    split = Split(100, 10, {"cn-east": 60}, managed=(HEADER, MIRROR))
    base = route(rule())
    base |= {"apiVersion": "gateway.networking.k8s.io/v1"}
    base["metadata"] = {"name": "shop", "namespace": "default"}
    shares = region_shares(split, "stable", "canary")
    objects = [
        rewritten(base, wants(split)),
        {
            "apiVersion": "pilothouse.dev/v1alpha1",
            "kind": "RegionWeights",
            "metadata": {"name": "shop-regions"},
            "spec": {"weights": [*shares]},
        },
        *(
            {"apiVersion": "pilothouse.dev/v1alpha1", "kind": "Backend", "metadata": {"name": name}, "spec": spec}
            for name, spec in (("stable", {"endpoints": ["10.0.0.1:80"]}), ("canary", {"endpoints": ["10.0.0.2:80"]}))
        ),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "pilothouse"},
            "spec": {"controllerName": "pilothouse.dev/gateway"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front"},
            "spec": {
                "gatewayClassName": "pilothouse",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        },
    ]
    text = "\n---\n".join(json.dumps(one) for one in objects)
    made = translate(Snapshot.of(*read_text(text)), Options(Addresses(("127.90.0.0/24",))))
    assert [*problems(made)] == []
    (found,) = made.configuration.routes
    rules = {len(one.backends): one for one in found.rules}
    (region,) = rules[2].regions
    assert (region.regions, [each.weight for each in region.backends]) == (("cn-east",), [40, 60])
    assert [each.weight for each in rules[2].backends] == [90, 10]
    assert [each.version for each in rules[1].backends] == ["canary"]
