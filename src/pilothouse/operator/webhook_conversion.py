"""Conversion between the versions of a kind: functions to and from the hub, and ConversionReview v1. Pure."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar, overload

import msgspec

from pilothouse.kinds.structs import Resource, StructError, from_dict, to_dict

from .errors import BuildError
from .webhook_review import ReviewError, read_request

__all__ = ["ConversionFailed", "ConversionRequest", "Conversions", "convert_review", "converts", "read_conversion"]

API_VERSION: Final = "apiextensions.k8s.io/v1"
KIND: Final = "ConversionReview"
_FACTS: Final = "__converts__"

F = TypeVar("F", bound=Callable[[Any], Resource])


class _Facts(NamedTuple):
    source: type[Resource]
    target: type[Resource]


class ConversionFailed(ValueError):
    """An object cannot be converted; the message names it and why."""


@overload
def converts(function: F, /) -> F: ...
@overload
def converts(*, source: type[Resource], target: type[Resource]) -> Callable[[F], F]: ...


def converts(
    function: Any = None, /, *, source: type[Resource] | None = None, target: type[Resource] | None = None
) -> Any:
    """Say that a function makes an object of one version into one of another, as its annotations tell.

    `@converts def to_hub(old: WebsiteV1) -> Website` is the usual way; source and target name the versions where
    annotations cannot be read. Raises BuildError for annotations that are none of two versions of one kind.
    """
    if function is None:
        if source is None or target is None:
            raise BuildError("@converts(source=..., target=...) wants both; or annotate the function and say @converts")
        return lambda made: _told(made, _Facts(source, target))
    return _told(function, _annotated(function))


def _told(function: F, facts: _Facts) -> F:
    name, (source, target) = getattr(function, "__qualname__", repr(function)), facts
    one: Any
    for one in facts:
        if not isinstance(one, type) or not issubclass(one, Resource) or not one.version:
            raise BuildError(f"converts: {name} is about {one!r}, which is no class of whole objects")
    if (source.group, source.gvk[2]) != (target.group, target.gvk[2]) or source.version == target.version:
        raise BuildError(
            f"converts: {name} makes {_shown(source)} into {_shown(target)}; want two versions of one group and kind"
        )
    if inspect.iscoroutinefunction(function):
        raise BuildError(f"converts: {name} is a coroutine function; conversions may not wait, write a plain one")
    setattr(function, _FACTS, facts)
    return function


def _annotated(function: Callable[..., Any]) -> _Facts:
    name = getattr(function, "__qualname__", repr(function))
    try:
        hints = typing.get_type_hints(function)
        parameters = [*inspect.signature(function).parameters]
        return _Facts(hints[parameters[0]], hints["return"])
    except (NameError, KeyError, IndexError, TypeError, ValueError) as error:
        raise BuildError(
            f"converts: the annotations of {name} cannot be read ({error}); write `def {name}(old: OneVersion) -> "
            "OtherVersion`, with classes of the module, or say @converts(source=OneVersion, target=OtherVersion)"
        ) from None


def _shown(kind: type[Resource]) -> str:
    return f"{kind.group}/{kind.version} {kind.gvk[2]}"


class Conversions:
    """The conversions of one kind: every spoke to the hub and back. Raises BuildError where one is missing."""

    def __init__(self, hub: type[Resource], functions: Iterable[Callable[[Any], Resource]]) -> None:
        self.hub: Final = hub
        self._steps: dict[tuple[str, str], Callable[[Any], Resource]] = {}
        self._types: dict[str, type[Resource]] = {hub.version: hub}
        for function in functions:
            self._add(function)
        spokes = [version for version in self._types if version != hub.version]
        if not spokes:
            raise BuildError(f"{_shown(hub)}: converted_by() without functions; write one from each version and back")
        for spoke in spokes:
            for step in ((spoke, hub.version), (hub.version, spoke)):
                if step not in self._steps:
                    raise BuildError(
                        f"{_shown(hub)}: no function converts {step[0]} to {step[1]}; write one and pass it too"
                    )

    def _add(self, function: Callable[[Any], Resource]) -> None:
        if not hasattr(function, _FACTS):
            converts(function)
        source, target = getattr(function, _FACTS)
        if self.hub not in {source, target}:
            raise BuildError(
                f"{_shown(self.hub)}: {getattr(function, '__qualname__', function)} converts {_shown(source)} to "
                f"{_shown(target)}; the hub {self.hub.__qualname__} has to be one of both"
            )
        if (source.version, target.version) in self._steps:
            raise BuildError(f"{_shown(self.hub)}: two functions convert {source.version} to {target.version}")
        self._types[source.version], self._types[target.version] = source, target
        self._steps[source.version, target.version] = function

    @property
    def versions(self) -> tuple[type[Resource], ...]:
        """The classes of all versions, the hub first."""
        return tuple(self._types.values())

    def convert(self, obj: Mapping[str, Any], desired: str) -> dict[str, Any]:
        """Return an object in the apiVersion `desired`. Raises ConversionFailed.

        Its metadata stays as it came, but for labels and annotations that a function changed.
        """
        group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
        wanted = desired.rpartition("/")
        if group != self.hub.group or wanted[0] != self.hub.group:
            raise ConversionFailed(f"apiVersion {obj.get('apiVersion')} to {desired}: want group {self.hub.group}")
        for one in (version, wanted[2]):
            if one not in self._types:
                known = ", ".join(self._types)
                raise ConversionFailed(f"version {one} of {self.hub.gvk[2]} is not known here; known are {known}")
        if version == wanted[2]:
            return dict(obj)
        return self._converted(obj, version, wanted[2])

    def _converted(self, obj: Mapping[str, Any], version: str, wanted: str) -> dict[str, Any]:
        hub = self.hub.version
        steps = [(version, wanted)] if hub in {version, wanted} else [(version, hub), (hub, wanted)]
        try:
            found: Resource = from_dict(obj, self._types[version])
        except StructError as error:
            raise ConversionFailed(f"it does not fit {error}") from None
        before = found.metadata
        for step in steps:
            made = self._steps[step](found)
            if not isinstance(made, self._types[step[1]]):
                raise ConversionFailed(
                    f"the function from {step[0]} to {step[1]} returned {type(made).__name__}; "
                    f"want {self._types[step[1]].__name__}"
                )
            if not to_dict(made.metadata):
                made = msgspec.structs.replace(made, metadata=found.metadata)
            found = made
        return {**to_dict(found), "metadata": _metadata(obj, to_dict(before), to_dict(found.metadata))}


def _metadata(obj: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata as it came, with the labels and annotations that were changed."""
    kept = dict(obj.get("metadata") or {})
    for name in ("labels", "annotations"):
        if before.get(name) != after.get(name):
            kept.pop(name, None)
            if after.get(name) is not None:
                kept[name] = after[name]
    return kept


