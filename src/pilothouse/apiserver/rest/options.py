"""What the query of a request says: options of reads and writes, checked as Kubernetes does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import read_body
from pilothouse.kinds import fields, labels
from pilothouse.kinds.fielderrors import ErrorList, Path, quote
from pilothouse.kinds.prune import DecodeError, decode
from pilothouse.kinds.status import BadRequest, invalid
from pilothouse.kinds.table import schema_for

__all__ = ["DeleteOptions", "ListOptions", "WriteOptions", "delete_options", "list_options", "write_options"]

_META = "meta.k8s.io"
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_PROPAGATIONS = ("Background", "Foreground", "Orphan")
_MATCHES = ("Exact", "NotOlderThan")
_MAX_MANAGER = 128
_INT64 = 2**63
_NO_CONTINUE = "resourceVersionMatch is forbidden when continue is provided"
_NO_VERSION = "resourceVersionMatch is forbidden unless resourceVersion is provided"


@dataclass(slots=True)
class WriteOptions:
    """Of creates, updates and patches."""

    manager: str
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    raw: Object = field(default_factory=dict)
    """As admission webhooks are shown it."""


def _queried(request: Request) -> dict[str, list[str]]:
    try:
        return request.query
    except ValueError:
        raise BadRequest("the query has more than 1000 parameters") from None


def boolean(text: str) -> bool:
    """Read a boolean of a query as Kubernetes does: whatever does not say that it is false is true."""
    return text != "0" and text.lower() != "false"


def integer(text: str) -> int:
    """Read an integer of a query."""
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text) and -_INT64 <= (value := int(text)) < _INT64:
        return value
    why = "value out of range" if re.fullmatch(r"[+-]?[0-9]+", text) else "invalid syntax"
    raise BadRequest(f"strconv.ParseInt: parsing {quote(text)}: {why}")


def _manager_of_agent(agent: str) -> str:
    return agent.partition("/")[0][:_MAX_MANAGER] or "unknown"


def write_options(request: Request, kind: str, *, apply: bool = False) -> WriteOptions:
    """Read the options of a write. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`, for messages."""
    if not request.query_text and not apply:
        return WriteOptions(_manager_of_agent(request.headers.get("user-agent", "")))
    query = _queried(request)
    dry_run, manager = query.get("dryRun", []), request.param("fieldManager")
    validation = request.param("fieldValidation")
    force = boolean(query["force"][0]) if "force" in query else None
    errors = ErrorList()
    if kind == "PatchOptions" and apply and not manager:
        errors.required(Path("fieldManager"), "is required for apply patch")
    if kind == "PatchOptions" and not apply and force is not None:
        errors.forbidden(Path("force"), "may not be specified for non-apply patch")
    _check_manager(errors, manager)
    _check_dry_run(errors, dry_run)
    if validation not in _VALIDATIONS:
        errors.not_supported(Path("fieldValidation"), validation, _VALIDATIONS)
    if errors:
        raise invalid(_META, kind, "", errors)
    raw: Object = {"kind": kind, "apiVersion": f"{_META}/v1"}
    given = {"dryRun": dry_run, "force": force, "fieldManager": manager, "fieldValidation": validation}
    raw.update({name: value for name, value in given.items() if value})
    agent = _manager_of_agent(request.headers.get("user-agent", ""))
    return WriteOptions(manager or agent, bool(dry_run), validation or "Warn", bool(force), raw)


def _check_manager(errors: ErrorList, manager: str) -> None:
    if len(manager) > _MAX_MANAGER:
        errors.too_long(Path("fieldManager"), _MAX_MANAGER)
    for position, char in enumerate(manager):
        if not char.isprintable():
            why = f"invalid character U+{ord(char):04X} (at position {position})"
            errors.invalid(Path("fieldManager"), manager, why)


def _check_dry_run(errors: ErrorList, dry_run: list[str]) -> None:
    if dry_run and set(dry_run) != {"All"}:
        errors.not_supported(Path("dryRun"), dry_run, ("All",))


@dataclass(slots=True)
class DeleteOptions:
    """Of deletions: seconds of grace (None: as the kind has it), preconditions, and what becomes of dependents."""

    grace: int | None = None
    propagation: str | None = None
    orphan: bool | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False
    ignore_store_errors: bool = False
    raw: Object = field(default_factory=dict)


def delete_options(request: Request) -> DeleteOptions:
    """Read the options of a deletion from the body, or from the query where there is no body."""
    if request.body:
        given = _options_body(request)
    elif request.query_text:
        given = _options_query(request)
    else:
        return DeleteOptions()
    preconditions = given.get("preconditions") or {}
    errors = ErrorList()
    propagation, orphan = given.get("propagationPolicy"), given.get("orphanDependents")
    if propagation is not None and orphan is not None:
        errors.invalid(
            Path("propagationPolicy"), propagation, "orphanDependents and deletionPropagation cannot be both set"
        )
    if propagation is not None and propagation not in _PROPAGATIONS:
        errors.not_supported(Path("propagationPolicy"), propagation, (*_PROPAGATIONS, "nil"))
    _check_dry_run(errors, given.get("dryRun") or [])
    if errors:
        raise invalid(_META, "DeleteOptions", "", errors)
    return DeleteOptions(
        given.get("gracePeriodSeconds"),
        propagation,
        orphan,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
        bool(given.get("dryRun")),
        bool(given.get("ignoreStoreReadErrorWithClusterBreakingPotential")),
        {"kind": "DeleteOptions", "apiVersion": f"{_META}/v1", **given},
    )


def _options_body(request: Request) -> Object:
    body = read_body(request, "DeleteOptions")
    schema = schema_for("", "v1", "DeleteOptions")
    kind = body.obj.get("kind")
    if kind not in {None, "DeleteOptions"}:
        raise BadRequest(f"decoded object cannot be converted to DeleteOptions: it is of kind {quote(str(kind))}")
    try:
        return decode(schema, body.obj)[0] if schema is not None else body.obj
    except DecodeError as error:
        text = f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {error}'
        raise BadRequest(text) from None


def _options_query(request: Request) -> Object:
    query = _queried(request)
    given: dict[str, Any] = {}
    if "gracePeriodSeconds" in query:
        given["gracePeriodSeconds"] = integer(query["gracePeriodSeconds"][0])
    if "propagationPolicy" in query:
        given["propagationPolicy"] = query["propagationPolicy"][0]
    if "orphanDependents" in query:
        given["orphanDependents"] = boolean(query["orphanDependents"][0])
    if "dryRun" in query:
        given["dryRun"] = query["dryRun"]
    return given


@dataclass(slots=True)
class ListOptions:
    """Of lists and watches. `version` is None where none is given."""

    labels: labels.Selector
    fields: fields.FieldSelector
    version: int | None = None
    match: str = ""
    limit: int = 0
    token: str = ""
    watch: bool = False
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float = 0.0


_EVERYTHING = labels.parse("")
_ANY_FIELD = fields.parse("")


def list_options(request: Request, *, watch: bool) -> ListOptions:
    """Read the options of a list or watch. Raises BadRequest and Invalid with kube-apiserver's texts."""
    if not request.query_text:
        return ListOptions(_EVERYTHING, _ANY_FIELD, watch=watch)
    query = _queried(request)
    options = ListOptions(_EVERYTHING, _ANY_FIELD, watch=watch)
    try:
        if text := request.param("labelSelector"):
            options.labels = labels.parse(text)
        if text := request.param("fieldSelector"):
            options.fields = fields.parse(text)
    except (labels.SelectorError, fields.FieldSelectorError) as error:
        raise BadRequest(str(error)) from None
    options.match = request.param("resourceVersionMatch")
    options.token = request.param("continue")
    options.limit = max(integer(query["limit"][0]), 0) if query.get("limit", [""])[0] else 0
    options.bookmarks = "allowWatchBookmarks" in query and boolean(query["allowWatchBookmarks"][0])
    if "sendInitialEvents" in query:
        options.initial_events = boolean(query["sendInitialEvents"][0])
    if query.get("timeoutSeconds", [""])[0]:
        options.timeout = float(max(integer(query["timeoutSeconds"][0]), 0))
    _check_list(options, request.param("resourceVersion"))
    options.version = resource_version(request.param("resourceVersion"))
    return options


def _check_list(options: ListOptions, version: str) -> None:
    errors = ErrorList()
    match = Path("resourceVersionMatch")
    if options.watch:
        _check_watch(errors, options)
    elif options.initial_events is not None:
        errors.forbidden(Path("sendInitialEvents"), "sendInitialEvents is forbidden for list")
    if options.match and not options.watch:
        if options.token:
            errors.forbidden(match, _NO_CONTINUE)
        if not version:
            errors.forbidden(match, _NO_VERSION)
        elif options.match == "Exact" and version == "0":
            errors.forbidden(match, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
        if options.match not in _MATCHES:
            errors.not_supported(match, options.match, (*_MATCHES, ""))
    if errors:
        raise invalid(_META, "ListOptions", "", errors)


def _check_watch(errors: ErrorList, options: ListOptions) -> None:
    match = Path("resourceVersionMatch")
    if options.initial_events is None:
        if options.match:
            errors.forbidden(match, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    elif options.match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.forbidden(match, why)


def resource_version(text: str) -> int | None:
    """Read a resource version; None where none is given. Raises BadRequest."""
    if not text:
        return None
    if re.fullmatch("[0-9]{1,20}", text) and (value := int(text)) < 2 * _INT64:
        return value
    why = "value out of range" if re.fullmatch("[0-9]+", text) else "invalid syntax"
    detail = f"strconv.ParseUint: parsing {quote(text)}: {why}"
    raise BadRequest(f"invalid resource version: resourceVersion: Invalid value: {quote(text)}: {detail}")
