"""What a method, a path and a query ask for."""

from __future__ import annotations

import pytest

from pilothouse.apiserver import paths

PODS = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "name", "selector"),
    [
        ("GET", PODS, "fieldSelector=spec.nodeName%3Dn1", "list", "", "spec.nodeName=n1"),
        ("GET", PODS, "fieldSelector=metadata.name=x&watch=1", "watch", "x", "metadata.name=x"),
        ("DELETE", PODS, "fieldSelector=metadata.name!=x", "deletecollection", "", "metadata.name!=x"),
        ("GET", f"{PODS}/p", "fieldSelector=metadata.name=x", "get", "p", ""),
        ("POST", PODS, "fieldSelector=metadata.name=x", "create", "", ""),
        ("GET", PODS, "fieldSelector=%21%21", "list", "", "!!"),
    ],
)
def test_field_selectors_are_told(method: str, path: str, query: str, verb: str, name: str, selector: str) -> None:
    info = paths.parse(method, path, query)
    assert (info.verb, info.name, info.field_selector) == (verb, name, selector)
