"""The server called as each of its controllers, under the names that policies and audit rules know."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pilothouse.apiserver.local import LocalCaller
from pilothouse.apiserver.model import Handler, User
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.served import Served

__all__ = ["MERGE", "caller", "controller_user", "delete_options", "object_path"]

MERGE = "application/merge-patch+json"
_AGENT = "kube-controller-manager"
"""Who owns fields that these controllers write, as in every cluster."""


def controller_user(controller: str) -> User:
    """Return the service account of a controller, which may do everything."""
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated", "system:masters")
    return User(f"system:serviceaccount:kube-system:{controller}", groups=groups)


def caller(handler: Handler, controller: str) -> LocalCaller:
    """Return the server as called by a controller."""
    return LocalCaller(handler, controller_user(controller), _AGENT)


def object_path(served: Served, namespace: str, name: str = "") -> str:
    """Return the path of an object, or of all of a resource's in a namespace."""
    resource = served.resource
    inner = f"/namespaces/{quote(namespace)}" if resource.namespaced and namespace else ""
    last = f"/{quote(name, safe='')}" if name else ""
    return f"{resource.path_prefix}{inner}/{resource.resource}{last}"


def delete_options(propagation: str, *, uid: str = "", version: str = "") -> Object:
    """Return the body of a deletion of exactly the object with this uid, as it was at this resource version."""
    options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
    only = {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}
    return {**options, "preconditions": only} if only else options
