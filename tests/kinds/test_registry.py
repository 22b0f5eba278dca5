"""The registry of resources: lookups, order of discovery, custom resources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.registry import Registry, Resource, Subresource, builtin, version_order
from pilothouse.kinds.table import schema_for


def custom(name: str, group: str = "golden.example", version: str = "v1", *, storage: bool = True) -> Resource:
    return Resource(
        group=group,
        version=version,
        resource=f"{name}s",
        kind=name.capitalize(),
        singular=name,
        namespaced=True,
        verbs=("get", "list"),
        short_names=(name[:2],),
        categories=("all",),
        storage=storage,
        custom=True,
    )


def found(name: str, registry: Registry | None = None) -> Resource:
    resource = (registry or builtin()).find(name)
    assert resource is not None, name
    return resource


def test_resources_are_found_by_path_and_kind() -> None:
    pods = builtin().get("", "v1", "pods")
    assert pods is not None
    assert (pods.kind, pods.list_kind, pods.namespaced, pods.api_version) == ("Pod", "PodList", True, "v1")
    assert (pods.path_prefix, pods.full_name) == ("/api/v1", "pods")
    assert builtin().by_kind("", "v1", "Pod") is pods
    assert builtin().get("", "v2", "pods") is None
    assert builtin().by_kind("apps", "v1", "Pod") is None


@pytest.mark.parametrize(
    ("name", "full_name", "version"),
    [
        ("po", "pods", "v1"),
        ("Pod", "pods", "v1"),
        ("deploy", "deployments.apps", "v1"),
        ("deployments.apps", "deployments.apps", "v1"),
        ("deploy.v1.apps", "deployments.apps", "v1"),
        ("events", "events", "v1"),
        ("ev.events.k8s.io", "events.events.k8s.io", "v1"),
        ("hpa", "horizontalpodautoscalers.autoscaling", "v2"),
        ("hpa.v1.autoscaling", "horizontalpodautoscalers.autoscaling", "v1"),
        ("crds", "customresourcedefinitions.apiextensions.k8s.io", "v1"),
    ],
)
def test_names_that_people_use(name: str, full_name: str, version: str) -> None:
    assert (found(name).full_name, found(name).version) == (full_name, version)


def test_unknown_names_are_none() -> None:
    assert builtin().find("wombats") is None
    assert builtin().find("pods.apps") is None


def test_every_resource_answers_to_its_own_names() -> None:
    for resource in builtin():
        assert builtin().get(*resource.key) is resource
        assert found(f"{resource.resource}.{resource.version}.{resource.group}") is resource
        for short in resource.short_names:
            assert resource.full_name.partition(".")[0] == found(short).resource


def test_groups_are_in_the_order_of_discovery() -> None:
    groups = builtin().groups()
    assert groups[:4] == ("", "apiregistration.k8s.io", "apps", "events.k8s.io")
    assert groups[-1] == "flowcontrol.apiserver.k8s.io"
    assert builtin().versions("autoscaling") == ("v2", "v1")
    assert builtin().versions("wombat") == ()
    plurals = [resource.resource for resource in builtin().resources("apps", "v1")]
    assert plurals == ["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]


def test_every_object_kind_has_a_schema() -> None:
    for resource in builtin():
        assert schema_for(*resource.gvk) is not None, resource.gvk


def test_subresources_know_their_kinds_group() -> None:
    assert found("deploy").subresource("scale") == Subresource(
        "scale", "Scale", ("get", "patch", "update"), "autoscaling", "v1"
    )
    eviction = found("pods").subresource("eviction")
    assert eviction is not None
    assert (eviction.group, eviction.version, eviction.kind) == ("policy", "v1", "Eviction")
    assert found("pods").subresource("wombat") is None


def test_columns() -> None:
    columns = found("pods").columns
    assert [column.name for column in columns if column.priority == 0] == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert columns[0].format == "name"


def test_one_version_is_kept() -> None:
    old, new = (builtin().get("autoscaling", version, "horizontalpodautoscalers") for version in ("v1", "v2"))
    assert old is not None
    assert new is not None
    assert builtin().storage(old) is new
    assert builtin().storage(new) is new


def test_events_are_kept_in_the_core_group() -> None:
    assert builtin().storage(found("events.events.k8s.io")) is found("events")


def test_storage_version_hashes_are_those_of_kubernetes() -> None:
    assert builtin().storage_version_hash(found("configmaps")) == "qFsyl6wFWjQ="
    assert builtin().storage_version_hash(found("endpoints")) == "fWeeMqaN/OA="
    assert builtin().storage_version_hash(found("crd")) == "jfWCUB31mvA="


def test_category_lists_a_resource_once() -> None:
    names = [resource.full_name for resource in builtin().category("all")]
    assert names.count("horizontalpodautoscalers.autoscaling") == 1
    assert {"pods", "services", "deployments.apps"} <= set(names)


def test_custom_resources_come_after_the_built_in_ones_by_name() -> None:
    registry = builtin().with_resources([custom("widget"), custom("gear"), custom("bolt", "a.example")])
    assert registry.groups()[-2:] == ("a.example", "golden.example")
    assert registry.groups()[:-2] == builtin().groups()
    assert [resource.resource for resource in registry.resources("golden.example", "v1")] == ["gears", "widgets"]
    assert found("wi", registry) == found("widget.golden.example", registry)
    assert len(registry) == len(builtin()) + 3
    assert builtin().find("widgets") is None


def test_versions_of_a_custom_resource_are_ordered_and_one_is_kept() -> None:
    names = ("v1alpha1", "v1beta1", "v1")
    versions = [custom("widget", version=name, storage=name == "v1beta1") for name in names]
    registry = builtin().with_resources(versions)
    assert registry.versions("golden.example") == ("v1", "v1beta1", "v1alpha1")
    assert registry.storage(found("widgets", registry)).version == "v1beta1"
    with pytest.raises(LookupError, match="mark one with storage"):
        registry.with_resources(removed=[versions[1].key]).storage(versions[2])


def test_what_is_removed_is_gone_with_its_empty_group() -> None:
    widget = custom("widget")
    registry = builtin().with_resources([widget]).with_resources(removed=[widget.key])
    assert registry.groups() == builtin().groups()
    assert registry.find("widgets") is None
    assert [resource.key for resource in registry] == [resource.key for resource in builtin()]
    with pytest.raises(KeyError):
        registry.with_resources(removed=[widget.key])


def test_built_in_groups_take_no_custom_resources() -> None:
    with pytest.raises(ValueError, match="group 'apps' is built in"):
        builtin().with_resources([custom("widget", "apps")])


def test_a_custom_resource_does_not_take_a_built_in_name() -> None:
    registry = builtin().with_resources([custom("pod")])
    assert found("pods", registry).group == ""
    assert found("pods.golden.example", registry).custom


def test_versions_sort_as_kubernetes_prefers_them() -> None:
    mixed = [
        "foo1",
        "v1alpha1",
        "v10",
        "v2",
        "v11beta2",
        "v10beta3",
        "v3beta1",
        "v12alpha1",
        "v11alpha2",
        "v1",
        "foo10",
    ]
    wanted = [
        "v10",
        "v2",
        "v1",
        "v11beta2",
        "v10beta3",
        "v3beta1",
        "v12alpha1",
        "v11alpha2",
        "v1alpha1",
        "foo1",
        "foo10",
    ]
    assert sorted(mixed, key=version_order) == wanted


GROUPS, NAMES, VERSIONS = ("a.example", "b.example"), ("widget", "gear", "bolt"), ("v1", "v1beta1", "v2")
CUSTOM = st.builds(custom, st.sampled_from(NAMES), st.sampled_from(GROUPS), st.sampled_from(VERSIONS))


@given(st.lists(CUSTOM, unique_by=lambda resource: resource.key))
def test_adding_one_by_one_or_all_at_once_is_the_same(added: list[Resource]) -> None:
    together = builtin().with_resources(added)
    stepwise = builtin()
    for resource in added:
        stepwise = stepwise.with_resources([resource])
    assert list(stepwise) == list(together)
    assert list(together.with_resources(removed=[resource.key for resource in added])) == list(builtin())
