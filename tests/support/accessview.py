"""A view over objects in memory for tests of who may do what, and short ways to write such objects."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from pilothouse.apiserver.model import Peer, Request, User
from pilothouse.apiserver.ports import Attributes, Object
from pilothouse.kinds.status import AlreadyExists, ApiStatus

RBAC = "rbac.authorization.k8s.io"
Changed = Callable[[Object | None, Object | None], None]


class MemoryView:
    """Holds objects as the watch cache does, and tells of changes at once."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Object]] = {}
        self.reads = 0
        self._versions: dict[str, int] = {}
        self._listeners: dict[str, list[Changed]] = {}

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        self.reads += 1
        return self.objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str = "") -> Sequence[Object]:
        self.reads += 1
        found = self.objects.get(resource, {})
        return [obj for (home, _), obj in found.items() if not namespace or home == namespace]

    def version(self, resource: str) -> int:
        return self._versions.get(resource, 0)

    def subscribe(self, resource: str, changed: Changed) -> Callable[[], None]:
        self._listeners.setdefault(resource, []).append(changed)
        return lambda: self._listeners[resource].remove(changed)

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        return self.subscribe(resource, lambda old, new: changed(*_key(new or old or {})))

    def listeners(self) -> int:
        return sum(map(len, self._listeners.values()))

    def put(self, resource: str, obj: Object) -> None:
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        held = self.objects.setdefault(resource, {})
        old, held[key] = held.get(key), obj
        self._tell(resource, old, obj)

    def remove(self, resource: str, namespace: str, name: str) -> None:
        self._tell(resource, self.objects[resource].pop((namespace, name)), None)

    def _tell(self, resource: str, old: Object | None, new: Object | None) -> None:
        self._versions[resource] = self.version(resource) + 1
        for changed in list(self._listeners.get(resource, ())):
            changed(old, new)

    def role(self, name: str, *rules: Object, namespace: str = "", **fields: Any) -> None:
        self.put(
            f"{'roles' if namespace else 'clusterroles'}.{RBAC}", role(name, *rules, namespace=namespace, **fields)
        )

    def bind(self, name: str, target: str, *subjects: Object, namespace: str = "", kind: str = "ClusterRole") -> None:
        resource = f"{'rolebindings' if namespace else 'clusterrolebindings'}.{RBAC}"
        self.put(resource, binding(name, target, *subjects, namespace=namespace, kind=kind))


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def metadata(name: str, namespace: str = "", **fields: Any) -> Object:
    return {"name": name, **({"namespace": namespace} if namespace else {}), **fields}


def role(name: str, *rules: Object, namespace: str = "", **fields: Any) -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": metadata(name, namespace),
        "rules": list(rules),
        **fields,
    }


def binding(name: str, target: str, *subjects: Object, namespace: str = "", kind: str = "ClusterRole") -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata(name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": target},
        "subjects": list(subjects),
    }


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Object:
    """Write a rule; each part is words parted by commas, the core group is an empty word."""
    made: Object = {"verbs": verbs.split(","), "apiGroups": groups.split(","), "resources": resources.split(",")}
    return {**made, "resourceNames": names.split(",")} if names else made


def urls(verbs: str, paths: str) -> Object:
    return {"verbs": verbs.split(","), "nonResourceURLs": paths.split(",")}


def person(name: str) -> Object:
    return {"kind": "User", "apiGroup": RBAC, "name": name}


def group(name: str) -> Object:
    return {"kind": "Group", "apiGroup": RBAC, "name": name}


def account(name: str, namespace: str = "") -> Object:
    return {"kind": "ServiceAccount", "name": name, **({"namespace": namespace} if namespace else {})}


def asks(user: User, verb: str, resource: str, namespace: str = "", name: str = "", api_group: str = "") -> Attributes:
    """Ask for a resource; a subresource follows a slash."""
    plural, _, sub = resource.partition("/")
    return Attributes(
        user, verb, group=api_group, version="v1", resource=plural, subresource=sub, namespace=namespace, name=name
    )


def asks_path(user: User, verb: str, path: str) -> Attributes:
    return Attributes(user, verb, is_resource=False, path=path)


def service_account(name: str, namespace: str = "default", uid: str = "sa-1", **fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, namespace, uid=uid, **fields)}


def pod(name: str, namespace: str = "default", uid: str = "pod-1", *, owner: str = "robot", **fields: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name, namespace, uid=uid, **fields),
        "spec": {"serviceAccountName": owner, "containers": [{"name": "main", "image": "x"}]},
    }


def secret(name: str, namespace: str, kind: str, data: dict[str, str], **fields: Any) -> Object:
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    found = metadata(name, namespace, **{"uid": "secret-1", **fields})
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": found, "data": coded}


def request(
    *headers: tuple[str, str], certificate: bytes | None = None, method: str = "GET", target: str = "/api"
) -> Request:
    """Make a request as the HTTP server does: names of headers in lower case."""
    named = [(name.lower(), value) for name, value in headers]
    first: dict[str, str] = {}
    for name, value in named:
        first.setdefault(name, value)
    return Request(method, target, target, "", first, peer=Peer("127.0.0.1", certificate), header_list=named)


def bearer(token: str) -> Request:
    return request(("Authorization", f"Bearer {token}"))


class MemoryLocal:
    """Writes into a view as the API server would, and notes what was asked."""

    def __init__(self, view: MemoryView) -> None:
        self.view = view
        self.calls: list[tuple[str, str]] = []
        self.refuse: ApiStatus | None = None

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        self.calls.append((method, path))
        if self.refuse is not None:
            raise self.refuse
        parts = path.strip("/").split("/")[3:]
        namespace = parts[1] if parts[0] == "namespaces" else ""
        plural, *name = parts[2:] if namespace else parts
        resource = f"{plural}.{RBAC}"
        if method == "DELETE":
            self.view.remove(resource, namespace, name[0])
            return {}
        assert body is not None
        assert content_type == "application/json"
        key = (namespace, body["metadata"]["name"])
        if method == "POST" and key in self.view.objects.get(resource, {}):
            raise AlreadyExists("there")
        assert method == "POST" or key in self.view.objects[resource]
        self.view.put(resource, body)
        return body
