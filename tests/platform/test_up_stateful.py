"""`pilothouse up`: stateful sets start in order, are found by name, and keep their data whatever goes and returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.platformkit import USERS, Platform, eventually, is_ready, platform_of
from support.platformload import shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Each start adds a line with the pod's name; the program is ready once it has.
WRITES = "echo $HOSTNAME >> /data/starts; touch /data/ready; trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def stateful(replicas: int) -> list[dict[str, Any]]:
    container = shell(
        WRITES,
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        readinessProbe={"exec": {"command": ["cat", "/data/ready"]}, "periodSeconds": 1},
    )
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    labels = {"app": "db"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    spec = {
        "serviceName": "db",
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": template,
        "volumeClaimTemplates": [claim],
    }
    port = {"name": "sql", "port": 5432}
    headless = {"clusterIP": "None", "selector": labels, "ports": [port]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": headless},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec},
    ]


def until_ready(platform: Platform, number: int) -> None:
    def ready(found: dict[str, Any]) -> bool:
        counts = {found["status"].get(name, 0) for name in ("replicas", "readyReplicas", "currentReplicas")}
        return counts == {number}

    platform.until("StatefulSet", "db", ready)
    eventually(lambda: len(platform.items("Pod", "app=db")) == number)


def starts(platform: Platform, name: str) -> list[str]:
    return platform.kubectl("exec", name, "--", "cat", "/data/starts").split()


@pytest.fixture(scope="module")
def database(platform: Platform) -> Platform:
    platform.create(*stateful(3))
    until_ready(platform, 3)
    return platform


def test_pods_start_one_after_the_other(database: Platform) -> None:
    pods = {each["metadata"]["name"]: each for each in database.items("Pod", "app=db")}
    assert sorted(pods) == ["db-0", "db-1", "db-2"]
    for before, after in (("db-0", "db-1"), ("db-1", "db-2")):
        ready = next(each for each in pods[before]["status"]["conditions"] if each["type"] == "Ready")
        assert ready["lastTransitionTime"] <= pods[after]["metadata"]["creationTimestamp"]
    claims = {each["metadata"]["name"]: each for each in database.items("PersistentVolumeClaim")}
    assert {name: each["status"]["phase"] for name, each in claims.items()} == {
        f"data-db-{number}": "Bound" for number in range(3)
    }
    assert len({each["spec"]["volumeName"] for each in claims.values()}) == 3


def test_pods_are_found_by_their_names(database: Platform) -> None:
    if not database.as_root:
        pytest.skip("an ordinary user's pods do not find cluster DNS: port 53 is root's")
    addresses = {each["metadata"]["name"]: each["status"]["podIP"] for each in database.items("Pod", "app=db")}
    found = database.kubectl("exec", "db-0", "--", "getent", "ahostsv4", "db-2.db")
    assert found.split()[0] == addresses["db-2"]
    everybody = database.kubectl("exec", "db-0", "--", "getent", "ahostsv4", "db.default.svc.cluster.local")
    assert {line.split()[0] for line in everybody.splitlines()} == set(addresses.values())


def test_a_deleted_pod_comes_back_with_its_name_and_data(database: Platform) -> None:
    before = database.get("Pod", "db-1")["metadata"]["uid"]
    database.delete("Pod", "db-1")
    database.until("Pod", "db-1", lambda it: it["metadata"]["uid"] != before and is_ready(it))
    assert starts(database, "db-1") == ["db-1", "db-1"]


def test_fewer_pods_and_more_again_find_their_data(database: Platform) -> None:
    database.patch("StatefulSet", "db", {"spec": {"replicas": 1}})
    until_ready(database, 1)
    assert len(database.items("PersistentVolumeClaim")) == 3
    database.patch("StatefulSet", "db", {"spec": {"replicas": 3}})
    until_ready(database, 3)
    assert [len(starts(database, f"db-{number}")) for number in range(3)] == [1, 3, 2]


def test_data_outlives_the_platform_and_all_its_pods(database: Platform) -> None:
    left = database.end()
    assert left == []
    database.start()
    until_ready(database, 3)
    eventually(lambda: all(is_ready(each) for each in database.items("Pod", "app=db")))
    assert [starts(database, f"db-{number}")[-1] for number in range(3)] == ["db-0", "db-1", "db-2"]
    assert [len(starts(database, f"db-{number}")) for number in range(3)] == [2, 4, 3]
