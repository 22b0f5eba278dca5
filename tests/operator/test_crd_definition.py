import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from pilothouse.kinds.structs import CustomResourceDefinition, Pod, Resource, Struct, from_dict
from pilothouse.operator.crd_conversion import ConversionWebhook
from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crds import PrinterColumn, Scale, custom_resource, definition
from pilothouse.operator.errors import OperatorError


class BoatSpec(Struct):
    crew: int = 0
    name: str = ""
    masts: Sequence[str] = ()


class BoatStatus(Struct):
    crew: int = 0


def boat(version: str = "v1", **facts: Any) -> type[Resource]:
    """Make a class of boats; words of the class statement and of the decorator are told apart by their names."""
    words: dict[str, Any] = {
        name: facts.pop(name) for name in ("group", "kind", "plural", "namespaced") if name in facts
    }
    fields = facts.pop("fields", {"spec": BoatSpec, "status": BoatStatus})
    body: dict[str, Any] = {"__module__": __name__, "__annotations__": fields}
    body |= {name: kind() for name, kind in fields.items()}
    named: dict[str, Any] = {"group": "example.com", "version": version, "plural": "boats"}
    maker: Any = type(Resource)
    made = maker("Boat", (Resource,), body, **named | words)
    found: type[Resource] = custom_resource(**facts)(made) if facts else made
    return found


