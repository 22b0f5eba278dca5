"""From stored bytes to the answer that was asked for: JSON as it is, other versions, tables, YAML, protobuf."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from pilothouse.apiserver.cache.changes import Encode, json_line
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.model import Request, Response
from pilothouse.apiserver.negotiation import Negotiated, negotiate, wants_pretty
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.tables import check_partial, include_object, to_partial, to_partial_list, to_table
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.emptyobjects import empty_object
from pilothouse.kinds.status import ApiStatus, Details, NotAcceptable

__all__ = ["PLAIN", "Renderer", "check_acceptable", "negotiated"]

PLAIN = frozenset({"", "application/json", "*/*", "application/json, */*"})
"""Accept headers that take the stored bytes as they are."""
_encode = msgspec.json.encode


def negotiated(request: Request) -> Negotiated | None:
    """Return the form to answer in, None for plain JSON without anything special. Raises NotAcceptable."""
    accept = request.headers.get("accept", "")
    if accept in PLAIN and not wants_pretty(request):
        return None
    found = negotiate(accept)
    if found.media_type == "json" and not found.as_ and not wants_pretty(request):
        return None
    return found


def check_acceptable(request: Request, served: Served, *, many: bool) -> None:
    """Refuse what asks for a form that there is not, before anything else is looked at. Raises NotAcceptable."""
    accept = request.headers.get("accept", "")
    if accept in PLAIN:
        return
    try:
        negotiate(accept)
    except NotAcceptable as error:
        if many and error.message.startswith("406"):
            raise NotAcceptable(f"{error.message}, {_streamed(served)}", Details()) from None
        raise


class Renderer:
    """Makes answers out of objects of one served resource."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def is_direct(self, served: Served, entry: Entry) -> bool:
        """Whether an object's bytes can be sent as they are, but for the name of the version."""
        return entry.form is served.form or served.conversions.renames(served.resource, entry.form.api_version)

    def direct(self, served: Served, entry: Entry, status: int = 200) -> Response:
        """Return an object's bytes."""
        return Response(status, entry.encoded(served.form))

    async def one(self, request: Request, served: Served, entry: Entry, status: int = 200) -> Response:
        """Return the answer that has one object."""
        form = negotiated(request)
        if form is None and entry.rv and self.is_direct(served, entry):
            response = self.direct(served, entry, status)
        elif form is None:
            response = Response(status, _encode(_with_version(await served.load(entry), entry)))
        else:
            response = self.answer(request, served, _with_version(await served.load(entry), entry), form, status)
        return response

    def answer(
        self, request: Request, served: Served, obj: Object, form: Negotiated | None = None, status: int = 200
    ) -> Response:
        """Return the answer that has one decoded object, perhaps of another kind than the resource's."""
        form = form or negotiated(request)
        if form is None:
            return Response(status, _encode(obj))
        kind = obj.get("kind") or ""
        if form.as_ == "Table":
            include = include_object(request.param("includeObject"))
            own_kind = kind if kind != served.resource.kind else ""
            version = (obj.get("metadata") or {}).get("resourceVersion") or ""
            obj = self.table(served, [obj], form, include, {"resourceVersion": version}, kind=own_kind)
        elif form.as_:
            check_partial(form.as_, is_list=False, go_type=_go_type(served))
            obj = to_partial(obj, form.version)
        return self.encoded(request, obj, form, status)

    def table(
        self,
        served: Served,
        objects: Iterable[Object],
        form: Negotiated,
        include: Any,
        metadata: Object,
        *,
        headers: bool = True,
        kind: str = "",
    ) -> Object:
        """Return objects as a Table."""
        return to_table(
            objects,
            served.resource,
            now=self._clock.now(),
            include_object=include,
            list_metadata=metadata,
            version=form.version,  # type: ignore[arg-type]  # one of two, by negotiation
            headers=headers,
            kind=kind,
        )

    def many(
        self, request: Request, served: Served, objects: Sequence[Object], metadata: Object, form: Negotiated | None
    ) -> Response:
        """Return the answer that has a list of decoded objects."""
        if form is not None and form.as_ == "Table":
            include = include_object(request.param("includeObject"))
            return self.encoded(request, self.table(served, objects, form, include, metadata), form, 200)
        if form is not None and form.as_:
            check_partial(form.as_, is_list=True, go_type=_go_type(served, "List"))
            return self.encoded(request, to_partial_list(objects, metadata, form.version), form, 200)
        resource = served.resource
        items = [_item(obj, custom=served.custom is not None) for obj in objects]
        listed = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata, "items": items}
        return self.encoded(request, listed, form, 200)

    def encoded(self, request: Request, obj: Object, form: Negotiated | None, status: int) -> Response:
        """Return an object as JSON, YAML or protobuf."""
        if form is None or form.media_type == "json":
            data = _encode(obj)
            if form is not None and wants_pretty(request):
                data = msgspec.json.format(data, indent=2) + b"\n"
            return Response(status, data)
        if form.media_type == "yaml":
            return Response(status, to_yaml(obj), content_type="application/yaml")
        return Response(status, to_protobuf(obj), content_type="application/vnd.kubernetes.protobuf")

    # Streams

    def encode_event(self, request: Request, served: Served) -> tuple[Encode, str]:
        """Return what makes one event of a watch from its type and object, and the content type of the stream."""
        form = negotiated(request)
        if form is None or (form.media_type == "json" and not form.as_):
            return _kept(served, "plain", lambda: _plain_lines(served)), "application/json"
        if form.media_type == "protobuf" and form.as_.startswith("Partial"):
            kept = _kept(served, f"protobuf {form.version}", lambda: _partial_frames(form.version))
            return kept, "application/vnd.kubernetes.protobuf;stream=watch"
        if form.media_type == "protobuf" and not form.as_ and served.custom is None:
            return _kept(
                served, "protobuf", lambda: _protobuf_frames(served)
            ), "application/vnd.kubernetes.protobuf;stream=watch"
        if form.media_type != "json":
            raise NotAcceptable(f"only the following media types are accepted: {_streamed(served)}")
        if form.as_ == "Table":
            return self._table_lines(request, served, form), "application/json"
        version = form.version
        return _kept(served, f"partial {version}", lambda: _partial_lines(served, version)), "application/json"

    def _table_lines(self, request: Request, served: Served, form: Negotiated) -> Encode:
        include = include_object(request.param("includeObject"))
        state = {"headers": True}

        def line(kind: str, entry: Entry) -> bytes:
            obj = _with_version(served.conversions.now(entry.decoded(), served.resource), entry)
            metadata = {"resourceVersion": str(entry.rv)}
            if kind == "BOOKMARK":
                made = self.table(served, [], form, include, metadata, headers=False)
            else:
                made = self.table(served, [obj], form, include, metadata, headers=state["headers"])
                state["headers"] = False
            return b'{"type":"%b","object":%b}\n' % (kind.encode(), _encode(made))

        return line

    def bookmark(self, served: Served, version: int, *, initial: bool) -> Entry:
        """Return the object that a bookmark carries."""
        form = served.form
        metadata: Object = {"resourceVersion": str(version)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        parts = {} if served.custom is not None else empty_object(form.api_version, form.kind)
        obj = {**parts, "kind": form.kind, "apiVersion": form.api_version, "metadata": metadata}
        return Entry("", _encode(obj), version, form)


def _with_version(obj: Object, entry: Entry) -> Object:
    """Return an object without a resource version where it was never stored (dry run)."""
    if not entry.rv:
        obj["metadata"].pop("resourceVersion", None)
    return obj


def _item(obj: Object, *, custom: bool) -> Object:
    """Return an object as an item of a list: Kubernetes' own do not say their kind."""
    if custom:
        return obj
    return {name: value for name, value in obj.items() if name not in {"kind", "apiVersion"}}


def _kept(served: Served, name: str, make: Callable[[], Encode]) -> Encode:
    """Return the one function of a format: watchers share what it makes by its identity, and it goes with `served`."""
    found = served.encoders.get(name)
    if found is None:
        found = served.encoders[name] = make()
    return found


def _plain_lines(served: Served) -> Encode:
    direct = json_line(served.form)
    conversions, resource, form = served.conversions, served.resource, served.form

    def line(kind: str, entry: Entry) -> bytes:
        if entry.form is form or conversions.renames(resource, entry.form.api_version):
            return direct(kind, entry)
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), _encode(conversions.now(entry.decoded(), resource)))

    return direct if conversions.is_single(resource) else line


