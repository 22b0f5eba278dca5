"""Objects out of YAML and JSON files, read as Kubernetes does, with bounds, and errors that name file and document.

Refused: what is no object, duplicate keys, anchors that multiply, deep nesting, templates that nobody filled in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml

from .errors import ManifestError

__all__ = ["LFS", "Manifest", "is_lfs_pointer", "read_documents", "read_manifests"]

Object = dict[str, Any]

_MAX_NODES: Final = 200_000
_MAX_DEPTH: Final = 100
_MAX_FILE_NODES: Final = 2_000_000
_MAX_DOCUMENTS: Final = 10_000
_SUSPICIOUS: Final = 1_000
_LFS: Final = b"version https://git-lfs.github.com/spec/"
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"y", "Y", "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"n", "N", "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_INTEGER: Final = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: Final = {".inf": math.inf, "-.inf": -math.inf, "+.inf": math.inf, ".nan": math.nan}
_TEMPLATED: Final = re.compile(r"\{\{|\}\}|\$\{")
_SKIPPED: Final = b"+argocd:skip-file-rendering"


class Manifest(NamedTuple):
    """An object and where it stands."""

    file: str
    document: int
    object: Object


LFS: Final = "it is a pointer of Git LFS, whose files are not fetched; commit the file itself"


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a file stands for one that Git LFS keeps elsewhere."""
    return data.startswith(_LFS)


class _Resolver:
    """Leaves it to us what a plain scalar is."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return "?"
        return "!"

    def descend_resolver(self, *_: Any) -> None: ...

    def ascend_resolver(self) -> None: ...


if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # it is there

    class _Loader(CParser, _Resolver):
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)

else:  # pragma: no cover  # where PyYAML was built without libyaml

    class _Loader(  # type: ignore[no-redef]
        yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _Resolver
    ):
        def __init__(self, stream: str) -> None:
            yaml.reader.Reader.__init__(self, stream)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)
            yaml.composer.Composer.__init__(self)


def read_manifests(file: str, data: bytes) -> list[Manifest]:
    """Return the objects of a file, those of lists one by one. Raises ManifestError."""
    if _SKIPPED in data:
        return []
    if is_lfs_pointer(data):
        raise ManifestError(file, LFS)
    found = []
    for number, value in read_documents(file, data):
        for item in _items(file, number, value):
            _check(file, number, item)
            found.append(Manifest(file, number, item))
    return found


def read_documents(file: str, data: bytes) -> Iterator[tuple[int, Any]]:
    """Give the documents of a YAML or JSON file that hold something, counted from 1. Raises ManifestError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(file, f"it is no UTF-8 text: {error.reason} at byte {error.start}") from None
    if file.endswith(".json"):
        yield from _json(file, text)
        return
    _check_shape(file, text)
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise ManifestError(file, f"no YAML: {error}"[:300], 1) from None
    number = 0
    try:
        while True:
            number += 1
            node = _next_node(file, number, loader, text)
            if node is None:
                return
            value = _Building(file, number).value(node, 0)
            if value is not None:
                yield number, value
    finally:
        loader.dispose()


def _next_node(file: str, number: int, loader: Any, text: str) -> Any:
    if number > _MAX_DOCUMENTS:
        raise ManifestError(file, f"it has more than {_MAX_DOCUMENTS} documents")
    try:
        return loader.get_node() if loader.check_node() else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ManifestError(file, f"no YAML{where}: {error.problem or error.context}{_hint(text)}", number) from None
    except yaml.YAMLError as error:
        raise ManifestError(file, f"no YAML: {error}"[:300], number) from None
    except RecursionError:
        raise ManifestError(file, f"it is nested deeper than {_MAX_DEPTH} levels", number) from None


def _hint(text: str) -> str:
    return "; it has template marks {{ }}: is it a part of a Helm chart?" if "{{" in text else ""


def _check_shape(file: str, text: str) -> None:
    """Refuse deep nesting and too many values before a node is made of them; the library itself has no bound."""
    marks = text.count("[") + text.count("{") + text.count("- ") + text.count("? ")
    # No more values than this can be there, so most files need no look.
    most = marks + text.count("\n") + 2 * text.count(":") + text.count(",") + 2
    if marks < _SUSPICIOUS and most < _MAX_NODES:
        return
    shape = _Shape(file)
    try:
        for event in yaml.parse(text, getattr(yaml, "CLoader", yaml.Loader)):
            shape.add(event)
    except yaml.YAMLError:
        return  # told with its document by whoever reads it next


