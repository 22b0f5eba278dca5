"""`pilothouse up`: a good version is promoted, a bad one taken back by itself, and git is followed."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.platform.state import read_state
from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import Load
from support.webrollout import address, apply, front, status, template, weights
from support.webrollout import rollout as web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Object = dict[str, Any]
APPLICATION = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/config"
PORT = 18090
QUICK = {"window": "5s", "leastRequests": 20}


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


LEVEL: Object = {
    "apiVersion": "pilothouse.dev/v1alpha1",
    "kind": "ServiceLevel",
    "metadata": {"name": "web"},
    "spec": {"rollout": "web", "routes": ["web"]},
}


def rollout(version: str, bad: float = 0.0, seconds: int = 60) -> Object:
    return web(version, {"setWeight": 40}, {"pause": {"duration": seconds}}, watch="2s", BAD=str(bad))


def version(platform: Platform) -> str:
    """Return which version answers one request; empty where none does."""
    try:
        with contextlib.closing(http.client.HTTPConnection(address(platform), PORT, timeout=20)) as connection:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.read().decode().partition(" ")[0] if answer.status == 200 else ""
    except (OSError, KeyError, http.client.HTTPException):
        return ""


def test_nobody_wants_delivery_and_there_is_none(platform: Platform) -> None:
    assert "gateway" not in platform.parts()
    shown = platform.kubectl("explain", "rollout.spec.strategy.canary")
    assert "stableService" in shown


def test_the_first_version(platform: Platform) -> None:
    apply(platform, *front(PORT), LEVEL, template("judged", **QUICK), rollout("1"))
    eventually(lambda: version(platform) == "1", lambda: (status(platform), platform.logged()))
    eventually(lambda: status(platform).get("phase") == "Healthy", lambda: status(platform))


def test_a_good_version_is_promoted_without_a_lost_request(platform: Platform) -> None:
    with Load(address(platform), PORT) as load:
        apply(platform, rollout("2", seconds=3))
        eventually(lambda: load.answers["2"] >= 20, lambda: (status(platform), load.answers))
        eventually(lambda: status(platform).get("phase") == "Healthy", lambda: status(platform))
        load.forget()
        eventually(lambda: load.count >= 100, lambda: load.failures)
    assert load.failures == []
    assert set(load.answers) == {"2"}


def test_a_bad_version_is_taken_back_by_itself(platform: Platform) -> None:
    with Load(address(platform), PORT) as load:
        apply(platform, rollout("3", bad=0.1))
        eventually(lambda: status(platform).get("abort"), lambda: (status(platform), load.failures))
        eventually(lambda: weights(platform) == [100, 0], lambda: status(platform))
        load.forget()
        eventually(lambda: load.count >= 100, lambda: load.failures)
        load.forget()
        eventually(lambda: load.count >= 100, lambda: load.failures)
    assert set(load.answers) == {"2"}
    found = status(platform)
    assert found["phase"] == "Degraded"
    assert "are errors" in found["message"]
    assert "limit 0.30%" in found["message"]
    level = "/apis/pilothouse.dev/v1alpha1/namespaces/default/servicelevels/web"

    def outcomes() -> list[str]:
        return [each.get("outcome") for each in platform.call("GET", level)["status"]["deploys"]]

    eventually(lambda: outcomes() == ["Succeeded", "Succeeded", "RolledBack"], outcomes)


def test_what_happened_is_kept_as_an_incident(platform: Platform) -> None:
    def incidents() -> list[Object]:
        found: list[Object] = platform.call("GET", "/apis/pilothouse.dev/v1alpha1/namespaces/default/incidents")[
            "items"
        ]
        return found

    eventually(lambda: [each for each in incidents() if each.get("status", {}).get("trafficBackAt")], incidents)
    (incident,) = incidents()
    (evidence,) = incident["status"]["evidence"]
    assert evidence["metric"] == "traffic"
    assert float(evidence["canary"]["errorRatio"].removesuffix("%")) > 0.3
    assert evidence["stable"]["errorRatio"] == "0.00%"
    told = [each["what"] for each in incident["status"]["timeline"]]
    assert told.index("Started") <= told.index("FirstBad") < told.index("Decided") < told.index("TrafficBack")
    assert "Analysis" in platform.kubectl("get", "incidents")
    line = re.compile(r" GET /\S*: 5\d\d in \d+ ms by canary, trace [0-9a-f]{32}$")
    samples = incident["status"]["samples"]
    assert samples
    assert [each for each in samples if not line.search(each)] == []


def test_a_kill_in_the_midst_of_a_bad_canary_keeps_nobody_on_it(platform: Platform) -> None:
    apply(platform, rollout("2"))
    eventually(lambda: status(platform).get("phase") == "Healthy", lambda: status(platform))
    with Load(address(platform), PORT) as load:
        apply(platform, rollout("4", bad=0.1))
        eventually(lambda: weights(platform) == [60, 40] or status(platform).get("abort"), lambda: status(platform))
        platform.kill("gateway")
        eventually(lambda: status(platform).get("abort"), lambda: (status(platform), load.failures, platform.logged()))
        eventually(lambda: weights(platform) == [100, 0], lambda: status(platform))
        eventually(lambda: [version(platform) for _ in range(8)] == ["2"] * 8, lambda: status(platform))


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(directory), *arguments], check=True, capture_output=True, timeout=60)


def test_what_is_committed_is_applied(platform: Platform, tmp_path: Path) -> None:
    repository = platform.data.parent / "repository"
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True, timeout=60)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greeting"}, "data": {"text": "one"}}
    (repository / "config.yaml").write_text(yaml.safe_dump(config))
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "one")
    for path in (repository, *repository.rglob("*")):  # an ordinary user's platform reads it too
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    source = {"repoURL": f"file://{repository}", "targetRevision": "main", "path": "."}
    application = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "config", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": source,
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
        },
    }
    apply(platform, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}}, application)

    def said() -> Object:
        found: Object = platform.call("GET", "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/config").get(
            "status", {}
        )
        return found

    eventually(lambda: said().get("sync", {}).get("status") == "Synced", lambda: (said(), platform.logged()))
    assert platform.get("ConfigMap", "greeting")["data"] == {"text": "one"}
    platform.patch("ConfigMap", "greeting", {"data": {"text": "by hand"}})
    eventually(lambda: platform.get("ConfigMap", "greeting")["data"] == {"text": "one"}, said)


def test_it_is_gone_where_it_was_left_out(platform: Platform) -> None:
    state = read_state(str(platform.data))
    assert state is not None
    assert state.parts["gateway"].state == "ready"
    platform.stop()
    platform.start("--without", "gateway,delivery")
    state = read_state(str(platform.data))
    assert state is not None
    assert not {"gateway", "delivery"} & set(state.parts)