class ConversionRequest(NamedTuple):
    """What the server asks to have converted."""

    uid: str
    desired: str
    objects: list[Any]


def read_conversion(body: bytes) -> ConversionRequest:
    """Read a ConversionReview. Raises ReviewError."""
    request = read_request(body, API_VERSION, KIND)
    desired, objects = request.get("desiredAPIVersion"), request.get("objects")
    if not isinstance(desired, str) or not desired:
        raise ReviewError("request.desiredAPIVersion is missing")
    if not isinstance(objects, list):
        raise ReviewError("request.objects is no list")
    return ConversionRequest(request["uid"], desired, objects)


def convert_review(
    request: ConversionRequest, known: Mapping[tuple[str, str], Conversions]
) -> tuple[bytes, Exception | None]:
    """Convert all objects of a review, by group and kind; return the answer, and what went wrong.

    One that cannot be converted fails the review, as the protocol has it, with a message that names the object.
    """
    made: list[dict[str, Any]] = []
    for index, obj in enumerate(request.objects):
        try:
            made.append(_found(obj, known).convert(obj, request.desired))
        except Exception as error:  # noqa: BLE001  whatever a function raises is told to the server
            return failure(request, f"{_named(obj, index)} to {request.desired}: {_worded(error)}"), error
    response = {"uid": request.uid, "convertedObjects": made, "result": {"metadata": {}, "status": "Success"}}
    return _review(response), None


def failure(request: ConversionRequest, message: str) -> bytes:
    """Write the answer that a review failed."""
    result = {"metadata": {}, "status": "Failure", "message": message}
    return _review({"uid": request.uid, "convertedObjects": [], "result": result})


def _review(response: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"kind": KIND, "apiVersion": API_VERSION, "response": response})


def _found(obj: Any, known: Mapping[tuple[str, str], Conversions]) -> Conversions:
    if not isinstance(obj, dict):
        raise ConversionFailed("it is no object")
    key = str(obj.get("apiVersion") or "").rpartition("/")[0], str(obj.get("kind") or "")
    found = known.get(key)
    if found is None:
        raise ConversionFailed(f"this operator has no conversions of {key[1]} of {key[0]}; say converted_by(...)")
    return found


def _named(obj: Any, index: int) -> str:
    obj = obj if isinstance(obj, dict) else {}
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))
    return f"objects[{index}], {obj.get('apiVersion')} {obj.get('kind')} {name}"


def _worded(error: Exception) -> str:
    return str(error) if isinstance(error, ConversionFailed) else f"{type(error).__name__}: {error}"