def _partial_lines(served: Served, version: str) -> Encode:
    def line(kind: str, entry: Entry) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), _encode(to_partial(entry.decoded(), version)))

    return line


def _protobuf_frames(served: Served) -> Encode:
    from pilothouse.kinds import protobuf  # noqa: PLC0415  # only for clients that take nothing else

    def frame(kind: str, entry: Entry) -> bytes:
        obj = served.conversions.now(entry.decoded(), served.resource)
        return protobuf.encode_watch_event(kind, obj, served.resource.gvk)

    return frame


def _partial_frames(version: str) -> Encode:
    from pilothouse.kinds import protobuf  # noqa: PLC0415  # only for clients that take nothing else

    def frame(kind: str, entry: Entry) -> bytes:
        obj = to_partial(entry.decoded(), version)
        return protobuf.encode_watch_event(kind, obj, ("meta.k8s.io", version, "PartialObjectMetadata"))

    return frame


def _streamed(served: Served) -> str:
    media = ["application/json", *(["application/vnd.kubernetes.protobuf"] if served.custom is None else ())]
    return ", ".join(f"{each};stream=watch" for each in media)


def _go_type(served: Served, suffix: str = "") -> str:
    """Return the name of the object's type within kube-apiserver, which its messages show."""
    if served.custom is not None:
        return f"*unstructured.Unstructured{suffix}"
    package = served.resource.group.removesuffix(".k8s.io").partition(".")[0] or "core"
    return f"*{package}.{served.resource.kind}{suffix}"