def version_of(kind: type[Resource], number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = definition(kind)["spec"]["versions"][number]
    return found


def test_the_least_that_is_told_is_enough() -> None:
    found = definition(boat())
    assert found["metadata"] == {"name": "boats.example.com"}
    assert found["spec"]["names"] == {"kind": "Boat", "listKind": "BoatList", "plural": "boats", "singular": "boat"}
    assert found["spec"]["scope"] == "Namespaced"
    assert "conversion" not in found["spec"]
    (version,) = found["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1", True, True)
    assert version["subresources"] == {"status": {}}
    read = from_dict(found, CustomResourceDefinition)
    assert not read.spec.versions[0].carried


def test_what_the_decorator_says() -> None:
    kind = boat(
        namespaced=False,
        short_names=["bo"],
        categories=("all", "fleet"),
        singular="vessel",
        served=False,
        deprecated="sail v2",
        scale=Scale(".spec.crew", ".status.crew"),
        columns=[
            PrinterColumn("Crew", ".spec.crew", description="How many.", priority=1),
            PrinterColumn("Name", ".spec.name", format="byte"),
            PrinterColumn("First", ".spec.masts[0]"),
            PrinterColumn("Age", ".metadata.creationTimestamp"),
            PrinterColumn("Owner", ".metadata.labels.owner"),
            PrinterColumn("Ready", '.spec.masts[?(@=="main")]', type="boolean"),
        ],
        selectable=[".spec.name"],
    )
    found = definition(kind)
    assert found["spec"]["scope"] == "Cluster"
    assert found["spec"]["names"]["shortNames"] == ["bo"]
    assert found["spec"]["names"]["categories"] == ["all", "fleet"]
    assert found["spec"]["names"]["singular"] == "vessel"
    version = found["spec"]["versions"][0]
    assert (version["served"], version["deprecated"], version["deprecationWarning"]) == (False, True, "sail v2")
    assert version["subresources"]["scale"] == {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}
    columns = version["additionalPrinterColumns"]
    assert columns[0] == {
        "name": "Crew",
        "type": "integer",
        "jsonPath": ".spec.crew",
        "description": "How many.",
        "priority": 1,
    }
    assert [each["type"] for each in columns] == ["integer", "string", "string", "date", "string", "boolean"]
    assert version["selectableFields"] == [{"jsonPath": ".spec.name"}]


def test_status_is_apart_where_there_is_one() -> None:
    assert "subresources" not in version_of(boat(fields={"spec": BoatSpec}))
    assert "subresources" not in version_of(boat(status=False))
    assert version_of(boat(status=True))["subresources"] == {"status": {}}


def test_several_versions_of_which_one_is_stored() -> None:
    old, new = boat("v1beta1", deprecated=True), boat("v1", storage=True, short_names=["bo"])
    found = definition(new, old)
    assert [(each["name"], each["storage"]) for each in found["spec"]["versions"]] == [("v1", True), ("v1beta1", False)]
    assert found["spec"]["names"]["shortNames"] == ["bo"]


def test_the_same_classes_give_the_same_bytes() -> None:
    kinds = boat("v1", storage=True), boat("v2")
    first = definition(*kinds)
    first["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clear()
    again = definition(*kinds)
    assert "spec" in again["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert msgspec.json.encode(again) == msgspec.json.encode(definition(*kinds))


def test_conversion() -> None:
    told = boat(conversion=ConversionWebhook(service="ships/converter", ca=b"PEM"))
    assert definition(told)["spec"]["conversion"] == {
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {
                "service": {"namespace": "ships", "name": "converter", "path": "/convert", "port": 443},
                "caBundle": "UEVN",
            },
            "conversionReviewVersions": ["v1"],
        },
    }
    instead = definition(told, conversion=ConversionWebhook(url="https://here.example.com/"))
    assert instead["spec"]["conversion"]["webhook"]["clientConfig"] == {"url": "https://here.example.com/"}


@pytest.mark.parametrize(
    ("webhook", "problem"),
    [
        (ConversionWebhook(), "wants either service='NAMESPACE/NAME' or url="),
        (ConversionWebhook(service="a/b", url="https://c"), "wants either"),
        (ConversionWebhook(service="converter"), "is not of the form NAMESPACE/NAME"),
        (ConversionWebhook(url="http://c"), "over https:// alone"),
    ],
)
def test_conversion_by_nobody_is_refused(webhook: ConversionWebhook, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        definition(boat(), conversion=webhook)


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ((), "definition() of nothing"),
        ((BoatSpec,), "is no class of whole objects; subclass Resource"),
        ((Resource,), "Resource has no version"),
        ((Pod,), "Pod: group='' is none"),
        ((boat("V1"),), "Boat: version='V1' is none: a DNS-1035 label must consist of"),
        ((boat(plural="Boats"),), "Boat: plural='Boats' is none"),
        ((boat(plural=""),), "Boat: plural='' is none"),
        ((boat(kind="The_Boat"),), "kind='the_boat' is none"),
        ((boat(group="boats"),), "Boat: group='boats' is no domain; take one of yours"),
        ((boat("v1"), boat("v2")), "Boat: none of its versions is for storage; write @custom_resource(storage=True)"),
        ((boat("v1", storage=True), boat("v2", storage=True)), "Boat: v1 and v2 of its versions is for storage"),
        ((boat(storage=False),), "Boat: none of its versions is for storage"),
        ((boat(), boat()), "two classes are of the same version"),
        ((boat(storage=True), boat("v2", plural="ships")), "have plural 'boats' and 'ships'; versions of one"),
        ((boat(storage=True), boat("v2", namespaced=False)), "have namespaced True and False"),
        ((boat(storage=True), boat("v2", kind="Ship")), "have kind 'Boat' and 'Ship'"),
        (
            (boat(storage=True, short_names=["a"]), boat("v2", short_names=["b"])),
            "have short_names ('a',) and ('b',)",
        ),
        ((boat(status=True, fields={"spec": BoatSpec}),), "status=True and there is no field of that name; add one"),
        ((boat(scale=Scale()),), "scale: .spec.replicas leads nowhere: no field 'replicas', there are crew, name"),
        ((boat(scale=Scale(".spec.name", ".status.crew")),), "scale: .spec.name is no int"),
        (
            (boat(columns=[PrinterColumn("C", ".spec.crw")]),),
            "column 'C': .spec.crw leads nowhere: no field 'crw', did you",
        ),
        ((boat(columns=[PrinterColumn("C", "spec.crew")]),), "column 'C': 'spec.crew' does not begin with a dot"),
        ((boat(columns=[PrinterColumn("C", ".spec.crew.x")]),), "no field 'x', there are none"),
        ((boat(selectable=[".spec.nam"]),), "selectable: .spec.nam leads nowhere: no field 'nam', did you mean name?"),
    ],
)
def test_what_does_not_fit_is_refused(kinds: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        definition(*kinds)
    assert problem in str(caught.value)
    assert isinstance(caught.value, OperatorError)


def test_the_decorator_refuses_what_it_cannot_be_told() -> None:
    with pytest.raises(DefinitionError, match=r"short_names='bo'\) is one text; write a list: \['bo'\]"):
        custom_resource(short_names="bo")
    with pytest.raises(DefinitionError, match=r"BoatSpec.* is no whole object; decorate the Resource that holds it"):
        custom_resource()(BoatSpec)  # type: ignore[type-var]  # what is tested


def test_a_decorator_is_of_its_class_alone() -> None:
    told = boat(short_names=["bo"])
    maker: Any = type(Resource)
    below = maker("Ship", (told,), {"__module__": __name__}, group="example.com", version="v1", plural="ships")
    assert "shortNames" not in definition(below)["spec"]["names"]


def test_no_server_is_imported() -> None:
    code = (
        "import sys, pilothouse.operator.cli_crd\n"
        "print([name for name in sys.modules if name.startswith(('pilothouse.apiserver', 'pilothouse.store', 'aiohttp',"
        " 'pilothouse.client'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
