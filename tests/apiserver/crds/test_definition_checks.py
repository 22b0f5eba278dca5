"""Definitions that kube-apiserver refuses are refused, in its words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse.apiserver.crds import complete_definition
from pilothouse.kinds.fielderrors import ErrorList

Raw = dict[str, Any]
_SCHEMA = "spec.validation.openAPIV3Schema"
INT = {"type": "integer"}
STRING = {"type": "string"}


def _crd(schema: Raw, **version: Any) -> Raw:
    found = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    return {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [found],
            "conversion": {"strategy": "None"},
        },
        "status": {"storedVersions": ["v1"]},
    }


def _said(crd: Raw, old: Raw | None = None) -> list[str]:
    return [str(error) for error in complete_definition(ErrorList(), crd, old)]


def _object(properties: Raw, **more: Any) -> Raw:
    return {"type": "object", "properties": properties, **more}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (_object({"a": {"type": "string", "default": "x"}}), []),
        (
            _object({"a": {"type": "integer", "default": "x"}}),
            ['properties[a].default: Invalid value: "string":  in body must be of type integer: "string"'],
        ),
        (
            _object({"a": _object({"b": INT}, default={"c": 1})}),
            ['properties[a].default: Invalid value: {"c":1}: must not have unknown fields'],
        ),
        (
            _object({"a": {"type": "array", "items": _object({"k": STRING}), "x-kubernetes-list-type": "map"}}),
            [
                (
                    "properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if"
                    " x-kubernetes-list-type is map"
                )
            ],
        ),
        (
            _object(
                {
                    "a": {
                        "type": "array",
                        "items": _object({"k": STRING}),
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                    }
                }
            ),
            [
                (
                    "properties[a].items.properties[k].default: Required value: this property is in"
                    " x-kubernetes-list-map-keys, so it must have a default or be a required property"
                )
            ],
        ),
        (
            _object({"a": {"type": "string", "pattern": "("}}),
            [
                (
                    'properties[a].pattern: Invalid value: "(": must be a valid regular expression, but'
                    " isn't: error parsing"
                    " regexp: missing closing ): `(`"
                )
            ],
        ),
        (
            _object({"a": {"type": "wrong"}}),
            [
                (
                    'properties[a].type: Unsupported value: "wrong": supported values: "array", "boolean", "integer",'
                    ' "number", "object", "string"'
                )
            ],
        ),
        (
            _object({"a": INT}, anyOf=[{"properties": {"b": {"minimum": 1}}}]),
            [
                f"properties[b]: Required value: because it is defined in {_SCHEMA}.anyOf[0].properties[b]",
            ],
        ),
        (
            _object({"a": INT}, anyOf=[{"properties": {"a": {"type": "integer"}}}]),
            ["anyOf[0].properties[a].type: Forbidden: must be empty to be structural"],
        ),
        (
            _object({"metadata": _object({"labels": {"type": "object"}})}),
            [
                (
                    "properties[metadata]: Forbidden: must not specify anything other than name and"
                    " generateName, but metadata"
                    " is implicitly specified"
                )
            ],
        ),
        (_object({"metadata": _object({"name": {"type": "string", "maxLength": 5}})}), []),
        (
            _object({"a": {"type": "object", "x-kubernetes-embedded-resource": True}}),
            [
                (
                    "properties[a].properties: Required value: must not be empty if"
                    " x-kubernetes-embedded-resource is true"
                    " without x-kubernetes-preserve-unknown-fields"
                )
            ],
        ),
        (
            _object({"a": INT}, **{"x-kubernetes-validations": [{"rule": "self.b > 1"}]}),
            [
                (
                    'x-kubernetes-validations[0].rule: Invalid value: {"Rule":"self.b \\u003e 1","Message":"",'
                    '"MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}:'
                    " compilation failed: ERROR:"
                    " <input>:1:5: undefined field 'b'\n | self.b > 1\n | ....^"
                )
            ],
        ),
        (
            _object({"a": INT}, **{"x-kubernetes-validations": [{"rule": " "}]}),
            ["x-kubernetes-validations[0].rule: Required value: rule is not specified"],
        ),
        (
            _object({"a": INT}, **{"x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": True}]}),
            [
                (
                    "x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if"
                    " oldSelf is not used in"
                    " rule"
                )
            ],
        ),
        (
            _object({"a": INT}, **{"x-kubernetes-validations": [{"rule": "true", "fieldPath": ".b"}]}),
            ['x-kubernetes-validations[0].fieldPath: Invalid value: ".b": must be a valid path'],
        ),
        (
            _object(
                {"a": {"type": "array", "items": {**INT, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}
            ),
            [
                (
                    'properties[a].items.x-kubernetes-validations[0].rule: Invalid value: "self =='
                    ' oldSelf": oldSelf cannot be'
                    f" used on the uncorrelatable portion of the schema within {_SCHEMA}.properties[a]"
                )
            ],
        ),
        (
            _object(
                {"a": {"type": "array", "items": STRING}},
                **{"x-kubernetes-validations": [{"rule": "self.a.all(x, self.a.all(y, x != y || x == y))"}]},
            ),
            [
                (
                    "x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by"
                    " factor of more than"
                    " 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength"
                    " where arrays, maps, and"
                    " strings are declared)"
                ),
                (
                    "x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost"
                    " total exceeding cost limit"
                    " for entire OpenAPIv3 schema"
                ),
                (
                    ": Forbidden: x-kubernetes-validations estimated rule cost total for entire"
                    " OpenAPIv3 schema exceeds budget"
                    " by factor of more than 100x (try simplifying the rule, or adding maxItems,"
                    " maxProperties, and maxLength"
                    " where arrays, maps, and strings are declared)"
                ),
            ],
        ),
        (
            _object(
                {"a": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}}},
                **{"x-kubernetes-validations": [{"rule": "self.a.all(x, self.a.all(y, x != y || x == y))"}]},
            ),
            [],
        ),
        (
            _object(
                {"a": _object({"b": INT}, default={"b": 0}, **{"x-kubernetes-validations": [{"rule": "self.b > 0"}]})}
            ),
            ["properties[a].default: Invalid value: failed rule: self.b > 0"],
        ),
        (_object({"a": INT}, nullable=True), ["nullable: Forbidden: nullable cannot be true at the root"]),
    ],
)
def test_schemas(schema: Raw, said: list[str]) -> None:
    expected = [_SCHEMA + text if text.startswith(": ") else f"{_SCHEMA}.{text}" for text in said]
    assert _said(_crd(schema)) == expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"additionalPrinterColumns": [{"name": "A", "type": "text", "jsonPath": "spec"}]},
            [
                (
                    'spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of'
                    " boolean,date,integer,number,string"
                ),
                (
                    'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple'
                    " json path starting with"
                    " ."
                ),
            ],
        ),
        (
            {"selectableFields": [{"jsonPath": ".b"}, {"jsonPath": ".a"}, {"jsonPath": ".a"}]},
            [
                (
                    'spec.selectableFields[0].jsonPath: Invalid value: ".b": is an invalid path: does'
                    " not refer to a valid field"
                ),
                'spec.selectableFields[2].jsonPath: Duplicate value: ".a"',
            ],
        ),
        (
            {"subresources": {"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": "x"}}},
            [
                (
                    'spec.subresources.scale.specReplicasPath: Invalid value: ".status.n": should be a'
                    " json path under .spec"
                ),
                (
                    'spec.subresources.scale.statusReplicasPath: Invalid value: "x": must be a simple'
                    " json path starting with ."
                ),
            ],
        ),
        (
            {"deprecationWarning": "old"},
            ['spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions'],
        ),
    ],
)
def test_versions(more: Raw, said: list[str]) -> None:
    assert _said(_crd(_object({"a": STRING}), **more)) == said


@pytest.mark.parametrize(
    ("conversion", "said"),
    [
        ({"strategy": "Webhook"}, 2),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v9"]},
            },
            2,
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {
                    "clientConfig": {"service": {"name": "a", "namespace": "b", "port": 443}},
                    "conversionReviewVersions": ["v1"],
                },
            },
            0,
        ),
        ({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}, 1),
    ],
)
def test_conversions(conversion: Raw, said: int) -> None:
    crd = _crd(_object({"a": STRING}))
    crd["spec"]["conversion"] = conversion
    assert len(_said(crd)) == said


def test_stored_versions_must_stay() -> None:
    crd = _crd(_object({"a": STRING}))
    crd["status"]["storedVersions"] = ["v1", "v0"]
    assert _said(crd, copy.deepcopy(crd))[0].startswith('status.storedVersions[1]: Invalid value: "v0": missing from')


def test_what_is_said_already_is_not_said_again() -> None:
    crd = _crd(_object({"a": {}}))
    errors = complete_definition(ErrorList(), crd)
    assert len(complete_definition(ErrorList(errors), crd)) == len(errors) == 1
