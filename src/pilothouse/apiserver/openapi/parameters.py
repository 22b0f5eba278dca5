"""The parameters of requests, as OpenAPI tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pilothouse.apiserver.openapi.schemas import Form

__all__ = ["CONNECT", "DELETE", "DELETE_COLLECTION", "LIST", "LOG", "PATCH", "WRITE", "parameters"]

LIST: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
WRITE: Final = ("dryRun", "fieldManager", "fieldValidation")
PATCH: Final = (*WRITE, "force")
DELETE: Final = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
DELETE_COLLECTION: Final = (
    "continue",
    *DELETE[:2],
    "fieldSelector",
    DELETE[2],
    "labelSelector",
    "limit",
    *DELETE[3:],
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
)
LOG: Final = (
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
)
CONNECT: Final = {
    "PodAttachOptions": ("container", "stderr", "stdin", "stdout", "tty"),
    "PodExecOptions": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "PodPortForwardOptions": ("ports",),
    "PodProxyOptions": ("path",),
    "NodeProxyOptions": ("path",),
    "ServiceProxyOptions": ("path",),
}

_QUERY: Final[dict[str, tuple[str, str]]] = {
    "allowWatchBookmarks": ("boolean", "Whether a watch may get bookmarks."),
    "command": ("string", "The command and its arguments, each in a parameter of its own."),
    "container": ("string", "The container; needed where the pod has several."),
    "continue": ("string", "The token of the list so far, to get what follows."),
    "dryRun": ("string", "All: do everything but keep the result."),
    "fieldManager": ("string", "Who makes the change."),
    "fieldSelector": ("string", "Which objects, by their fields."),
    "fieldValidation": ("string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict."),
    "follow": ("boolean", "Whether to go on as the log grows."),
    "force": ("boolean", "Whether an apply takes fields that others manage."),
    "gracePeriodSeconds": ("integer", "Seconds until the object is gone for good; zero is at once."),
    "ignoreStoreReadErrorWithClusterBreakingPotential": (
        "boolean",
        "Whether to delete an object that cannot be read any more.",
    ),
    "insecureSkipTLSVerifyBackend": ("boolean", "Whether not to verify who serves the log."),
    "labelSelector": ("string", "Which objects, by their labels."),
    "limit": ("integer", "At most so many objects; a token leads to the others."),
    "limitBytes": ("integer", "At most so many bytes."),
    "orphanDependents": ("boolean", "Older way to say whether dependents stay."),
    "path": ("string", "The path to ask for there."),
    "ports": ("integer", "The ports to forward."),
    "previous": ("boolean", "Whether to read the log of the container before this one."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "The state to read from."),
    "resourceVersionMatch": ("string", "How the resource version is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Whether a watch begins with the objects there are."),
    "sinceSeconds": ("integer", "How many seconds back to begin."),
    "stderr": ("boolean", "Whether to get the error output."),
    "stdin": ("boolean", "Whether to send input."),
    "stdout": ("boolean", "Whether to get the output."),
    "stream": ("string", "Which output: All, Stdout or Stderr."),
    "tailLines": ("integer", "How many lines from the end to begin."),
    "timeoutSeconds": ("integer", "Seconds after which the answer ends."),
    "timestamps": ("boolean", "Whether lines begin with the time."),
    "tty": ("boolean", "Whether there is a terminal."),
    "watch": ("boolean", "Whether to get changes as they happen."),
}
_PATH: Final[dict[str, tuple[str, str]]] = {
    "name": ("string", "The name of the object."),
    "namespace": ("string", "The namespace of the object."),
    "path": ("string", "The path to ask for there."),
}
_PRETTY: Final = ("string", "Whether to indent the answer.")


def parameters(path: Iterable[str], query: Iterable[str], form: Form, *, pretty: bool = False) -> list[dict[str, Any]]:
    """Return parameters by their names, those in the path first."""
    made = [_parameter(name, "path", _PATH[name], form) for name in path]
    made += [_parameter(name, "query", _QUERY[name], form) for name in query]
    if pretty:
        made.append(_parameter("pretty", "query", _PRETTY, form))
    return made


def _parameter(name: str, place: str, facts: tuple[str, str], form: Form) -> dict[str, Any]:
    shape, text = facts
    made: dict[str, Any] = {"name": name, "in": place, "description": text}
    if place == "path":
        made["required"] = True
    value = {"type": shape, "uniqueItems": True}
    return {**made, "schema": value} if form == 3 else {**made, **value}
