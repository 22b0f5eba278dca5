"""`pilothouse up`: what users see while versions come, are looked at, and go back, whatever is killed meanwhile.

Kills are a handful: tests/delivery/rollouts/test_kills.py kills after each single write.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.node.process.machine import capabilities_of_this_machine
from support.platformkit import Refused, eventually, platform_of
from support.rolloutfleet import Fleet
from support.rolloutgit import Delivered
from support.rolloutobjects import (
    ARGO,
    ROUTES,
    analysis,
    blue_green,
    blue_green_front,
    canary,
    canary_front,
    front,
    held,
    judged,
    route,
    template,
)
from support.rollouttraffic import versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Object = dict[str, Any]
AFTER_SWITCH = analysis("green", "judged-soon", canary="green-active", stable="green-preview")
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
FROM_GIT = canary("fromgit", {"setWeight": 40}, {"pause": {}}, analysis=analysis("fromgit"))
FIRST = {
    "blue": blue_green("blue", autoPromotionEnabled=False),
    "green": blue_green("green", postPromotionAnalysis=AFTER_SWITCH),
    "trials": canary("trials", TRIALS, {"setWeight": 40}, {"pause": {}}),
    "looking": LOOKING,
    "byhand": BY_HAND,
    "east": EAST,
    "killed": KILLED,
}
REPLICAS = {"byhand": 2}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """All rollouts of this module, each with its first version."""
    is_root = capabilities_of_this_machine().mode == "root"
    with platform_of("root" if is_root else "user") as platform:
        made = Fleet(platform, FIRST, REPLICAS)
        fronts = {name: blue_green_front if "blueGreen" in FIRST[name] else canary_front for name in FIRST}
        made.apply(*front(), judged("judged"), judged("judged-soon", "3s"))
        made.apply(*(each for name in FIRST for each in fronts[name](name)))
        for name in FIRST:
            made.version(name, "1")
        for name in FIRST:
            made.until(name, "Healthy")
            made.until_answered(name, "1")
        yield made


def test_blue_green_is_looked_at_before_it_is_promoted_and_goes_back_at_once(fleet: Fleet) -> None:
    with fleet.users("blue", all={}, preview={"Host": "preview.blue.test"}) as users:
        assert users.sees("all") == {"1"}
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


def test_blue_green_goes_back_by_itself_where_all_users_get_a_bad_version(fleet: Fleet) -> None:
    with fleet.users("green") as users:
        assert users.sees("all") == {"1"}
        fleet.version("green", "2", bad=3)
        fleet.until("green", "Degraded")
        eventually(lambda: users.sees("all") == {"1"}, lambda: fleet.status("green"))
        assert "2" in versions(users.of("all"))
        assert "2" not in versions(users.next("all"))
        assert "post-promotion analysis phase error/failed" in fleet.status("green")["message"]
    assert {each.version for each in users.failures()} == {"2"}


def test_an_experiment_beside_a_rollout_decides_whether_it_goes_on(fleet: Fleet) -> None:
    with fleet.users("trials") as users:
        assert users.sees("all") == {"1"}
        fleet.version("trials", "2")
        (name,) = eventually(lambda: experiments(fleet, "trials-"), lambda: fleet.status("trials"))
        parts = {f"{name}-base", f"{name}-trial"}
        shares = [("trials-stable", 60), ("trials-canary", 0), (f"{name}-base", 20), (f"{name}-trial", 20)]

        def split() -> list[tuple[str, int]]:
            return [(each["name"], each["weight"]) for each in fleet.rules("trials")[0]["backendRefs"]]

        eventually(lambda: split() == shares and parts <= {*services(fleet)}, split)
        fleet.until("trials", "Paused", 2)
        assert parts == {each.pod.rpartition("-")[0] for each in users.of() if each.pod.startswith(name)}
        assert split() == [("trials-stable", 60), ("trials-canary", 40)]
        eventually(lambda: not [each for each in users.next("all") if each.pod.startswith(name)], split)
        assert fleet.get("experiments", name)["status"]["phase"] == "Successful"

        def left() -> list[str]:
            pods = [each["metadata"]["name"] for each in fleet.pods("trials")]
            return [each for each in (*pods, *services(fleet)) if each.startswith(name)]

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

    def phase() -> str:
        return str(fleet.get("experiments", "versus").get("status", {}).get("phase"))

    eventually(lambda: phase() == "Running", lambda: fleet.get("experiments", "versus"))
    with fleet.users("versus") as users:
        eventually(lambda: users.sees("all") >= {"1", "2"}, lambda: fleet.get("experiments", "versus"))
        eventually(lambda: phase() == "Failed", lambda: fleet.get("experiments", "versus"))
        eventually(
            lambda: not fleet.pods("versus-old") + fleet.pods("versus-new"),
            lambda: fleet.platform.kubectl("get", "pods"),
        )
        eventually(lambda: not {"versus-old", "versus-new"} & {*services(fleet)}, lambda: services(fleet))
    assert "are errors" in fleet.get("experiments", "versus")["status"]["message"]


def test_some_users_see_a_version_by_a_header_and_then_it_gets_copies(fleet: Fleet) -> None:
    with fleet.users("looking", all={}, insiders={"X-Insider": "yes"}, others={"X-Insider": "no"}) as users:
        assert users.sees("insiders") == {"1"}
        fleet.version("looking", "2")
        fleet.until("looking", "Paused", 2)
        assert len(fleet.pods("looking", "2")) == 2
        eventually(lambda: users.sees("insiders") == {"2"}, lambda: fleet.rules("looking"))
        assert users.sees("all") == users.sees("others") == {"1"}
        assert "all" not in "".join(fleet.ask(each, "/seen") for each in fleet.pods("looking", "2"))
        fleet.verb("promote", "looking")
        fleet.until("looking", "Paused", 5)
        eventually(lambda: users.sees("insiders") == {"1"}, lambda: fleet.rules("looking"))
        before = eventually(lambda: copies(fleet))
        asked = len(users.next("all"))
        eventually(lambda: copies(fleet) >= before + asked, lambda: copies(fleet))
        assert set(versions(users.of("all"))) == set(versions(users.of("others"))) == {"1"}
        assert users.sees("insiders") == {"1"}
        fleet.verb("promote", "looking")
        fleet.until("looking", "Healthy")
        eventually(lambda: users.sees("all") == users.sees("insiders") == {"2"})
        eventually(lambda: is_as_it_was(fleet, "looking"), lambda: fleet.rules("looking"))
        fleet.version("looking", "3")
        fleet.until("looking", "Paused", 2)
        eventually(lambda: users.sees("insiders") == {"3"})
        fleet.verb("abort", "looking")
        eventually(lambda: users.sees("insiders") == {"2"}, lambda: fleet.rules("looking"))
        assert is_as_it_was(fleet, "looking")
    assert users.failures() == []
    assert "3" not in versions(users.of("all") + users.of("others"))


def experiments(fleet: Fleet, prefix: str) -> list[str]:
    found = [each["metadata"]["name"] for each in fleet.get("experiments")["items"]]
    return [each for each in found if each.startswith(prefix)]


def services(fleet: Fleet) -> list[str]:
    return [each["metadata"]["name"] for each in fleet.platform.items("Service")]


def is_as_it_was(fleet: Fleet, name: str) -> bool:
    """Whether nothing of an update is left in a route: promoted, it stays as it is for some seconds."""
    first, *others = fleet.rules(name)
    return not others and "filters" not in first and [each["weight"] for each in first["backendRefs"]] == [100, 0]


def copies(fleet: Fleet) -> int:
    """Return how many requests of users without a header the second version's pods had."""
    return sum(json.loads(fleet.ask(each, "/seen")).get("all", 0) for each in fleet.pods("looking", "2"))


