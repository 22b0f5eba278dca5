"""Differences field by field, without a server."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.comparing import MANAGER, Ignored, compare
from pilothouse.kinds.apply import FieldManager
from pilothouse.kinds.defaults import default
from pilothouse.kinds.prune import decode
from pilothouse.kinds.table import schema_for

Object = dict[str, Any]
NOW = datetime(2025, 1, 1, tzinfo=UTC)
GVKS = {"Deployment": ("apps", "v1"), "Service": ("", "v1"), "ConfigMap": ("", "v1"), "Secret": ("", "v1")}


def live_of(wanted: Object, manager: str = MANAGER, live: Object | None = None) -> Object:
    """Return what a server makes of an apply."""
    kind = wanted["kind"]
    gvk = (*GVKS[kind], kind)
    schema = schema_for(*gvk)
    assert schema is not None
    written = decode(schema, copy.deepcopy(wanted))[0]
    made = FieldManager(schema, wanted["apiVersion"]).apply(live, written, manager, NOW, force=True)
    made = default(copy.deepcopy(made), *gvk)
    made["metadata"] |= {
        "uid": "u",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2025-01-01T00:00:00Z",
    }
    return made


def deployment(**container: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "labels": {"a": "b"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "web", "image": "shop:1", **container}],
                    "volumes": [{"name": "v", "configMap": {"name": "c"}}],
                },
            },
        },
    }


def shown(wanted: Object, live: Object, **ignored: Any) -> list[tuple[str, Any, Any]]:
    return [tuple(each) for each in compare(wanted, live, Ignored(**ignored))]


def test_what_a_server_makes_of_it_is_no_drift() -> None:
    wanted = deployment(
        ports=[{"containerPort": 80}],
        resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}},
        env=[{"name": "A", "value": "1"}],
        livenessProbe={"httpGet": {"path": "/", "port": 80}},
    )
    assert shown(wanted, live_of(wanted)) == []


def test_each_field_is_named() -> None:
    wanted = deployment(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])
    live = live_of(wanted)
    live["spec"]["replicas"] = 5
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "shop:hand"
    container["env"][1]["value"] = "3"
    live["metadata"]["labels"]["a"] = "c"
    assert shown(wanted, live) == [
        ("metadata.labels.a", "b", "c"),
        ("spec.replicas", 2, 5),
        ("spec.template.spec.containers[name=web].env[name=B].value", "2", "3"),
        ("spec.template.spec.containers[name=web].image", "shop:1", "shop:hand"),
    ]


def test_what_others_add_is_theirs_and_what_git_dropped_is_drift() -> None:
    wanted = deployment(env=[{"name": "A", "value": "1"}])
    live = live_of(wanted)
    live["metadata"]["labels"]["others"] = "x"
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "proxy:1"})
    assert shown(wanted, live) == []
    fewer = deployment()
    assert [each[0] for each in shown(fewer, live)] == ["spec.template.spec.containers[name=web].env"]


def test_secrets_are_not_shown() -> None:
    wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    live = live_of({**wanted, "stringData": {}, "data": {"password": "aHVudGVyMg=="}})
    assert shown(wanted, live) == []
    live["data"]["password"] = "b3RoZXI="
    found = shown(wanted, live)
    assert [each[0] for each in found] == ["data.password"]
    assert "hunter2" not in str(found)
    assert "b3RoZXI" not in str(found)


def test_what_does_not_count() -> None:
    wanted = deployment()
    live = live_of(wanted)
    live["spec"]["replicas"] = 5
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "x"
    image = '.spec.template.spec.containers[] | select(.name == "web") | .image'
    assert shown(wanted, live, pointers=("/spec/replicas",), expressions=(image,)) == []
    scaled = live_of(wanted)
    scaled["spec"]["replicas"] = 9
    entry = {"manager": "scaler", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"}
    scaled["metadata"]["managedFields"].append({**entry, "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    assert shown(wanted, scaled, managers=("scaler",)) == []
    assert shown(wanted, scaled) == [("spec.replicas", 2, 9)]


def test_what_does_not_fit_its_kind_is_said() -> None:
    wanted = deployment()
    live = live_of(wanted)
    wanted["spec"]["replicas"] = "two"
    with pytest.raises(ValueError, match="Deployment web"):
        compare(wanted, live)


ROUTE: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r", "namespace": "d"},
    "spec": {
        "parentRefs": [{"name": "gw"}],
        "rules": [{"backendRefs": [{"name": "a", "port": 80}]}],
        "hostnames": ["a.example.com"],
    },
}


def served_route() -> Object:
    """As a server keeps it: with defaults within lists, and who owns what."""
    live = copy.deepcopy(ROUTE)
    live["spec"]["parentRefs"][0] |= {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    live["spec"]["rules"][0]["backendRefs"][0] |= {"group": "", "kind": "Service", "weight": 1}
    live["spec"]["rules"][0]["matches"] = [{"path": {"type": "PathPrefix", "value": "/"}}]
    fields: dict[str, Any] = {"f:spec": {"f:parentRefs": {}, "f:rules": {}, "f:hostnames": {}}}
    live["metadata"] |= {
        "uid": "u",
        "managedFields": [{"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}],
    }
    live["status"] = {"parents": []}
    return live


def test_custom_resources_are_compared_by_what_git_says() -> None:
    live = served_route()
    assert shown(ROUTE, live) == []
    live["spec"]["rules"][0]["backendRefs"][0]["port"] = 81
    assert shown(ROUTE, live) == [("spec.rules[0].backendRefs[0].port", 80, 81)]
    fewer = copy.deepcopy(ROUTE)
    del fewer["spec"]["hostnames"]
    assert shown(fewer, served_route()) == [("spec.hostnames", None, ["a.example.com"])]
    more = copy.deepcopy(ROUTE)
    more["spec"]["rules"].append({})
    assert [each[0] for each in shown(more, served_route())] == ["spec.rules"]


def test_lists_of_custom_resources_that_merge_by_keys() -> None:
    wanted: Object = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "t"},
        "spec": {"ports": [{"port": 80, "name": "a"}], "tags": ["x"]},
    }
    live = copy.deepcopy(wanted)
    live["spec"]["ports"] = [{"port": 90, "protocol": "TCP"}, {"port": 80, "protocol": "TCP", "name": "a"}]
    live["spec"]["tags"] = ["others", "x"]
    key = 'k:{"port":80,"protocol":"TCP"}'
    fields = {"f:spec": {"f:ports": {key: {".": {}, "f:name": {}}}, "f:tags": {'v:"x"': {}}}}
    live["metadata"] = {"name": "t", "managedFields": [{"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}]}
    assert shown(wanted, live) == []
    live["spec"]["ports"][1]["name"] = "b"
    assert shown(wanted, live) == [("spec.ports[port=80].name", "a", "b")]
    wanted["spec"]["ports"] = []
    assert len(shown(wanted, live)) == 1


TEXTS = st.text(alphabet="abc", min_size=1, max_size=3)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=4)


@given(MAPS, MAPS, MAPS)
def test_after_an_apply_nothing_differs_and_before_it_exactly_what_it_changes(
    first: Any, second: Any, hand: Any
) -> None:
    def config(data: Any) -> Object:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": data}

    live = live_of(config(first))
    live["data"] = {**live.get("data", {}), **hand}
    drift = {each.path.removeprefix("data.") for each in compare(config(second), live)}
    after = live_of(config(second), live=live)
    assert compare(config(second), after) == []
    before = live.get("data") or {}
    now = after.get("data") or {}
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    assert drift == changed or (drift == {"data"} and bool(changed))
