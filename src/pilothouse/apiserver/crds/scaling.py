"""The scale subresource of custom resources: read as a Scale, written back as replicas."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.crds.fieldpaths import find_at, plain_path
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["ScalePaths", "go_type"]

_MOST = (1 << 31) - 1
_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


class ScalePaths:
    """Where replicas and the selector of a kind stand, as `subresources.scale` of a version says."""

    def __init__(self, scale: dict[str, Any]) -> None:
        self.spec_text = scale.get("specReplicasPath") or ""
        self.status_text = scale.get("statusReplicasPath") or ""
        self.selector_text = scale.get("labelSelectorPath") or ""
        self._spec = plain_path(self.spec_text)
        self._status = plain_path(self.status_text)
        self._selector = plain_path(self.selector_text) if self.selector_text else ()

    def read(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Return the `autoscaling/v1` Scale of an object.

        Raises LookupError where the object has no replicas in its spec; Kubernetes answers 500 with its text.
        """
        replicas = find_at(obj, self._spec)
        if type(replicas) is not int:
            raise LookupError(f'the spec replicas field "{self.spec_text}" does not exist')
        metadata = obj.get("metadata") or {}
        status = find_at(obj, self._status)
        scale: dict[str, Any] = {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: metadata[name] for name in _META if name in metadata},
            "spec": {"replicas": replicas} if replicas else {},
            "status": {"replicas": status if type(status) is int else 0},
        }
        selector = find_at(obj, self._selector) if self._selector else None
        if type(selector) is str and selector:
            scale["status"]["selector"] = selector
        return scale

    def write(self, obj: dict[str, Any], replicas: int) -> dict[str, Any]:
        """Return an object with other replicas in its spec; the given one is not changed."""
        return _with(obj, self._spec, replicas)

    def check(self, obj: dict[str, Any], errors: ErrorList, *, spec: bool = True) -> None:
        """Say what is wrong with the replicas and the selector of an object; spec: or with the status alone."""
        if spec:
            self._check_replicas(obj, self.spec_text, self._spec, errors)
        self._check_replicas(obj, self.status_text, self._status, errors)
        if self._selector:
            self._check_type(obj, self.selector_text, self._selector, errors, text=True)

    def _check_replicas(self, obj: dict[str, Any], shown: str, path: tuple[str, ...], errors: ErrorList) -> None:
        value = self._check_type(obj, shown, path, errors, text=False)
        if value is None:
            return
        if value < 0:
            errors.invalid(Path(shown), value, "should be a non-negative integer")
        elif value > _MOST:
            errors.invalid(Path(shown), value, f"should be less than or equal to {_MOST}")

    @staticmethod
    def _check_type(obj: Any, shown: str, path: tuple[str, ...], errors: ErrorList, *, text: bool) -> Any:
        value = obj
        done: list[str] = []
        for name in path:
            if type(value) is not dict:
                where = "." + ".".join(done)
                found = f"{_shown(value)} is of the type {go_type(value)}, expected map[string]interface{{}}"
                errors.invalid(Path(shown), "" if text else 0, f"{where} accessor error: {found}")
                return None
            if name not in value:
                return None
            value = value[name]
            done.append(name)
        if type(value) is not (str if text else int):
            wanted = "string" if text else "int64"
            found = f"{_shown(value)} is of the type {go_type(value)}, expected {wanted}"
            errors.invalid(Path(shown), "" if text else 0, f".{'.'.join(done)} accessor error: {found}")
            return None
        return value


def _with(obj: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = obj.get(path[0])
    if len(path) == 1:
        return {**obj, path[0]: value}
    return {**obj, path[0]: _with(inner if isinstance(inner, dict) else {}, path[1:], value)}


def go_type(value: Any) -> str:
    """Return what Go calls the type of a decoded JSON value."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "int64"
        case float():
            return "float64"
        case list():
            return "[]interface {}"
    return "map[string]interface {}"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{' '.join(map(_shown, value))}]"
        case dict():
            return f"map[{' '.join(f'{name}:{_shown(item)}' for name, item in sorted(value.items()))}]"
    return str(value)
