"""Which objects a field selector takes: the text, the fields that each kind offers, the match on an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from pilothouse.kinds.fielderrors import quote

__all__ = [
    "FieldLabels",
    "FieldSelector",
    "FieldSelectorError",
    "Term",
    "custom_field_labels",
    "escape",
    "field_labels",
    "parse",
]

Read = Callable[[Mapping[str, Any]], str]

_MEMO: Final = 2048
_MEMO_KINDS: Final = 256
_MEMO_LENGTH: Final = 512
"""Characters of the longest text remembered, so that hostile ones do not fill memory."""
_SPLIT: Final = re.compile(r"(?:[^\\,]|\\.|\\\Z)*", re.DOTALL)
_TERM: Final = re.compile(r"(.*?)(!=|==|=)(.*)", re.DOTALL).fullmatch


class FieldSelectorError(ValueError):
    """A field selector cannot be read or names a field that the kind does not offer. The message is Kubernetes' own."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: the field has the value, or has another."""

    field: str
    operator: Literal["=", "!="]
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{escape(self.value)}"


def escape(value: str) -> str:
    r"""Put a backslash before `\`, `,` and `=`, so that a value can stand in a selector."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(text: str) -> str:
    if "\\" not in text and "=" not in text:
        return text
    value: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in {"\\", ",", "="}:
                raise FieldSelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            value.append(escaped)
        elif character in ",=":
            raise FieldSelectorError(f"invalid field selector: unescaped character in value: {ord(character)}")
        else:
            value.append(character)
    return "".join(value)


def _terms(selector: str) -> list[str]:
    """Split at commas that no backslash precedes."""
    terms, position = [], 0
    while position <= len(selector):
        found = _SPLIT.match(selector, position)
        end = found.end() if found else len(selector)
        terms.append(selector[position:end])
        position = end + 1
    return terms


def _path(*names: str) -> Read:
    """Make a reader of one field: text as it is, others as Go prints them, nothing as empty text."""
    *outer, last = names

    def read(obj: Mapping[str, Any]) -> str:
        found: Any = obj
        for name in outer:
            found = found.get(name)
            if not isinstance(found, dict):
                return ""
        value = found.get(last)
        return value if isinstance(value, str) else _text(value)

    return read


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _either(*readers: Read) -> Read:
    def read(obj: Mapping[str, Any]) -> str:
        return next((text for reader in readers if (text := reader(obj))), "")

    return read


def _default(reader: Read, text: str) -> Read:
    return lambda obj: reader(obj) or text


def _pod_ip(obj: Mapping[str, Any]) -> str:
    status = obj.get("status") or {}
    addresses = status.get("podIPs") or ()
    return str(addresses[0].get("ip") or "") if addresses else str(status.get("podIP") or "")


def _nothing(obj: Mapping[str, Any]) -> str:
    return ""


_NAME: Final = {"metadata.name": _path("metadata", "name")}
_NAMES: Final = {**_NAME, "metadata.namespace": _path("metadata", "namespace")}


def _involved(name: str) -> Read:
    return _either(_path("involvedObject", name), _path("regarding", name))


_REFERENCE: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_REPORTER: Final = _either(_path("reportingComponent"), _path("reportingController"))
_EVENT: Final = {
    **_NAMES,
    **{f"involvedObject.{name}": _involved(name) for name in _REFERENCE},
    "reason": _path("reason"),
    "reportingComponent": _REPORTER,
    "source": _either(_path("source", "component"), _path("deprecatedSource", "component"), _REPORTER),
    "type": _path("type"),
}
_EVENTS_K8S_IO: Final = {
    **_NAMES,
    **{f"regarding.{name}": _involved(name) for name in _REFERENCE},
    "reason": _EVENT["reason"],
    "reportingController": _REPORTER,
    "type": _EVENT["type"],
}
_POD: Final = {
    **_NAMES,
    **{
        f"spec.{name}": _path("spec", name)
        for name in ("nodeName", "restartPolicy", "schedulerName", "serviceAccountName")
    },
    "spec.hostNetwork": _default(_path("spec", "hostNetwork"), "false"),
    "spec.host": _path("spec", "nodeName"),
    "status.phase": _path("status", "phase"),
    "status.podIP": _pod_ip,
    # taken, but the server keeps no value under this name
    "status.podIPs": _nothing,
    "status.nominatedNodeName": _path("status", "nominatedNodeName"),
}
_REQUEST: Final = {name: _path("spec", name) for name in ("signerName", "podName", "nodeName")}


def _all(tests: list[tuple[Read, str, bool]]) -> Callable[[Mapping[str, Any]], bool]:
    if len(tests) == 1:
        # a watch of the pods of one node is the common case
        reader, value, equal = tests[0]
        return lambda obj: (reader(obj) == value) is equal
    return lambda obj: all((reader(obj) == value) is equal for reader, value, equal in tests)


@dataclass(frozen=True, slots=True)
class FieldLabels:
    """The fields of a kind by which its objects can be selected.

    readers: how to read each of an object. renamed: names that stand for others. unsupported: the message for the rest,
    of which `{}` is the name.
    """

    readers: Mapping[str, Read]
    renamed: Mapping[str, str] = field(default_factory=dict)
    unsupported: Callable[[str], str] = "field label not supported: {}".format

    def __contains__(self, name: str) -> bool:
        return name in self.readers


def _unknown(name: str) -> str:
    return f'{quote(name)} is not a known field selector: only "metadata.name", "metadata.namespace"'


_OTHERS: Final = FieldLabels(_NAMES, unsupported=_unknown)
_KINDS: Final[Mapping[tuple[str, str], FieldLabels]] = {
    ("", "Pod"): FieldLabels(_POD, {"spec.host": "spec.nodeName"}),
    ("", "Node"): FieldLabels({**_NAME, "spec.unschedulable": _default(_path("spec", "unschedulable"), "false")}),
    ("", "ReplicationController"): FieldLabels(
        {**_NAMES, "status.replicas": _default(_path("status", "replicas"), "0")}
    ),
    ("", "Event"): FieldLabels(_EVENT),
    ("events.k8s.io", "Event"): FieldLabels(
        _EVENTS_K8S_IO,
        {f"regarding.{name}": f"involvedObject.{name}" for name in _REFERENCE}
        | {"reportingController": "reportingComponent"},
    ),
    ("", "Namespace"): FieldLabels({**_NAME, "status.phase": _path("status", "phase")}),
    ("", "Secret"): FieldLabels({**_NAMES, "type": _path("type")}),
    ("", "Service"): FieldLabels(
        {**_NAMES, "spec.clusterIP": _path("spec", "clusterIP"), "spec.type": _path("spec", "type")}
    ),
    ("batch", "Job"): FieldLabels(
        {**_NAMES, "status.successful": _default(_path("status", "succeeded"), "0")},
        unsupported=lambda name: f"field label {quote(name)} not supported for Job",
    ),
    ("certificates.k8s.io", "CertificateSigningRequest"): FieldLabels(
        {**_NAME, "spec.signerName": _REQUEST["signerName"]}
    ),
    ("certificates.k8s.io", "ClusterTrustBundle"): FieldLabels({**_NAME, "spec.signerName": _REQUEST["signerName"]}),
    ("certificates.k8s.io", "PodCertificateRequest"): FieldLabels(
        {**_NAME, **{f"spec.{name}": reader for name, reader in _REQUEST.items()}}
    ),
}


@lru_cache(maxsize=_MEMO_KINDS)
def field_labels(group: str, version: str, kind: str) -> FieldLabels:
    """Give the fields by which objects of a kind of Kubernetes can be selected."""
    if (group, kind) == ("resource.k8s.io", "ResourceSlice"):
        offered = {**_NAME, "spec.nodeName": _path("spec", "nodeName"), "spec.driver": _path("spec", "driver")}
        prefix = f"field label not supported for {group}/{version}, Kind={kind}: "
        return FieldLabels(offered, unsupported=lambda name: prefix + name)
    return _KINDS.get((group, kind), _OTHERS)


def custom_field_labels(paths: Iterable[str], *, namespaced: bool) -> FieldLabels:
    """Give the fields of a custom resource: its name, its namespace if it has one, and `selectableFields`.

    paths: the JSON paths of the definition, such as `.spec.color`.
    """
    offered = dict(_NAMES if namespaced else _NAME)
    for path in paths:
        names = path.removeprefix(".").split(".")
        offered[".".join(names)] = _path(*names)
    return FieldLabels(offered)


class FieldSelector:
    """Terms that must all hold, sorted by their text. Immutable."""

    __slots__ = ("terms",)

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        self.terms: Final = tuple(terms)

    @property
    def empty(self) -> bool:
        """Whether it takes everything."""
        return not self.terms

    def exact(self, name: str) -> str | None:
        """Give the one value that it wants of a field, if it wants one; `metadata.name` makes a list one look-up."""
        return next((term.value for term in self.terms if term.field == name and term.operator == "="), None)

    def compile(self, labels: FieldLabels) -> Callable[[Mapping[str, Any]], bool]:
        """Give a function that says whether an object of the kind is taken.

        Raises FieldSelectorError for a field that the kind does not offer.
        """
        tests: list[tuple[Read, str, bool]] = []
        for term in self.terms:
            reader = labels.readers.get(term.field)
            if reader is None:
                raise FieldSelectorError(labels.unsupported(term.field))
            tests.append((reader, term.value, term.operator == "="))

        return _all(tests)

    def renamed(self, labels: FieldLabels) -> FieldSelector:
        """Give it with the names under which the server keeps the fields. Raises FieldSelectorError as `compile`."""
        for term in self.terms:
            if term.field not in labels:
                raise FieldSelectorError(labels.unsupported(term.field))
        names = labels.renamed
        return FieldSelector(Term(names.get(term.field, term.field), term.operator, term.value) for term in self.terms)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))

    def __repr__(self) -> str:
        return f"FieldSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self.terms == other.terms if isinstance(other, FieldSelector) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.terms)


def _read(selector: str) -> FieldSelector:
    terms: list[Term] = []
    for part in sorted(_terms(selector)):
        if not part:
            continue
        found = _TERM(part)
        if found is None:
            raise FieldSelectorError(f"invalid selector: '{selector}'; can't understand '{part}'")
        value = _unescape(found[3])
        if found[1] or value:
            terms.append(Term(found[1], "!=" if found[2] == "!=" else "=", value))
    return FieldSelector(terms)


_remembered: Final = lru_cache(maxsize=_MEMO)(_read)


def parse(selector: str) -> FieldSelector:
    r"""Read a selector such as `metadata.name=x,status.phase!=Running`; in values `\`, `,` and `=` are escaped.

    The result is shared, being immutable. Raises FieldSelectorError with the server's message.
    """
    return _remembered(selector) if len(selector) <= _MEMO_LENGTH else _read(selector)
