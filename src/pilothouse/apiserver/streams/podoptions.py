"""What the query of exec, attach and log says, and which container of the pod it means; refused as Kubernetes does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.ports import Object, View
from pilothouse.apiserver.proxying.resolve import node_address
from pilothouse.kinds import times
from pilothouse.kinds.fielderrors import ErrorList, Path, quote
from pilothouse.kinds.status import ApiStatus, BadRequest, Unknown, invalid, not_found

__all__ = [
    "ExecOptions",
    "choose_container",
    "connect_options",
    "exec_options",
    "host_of",
    "log_options",
    "no_nodes",
    "refuse_dry_run",
]

_INTEGER: Final = re.compile(r"[+-]?[0-9]+").fullmatch
_INT64: Final = range(-(1 << 63), 1 << 63)
_STREAMS: Final = ("All", "Stderr", "Stdout")
_MAX_SHOWN: Final = 128
_NOWHERE: Final = Path("[]")
"""How Go shows a path without a name."""


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """Which streams of which container are wanted; `command` is empty for attach."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False
    container: str = ""
    command: tuple[str, ...] = ()


def _flag(request: Request, name: str) -> bool:
    values = request.query.get(name)
    return bool(values and values[0] != "0" and values[0].lower() != "false")


def exec_options(request: Request) -> ExecOptions:
    """Read the options of exec or attach; with a terminal there is no stderr of its own."""
    tty = _flag(request, "tty")
    return ExecOptions(
        stdin=_flag(request, "stdin"),
        stdout=_flag(request, "stdout"),
        stderr=_flag(request, "stderr") and not tty,
        tty=tty,
        container=request.param("container"),
        command=tuple(request.query.get("command", ())),
    )


def connect_options(request: Request, resource: str, subresource: str, rest: str = "") -> Object:
    """Return the options of a CONNECT as admission sees them: PodExecOptions and its like, with defaults.

    rest: what follows a `proxy` subresource. Raises ValueError for a query that cannot be read.
    """
    if subresource == "proxy":
        kind = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions"}.get(resource, "NodeProxyOptions")
        return {"kind": kind, "apiVersion": "v1", **({"path": rest} if rest else {})}
    if subresource == "portforward":
        ports = [
            int(port)
            for value in request.query.get("ports", ())
            for port in value.split(",")[:_MAX_SHOWN]
            if port.isascii() and port.isdigit() and len(port) < 6
        ]
        return {"kind": "PodPortForwardOptions", "apiVersion": "v1", **({"ports": ports} if ports else {})}
    options: Object = {"kind": "PodExecOptions" if subresource == "exec" else "PodAttachOptions", "apiVersion": "v1"}
    options |= {name: True for name in ("stdin", "stdout", "stderr", "tty") if _flag(request, name)}
    if container := request.param("container"):
        options["container"] = container
    if subresource == "exec":
        options["command"] = list(request.query.get("command", ())) or None
    return options


def _names(pod: Object) -> Iterator[str]:
    spec = pod.get("spec", {})
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield container.get("name", "")


def choose_container(pod: Object, wanted: str) -> str:
    """Return the container meant: the one named, or the pod's only one. Raises BadRequest."""
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in _names(pod):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    containers: list[Object] = pod.get("spec", {}).get("containers") or []
    if len(containers) == 1:
        return str(containers[0]["name"])
    text = f"a container name must be specified for pod {name}"
    raise BadRequest(f"{text}, choose one of: [{' '.join(_names(pod))}]" if containers else text)


def host_of(pod: Object) -> str:
    """Return the node that the pod runs on. Raises BadRequest where it has none yet."""
    node = pod.get("spec", {}).get("nodeName", "")
    if not node:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
    return str(node)


def no_nodes(node: str, view: View | None) -> ApiStatus:
    """Say why a node cannot be dialed where nothing is there that runs pods: as Kubernetes does, as far as it goes."""
    found = view.get("nodes", "", node) if view is not None else None
    if view is not None and found is None:
        return not_found("", "nodes", node)
    if found is not None:
        try:
            node_address(found)
        except ApiStatus as error:
            return error
    return Unknown(f"error dialing backend: nothing that runs pods is connected for node {node}", code=500)


def refuse_dry_run(request: Request) -> None:
    """Raise BadRequest where a connection is asked for as a dry run."""
    if "dryRun" in request.query:
        raise BadRequest("dryRun is not supported")


def _integer(request: Request, name: str) -> int | None:
    values = request.query.get(name)
    if not values:
        return None
    text = values[0]
    if not _INTEGER(text):
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text[:_MAX_SHOWN])}: invalid syntax")
    number = int(text) if len(text) < _MAX_SHOWN else 1 << 64
    if number not in _INT64:
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text[:_MAX_SHOWN])}: value out of range")
    return number


def _moment(request: Request, name: str) -> datetime | None:
    text = request.param(name)
    if not text:
        return None
    try:
        return times.parse(text)
    except times.TimeError as error:
        raise BadRequest(str(error)) from error


def log_options(request: Request, pod_name: str, *, split_streams: bool = False) -> dict[str, Any]:
    """Read a PodLogOptions: absent ones are left out, `sinceTime` is an aware datetime. Raises BadRequest, Invalid.

    split_streams: allow `stream`, as Kubernetes' feature gate PodLogsQuerySplitStreams does, which is off by default.
    """
    read: dict[str, Any] = {
        "container": request.param("container") or None,
        "sinceSeconds": _integer(request, "sinceSeconds"),
        "sinceTime": _moment(request, "sinceTime"),
        "tailLines": _integer(request, "tailLines"),
        "limitBytes": _integer(request, "limitBytes"),
        "stream": request.param("stream") or ("All" if split_streams else None),
    }
    for name in ("follow", "previous", "timestamps", "insecureSkipTLSVerifyBackend"):
        read[name] = _flag(request, name) or None
    options = {name: value for name, value in read.items() if value is not None}
    if errors := _errors(options, split_streams=split_streams):
        raise invalid("", "PodLogOptions", pod_name, errors)
    return options


def _errors(options: dict[str, Any], *, split_streams: bool) -> ErrorList:
    errors = ErrorList()
    if options.get("tailLines", 0) < 0:
        errors.invalid(Path("tailLines"), options["tailLines"], "must be greater than or equal to 0")
    if options.get("limitBytes", 1) < 1:
        errors.invalid(Path("limitBytes"), options["limitBytes"], "must be greater than 0")
    if "sinceSeconds" in options and "sinceTime" in options:
        errors.forbidden(_NOWHERE, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    elif options.get("sinceSeconds", 1) < 1:
        errors.invalid(Path("sinceSeconds"), options["sinceSeconds"], "must be greater than 0")
    stream = options.get("stream", "All")
    if not split_streams:
        if "stream" in options:
            errors.forbidden(Path("stream"), "may not be specified")
        return errors
    if stream not in _STREAMS:
        errors.not_supported(Path("stream"), stream, _STREAMS)
    if stream != "All" and "tailLines" in options:
        errors.forbidden(_NOWHERE, "`tailLines` and specific `stream` are mutually exclusive for now")
    return errors