_UNQUOTED = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`=~][^\x00-\x1f\x7f-\x9f]*")


@cache
def _dumper() -> Any:
    """Return what writes YAML as kube-apiserver does: double quotes where there have to be some."""
    import yaml  # noqa: PLC0415  # few ask for it

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]  # one of two
        pass

    def text(dumper: Any, value: str) -> Any:
        plain = (
            _UNQUOTED.fullmatch(value) and not value.endswith((" ", ":")) and ": " not in value and " #" not in value
        )
        is_text = dumper.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"
        style = "|" if "\n" in value else None if plain and is_text else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def to_yaml(obj: Object) -> bytes:
    """Return an object as YAML."""
    import yaml  # noqa: PLC0415  # few ask for it

    text: str = yaml.dump(obj, Dumper=_dumper(), default_flow_style=False, allow_unicode=True, width=1 << 30)
    return text.encode()


def to_protobuf(obj: Object) -> bytes:
    """Return an object as Kubernetes' protobuf, for clients that take nothing else. Raises NotAcceptable."""
    from pilothouse.kinds import protobuf  # noqa: PLC0415  # only for clients that take nothing else

    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    kind = str(obj.get("kind") or "")
    try:
        return protobuf.encode(obj, group, version, kind)
    except (protobuf.ProtobufError, KeyError) as error:
        raise NotAcceptable(f"{kind} of {group}/{version} cannot be written as protobuf: {error}") from None


def error_event(error: ApiStatus) -> bytes:
    """Return a refusal as the last event of a stream."""
    return b'{"type":"ERROR","object":%b}\n' % _encode(error.to_dict())