def test_whoever_stands_at_the_wheel_loses_no_request(fleet: Fleet) -> None:
    with fleet.users("byhand") as users:
        assert users.sees("all") == {"1"}
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
        assert users.sees("east") == {"1"}
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
        eventually(lambda: is_as_it_was(fleet, "east"), lambda: fleet.rules("east"))
    assert users.failures() == []


def test_git_is_down_while_a_version_is_taken_back_and_gets_to_know_of_it_later(fleet: Fleet, tmp_path: Path) -> None:
    delivered = Delivered(fleet, "fromgit", FROM_GIT, tmp_path)
    with contextlib.ExitStack() as up, contextlib.ExitStack() as asking:
        up.enter_context(delivered.served())
        delivered.push("1")
        delivered.begin()
        fleet.until("fromgit", "Healthy")
        fleet.until_answered("fromgit", "1")
        users = asking.enter_context(fleet.users("fromgit"))
        bad = delivered.push("2")
        delivered.refresh()
        fleet.until("fromgit", "Paused", 1)
        eventually(lambda: users.sees("all") == {"1", "2"}, lambda: fleet.weights("fromgit"))
        up.close()
        for pod in fleet.pods("fromgit", "2"):
            fleet.ask(pod, "/turn/2")
        eventually(lambda: fleet.status("fromgit").get("abort"), lambda: fleet.status("fromgit"))
        eventually(lambda: users.sees("all") == {"1"}, lambda: fleet.weights("fromgit"))
        eventually(lambda: bad in delivered.rejected(), delivered.status)
        eventually(lambda: delivered.reverting().get("state") == "Pending", delivered.reverting)
        fleet.kill()
        since = time.monotonic()
        eventually(lambda: users.sees("all") == {"1"}, lambda: users.failures()[-5:])
        eventually(lambda: delivered.version() == "1", delivered.status)
        up.enter_context(delivered.served())
        eventually(lambda: delivered.reverting().get("state") == "Reverted", delivered.reverting)
        commit, parent, tree = delivered.git("rev-parse", "main", "main^", "main^{tree}").split()
        assert (parent, tree) == (bad, delivered.git("rev-parse", f"{bad}^^{{tree}}"))
        delivered.refresh()
        synced = {"status": "Synced", "revision": commit}
        eventually(lambda: delivered.status()["sync"].items() >= synced.items(), delivered.status)
        fleet.until("fromgit", "Healthy")
        assert users.sees("all") == {"1"}
        assert set(versions(users.of("all", since))) == {"1"}


