"""What is wrong with rollouts in files, before a server sees them: unknown fields, and what cannot work. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec

from pilothouse.delivery.gitops.manifests import Manifest
from pilothouse.delivery.resources.analyses import AnalysisTemplate, AnalysisTemplateSpec, ClusterAnalysisTemplate
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import Service, StructError, from_dict
from pilothouse.operator.crds import definition

from .routing import route_keys
from .situation import Situation
from .validation import missing, not_acted_on, problems
from .view import RouteKey, TemplateKey, View

__all__ = ["Finding", "lint"]

_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
_KEPT: Final = "x-kubernetes-preserve-unknown-fields"
_METADATA: Final = ("apiVersion", "kind", "metadata")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something about an object of a file. is_error: it cannot work so; otherwise it is only good to know."""

    file: str
    document: int
    object: str
    message: str
    is_error: bool = True


def lint(manifests: Sequence[Manifest]) -> list[Finding]:
    """Return what there is to say of the rollouts in files. What they name is looked for in these files alone."""
    found = []
    for manifest in manifests:
        tree = manifest.object
        if tree.get("kind") == "Rollout" and str(tree.get("apiVersion")).startswith("argoproj.io/"):
            name = f"Rollout {tree['metadata'].get('name', '')}"
            for message, is_error in _of_rollout(tree, manifests):
                found.append(
                    Finding(
                        file=manifest.file, document=manifest.document, object=name, message=message, is_error=is_error
                    )
                )
    return found


def _of_rollout(tree: Mapping[str, Any], manifests: Sequence[Manifest]) -> Iterator[tuple[str, bool]]:
    yield from ((text, True) for text in _unknown(tree, _schema(), ""))
    try:
        rollout = from_dict({**tree, "metadata": {"namespace": "default", **tree["metadata"]}}, Rollout)
    except StructError as error:
        yield str(error), True
        return
    sit = Situation(_view(rollout, manifests), _NEVER)
    elsewhere = missing(sit)
    try:
        wrong = problems(sit)
    except StructError as error:  # what is named does not fit its kind
        yield str(error), True
        return
    yield from ((text, True) for text in wrong if text not in elsewhere)
    yield from ((f"{text.partition(' is not there')[0]} is not in these files", False) for text in elsewhere)
    yield from ((f"{path}: it is kept, but not acted on here", False) for path in not_acted_on(sit))


def _view(rollout: Rollout, manifests: Sequence[Manifest]) -> View:
    namespace = rollout.metadata.namespace
    services: dict[str, Service] = {}
    routes: dict[RouteKey, Mapping[str, Any]] = {}
    templates: dict[TemplateKey, AnalysisTemplateSpec] = {}
    workload = None
    ref = rollout.spec.workload_ref
    for _, _, tree in manifests:
        kind, name = tree["kind"], str(tree["metadata"].get("name"))
        where = str(tree["metadata"].get("namespace") or namespace)
        if (key := RouteKey(kind, where, name)) in route_keys(rollout):
            routes[key] = tree
        elif kind == "ClusterAnalysisTemplate":
            templates[TemplateKey(True, name)] = from_dict(tree, ClusterAnalysisTemplate).spec
        elif where != namespace:
            continue
        elif kind == "Service":
            services[name] = from_dict(tree, Service)
        elif kind == "AnalysisTemplate":
            templates[TemplateKey(False, name)] = from_dict(tree, AnalysisTemplate).spec
        elif ref is not None and (kind, name) == (ref.kind, ref.name):
            workload = tree
    return View(rollout, services=services, routes=routes, templates=templates, workload=workload)


# Fields that there are not


@cache
def _schema() -> Mapping[str, Any]:
    found: Mapping[str, Any] = definition(Rollout)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Give each field that the schema does not know, with the one that is probably meant."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _unknown(item, schema.get("items") or {}, f"{path}[{place}]")
        return
    known = schema.get("properties")
    if not isinstance(value, Mapping) or known is None:
        return
    for name, inner in value.items():
        where = f"{path}.{name}" if path else str(name)
        if name in known:
            yield from _unknown(inner, known[name], where) if path or name not in _METADATA else ()
        elif not schema.get(_KEPT) and (path or name not in _METADATA):
            near = difflib.get_close_matches(str(name), known, 1)
            yield f"{where}: there is no such field" + (f"; is it {near[0]}?" if near else "; remove it")
