"""The same objects out of YAML files, without a cluster, and a shorter way to say where backends are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pilothouse.kinds.structs import EndpointSlice, IngressClass, Resource, Service, StructError, from_dict

from .conditions import StatusOf
from .install import CLASS, classes
from .kinds import OWN_GROUP, GatewayClass
from .snapshot import SEEN, SERVICE_LABEL, Key, Snapshot, key_of
from .translate import Translation

__all__ = ["FileError", "problems", "read_files", "read_text"]

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_MOST_BYTES: Final = 64 << 20
_BY_KIND: Final = {(kind.gvk[0], kind.gvk[2]): kind for kind in SEEN}
_IGNORED: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "CustomResourceDefinition", "ServiceAccount"})


class FileError(ValueError):
    """A file cannot be used; the message names it, the document, the object and the field."""


def read_files(paths: Iterable[str | Path]) -> Snapshot:
    """Return the objects of files, and of all YAML and JSON files right below directories. Raises FileError."""
    found: dict[type[Resource], dict[Key, Resource]] = {}
    for path in _files(paths):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{path}: cannot be read: {error}") from error
        if len(text) > _MOST_BYTES:
            raise FileError(f"{path}: more than {_MOST_BYTES >> 20} MiB; split it")
        for obj in read_text(text, str(path)):
            before = found.setdefault(type(obj), {}).setdefault(key_of(obj), obj)
            if before is not obj:
                raise FileError(f"{path}: {_named(obj)} is there twice; remove one or rename it")
    _add_classes(found)
    return Snapshot(found)


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for each in paths:
        path = Path(each)
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES and not one.name.startswith("."))
        else:
            yield path


def read_text(text: str, place: str = "text") -> list[Resource]:
    """Return the objects of YAML documents. place: what errors name. Raises FileError."""
    import yaml  # noqa: PLC0415  only who reads files needs it

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = list(yaml.load_all(text, Loader=loader))
    except yaml.YAMLError as error:
        raise FileError(f"{place}: no YAML: {error}") from error
    made: list[Resource] = []
    for number, document in enumerate(documents, 1):
        for tree in _trees(document):
            made += _objects(tree, f"{place}, document {number}")
    return made


def _trees(document: Any) -> Iterator[Any]:
    if isinstance(document, Mapping) and document.get("kind") == "List":
        yield from document.get("items") or []
    elif document is not None:
        yield document


def _objects(tree: Any, place: str) -> list[Resource]:
    if not isinstance(tree, Mapping) or not isinstance(tree.get("metadata"), Mapping):
        raise FileError(f"{place}: no object; it needs apiVersion, kind and metadata.name")
    group, _, _ = str(tree.get("apiVersion", "")).rpartition("/")
    kind = str(tree.get("kind", ""))
    name = tree["metadata"].get("name")
    where = f"{place}: {kind} '{name}'"
    if not name:
        raise FileError(f"{where}: metadata.name is missing")
    if (group, kind) == (OWN_GROUP, "Backend"):
        return _backend(tree, where)
    found = _BY_KIND.get((group, kind))
    if found is None:
        if kind in _IGNORED:
            return []
        raise FileError(f"{where}: a gateway knows no {group or 'core'}/{kind}; leave it out of its files")
    return [_object(found, tree, where)]


def _object(kind: type[Resource], tree: Mapping[str, Any], where: str) -> Resource:
    metadata = dict(tree["metadata"])
    if kind.namespaced:
        metadata.setdefault("namespace", "default")
    filled = {**tree, "metadata": metadata}
    filled.pop("apiVersion", None)
    if "stringData" in filled:
        import base64  # noqa: PLC0415  beside its only use

        texts = {name: base64.b64encode(text.encode()).decode() for name, text in filled.pop("stringData").items()}
        filled["data"] = {**(filled.get("data") or {}), **texts}
    try:
        return from_dict(filled, kind)
    except StructError as error:
        raise FileError(f"{where}: {error}") from error


def _backend(tree: Mapping[str, Any], where: str) -> list[Resource]:
    """Return a Service and its slices for `endpoints: [ADDRESS:PORT]`, of our own shorter kind."""
    spec = tree.get("spec") or {}
    name, namespace = tree["metadata"]["name"], tree["metadata"].get("namespace", "default")
    endpoints = spec.get("endpoints")
    if not isinstance(endpoints, Sequence) or isinstance(endpoints, str) or not endpoints:
        raise FileError(f"{where}: spec.endpoints is missing; write a list of ADDRESS:PORT")
    port = {"port": spec.get("port", 80), "appProtocol": spec.get("protocol", "http")}
    by_port: dict[int, list[str]] = {}
    for each in endpoints:
        address, _, number = str(each).rpartition(":")
        if not address or not number.isdigit():
            raise FileError(f"{where}: spec.endpoints: '{each}' is no ADDRESS:PORT")
        by_port.setdefault(int(number), []).append(address.strip("[]"))
    service = {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": [port]}}
    made = [_object(Service, service, where)]
    for target, addresses in by_port.items():
        slices = {
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{target}", "namespace": namespace, "labels": {SERVICE_LABEL: name}},
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
            "ports": [{"port": target}],
            "endpoints": [{"addresses": [address]} for address in addresses],
        }
        made.append(_object(EndpointSlice, slices, where))
    return made


def _add_classes(found: dict[type[Resource], dict[Key, Resource]]) -> None:
    """Add our classes, so that files need not have them."""
    kinds: tuple[type[Resource], ...] = (GatewayClass, IngressClass)
    for kind, tree in zip(kinds, classes(), strict=True):
        known = found.setdefault(kind, {})
        if ("", CLASS) not in known:
            known["", CLASS] = _object(kind, tree, kind.__name__)


def _named(obj: Resource) -> str:
    return f"{obj.gvk[2]} '{'/'.join(part for part in key_of(obj) if part)}'"


def problems(translation: Translation) -> list[str]:
    """Return what is wrong, a sentence each: conditions that say so, with the object, its part and the reason."""
    found: list[str] = []
    for status in translation.statuses:
        name = f"{status.kind.gvk[2]} '{'/'.join(part for part in (status.namespace, status.name) if part)}'"
        found += [f"{name}{part}: {text}" for part, text in _bad(status)]
    return found


def _bad(status: StatusOf) -> Iterator[tuple[str, str]]:
    parts: list[tuple[str, Sequence[Mapping[str, Any]]]] = [("", status.fields.get("conditions") or [])]
    parts += [(f" listener '{each['name']}'", each["conditions"]) for each in status.fields.get("listeners") or []]
    for each in status.shared[1] if status.shared else ():
        ref = each.get("parentRef") or each.get("ancestorRef") or {}
        parts.append((f" at '{ref.get('name')}'", each["conditions"]))
    for part, conditions in parts:
        for each in conditions:
            is_bad = each["status"] == ("True" if each["type"] == "Conflicted" else "False")
            if is_bad and each["message"]:
                yield part, f"{each['type']}: {each['reason']}: {each['message']}"