class _Shape:
    """Counts what a file holds. Raises ManifestError where it is too much."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._depth = self._nodes = self._whole = self._document = 0

    def add(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._nodes, self._document = 0, self._document + 1
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self._depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            self._depth += isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent)
            self._nodes, self._whole = self._nodes + 1, self._whole + 1
        problem = self._problem()
        if problem:
            raise ManifestError(self._file, problem, self._document)

    def _problem(self) -> str:
        if self._depth > _MAX_DEPTH:
            return f"it is nested deeper than {_MAX_DEPTH} levels"
        if self._document > _MAX_DOCUMENTS:
            return f"it has more than {_MAX_DOCUMENTS} documents"
        if self._nodes > _MAX_NODES or self._whole > _MAX_FILE_NODES:
            most = _MAX_NODES if self._nodes > _MAX_NODES else _MAX_FILE_NODES
            return f"it holds more than {most} values; split it"
        return ""


class _Building:
    """Makes values of a document's nodes."""

    def __init__(self, file: str, document: int) -> None:
        self._file = file
        self._document = document
        self._count = 0

    def fail(self, problem: str, node: Any = None) -> ManifestError:
        where = f"line {node.start_mark.line + 1}: " if node is not None else ""
        return ManifestError(self._file, where + problem, self._document)

    def value(self, node: Any, depth: int) -> Any:
        self._count += 1
        if self._count > _MAX_NODES:
            raise self.fail(f"it holds more than {_MAX_NODES} values; do its anchors multiply?")
        if depth > _MAX_DEPTH:
            raise self.fail(f"it is nested deeper than {_MAX_DEPTH} levels, or an anchor holds itself", node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in {"!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}:
            raise self.fail(f"the tag {node.tag} is not allowed", node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, depth + 1) for each in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: Any, depth: int) -> Object:
        found: Object = {}
        merged: list[Any] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail("a key is no text; template marks {{ }} that nothing filled in?", key_node)
            if key_node.tag == "?" and key_node.value == "<<":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = _key(self._scalar(key_node))
            if key in found:
                raise self.fail(f"the key {key!r} is there twice", key_node)
            found[key] = self.value(value_node, depth + 1)
        for each in merged:
            other = self.value(each, depth + 1)
            if not isinstance(other, dict):
                raise self.fail("<< wants a map", each)
            found = {**other, **found}
        return found

    def _scalar(self, node: Any) -> Any:
        tag, text = node.tag, node.value
        if tag in {"!", "tag:yaml.org,2002:str"}:
            return text
        if tag == "tag:yaml.org,2002:binary":
            raise self.fail("binary values are not allowed; write them as base64 in a text", node)
        if tag != "?" and not tag.startswith("tag:yaml.org,2002:"):
            raise self.fail(f"the tag {tag} is not allowed", node)
        try:
            return _plain(text)
        except (ValueError, OverflowError):
            raise self.fail(f"{text[:50]!r} is no number", node) from None


def _key(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)


def _plain(text: str) -> Any:
    """Return what a text without quotes stands for: as YAML 1.1 in Kubernetes, where times are texts."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    first = text[0]
    if first.isdigit() or first in "+-.":
        if len(text) <= 80 and _INTEGER.fullmatch(text):
            return _integer(text.replace("_", ""))
        if len(text) <= 400 and _FLOAT.fullmatch(text):
            return _number(float(text))
        return _SPECIAL.get(text.lower(), text)
    return text


def _integer(text: str) -> Any:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").lower()
    if digits.startswith("0") and len(digits) > 1:
        base = {"x": 16, "b": 2, "o": 8}.get(digits[1], 8)
        return sign * int(digits[2:] if digits[1] in "xbo" else digits, base)
    value = sign * int(digits)
    return value if -(2**63) <= value < 2**64 else float(value)


def _number(value: float) -> Any:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _json(file: str, text: str) -> Iterator[tuple[int, Any]]:
    def pairs(found: list[tuple[str, Any]]) -> Object:
        made = dict(found)
        if len(made) != len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ManifestError(file, f"the key {twice!r} is there twice", 1)
        return made

    try:
        value = json.loads(text, object_pairs_hook=pairs) if text.strip() else None
    except RecursionError:
        raise ManifestError(file, "it is nested too deep", 1) from None
    except ValueError as error:
        raise ManifestError(file, f"no JSON: {error}", 1) from None
    if value is not None:
        yield 1, _checked_json(file, value, 0)


def _checked_json(file: str, value: Any, depth: int) -> Any:
    """Return a value of JSON as it may be in an object. Raises ManifestError."""
    if depth > _MAX_DEPTH:
        raise ManifestError(file, f"it is nested deeper than {_MAX_DEPTH} levels", 1)
    if isinstance(value, dict):
        return {_checked_text(file, key): _checked_json(file, each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_checked_json(file, each, depth + 1) for each in value]
    if isinstance(value, str):
        return _checked_text(file, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ManifestError(file, f"{value} is no number that an object may have", 1)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


def _checked_text(file: str, text: str) -> str:
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ManifestError(file, f"{text[:50]!r} is no text: half of a pair of surrogates", 1)
    return text


def _items(file: str, number: int, value: Any) -> Iterator[Object]:
    if not isinstance(value, dict):
        raise ManifestError(file, "it is no object; a manifest has apiVersion, kind and metadata", number)
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for item in value["items"]:
            if not isinstance(item, dict):
                raise ManifestError(file, "an item of the list is no object", number)
            yield item
    else:
        yield value


def _check(file: str, number: int, obj: Object) -> None:
    problem = _problem(obj)
    if problem:
        raise ManifestError(file, problem, number)


def _problem(obj: Object) -> str:
    """Return what is wrong with the identity of an object."""
    metadata, kind = obj.get("metadata"), obj.get("kind")
    for field in ("apiVersion", "kind"):
        if not obj.get(field) or not isinstance(obj[field], str):
            return f"{field} is missing; a manifest has apiVersion, kind and metadata"
    if not isinstance(metadata, dict):
        return f"{kind}: metadata is missing"
    name = metadata.get("name") or metadata.get("generateName")
    if not name or not isinstance(name, str):
        return f"{kind}: metadata.name is missing or no text (quote numbers)"
    named = (("kind", kind), ("metadata.name", name), ("metadata.namespace", metadata.get("namespace")))
    for where, text in named:
        if text is not None and (not isinstance(text, str) or _TEMPLATED.search(text)):
            return f"{where} {text!r} is a template that nothing filled in"
    return _texts_problem(f"{kind} {name}", metadata)


def _texts_problem(what: str, metadata: Object) -> str:
    for field in ("labels", "annotations"):
        values = metadata.get(field)
        if values is not None and not isinstance(values, dict):
            return f"{what}: metadata.{field} is no map"
        wrong = next((key for key, one in (values or {}).items() if one is not None and not isinstance(one, str)), None)
        if wrong is not None:
            return f"{what}: {field[:-1]} {wrong!r} is no text; quote it"
    return ""
