"""Which objects a request means: label and field selectors, compiled once and shared by all who ask alike."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.rest.options import ListOptions
from pilothouse.apiserver.rest.served import Served
from pilothouse.kinds import fields
from pilothouse.kinds.status import BadRequest

__all__ = ["Matches", "Selection", "selection"]

Matches = Callable[[Entry], bool]

_MEMO = 256
_WORDS = frozenset({b'"true"', b'"false"'})
_NUMBER = re.compile(rb'"-?[0-9.]+(?:[eE]-?[0-9]+)?"')
"""Selections remembered of each resource."""


class Selection:
    """What a request selects: nothing but a namespace (`matches` is None), one name, or by a test of each object."""

    __slots__ = ("matches", "name")

    def __init__(self, matches: Matches | None, name: str) -> None:
        self.matches = matches
        self.name = name


_EVERYTHING = Selection(None, "")
_remembered: WeakKeyDictionary[Served, OrderedDict[tuple[str, str], Selection]] = WeakKeyDictionary()


def selection(served: Served, options: ListOptions) -> Selection:
    """Return what is selected. Raises BadRequest for fields that the kind does not offer."""
    if not options.labels.requirements and options.fields.empty:
        return _EVERYTHING
    remembered = _remembered.get(served)
    if remembered is None:
        remembered = _remembered[served] = OrderedDict()
    key = (str(options.labels), str(options.fields))
    found = remembered.get(key)
    if found is None:
        found = remembered[key] = _made(served, options)
        if len(remembered) > _MEMO:
            remembered.popitem(last=False)
    return found


def _made(served: Served, options: ListOptions) -> Selection:
    by_labels = options.labels.matches if options.labels.requirements else None
    by_fields, name = None, ""
    if not options.fields.empty:
        try:
            by_fields = options.fields.compile(served.field_labels)
        except fields.FieldSelectorError as error:
            raise BadRequest(str(error)) from None
        name = options.fields.exact("metadata.name") or ""
    only_metadata = all(term.field in {"metadata.name", "metadata.namespace"} for term in options.fields.terms)
    # What an object must contain to be taken at all, which is quicker to see than to decode it.
    needles = [
        b'"%b"' % term.value.encode()
        for term in options.fields.terms
        if term.operator == "=" and term.value.isascii() and term.value.replace("-", "").replace(".", "").isalnum()
    ]
    # Numbers and booleans stand in the bytes without quotes.
    needles = [needle for needle in needles if needle not in _WORDS and not _NUMBER.fullmatch(needle)]

    def matches(entry: Entry) -> bool:
        if by_labels is not None and not by_labels(entry.metadata.labels):
            return False
        if by_fields is None:
            return True
        if only_metadata:
            metadata = entry.metadata
            return by_fields({"metadata": {"name": metadata.name, "namespace": metadata.namespace}})
        value = entry.value
        if any(needle not in value for needle in needles):
            return False
        return by_fields(entry.object if entry.is_decoded else entry.decoded())

    return Selection(matches, name)
