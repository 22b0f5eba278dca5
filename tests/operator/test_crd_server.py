"""Definitions that are made from classes, given to the API server: it takes them, and acts by them."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest

from pilothouse.kinds.status import ApiStatus, Invalid
from pilothouse.kinds.structs import (
    Condition,
    Container,
    EnvVar,
    IntOrString,
    ObjectMeta,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Quantity,
    Resource,
    ResourceRequirements,
    Struct,
    from_dict,
    to_dict,
    type_for,
)
from pilothouse.kinds.structs._index import MODULES
from pilothouse.operator.crd_conversion import ConversionWebhook
from pilothouse.operator.crd_kubernetes import kubernetes_name
from pilothouse.operator.crd_markers import (
    Embedded,
    Format,
    ListType,
    Maximum,
    MaxLength,
    Minimum,
    MinLength,
    Pattern,
    PreserveUnknown,
    Rule,
    Timestamp,
)
from pilothouse.operator.crds import PrinterColumn, Scale, custom_resource, definition
from pilothouse.testing import BlockingPlane, ControlPlane
from support.golden import GOLDEN

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WEBSITES = "/apis/example.com/v1/namespaces/default/websites"


class Page(Struct):
    path: str
    title: str = "untitled"


@Rule("self.minReplicas <= self.replicas", message="minReplicas is above replicas", field_path=".minReplicas")
class WebsiteSpec(Struct):
    image: Annotated[str, MinLength(1), MaxLength(100), Pattern("^[a-z:0-9/.]+$")]
    replicas: Annotated[int, Minimum(1), Maximum(10)] = 1
    min_replicas: int = 0
    mode: Literal["fast", "safe"] = "safe"
    colour: Literal["red", "blue"] | None = "red"
    memory: Quantity | None = None
    port: IntOrString = 80
    pages: Annotated[Sequence[Page], ListType("map", ("path",))] = ()
    hosts: Annotated[Sequence[str], ListType("set"), MaxLength(5)] = ()
    labels: Mapping[str, str] = {}
    settings: Mapping[str, Any] = {}
    template: PodTemplateSpec | None = None
    example: Pod | None = None
    any_object: Annotated[Mapping[str, Any], Embedded()] | None = None
    page: Annotated[Page, PreserveUnknown()] | None = None
    since: Timestamp | None = None
    wait: Annotated[str, Format("duration")] = "30s"
    never_less: Annotated[int, Rule("self >= oldSelf", message="only up")] | None = None


class WebsiteStatus(Struct):
    ready_replicas: int = 0
    selector: str = ""
    conditions: Sequence[Condition] = ()


@custom_resource(
    short_names=["web"],
    categories=["all"],
    storage=True,
    scale=Scale(status_replicas=".status.readyReplicas", selector=".status.selector"),
    columns=[
        PrinterColumn("Image", ".spec.image"),
        PrinterColumn("Replicas", ".spec.replicas", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp"),
    ],
    selectable=[".spec.mode"],
)
class Website(Resource, group="example.com", version="v1", plural="websites"):
    """A site."""

    spec: WebsiteSpec
    status: WebsiteStatus = WebsiteStatus()


@custom_resource(deprecated="take v1")
class OldWebsite(Resource, group="example.com", version="v1beta1", kind="Website", plural="websites"):
    spec: WebsiteSpec


def established(found: dict[str, Any] | None) -> bool:
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def plane() -> Iterator[BlockingPlane]:
    with ControlPlane() as running:
        made = definition(Website, OldWebsite)
        running.call("POST", DEFINITIONS, made)
        running.wait_for(f"{DEFINITIONS}/{made['metadata']['name']}", established)
        yield running


def website(name: str, **spec: Any) -> dict[str, Any]:
    return to_dict(Website(metadata=ObjectMeta(name=name), spec=WebsiteSpec(**{"image": "web:1", **spec})))


def test_defaults_are_filled_in(plane: BlockingPlane) -> None:
    found = plane.call("POST", WEBSITES, website("plain"))
    assert found["spec"] == {
        "image": "web:1",
        "replicas": 1,
        "minReplicas": 0,
        "mode": "safe",
        "colour": "red",
        "port": 80,
        "wait": "30s",
    }
    assert from_dict(found, Website).spec.replicas == 1


FULL: dict[str, Any] = {
    "colour": None,
    "memory": "1.5Gi",
    "port": "http",
    "pages": (Page(path="/"), Page(path="/a", title="A")),
    "hosts": ("a", "b"),
    "labels": {"app": "web"},
    "settings": {"deep": {"list": [1, {"a": None}]}},
    "template": PodTemplateSpec(
        metadata=ObjectMeta(labels={"app": "web"}),
        spec=PodSpec(
            containers=[
                Container(
                    name="web", env=[EnvVar(name="A", value="b")], resources=ResourceRequirements(limits={"cpu": "1"})
                )
            ]
        ),
    ),
    "example": Pod(metadata=ObjectMeta(name="one", labels={"a": "b"}), spec=PodSpec(containers=[Container(name="c")])),
    "any_object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}},
    "since": "2026-01-02T03:04:05Z",
    "wait": "1h30m",
}


def test_all_that_is_sent_is_kept(plane: BlockingPlane) -> None:
    sent = website("full", **FULL)
    sent["spec"]["page"] = {"path": "/", "unknown": [1]}
    found = plane.call("POST", WEBSITES, sent)
    spec = found["spec"]
    assert spec["pages"][0] == {"path": "/", "title": "untitled"}
    assert spec["template"] == sent["spec"]["template"]
    assert spec["example"] == sent["spec"]["example"]
    for name in ("settings", "anyObject", "labels", "hosts", "memory", "port", "colour", "since", "wait"):
        assert spec[name] == sent["spec"][name], name
    assert spec["page"] == {"path": "/", "unknown": [1], "title": "untitled"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": ""}, "spec.image in body should be at least 1 chars long"),
        ({"image": "WEB"}, "spec.image in body should match '^[a-z:0-9/.]+$'"),
        ({"image": None}, "spec.image: Required value"),
        ({"replicas": 11}, "spec.replicas in body should be less than or equal to 10"),
        ({"replicas": "1"}, "spec.replicas in body must be of type integer"),
        ({"minReplicas": 5}, "spec.minReplicas: Invalid value: minReplicas is above replicas"),
        ({"mode": "slow"}, 'spec.mode: Unsupported value: "slow": supported values: "fast", "safe"'),
        ({"colour": "green"}, 'spec.colour: Unsupported value: "green"'),
        ({"memory": "much"}, "spec.memory in body should match"),
        ({"memory": 1.5}, "spec.memory"),
        ({"port": 1.5}, "spec.port"),
        ({"pages": [{"path": "/"}, {"path": "/"}]}, 'spec.pages[1]: Duplicate value: {"path":"/"}'),
        ({"pages": [{}]}, "spec.pages[0].path: Required value"),
        ({"hosts": ["a", "a"]}, 'spec.hosts[1]: Duplicate value: "a"'),
        ({"hosts": list("abcdef")}, "spec.hosts: Too many: 6: must have at most 5 items"),
        ({"labels": {"a": 1}}, "spec.labels.a in body must be of type string"),
        ({"template": {"spec": {}}}, "spec.template.spec.containers: Required value"),
        ({"anyObject": {"kind": "ConfigMap"}}, "spec.anyObject.apiVersion: Required value"),
        ({"since": "yesterday"}, "spec.since in body must be of type date-time"),
        ({"wait": "long"}, "spec.wait in body must be of type duration"),
    ],
)
def test_what_does_not_fit_is_refused(plane: BlockingPlane, change: dict[str, Any], problem: str) -> None:
    sent = website("wrong")
    sent["spec"] |= change
    sent["spec"] = {name: value for name, value in sent["spec"].items() if value is not None}
    with pytest.raises(Invalid) as caught:
        plane.call("POST", WEBSITES, sent)
    assert problem in str(caught.value)


def test_a_rule_compares_with_the_value_before(plane: BlockingPlane) -> None:
    plane.call("POST", WEBSITES, website("rising", never_less=3))
    plane.call("PATCH", f"{WEBSITES}/rising", {"spec": {"neverLess": 4}})
    with pytest.raises(Invalid, match="only up"):
        plane.call("PATCH", f"{WEBSITES}/rising", {"spec": {"neverLess": 2}})


def test_status_and_scale_are_subresources(plane: BlockingPlane) -> None:
    plane.call("POST", WEBSITES, website("scaled"))
    plane.call("PATCH", f"{WEBSITES}/scaled/status", {"status": {"readyReplicas": 1, "selector": "app=web"}})
    plane.call("PATCH", f"{WEBSITES}/scaled", {"status": {"readyReplicas": 9}})
    scale = plane.call("PATCH", f"{WEBSITES}/scaled/scale", {"spec": {"replicas": 4}})
    assert scale["status"] == {"replicas": 1, "selector": "app=web"}
    assert from_dict(plane.call("GET", f"{WEBSITES}/scaled"), Website).spec.replicas == 4


def test_conditions_merge_by_their_type(plane: BlockingPlane) -> None:
    plane.call("POST", WEBSITES, website("conditions"))
    for kind, manager in (("Ready", "one"), ("Sound", "two")):
        condition = {"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": FULL["since"]}
        body = {"apiVersion": "example.com/v1", "kind": "Website", "status": {"conditions": [condition]}}
        plane.call(
            "PATCH",
            f"{WEBSITES}/conditions/status?fieldManager={manager}",
            body,
            content_type="application/apply-patch+yaml",
        )
    found = from_dict(plane.call("GET", f"{WEBSITES}/conditions"), Website)
    assert [each.type for each in found.status.conditions] == ["Ready", "Sound"]


def test_names_columns_and_selectable_fields(plane: BlockingPlane) -> None:
    resources = {each["name"]: each for each in plane.call("GET", "/apis/example.com/v1")["resources"]}
    assert (resources["websites"]["shortNames"], resources["websites"]["categories"]) == (["web"], ["all"])
    assert {"websites/status", "websites/scale"} <= resources.keys()
    plane.call("POST", WEBSITES, website("quick", mode="fast"))
    found = plane.call("GET", f"{WEBSITES}?fieldSelector=spec.mode%3Dfast")
    assert [each["metadata"]["name"] for each in found["items"]] == ["quick"]


def test_another_version_shows_the_same_object(plane: BlockingPlane) -> None:
    plane.call("POST", WEBSITES, website("both"))
    found = from_dict(plane.call("GET", f"{WEBSITES}/both".replace("v1", "v1beta1", 1)), OldWebsite)
    assert (found.api_version, found.spec.image) == ("example.com/v1beta1", "web:1")


class Plain(Resource, group="example.com", version="v1", plural="plains", namespaced=False):
    value: int = 1


@pytest.mark.parametrize(
    "conversion",
    [
        None,
        ConversionWebhook(service="default/converter", port=8443),
        ConversionWebhook(url="https://converter.example.com/convert"),
    ],
    ids=["none", "service", "url"],
)
def test_every_definition_is_taken(plane: BlockingPlane, conversion: ConversionWebhook | None) -> None:
    made = definition(Plain, conversion=conversion)
    found = plane.call("POST", f"{DEFINITIONS}?dryRun=All", made)
    assert found["spec"]["scope"] == "Cluster"
    client = found["spec"]["conversion"].get("webhook", {}).get("clientConfig", {})
    assert client.get("service", {}).get("port", 8443) == 8443


def test_a_certificate_authority_is_base64(plane: BlockingPlane) -> None:
    made = definition(Plain, conversion=ConversionWebhook(service="default/converter", ca=plane.ca))
    client = plane.call("POST", f"{DEFINITIONS}?dryRun=All", made)["spec"]["conversion"]["webhook"]["clientConfig"]
    assert base64.b64decode(client["caBundle"]) == plane.ca


@Rule("self.metadata.name.startsWith('boat-')", message="boats begin with boat-")
class Named(Resource, group="example.com", version="v1", plural="nameds", namespaced=False):
    data: Mapping[str, str] = {}


def test_a_rule_of_a_whole_object(plane: BlockingPlane) -> None:
    path = f"{DEFINITIONS}/nameds.example.com"
    plane.call("POST", DEFINITIONS, definition(Named))
    plane.wait_for(path, established)
    plane.call("POST", "/apis/example.com/v1/nameds", to_dict(Named(metadata=ObjectMeta(name="boat-1"))))
    with pytest.raises(Invalid, match="boats begin with boat-"):
        plane.call("POST", "/apis/example.com/v1/nameds", to_dict(Named(metadata=ObjectMeta(name="ship-1"))))


RECURSIVE = {
    "CustomResourceDefinition",
    "CustomResourceDefinitionSpec",
    "CustomResourceDefinitionVersion",
    "CustomResourceValidation",
    "JSONSchemaProps",
}


@pytest.mark.parametrize("module", MODULES)
def test_all_types_of_kubernetes_are_taken(plane: BlockingPlane, module: str) -> None:
    types = vars(importlib.import_module(f"pilothouse.kinds.structs.{module}"))
    names = [name for name in types["__all__"] if name not in RECURSIVE]
    maker: Any = type(Resource)
    body: dict[str, Any] = {"__module__": __name__}
    body["__annotations__"] = {f"x{name}": types[name] | None for name in names}
    body |= {f"x{name}": None for name in names}
    kind = maker("Whole", (Resource,), body, group="example.com", version="v1", plural="wholes")
    made = definition(kind)
    found = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert all(found[f"x{name}"]["type"] == "object" for name in names)
    plane.call("POST", f"{DEFINITIONS}?dryRun=All", made)


UID = "00000000-0000-4000-8000-000000000001"


def recorded(value: Any) -> Iterator[dict[str, Any]]:
    """Find the objects that a real server answered with."""
    if isinstance(value, dict):
        if (value.get("metadata") or {}).get("uid") == UID and "apiVersion" in value and "kind" in value:
            yield value
        value = [*value.values()]
    if isinstance(value, list):
        for each in value:
            yield from recorded(each)


@pytest.mark.slow
def test_what_a_real_server_answered_fits_and_is_kept_when_embedded(plane: BlockingPlane) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(GOLDEN.glob("*.json"))]
    for placeholder, value in (("<time>", FULL["since"]), ("<uid>", UID), ('"<nodePort>"', "30001")):
        texts = [text.replace(placeholder, value) for text in texts]
    objects: dict[str, list[dict[str, Any]]] = {}
    for found in recorded([*map(json.loads, texts)]):
        group, _, version = found["apiVersion"].rpartition("/")
        if kubernetes_name(type_for(group, version, found["kind"]) or Struct) and found["kind"] not in RECURSIVE:
            objects.setdefault(f"{found['apiVersion']} {found['kind']}", []).append(found)
    assert len(objects) > 30
    maker: Any = type(Resource)
    names = {each: each.replace("/", "").replace(".", "").replace(" ", "").lower() for each in sorted(objects)}
    hints: dict[str, Any] = {}
    for each, name in names.items():
        api_version, _, kind = each.partition(" ")
        group, _, version = api_version.rpartition("/")
        hints[name] = Sequence[type_for(group, version, kind)]  # type: ignore[misc]  # found at run time
    body: dict[str, Any] = {"__module__": __name__, "__annotations__": hints, **dict.fromkeys(hints, ())}
    kind = maker("Holder", (Resource,), body, group="example.com", version="v1", plural="holders")
    plane.call("POST", DEFINITIONS, definition(kind))
    plane.wait_for(f"{DEFINITIONS}/holders.example.com", established)
    holder = {"apiVersion": "example.com/v1", "kind": "Holder", "metadata": {"name": "all"}}
    sent = holder | {name: objects[each] for each, name in names.items()}
    found = plane.call("POST", "/apis/example.com/v1/namespaces/default/holders", sent)
    for name in names.values():
        assert without_nulls(found[name]) == without_nulls(sent[name]), name


def without_nulls(value: Any) -> Any:
    """Go writes an empty creationTimestamp as null, and the server drops that in metadata."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


class Dear(Struct):
    names: Annotated[Sequence[str], Rule("self.all(a, self.exists(b, a != b))")] = ()


class DearThing(Resource, group="example.com", version="v1", plural="dears"):
    spec: Dear = Dear()


def test_what_only_a_server_knows_of_a_rule_it_says(plane: BlockingPlane) -> None:
    with pytest.raises(ApiStatus, match=r"names.*maxItems|maxItems.*names"):
        plane.call("POST", DEFINITIONS, definition(DearThing))
