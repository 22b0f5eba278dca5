"""`pilothouse up`: what users see while versions come, are looked at, and go back, whatever is killed meanwhile.

Kills are a handful: tests/delivery/rollouts/test_kills.py kills after each single write.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pilothouse.node.process.machine import capabilities_of_this_machine
from support.platformkit import Platform, eventually, platform_of
from support.platformload import service
from support.rolloutobjects import (
    ARGO,
    FRONT,
    ROUTES,
    analysis,
    canary,
    canary_front,
    front,
    judged,
    rollout,
    route,
    template,
)
from support.rollouttraffic import PORT, Users, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Object = dict[str, Any]
HOLD = "hold"
PLURALS = {"TrafficPolicy": "trafficpolicies"}
BLUE_GREEN = {
    "blueGreen": {
        "activeService": "blue-active",
        "previewService": "blue-preview",
        "autoPromotionEnabled": False,
        "scaleDownDelaySeconds": 60,
    }
}
TRIALS: Object = {
    "experiment": {
        "templates": [
            {"name": "base", "specRef": "stable", "replicas": 1, "weight": 20},
            {"name": "trial", "specRef": "canary", "replicas": 1, "weight": 20},
        ],
        "scaleDownDelaySeconds": 1,
        "analyses": [
            {
                "name": "compare",
                "templateName": "judged-soon",
                "requiredForCompletion": True,
                "args": [
                    {"name": "route", "value": "trials"},
                    {"name": "canary", "value": "{{templates.trial.replicaset.name}}"},
                    {"name": "stable", "value": "{{templates.base.replicaset.name}}"},
                ],
            }
        ],
    }
}
HEADER = {"name": "insiders", "match": [{"headerName": "x-insider", "headerValue": {"exact": "yes"}}]}
MIRROR = {"name": "copies", "percentage": 100, "match": [{"path": {"prefix": "/"}}]}
LOOKING = canary(
    "looking",
    {"setCanaryScale": {"replicas": 2}},
    {"setHeaderRoute": HEADER},
    {"pause": {}},
    {"setHeaderRoute": {"name": "insiders"}},
    {"setMirrorRoute": MIRROR},
    {"pause": {}},
    trafficRouting={"managedRoutes": [{"name": "insiders"}, {"name": "copies"}]},
)
BY_HAND = canary("byhand", {"setWeight": 50}, {"pause": {}}, {"setWeight": 75}, {"pause": {}})
EAST = canary(
    "east",
    {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 50}}},
    {"pause": {}},
    {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 100}}},
    {"pause": {}},
    {"setWeight": 100},
)
KILLED = canary(
    "killed",
    {"setWeight": 20},
    {"pause": {}},
    {"setWeight": 60},
    {"pause": {}},
    analysis=analysis("killed"),
    abortScaleDownDelaySeconds=3,
)
FIRST = {
    "blue": BLUE_GREEN,
    "trials": canary("trials", TRIALS, {"setWeight": 40}, {"pause": {}}),
    "looking": LOOKING,
    "byhand": BY_HAND,
    "east": EAST,
    "killed": KILLED,
}

REPLICAS = {"byhand": 2}


class Fleet:
    """Rollouts on a platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def apply(self, *objects: Object) -> None:
        """Apply objects as kubectl does, by one request each."""
        for each in objects:
            group, name = each["apiVersion"], each["metadata"]["name"]
            place = f"/apis/{group}" if "/" in group else f"/api/{group}"
            namespace = each["metadata"].get("namespace", "default")
            own = "" if each["kind"] == "Namespace" else f"/namespaces/{namespace}"
            plural = PLURALS.get(each["kind"], each["kind"].lower() + "s")
            path = f"{place}{own}/{plural}/{name}?fieldManager=tests&force=true"
            self.platform.call("PATCH", path, each, **{"Content-Type": "application/apply-patch+yaml"})

    def get(self, kind: str, name: str = "", api: str = ARGO) -> Any:
        return self.platform.call("GET", f"/apis/{api}/namespaces/default/{kind}/{name}".rstrip("/"))

    def version(self, name: str, version: str, **more: Any) -> None:
        self.apply(rollout(name, version, FIRST[name], replicas=REPLICAS.get(name, 1), **more))

    def verb(self, *words: str) -> str:
        """Run `pilothouse rollout`."""
        config = str(self.platform.kubeconfig)
        return self.platform.run("-m", "pilothouse", "rollout", *words, "--kubeconfig", config)

    def status(self, name: str) -> Object:
        found: Object = self.get("rollouts", name).get("status", {})
        return found

    def until(self, name: str, phase: str, step: int | None = None) -> Object:
        """Wait for a phase, and for a step where one is named."""

        def there() -> bool:
            found = self.status(name)
            return found.get("phase") == phase and (step is None or found.get("currentStepIndex") == step)

        def shown() -> object:
            return self.status(name), self.platform.logged(), self.platform.told("default")

        eventually(there, shown)
        return self.status(name)

    def rules(self, name: str) -> list[Object]:
        found: list[Object] = self.get("httproutes", name, ROUTES)["spec"]["rules"]
        return found

    def weights(self, name: str) -> list[int]:
        (rule,) = self.rules(name)
        return [each["weight"] for each in rule["backendRefs"]]

    def pods(self, name: str, version: str = "") -> list[Object]:
        """Return pods of a rollout that are to stay, of a version."""
        found = self.platform.items("Pod", f"app={name}")
        staying = [each for each in found if "deletionTimestamp" not in each["metadata"]]
        return [each for each in staying if not version or version_of(each) == version]

    def ask(self, pod: Object, path: str) -> str:
        with contextlib.closing(http.client.HTTPConnection(pod["status"]["podIP"], PORT, timeout=20)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def users(self, name: str, **kinds: dict[str, str]) -> Users:
        """Return users of a rollout's host; of kinds with headers where they are given."""
        address = self.get("gateways", "front", ROUTES)["status"]["addresses"][0]["value"]
        given = kinds or {"all": {}}
        host = {"Host": f"{name}.test"}
        return Users(address, FRONT, {kind: {**host, **headers} for kind, headers in given.items()})


def version_of(pod: Object) -> str:
    """Return which version a pod answers with."""
    env = pod["spec"]["containers"][0]["env"]
    return next(str(each["value"]) for each in env if each["name"] == "VERSION")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """All rollouts of this module, each with its first version."""
    is_root = capabilities_of_this_machine().mode == "root"
    with platform_of("root" if is_root else "user") as platform:
        made = Fleet(platform)
        names = [name for name in FIRST if name != "blue"]
        made.apply(
            *front(),
            judged("judged"),
            judged("judged-soon", "3s"),
            *(service(f"blue-{word}", selector={"app": "blue"}) for word in ("active", "preview")),
            route("blue", "blue.test", blue_active=1),
            route("preview", "preview.blue.test", blue_preview=1),
            *(each for name in names for each in canary_front(name)),
            *(rollout(name, "1", FIRST[name], replicas=REPLICAS.get(name, 1)) for name in FIRST),
        )
        for name in FIRST:
            made.until(name, "Healthy")
        yield made


def test_blue_green_is_looked_at_before_it_is_promoted_and_goes_back_at_once(fleet: Fleet) -> None:
    with fleet.users("blue", all={}, preview={"Host": "preview.blue.test"}) as users:
        eventually(lambda: users.sees("all") == {"1"}, lambda: users.failures()[-5:])
        fleet.version("blue", "2")
        fleet.until("blue", "Paused")
        eventually(lambda: users.sees("preview") == {"2"})
        assert users.sees("all") == {"1"}
        fleet.verb("promote", "blue")
        eventually(lambda: users.sees("all") == {"2"}, lambda: fleet.status("blue"))
        fleet.until("blue", "Healthy")
        (kept,) = fleet.pods("blue", "1")
        fleet.verb("undo", "blue")
        eventually(lambda: users.sees("all") == {"1"}, lambda: fleet.status("blue"))
        assert [each["metadata"]["uid"] for each in fleet.pods("blue", "1")] == [kept["metadata"]["uid"]]
        fleet.until("blue", "Healthy")
        fleet.version("blue", "3")
        fleet.until("blue", "Paused")
        eventually(lambda: users.sees("preview") == {"3"})
        fleet.verb("abort", "blue")
        fleet.until("blue", "Degraded")
    assert users.failures("all") == []
    assert set(versions(users.of("all"))) == {"1", "2"}


def test_an_experiment_beside_a_rollout_decides_whether_it_goes_on(fleet: Fleet) -> None:
    with fleet.users("trials") as users:
        eventually(lambda: users.sees("all") == {"1"}, lambda: users.failures()[-5:])
        fleet.version("trials", "2")
        trial = eventually(lambda: fleet.get("experiments")["items"], lambda: fleet.status("trials"))[0]
        name = trial["metadata"]["name"]

        def of_trial(part: str) -> bool:
            return any(each.pod.startswith(f"{name}-{part}-") for each in users.next("all"))

        eventually(lambda: of_trial("trial") and of_trial("base"), lambda: fleet.get("experiments", name))
        parts = [(each["name"], each["weight"]) for each in fleet.rules("trials")[0]["backendRefs"]]
        assert parts == [("trials-stable", 60), ("trials-canary", 0), (f"{name}-base", 20), (f"{name}-trial", 20)]
        assert {each["metadata"]["name"] for each in fleet.platform.items("Service")} >= {f"{name}-base", f"{name}-trial"}
        fleet.until("trials", "Paused", 2)
        eventually(lambda: not of_trial("trial") and not of_trial("base"))
        assert fleet.weights("trials") == [60, 40]
        assert fleet.get("experiments", name)["status"]["phase"] == "Successful"

        def left() -> list[str]:
            found = [*fleet.pods("trials"), *fleet.platform.items("Service")]
            return [each["metadata"]["name"] for each in found if each["metadata"]["name"].startswith(name)]

        eventually(lambda: not left(), left)
        fleet.verb("promote", "trials")
        fleet.until("trials", "Healthy")
        eventually(lambda: users.sees("all") == {"2"})
        assert users.failures() == []
        fleet.version("trials", "3", bad=2)
        fleet.until("trials", "Degraded")
        assert "Experiment analysis phase is error/failed" in fleet.status("trials")["message"]
        eventually(lambda: users.sees("all") == {"2"})
    assert {each.version for each in users.failures()} == {"3"}
    assert all("-trial-" in each.pod for each in users.of() if each.version == "3")


def test_an_experiment_of_its_own_runs_and_ends_with_its_pods_and_services(fleet: Fleet) -> None:
    def part(name: str, version: str, bad: int = 0) -> Object:
        labels = {"app": f"versus-{name}"}
        made = template(f"versus-{name}", version, bad)
        return {"name": name, "selector": {"matchLabels": labels}, "template": made, "service": {}}

    names = {"route": "versus", "canary": "versus-new", "stable": "versus-old"}
    given = [{"name": key, "value": value} for key, value in names.items()]
    analyses = [{"name": "compare", "templateName": "judged", "args": given}]
    spec = {"templates": [part("old", "1"), part("new", "2", 2)], "analyses": analyses, "scaleDownDelaySeconds": 1}
    fleet.apply(route("versus", "versus.test", versus_old=1, versus_new=1))
    fleet.apply({"apiVersion": ARGO, "kind": "Experiment", "metadata": {"name": "versus"}, "spec": spec})
    phase = lambda: fleet.get("experiments", "versus").get("status", {}).get("phase")  # noqa: E731
    eventually(lambda: phase() == "Running", lambda: fleet.get("experiments", "versus"))
    with fleet.users("versus") as users:
        eventually(lambda: users.sees("all") >= {"1", "2"}, lambda: fleet.get("experiments", "versus"))
        eventually(lambda: phase() == "Failed", lambda: fleet.get("experiments", "versus")["status"])
        gone = lambda: not any(fleet.pods(f"versus-{each}") for each in ("old", "new"))  # noqa: E731
        eventually(gone, lambda: fleet.platform.kubectl("get", "pods"))
        services = lambda: [each["metadata"]["name"] for each in fleet.platform.items("Service")]  # noqa: E731
        eventually(lambda: not {"versus-old", "versus-new"} & {*services()}, services)
    assert "are errors" in fleet.get("experiments", "versus")["status"]["message"]


def test_some_users_see_a_version_by_a_header_and_then_it_gets_copies(fleet: Fleet) -> None:
    with fleet.users("looking", all={}, insiders={"X-Insider": "yes"}, others={"X-Insider": "no"}) as users:
        eventually(lambda: users.sees("insiders") == {"1"}, lambda: users.failures()[-5:])
        fleet.version("looking", "2")
        fleet.until("looking", "Paused", 2)
        assert len(fleet.pods("looking", "2")) == 2
        eventually(lambda: users.sees("insiders") == {"2"}, lambda: fleet.rules("looking"))
        assert users.sees("all") == users.sees("others") == {"1"}
        assert "all" not in "".join(fleet.ask(each, "/seen") for each in fleet.pods("looking", "2"))
        fleet.verb("promote", "looking")
        fleet.until("looking", "Paused", 5)
        eventually(lambda: users.sees("insiders") == {"1"}, lambda: fleet.rules("looking"))
        with_all = lambda: seen(fleet, "all")  # noqa: E731
        before = eventually(with_all)
        asked = len(users.next("all"))
        eventually(lambda: with_all() >= before + asked, with_all)
        assert set(versions(users.of("all"))) == set(versions(users.of("others"))) == {"1"}
        assert users.sees("insiders") == {"1"}
        fleet.verb("promote", "looking")
        fleet.until("looking", "Healthy")
        eventually(lambda: users.sees("all") == users.sees("insiders") == {"2"})
        assert [each.get("name") for each in fleet.rules("looking")] == [None]
        assert "filters" not in fleet.rules("looking")[0]
        assert fleet.weights("looking") == [100, 0]
    assert users.failures() == []


def seen(fleet: Fleet, kind: str) -> int:
    """Return how many requests of a kind the second version's pods had."""
    return sum(json.loads(fleet.ask(each, "/seen")).get(kind, 0) for each in fleet.pods("looking", "2"))


def test_whoever_stands_at_the_wheel_loses_no_request(fleet: Fleet) -> None:
    with fleet.users("byhand") as users:
        eventually(lambda: users.sees("all") == {"1"}, lambda: users.failures()[-5:])
        fleet.version("byhand", "2")
        fleet.until("byhand", "Paused", 1)
        eventually(lambda: versions(users.next("all")) == {"1": 20, "2": 20}, lambda: fleet.weights("byhand"))
        fleet.verb("abort", "byhand")
        fleet.until("byhand", "Degraded")
        eventually(lambda: users.sees("all") == {"1"})
        fleet.verb("retry", "rollout", "byhand")
        fleet.until("byhand", "Paused", 1)
        eventually(lambda: users.sees("all") == {"1", "2"})
        fleet.verb("pause", "byhand")
        fleet.verb("promote", "byhand")
        fleet.until("byhand", "Paused", 3)
        eventually(lambda: versions(users.next("all")) == {"1": 10, "2": 30}, lambda: fleet.weights("byhand"))
        fleet.verb("promote", "byhand", "--full")
        fleet.until("byhand", "Healthy")
        eventually(lambda: users.sees("all") == {"2"})
        old = {each["metadata"]["name"] for each in fleet.pods("byhand", "2")}
        fleet.verb("restart", "byhand")
        eventually(lambda: not old & {each.pod for each in users.next("all")}, lambda: fleet.status("byhand"))
        fleet.until("byhand", "Healthy")
    assert users.failures() == []


def test_regions_come_in_order_and_others_are_left_alone(fleet: Fleet) -> None:
    kinds = {"east": {"X-Client-Region": "cn-east"}, "north": {"X-Client-Region": "cn-north"}}
    with fleet.users("east", **kinds) as users:
        eventually(lambda: users.sees("east") == {"1"}, lambda: users.failures()[-5:])
        fleet.version("east", "2")
        fleet.until("east", "Paused", 1)
        eventually(lambda: versions(users.next("east")) == {"1": 20, "2": 20}, lambda: fleet.rules("east"))
        fleet.verb("promote", "east")
        fleet.until("east", "Paused", 3)
        eventually(lambda: users.sees("east") == {"2"}, lambda: fleet.rules("east"))
        assert set(versions(users.of("north"))) == {"1"}
        fleet.verb("promote", "east")
        fleet.until("east", "Healthy")
        eventually(lambda: users.sees("east") == users.sees("north") == {"2"})
        assert "filters" not in fleet.rules("east")[0]
    assert users.failures() == []