def is_held(fleet: Fleet) -> bool:
    """Whether the policy is in force: try to take traffic back, without doing it."""
    found = fleet.get("httproutes", "killed", ROUTES)
    found["spec"]["rules"][0]["backendRefs"][1]["weight"] = 0
    path = f"/apis/{ROUTES}/namespaces/default/httproutes/killed?dryRun=All"
    try:
        fleet.platform.call("PUT", path, found)
    except Refused as refused:
        return "held" in str(refused)
    return False


def test_killed_at_any_stage_it_goes_on_and_nobody_gets_what_was_judged_bad(fleet: Fleet) -> None:
    def runs() -> list[str]:
        found = fleet.platform.call("GET", f"/apis/{ARGO}/namespaces/default/analysisruns?labelSelector=app%3Dkilled")
        return [each.get("status", {}).get("phase", "") for each in found["items"]]

    with fleet.users("killed") as users:
        assert users.sees("all") == {"1"}
        fleet.version("killed", "2")
        eventually(lambda: len(fleet.platform.items("ReplicaSet", "app=killed")) == 2)
        fleet.kill()
        fleet.until("killed", "Paused", 1)
        fleet.kill()
        eventually(lambda: users.sees("all") == {"1", "2"}, lambda: fleet.weights("killed"))
        fleet.verb("promote", "killed")
        eventually(lambda: fleet.weights("killed") == [40, 60], lambda: fleet.status("killed"))
        fleet.kill()
        fleet.until("killed", "Paused", 3)
        fleet.apply(*held("killed"))
        eventually(lambda: is_held(fleet))
        (pod,) = fleet.pods("killed", "2")
        fleet.ask(pod, "/turn/2")
        eventually(lambda: "Failed" in runs(), runs)
        assert not fleet.status("killed").get("abort")
        fleet.kill()
        assert fleet.weights("killed") == [40, 60]
        fleet.delete(*held("killed"))
        eventually(lambda: fleet.status("killed").get("abort"), lambda: fleet.status("killed"))
        assert fleet.weights("killed") == [100, 0]
        fleet.kill()
        since = time.monotonic()
        eventually(lambda: users.sees("all") == {"1"}, lambda: users.failures()[-5:])
        eventually(lambda: not fleet.pods("killed", "2"), lambda: fleet.status("killed"))
        fleet.until("killed", "Degraded")
        assert users.sees("all") == {"1"}
        assert set(versions(users.of("all", since))) == {"1"}
