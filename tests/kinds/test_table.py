"""The schema table: facts of Kubernetes 1.36, built lazily."""

from __future__ import annotations

import pytest

from pilothouse.kinds import table
from pilothouse.kinds.schema import Schema

CORE = "io.k8s.api.core.v1."


def at(schema: Schema, path: str) -> Schema:
    for step in path.split("."):
        if step in {"[]", "{}"}:
            assert schema.element is not None
            schema = schema.element
        else:
            schema = schema.fields[step]
    return schema


def pod() -> Schema:
    found = table.schema_for("", "v1", "Pod")
    assert found is not None
    return found


def test_a_kind_has_the_schema_of_its_type() -> None:
    assert pod() is table.schema_named(CORE + "Pod")
    assert pod().name == CORE + "Pod"
    assert set(pod().fields) == {"apiVersion", "kind", "metadata", "spec", "status"}


def test_what_is_not_there_is_none_or_a_clear_error() -> None:
    assert table.schema_for("apps", "v1beta1", "Deployment") is None
    with pytest.raises(table.UnknownType, match=r"no type 'io.k8s.api.core.v1.Pot' in the table"):
        table.schema_named(CORE + "Pot")


def test_kinds_of_every_group_are_found_in_any() -> None:
    options = table.schema_for("apps", "v1", "DeleteOptions")
    assert options is not None
    assert "propagationPolicy" in options.fields


@pytest.mark.parametrize(
    ("path", "shape", "form"),
    [
        ("spec.containers.[].ports.[].containerPort", "integer", "int32"),
        ("spec.activeDeadlineSeconds", "integer", "int64"),
        ("spec.hostNetwork", "boolean", ""),
        ("spec.nodeSelector", "map", ""),
        ("spec.nodeSelector.{}", "string", ""),
        ("spec.containers.[].resources.limits.{}", "string", "quantity"),
        ("spec.containers.[].livenessProbe.httpGet.port", "string", "int-or-string"),
        ("metadata.creationTimestamp", "string", "date-time"),
        ("metadata.managedFields.[].fieldsV1", "any", ""),
        ("spec.containers.[].name", "string", ""),
    ],
)
def test_shapes_and_formats(path: str, shape: str, form: str) -> None:
    found = at(pod(), path)
    assert (found.shape, found.format) == (shape, form)


def test_formats_of_other_kinds() -> None:
    lease, secret = (table.schema_named(name) for name in ("io.k8s.api.coordination.v1.Lease", CORE + "Secret"))
    assert at(lease, "spec.renewTime").format == "micro-time"
    assert at(secret, "data.{}").format == "byte"
    assert at(table.schema_named("io.k8s.api.apps.v1.ControllerRevision"), "data").preserve_unknown


def test_lists_say_how_they_merge() -> None:
    ports = at(pod(), "spec.containers.[].ports")
    assert (ports.list_type, ports.list_keys) == ("map", ("containerPort", "protocol"))
    assert (ports.patch_strategy, ports.patch_merge_key) == (("merge",), "containerPort")
    volumes = at(pod(), "spec.volumes")
    assert (volumes.patch_strategy, volumes.patch_merge_key) == (("merge", "retainKeys"), "name")
    assert at(pod(), "spec.containers.[].args").list_type == "atomic"
    assert at(pod(), "metadata.finalizers").list_type == "set"


def test_a_strategy_on_a_whole_type_keeps_its_fields() -> None:
    strategy = at(table.schema_named("io.k8s.api.apps.v1.Deployment"), "spec.strategy")
    assert strategy.patch_strategy == ("retainKeys",)
    assert "rollingUpdate" in strategy.fields
    assert table.schema_named("io.k8s.api.apps.v1.DeploymentStrategy").patch_strategy == ()


def test_required_enumerations_defaults_and_map_types() -> None:
    port = table.schema_named(CORE + "ContainerPort")
    assert port.required == ("containerPort",)
    assert (port.fields["protocol"].default, port.fields["protocol"].has_default) == ("TCP", True)
    assert not port.fields["containerPort"].has_default
    assert "Always" in at(pod(), "spec.containers.[].imagePullPolicy").enum
    assert table.schema_named("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").map_type == "atomic"


def test_a_type_may_hold_itself() -> None:
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
    props = table.schema_named(name)
    assert at(props, "properties.{}") is props


def test_every_type_and_kind_builds() -> None:
    seen: set[int] = set()

    def walk(schema: Schema) -> None:
        if id(schema) in seen:
            return
        seen.add(id(schema))
        assert (schema.element is not None) == (schema.shape in {"list", "map"}), schema.name
        if schema.element is not None:
            walk(schema.element)
        for inner in schema.fields.values():
            walk(inner)

    for name in table.type_names():
        walk(table.schema_named(name))
    for group, version, kind in table.kinds():
        assert table.schema_for(group, version, kind) is not None
    assert len(table.type_names()) == 584
    assert len(seen) > 1000


def test_only_what_is_looked_at_is_built() -> None:
    table._schema_of.cache_clear()
    table._simple.cache_clear()
    table.schema_for.cache_clear()
    pod()
    assert table._schema_of.cache_info().currsize == 1
    dict(pod().fields)
    assert table._schema_of.cache_info().currsize == 4
