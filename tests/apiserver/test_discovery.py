"""What the server tells about itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.apiserver.discovery import AggregatedVersion, Discovery, fetched, version_info
from pilothouse.apiserver.model import Request, Response
from pilothouse.kinds.registry import Resource, Subresource, builtin

GOLDEN = Path(__file__).parent.parent / "golden"
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
BETA = V2.replace("v=v2", "v=v2beta1")
KUBECTL = f"{V2},{BETA},application/json"
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CHANGES = ("get", "patch", "update")
WIDGETS = Resource(
    "golden.example",
    "v1",
    "widgets",
    "Widget",
    "widget",
    True,
    VERBS,
    ("wd",),
    subresources=(
        Subresource("scale", "Scale", CHANGES, "autoscaling", "v1"),
        Subresource("status", "Widget", CHANGES, "golden.example", "v1"),
    ),
    custom=True,
)
METRICS = AggregatedVersion("metrics.k8s.io", "v1beta1", 100, 100, True, ({"resource": "pods", "verbs": ["get"]},))
REGISTRY = builtin().with_resources([WIDGETS])


def ask(path: str, accept: str = "", *elsewhere: AggregatedVersion, **headers: str) -> Response:
    sent = {"accept": accept, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = Request("GET", path, path, "", sent)
    answer = Discovery(server_address="192.0.2.2:26443").answer(request, REGISTRY, elsewhere)
    assert answer is not None
    return answer


def body(answer: Response) -> Any:
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


def recorded(file: str, label: str) -> Any:
    steps = json.loads((GOLDEN / f"{file}.json").read_text())["steps"]
    return next(step for step in steps if step["label"] == label)["response"]


def test_api_as_recorded() -> None:
    assert body(ask("/api")) == recorded("lists", "api versions")


def test_version_has_what_the_recorded_one_has() -> None:
    told, golden = body(ask("/version")), recorded("lists", "version")
    assert list(told) == list(golden)
    assert re.fullmatch(r"v1\.36\.\d+\+[0-9A-Za-z.-]+", told["gitVersion"])
    assert all(told[name] == golden[name] for name in golden if name.endswith(("ajor", "inor")))
    assert told == version_info()


def test_custom_group_as_recorded() -> None:
    assert json.dumps(body(ask("/apis/golden.example/v1"))) == json.dumps(recorded("crds", "resources"))


def test_core_resources() -> None:
    told = body(ask("/api/v1"))
    assert list(told) == ["kind", "groupVersion", "resources"]
    names = [one["name"] for one in told["resources"]]
    assert names == sorted(names)
    pods = told["resources"][names.index("pods")]
    assert pods == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": list(VERBS),
        "shortNames": ["po"],
        "categories": ["all"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }
    eviction = told["resources"][names.index("pods/eviction")]
    assert (eviction["group"], eviction["version"], eviction["kind"]) == ("policy", "v1", "Eviction")
    assert "group" not in told["resources"][names.index("pods/status")]
    assert "storageVersionHash" not in told["resources"][names.index("bindings")]


def test_groups() -> None:
    told = body(ask("/apis"))
    names = [group["name"] for group in told["groups"]]
    assert names[:3] == ["apiregistration.k8s.io", "apps", "events.k8s.io"]
    assert names[-1] == "golden.example"
    scaling = told["groups"][names.index("autoscaling")]
    assert [one["version"] for one in scaling["versions"]] == ["v2", "v1"]
    assert scaling["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}
    assert body(ask("/apis/autoscaling")) == {"kind": "APIGroup", "apiVersion": "v1", **scaling}


def test_priorities_leave_the_order_of_groups_as_it_is() -> None:
    alone = [group["name"] for group in body(ask("/apis"))["groups"]]
    with_metrics = [group["name"] for group in body(ask("/apis", "", METRICS))["groups"]]
    assert with_metrics == [*alone, "metrics.k8s.io"]


def test_group_elsewhere() -> None:
    assert body(ask("/apis/metrics.k8s.io", "", METRICS))["preferredVersion"]["version"] == "v1beta1"
    request = Request("GET", "/", "/apis/metrics.k8s.io/v1beta1", "", {})
    assert Discovery().answer(request, REGISTRY, (METRICS,)) is None


@pytest.mark.parametrize("path", ["/apis/none.example", "/apis/apps/v9", "/api/v2", "/healthz", "/apis/apps/v1/x/y"])
def test_others_are_not_answered(path: str) -> None:
    assert Discovery().answer(Request("GET", path, path, "", {}), REGISTRY) is None


def test_aggregated() -> None:
    answer = ask("/apis", KUBECTL, METRICS)
    assert answer.content_type == V2
    told = body(answer)
    assert (told["kind"], told["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    items = {item["metadata"]["name"]: item["versions"] for item in told["items"]}
    assert items["metrics.k8s.io"][0]["freshness"] == "Current"
    resources = {one["resource"]: one for one in items["apps"][0]["resources"]}
    assert resources["deployments"]["responseKind"] == {"group": "", "version": "", "kind": "Deployment"}
    scale, status = resources["deployments"]["subresources"]
    assert scale["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert status["responseKind"] == {"group": "", "version": "", "kind": "Deployment"}
    widgets = items["golden.example"][0]["resources"][0]
    assert widgets["responseKind"] == {"group": "golden.example", "version": "v1", "kind": "Widget"}
    assert [one["subresource"] for one in widgets["subresources"]] == ["status", "scale"]


def test_aggregated_core_and_beta() -> None:
    answer = ask("/api", f"{BETA},application/json")
    assert answer.content_type == BETA
    told = body(answer)
    assert told["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    assert [item["metadata"] for item in told["items"]] == [{}]


@pytest.mark.parametrize("change", [{"available": False}, {"resources": None}])
def test_stale(change: dict[str, Any]) -> None:
    gone = AggregatedVersion("metrics.k8s.io", "v1beta1", **{"resources": (), **change})
    assert body(ask("/apis", V2, gone))["items"][-1]["versions"][0]["freshness"] == "Stale"


def test_not_modified() -> None:
    first = ask("/apis", V2)
    tag = dict(first.headers)["ETag"]
    again = ask("/apis", V2, if_none_match=tag)
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    assert dict(ask("/apis", V2, METRICS, if_none_match=tag).headers)["ETag"] != tag


def test_unknown_kind_falls_back_to_what_else_is_accepted() -> None:
    assert body(ask("/apis", V2.replace("v=v2", "v=v7") + ",application/json"))["kind"] == "APIGroupList"


def test_not_acceptable() -> None:
    answer = ask("/apis", "image/png")
    assert (answer.status, body(answer)["reason"]) == (406, "NotAcceptable")


def test_yaml_and_pretty() -> None:
    answer = ask("/api/v1", "application/yaml")
    assert isinstance(answer.body, bytes)
    assert yaml.safe_load(answer.body) == body(ask("/api/v1"))
    assert b'\n  "kind"' in ask("/api", "", user_agent="curl/8").body


def test_root_lists_every_group() -> None:
    paths = body(ask("/"))["paths"]
    assert paths == sorted(paths)
    assert {"/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/golden.example/v1"} <= set(paths)


def test_only_reading() -> None:
    answer = Discovery().answer(Request("POST", "/api", "/api", "", {}), REGISTRY)
    assert answer is not None
    assert answer.status == 405


def test_documents_are_built_once_for_a_registry() -> None:
    discovery = Discovery()
    first = discovery.documents(REGISTRY)
    assert discovery.documents(REGISTRY) is first
    assert first.encoded("/api/v1") is first.encoded("/api/v1")
    others = [builtin().with_resources([WIDGETS]) for _ in range(5)]
    for registry in others:
        assert discovery.documents(registry) is not first
    assert discovery.documents(REGISTRY) is not first


def test_resources_that_another_server_told() -> None:
    old = body(ask("/apis/golden.example/v1"))
    new = body(ask("/apis", V2))
    (told,) = fetched(new, "golden.example", "v1") or ()
    (converted,) = fetched(old, "golden.example", "v1") or ()
    assert converted["responseKind"] == {"group": "", "version": "", "kind": "Widget"}
    for made in (converted, *converted["subresources"], told, *told["subresources"]):
        made.pop("responseKind")
    assert converted == told
    assert fetched(new, "golden.example", "v2") is None
    assert fetched(old, "other.example", "v1") is None
    assert fetched({"kind": "Status"}, "golden.example", "v1") is None


def test_aggregated_groups_go_by_priority() -> None:
    early = AggregatedVersion("early.example", "v1", 18000, 10)
    both = [AggregatedVersion("many.example", version, 2000, rank) for version, rank in (("v1", 5), ("v2", 9))]
    names = [group["name"] for group in body(ask("/apis", "", early, METRICS, *both))["groups"]]
    assert names[:3] == ["apiregistration.k8s.io", "early.example", "apps"]
    assert names[-3:] == ["many.example", "golden.example", "metrics.k8s.io"]
    versions = body(ask("/apis/many.example", "", *both))["versions"]
    assert [one["version"] for one in versions] == ["v2", "v1"]


def test_a_version_served_here_hides_one_elsewhere() -> None:
    hidden = AggregatedVersion("golden.example", "v1", 5000, 100, available=False)
    added = AggregatedVersion("golden.example", "v2", 5000, 100, resources=())
    assert body(ask("/apis/golden.example", "", hidden)) == body(ask("/apis/golden.example"))
    versions = body(ask("/apis/golden.example", "", hidden, added))["versions"]
    assert [one["version"] for one in versions] == ["v1", "v2"]
