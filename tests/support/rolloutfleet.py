"""Rollouts on a platform: what people do with them, what the cluster says of them, and users that ask them."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pilothouse.platform.state import PartState, read_state, start_ticks

from .platformkit import Platform, Refused, eventually
from .rolloutobjects import ARGO, FRONT, ROUTES, rollout
from .rollouttraffic import PORT, Users

__all__ = ["Fleet", "version_of"]

Object = dict[str, Any]
_PLURALS: Final = {
    "TrafficPolicy": "trafficpolicies",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
_CLUSTER: Final = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


class Fleet:
    """Rollouts on a platform, by their strategies. replicas: of those that have more than one pod."""

    def __init__(self, platform: Platform, strategies: Mapping[str, Object], replicas: Mapping[str, int]) -> None:
        self.platform = platform
        self._strategies = strategies
        self._replicas = replicas

    def apply(self, *objects: Object) -> None:
        """Apply objects by one request each: a program for each would take most of the time."""
        for each in objects:
            path = f"{_path(each)}?fieldManager=tests&force=true"
            self.platform.call("PATCH", path, each, **{"Content-Type": "application/apply-patch+yaml"})

    def delete(self, *objects: Object) -> None:
        """Delete objects that are there."""
        for each in objects:
            self.platform.call("DELETE", _path(each))

    def get(self, plural: str, name: str = "", api: str = ARGO) -> Any:
        """Return an object of the default namespace, or the list of all."""
        return self.platform.call("GET", f"/apis/{api}/namespaces/default/{plural}/{name}".rstrip("/"))

    def version(self, name: str, version: str, bad: int = 0) -> None:
        """Set a version of a rollout. bad: which n-th answer of it is an error."""
        replicas = self._replicas.get(name, 1)
        self.apply(rollout(name, version, self._strategies[name], bad=bad, replicas=replicas))

    def verb(self, *words: str) -> str:
        """Run `pilothouse rollout`."""
        config = str(self.platform.kubeconfig)
        return self.platform.run("-m", "pilothouse", "rollout", *words, "--kubeconfig", config)

    def status(self, name: str) -> Object:
        """Return the status of a rollout, which may not be there yet."""
        with contextlib.suppress(Refused):
            found: Object = self.get("rollouts", name).get("status", {})
            return found
        return {}

    def until(self, name: str, phase: str, step: int | None = None) -> Object:
        """Wait for a phase of what was asked for last, and for a step where one is named."""

        def there() -> bool:
            with contextlib.suppress(Refused):
                whole = self.get("rollouts", name)
                found, seen = whole.get("status", {}), str(whole["metadata"]["generation"])
                is_at = step is None or found.get("currentStepIndex") == step
                return found.get("phase") == phase and found.get("observedGeneration") == seen and is_at
            return False

        def shown() -> object:
            return self.status(name), self.platform.logged(), self.platform.told("default")

        eventually(there, shown)
        return self.status(name)

    def rules(self, name: str) -> list[Object]:
        """Return the rules of a rollout's route."""
        found: list[Object] = self.get("httproutes", name, ROUTES)["spec"]["rules"]
        return found

    def weights(self, name: str) -> list[int]:
        """Return the weights of the only rule of a rollout's route, the stable service's first."""
        (rule,) = self.rules(name)
        return [each["weight"] for each in rule["backendRefs"]]

    def pods(self, name: str, version: str = "") -> list[Object]:
        """Return pods of a rollout that are to stay, of a version."""
        found = self.platform.items("Pod", f"app={name}")
        staying = [each for each in found if "deletionTimestamp" not in each["metadata"]]
        return [each for each in staying if not version or version_of(each) == version]

    def ask(self, pod: Object, path: str) -> str:
        """Ask a pod itself."""
        with contextlib.closing(http.client.HTTPConnection(pod["status"]["podIP"], PORT, timeout=20)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def kill(self) -> None:
        """Kill delivery, and the gateway with it, and wait until its workers are gone and there is another."""
        before = self._part()
        workers = Path(f"/proc/{before.pid}/task/{before.pid}/children").read_text().split()
        self.platform.kill("gateway")
        eventually(lambda: self._part().pid != before.pid and self._part().state == "ready", self.platform.logged)
        eventually(lambda: not any(start_ticks(int(each)) for each in workers))

    def _part(self) -> PartState:
        state = read_state(str(self.platform.data))
        assert state is not None
        return state.parts["gateway"]

    def until_answered(self, name: str, version: str, times: int = 8) -> None:
        """Wait until a version alone answers a rollout's host: a route is carried out a moment after pods are ready."""

        def answers() -> bool:
            return all(self._answer(name) == version for _ in range(times))

        eventually(answers, lambda: (self._answer(name), self.platform.logged()))

    def _answer(self, name: str) -> str:
        """Return which version answers one request; empty where none does, or where there is no gateway yet."""
        with contextlib.suppress(OSError, KeyError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self._address, FRONT, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", "/first", headers={"Host": f"{name}.test"})
                answer = connection.getresponse()
                return answer.read().decode().partition(" ")[0] if answer.status == 200 else ""
        return ""

    @property
    def _address(self) -> str:
        found: str = self.get("gateways", "front", ROUTES)["status"]["addresses"][0]["value"]
        return found

    def users(self, name: str, **kinds: dict[str, str]) -> Users:
        """Return users of a rollout's host; of kinds with headers where they are given."""
        given = kinds or {"all": {}}
        host = {"Host": f"{name}.test"}
        return Users(self._address, FRONT, {kind: {**host, **headers} for kind, headers in given.items()})


def _path(obj: Object) -> str:
    kind, group, metadata = obj["kind"], obj["apiVersion"], obj["metadata"]
    place = f"/apis/{group}" if "/" in group else f"/api/{group}"
    namespace = "" if kind in _CLUSTER else f"/namespaces/{metadata.get('namespace', 'default')}"
    return f"{place}{namespace}/{_PLURALS.get(kind, kind.lower() + 's')}/{metadata['name']}"


def version_of(pod: Object) -> str:
    """Return which version a pod answers with."""
    env = pod["spec"]["containers"][0]["env"]
    return next(str(each["value"]) for each in env if each["name"] == "VERSION")
