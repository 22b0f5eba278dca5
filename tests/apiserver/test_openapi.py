"""The OpenAPI documents: complete in themselves, and what clients look for in them."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pilothouse.apiserver.model import Request, Response
from pilothouse.apiserver.openapi import OpenApi
from pilothouse.apiserver.openapi.operations import title
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.registry import Registry, Resource, Subresource, builtin

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
    subresources=(
        Subresource("status", "Widget", CHANGES, "golden.example", "v1"),
        Subresource("scale", "Scale", CHANGES, "autoscaling", "v1"),
    ),
    custom=True,
)
REGISTRY = builtin().with_resources([WIDGETS])
SCHEMA = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "nullable": True, "description": "How large."},
                "port": {"x-kubernetes-int-or-string": True},
                "color": {"type": "string", "enum": ["red", "blue"]},
            },
        },
    },
}
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
WIDGET = "example.golden.v1.Widget"
POD = "io.k8s.api.core.v1.Pod"


def served() -> OpenApi:
    return OpenApi(FakeClock(start=datetime(2026, 1, 31, tzinfo=UTC)), lambda resource: SCHEMA, version="v1.36.0")


def ask(
    openapi: OpenApi, target: str, registry: Registry = REGISTRY, revision: int = 0, **headers: str
) -> Response | None:
    path, _, query = target.partition("?")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = openapi.answer(Request("GET", target, path, query, sent), registry, revision)

    async def awaited() -> Response | None:
        return await answer if inspect.isawaitable(answer) else answer

    return asyncio.run(awaited())


def body(answer: Response | None) -> bytes:
    assert answer is not None
    assert answer.status == 200
    assert isinstance(answer.body, bytes)
    return answer.body


@pytest.fixture(scope="module")
def openapi() -> OpenApi:
    return served()


@pytest.fixture(scope="module")
def whole(openapi: OpenApi) -> Any:
    return json.loads(body(ask(openapi, "/openapi/v2")))


def document(openapi: OpenApi, key: str) -> Any:
    return json.loads(body(ask(openapi, f"/openapi/v3/{key}")))


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for word, inner in value.items():
            if word == "$ref" and isinstance(inner, str):
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, item in paths.items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


# --- form 3 ---


def test_index_leads_to_documents_that_are_complete(openapi: OpenApi) -> None:
    paths = json.loads(body(ask(openapi, "/openapi/v3")))["paths"]
    assert {"api", "api/v1", "apis", "apis/apps", "apis/apps/v1", "apis/golden.example/v1", "version"} <= set(paths)
    for key, found in paths.items():
        made = json.loads(body(ask(openapi, found["serverRelativeURL"])))
        schemas = made["components"]["schemas"]
        told = {name.removeprefix("#/components/schemas/") for name in references(made)}
        assert told <= set(schemas), key
        assert made["openapi"] == "3.0.0"


def test_hash_in_the_address(openapi: OpenApi) -> None:
    url = json.loads(body(ask(openapi, "/openapi/v3")))["paths"]["apis/apps/v1"]["serverRelativeURL"]
    answer = ask(openapi, url)
    assert answer is not None
    headers = dict(answer.headers)
    assert headers["Cache-Control"] == "public, immutable"
    assert headers["Expires"] == "Sun, 31 Jan 2027 00:00:00 GMT"
    assert headers["ETag"] == f'"{url.partition("=")[2]}"'
    stale = ask(openapi, "/openapi/v3/apis/apps/v1?hash=OLD")
    assert stale is not None
    assert (stale.status, dict(stale.headers)["Location"]) == (301, url)


def test_not_modified_needs_no_document() -> None:
    fresh = served()
    tag = dict(ask(fresh, "/openapi/v3/api/v1").headers)["ETag"]  # type: ignore[union-attr]
    for target in ("/openapi/v3/api/v1", "/openapi/v3/api/v1/"):
        answer = ask(served(), target, if_none_match=tag)
        assert answer is not None
        assert (answer.status, answer.body) == (304, b"")


def test_compressed(openapi: OpenApi) -> None:
    answer = ask(openapi, "/openapi/v3/api/v1", accept_encoding="br, gzip")
    assert answer is not None
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(body(answer)) == body(ask(openapi, "/openapi/v3/api/v1"))


@pytest.mark.parametrize("path", ["/openapi/v3/apis/none/v1", "/openapi/v4", "/openapi", "/api"])
def test_others_are_not_answered(openapi: OpenApi, path: str) -> None:
    assert ask(openapi, path) is None


def test_pod_schema(openapi: OpenApi) -> None:
    schemas = document(openapi, "api/v1")["components"]["schemas"]
    pod = schemas[POD]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-list-type"] == "map"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    container = schemas["io.k8s.api.core.v1.Container"]
    assert container["required"] == ["name"]
    policy = container["properties"]["imagePullPolicy"]
    assert policy["enum"] == ["Always", "IfNotPresent", "Never"]
    assert policy["description"] == "Image pull policy. One of Always, IfNotPresent, Never."
    assert pod["properties"]["apiVersion"]["description"] == "API version."
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]


def test_operations_of_pods(openapi: OpenApi) -> None:
    paths = document(openapi, "api/v1")["paths"]
    found = {operation["operationId"]: (path, method) for path, method, operation in operations(paths)}
    one = "/api/v1/namespaces/{namespace}/pods/{name}"
    expected = {
        "getCoreV1APIResources": ("/api/v1/", "get"),
        "listCoreV1NamespacedPod": ("/api/v1/namespaces/{namespace}/pods", "get"),
        "createCoreV1NamespacedPod": ("/api/v1/namespaces/{namespace}/pods", "post"),
        "deleteCoreV1CollectionNamespacedPod": ("/api/v1/namespaces/{namespace}/pods", "delete"),
        "listCoreV1PodForAllNamespaces": ("/api/v1/pods", "get"),
        "readCoreV1NamespacedPod": (one, "get"),
        "replaceCoreV1NamespacedPodStatus": (f"{one}/status", "put"),
        "readCoreV1NamespacedPodLog": (f"{one}/log", "get"),
        "createCoreV1NamespacedPodEviction": (f"{one}/eviction", "post"),
        "connectCoreV1PostNamespacedPodExec": (f"{one}/exec", "post"),
        "connectCoreV1GetNamespacedPodProxyWithPath": (f"{one}/proxy/{{path}}", "get"),
        "connectCoreV1OptionsNodeProxy": ("/api/v1/nodes/{name}/proxy", "options"),
        "watchCoreV1NamespacedPodList": ("/api/v1/watch/namespaces/{namespace}/pods", "get"),
        "watchCoreV1PodListForAllNamespaces": ("/api/v1/watch/pods", "get"),
        "listCoreV1Node": ("/api/v1/nodes", "get"),
    }
    assert {name: found.get(name) for name in expected} == expected


def test_patch_says_what_it_takes(openapi: OpenApi) -> None:
    patch = document(openapi, "apis/apps/v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"][
        "patch"
    ]
    assert patch["x-kubernetes-action"] == "patch"
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} == {one["name"] for one in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_groups_have_their_names() -> None:
    told = [title(*place) for place in (("", "v1"), ("rbac.authorization.k8s.io", "v1"), ("stable.x.com", "v1beta1"))]
    assert told == ["CoreV1", "RbacAuthorizationV1", "StableXComV1beta1"]


def test_custom_resource(openapi: OpenApi) -> None:
    made = document(openapi, "apis/golden.example/v1")
    widget = made["components"]["schemas"][WIDGET]
    assert widget["x-kubernetes-group-version-kind"] == [{"group": "golden.example", "kind": "Widget", "version": "v1"}]
    assert list(widget["properties"]) == ["metadata", "spec", "apiVersion", "kind"]
    meta = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    assert widget["properties"]["metadata"]["allOf"] == [{"$ref": meta}]
    patch = made["paths"]["/apis/golden.example/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    older = json.loads(body(ask(openapi, "/openapi/v2")))
    patch = older["paths"]["/apis/golden.example/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["consumes"]
    scale = made["paths"]["/apis/golden.example/v1/namespaces/{namespace}/widgets/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"]["kind"] == "Scale"
    assert SCHEMA["properties"]["metadata"] == {"type": "object"}  # type: ignore[index]


def test_a_changed_schema_changes_its_document_alone() -> None:
    schemas: list[Any] = [{"type": "object", "properties": {"a": {"type": "string"}}}]
    openapi = OpenApi(FakeClock(), lambda resource: schemas[-1], version="v1")
    before = json.loads(body(ask(openapi, "/openapi/v3")))["paths"]
    document(openapi, "apis/golden.example/v1")
    schemas.append({"type": "object", "properties": {"b": {"type": "string"}}})
    assert json.loads(body(ask(openapi, "/openapi/v3")))["paths"] == before
    after = json.loads(body(ask(openapi, "/openapi/v3", revision=1)))["paths"]
    assert {key for key in after if after[key] != before[key]} == {"apis/golden.example/v1"}
    answer = ask(openapi, "/openapi/v3/apis/golden.example/v1", revision=1)
    assert "b" in json.loads(body(answer))["components"]["schemas"][WIDGET]["properties"]


def test_custom_resource_without_schema() -> None:
    made = document(OpenApi(FakeClock(), version="v1"), "apis/golden.example/v1")
    assert made["components"]["schemas"][WIDGET]["x-kubernetes-preserve-unknown-fields"] is True


# --- form 2 ---


def test_whole_document_is_complete(whole: Any) -> None:
    told = {name.removeprefix("#/definitions/") for name in references(whole)}
    assert told <= set(whole["definitions"])
    assert whole["swagger"] == "2.0"
    names = [operation["operationId"] for _, _, operation in operations(whole["paths"])]
    assert len(names) == len(set(names))
    assert "/version/" in whole["paths"]
    for item in whole["paths"].values():
        for parameter in item.get("parameters", ()):
            assert parameter["in"] in ("path", "query")


def test_every_kind_served_is_defined(whole: Any) -> None:
    defined = {
        (one["group"], one["version"], one["kind"])
        for schema in whole["definitions"].values()
        for one in schema.get("x-kubernetes-group-version-kind", ())
    }
    assert {resource.gvk for resource in REGISTRY} <= defined
    patched = {
        tuple(operation["x-kubernetes-group-version-kind"].values())
        for _, method, operation in operations(whole["paths"])
        if method == "patch"
    }
    assert {resource.gvk for resource in REGISTRY if "patch" in resource.verbs} <= patched


def test_form_2_of_a_custom_schema(whole: Any) -> None:
    spec = whole["definitions"][WIDGET]["properties"]["spec"]["properties"]
    assert spec == {
        "size": {"description": "How large."},
        "port": {"x-kubernetes-int-or-string": True},
        "color": {"type": "string", "enum": ["red", "blue"]},
    }
    metadata = whole["definitions"][WIDGET]["properties"]["metadata"]
    assert metadata["$ref"] == "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def test_scalars_of_form_2(whole: Any) -> None:
    definitions = whole["definitions"]
    assert definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] == "string"
    assert definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"
    assert definitions["io.k8s.apimachinery.pkg.runtime.RawExtension"]["type"] == "object"


def test_form_2_not_acceptable(openapi: OpenApi) -> None:
    answer = ask(openapi, "/openapi/v2", accept="application/xml")
    assert answer is not None
    assert answer.status == 406


# --- protobuf, read with the published field numbers ---

MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Any": [("yaml", 2, "string", False)],
    "NamedAny": [("name", 1, "string", False), ("value", 2, "Any", False)],
    "Document": [
        ("swagger", 1, "string", False),
        ("info", 2, "Info", False),
        ("paths", 8, "Paths", False),
        ("definitions", 9, "Definitions", False),
    ],
    "Info": [("title", 1, "string", False), ("version", 2, "string", False)],
    "Paths": [("path", 2, "NamedPathItem", True)],
    "NamedPathItem": [("name", 1, "string", False), ("value", 2, "PathItem", False)],
    "PathItem": [
        ("get", 2, "Operation", False),
        ("patch", 8, "Operation", False),
        ("parameters", 9, "ParametersItem", True),
    ],
    "Operation": [
        ("operation_id", 5, "string", False),
        ("consumes", 7, "string", True),
        ("parameters", 8, "ParametersItem", True),
        ("responses", 9, "Responses", False),
        ("vendor_extension", 13, "NamedAny", True),
    ],
    "Responses": [("response_code", 1, "NamedResponseValue", True)],
    "NamedResponseValue": [("name", 1, "string", False), ("value", 2, "ResponseValue", False)],
    "ResponseValue": [("response", 1, "Response", False)],
    "Response": [("description", 1, "string", False), ("schema", 2, "SchemaItem", False)],
    "SchemaItem": [("schema", 1, "Schema", False)],
    "ParametersItem": [("parameter", 1, "Parameter", False)],
    "Parameter": [("body_parameter", 1, "BodyParameter", False), ("non_body_parameter", 2, "NonBodyParameter", False)],
    "BodyParameter": [("name", 2, "string", False), ("required", 4, "bool", False), ("schema", 5, "Schema", False)],
    "NonBodyParameter": [
        ("query_parameter_sub_schema", 3, "QueryParameterSubSchema", False),
        ("path_parameter_sub_schema", 4, "PathParameterSubSchema", False),
    ],
    "QueryParameterSubSchema": [
        ("name", 4, "string", False),
        ("type", 6, "string", False),
        ("unique_items", 20, "bool", False),
    ],
    "PathParameterSubSchema": [
        ("required", 1, "bool", False),
        ("name", 4, "string", False),
        ("type", 5, "string", False),
        ("unique_items", 19, "bool", False),
    ],
    "Definitions": [("additional_properties", 1, "NamedSchema", True)],
    "NamedSchema": [("name", 1, "string", False), ("value", 2, "Schema", False)],
    "AdditionalPropertiesItem": [("schema", 1, "Schema", False), ("boolean", 2, "bool", False)],
    "TypeItem": [("value", 1, "string", True)],
    "ItemsItem": [("schema", 1, "Schema", True)],
    "Properties": [("additional_properties", 1, "NamedSchema", True)],
    "Schema": [
        ("ref", 1, "string", False),
        ("format", 2, "string", False),
        ("description", 4, "string", False),
        ("default", 5, "Any", False),
        ("required", 19, "string", True),
        ("enum", 20, "Any", True),
        ("additional_properties", 21, "AdditionalPropertiesItem", False),
        ("type", 22, "TypeItem", False),
        ("items", 23, "ItemsItem", False),
        ("properties", 25, "Properties", False),
        ("vendor_extension", 31, "NamedAny", True),
    ],
}
SCALARS = {"string": 9, "bool": 8}


def message(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="v2.proto", package="v2", syntax="proto3")
    for kind, fields in MESSAGES.items():
        made = file.message_type.add(name=kind)
        for field, number, shape, repeated in fields:
            told = made.field.add(name=field, number=number, label=3 if repeated else 1)
            if shape in SCALARS:
                told.type = SCALARS[shape]  # type: ignore[assignment]
            else:
                told.type, told.type_name = 11, f".v2.{shape}"  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v2.{name}"))


def plain(schema: Any) -> dict[str, Any]:
    """Turn a message of a schema into what JSON has."""
    made: dict[str, Any] = {}
    for name, field in (("$ref", "ref"), ("format", "format"), ("description", "description")):
        if value := getattr(schema, field):
            made[name] = value
    if schema.HasField("default"):
        made["default"] = json.loads(schema.default.yaml)
    if schema.required:
        made["required"] = list(schema.required)
    if schema.enum:
        made["enum"] = [json.loads(one.yaml) for one in schema.enum]
    if schema.HasField("additional_properties"):
        made["additionalProperties"] = plain(schema.additional_properties.schema)
    if schema.HasField("type"):
        made["type"] = schema.type.value[0]
    if schema.HasField("items"):
        made["items"] = plain(schema.items.schema[0])
    if schema.HasField("properties"):
        made["properties"] = {one.name: plain(one.value) for one in schema.properties.additional_properties}
    made.update({one.name: json.loads(one.value.yaml) for one in schema.vendor_extension})
    return made


def test_protobuf_says_the_same(openapi: OpenApi, whole: Any) -> None:
    answer = ask(openapi, "/openapi/v2", accept=V2_PROTOBUF)
    assert answer is not None
    assert answer.content_type == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    read = message("Document")()
    read.ParseFromString(body(answer))
    assert (read.swagger, read.info.title, read.info.version) == ("2.0", "Kubernetes", "v1.36.0")
    assert {one.name: plain(one.value) for one in read.definitions.additional_properties} == whole["definitions"]
    paths = {one.name: one.value for one in read.paths.path}
    assert list(paths) == list(whole["paths"])
    pod = paths["/api/v1/namespaces/{namespace}/pods/{name}"]
    body_first, *others = [one.parameter for one in pod.patch.parameters]
    assert body_first.body_parameter.name == "body"
    assert body_first.body_parameter.required
    names = [one.non_body_parameter.query_parameter_sub_schema.name for one in others]
    assert names == ["dryRun", "fieldManager", "fieldValidation", "force"]
    in_path = [one.parameter.non_body_parameter.path_parameter_sub_schema for one in pod.parameters]
    assert [(one.name, one.required, one.unique_items) for one in in_path if one.name] == [
        ("name", True, True),
        ("namespace", True, True),
    ]
    kind = next(one.value.yaml for one in pod.patch.vendor_extension if one.name == "x-kubernetes-group-version-kind")
    assert json.loads(kind) == {"group": "", "version": "v1", "kind": "Pod"}
    ok = pod.get.responses.response_code[0]
    assert (ok.name, ok.value.response.schema.schema.ref) == ("200", f"#/definitions/{POD}")


def test_documents_are_built_once() -> None:
    calls: list[str] = []

    def schemas(resource: Resource) -> dict[str, Any]:
        calls.append(resource.kind)
        return {"type": "object"}

    openapi = OpenApi(FakeClock(), schemas, version="v1")
    for _ in range(3):
        document(openapi, "apis/golden.example/v1")
    # once for the hash, once for the document
    assert calls == ["Widget"] * 2


def test_requests_at_once_build_a_document_once() -> None:
    calls: list[str] = []

    def schemas(resource: Resource) -> dict[str, Any]:
        calls.append(resource.kind)
        return {"type": "object"}

    openapi = OpenApi(FakeClock(), schemas, version="v1")
    path = "/openapi/v3/apis/golden.example/v1"

    async def many() -> list[Response]:
        answers = [openapi.answer(Request("GET", path, path, "", {}), REGISTRY) for _ in range(8)]
        return list(await asyncio.gather(*[one for one in answers if inspect.isawaitable(one)]))

    answers = asyncio.run(many())
    assert len(answers) == 8
    assert len({body(one) for one in answers}) == 1
    assert calls == ["Widget"] * 2
