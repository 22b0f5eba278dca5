"""`pilothouse up`: Helm installs, tests, upgrades, rolls back and removes a chart of the shapes that charts have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import PORT, SERVER, Load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CHART = str(Path(__file__).parents[1] / "support" / "helmapp")


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        made.client("helm")
        values = tmp_path_factory.mktemp("helm") / "values.json"
        values.write_text(json.dumps({"program": SERVER}))
        helm(made, "install", "shop", CHART, "-f", str(values), "--wait", "--timeout", "60s")
        yield made


def helm(platform: Platform, *arguments: str) -> str:
    done = platform.whole("helm", *arguments)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr, platform.told("default"))
    return done.stdout


def address(platform: Platform) -> str:
    found = platform.get("Service", "shop-app")["spec"]["clusterIP"]
    assert isinstance(found, str)
    return found


def ready(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = platform.get("Deployment", "shop-app")
    return found


def test_what_was_installed_runs(platform: Platform) -> None:
    assert ready(platform)["status"]["readyReplicas"] == 2
    assert platform.get("StatefulSet", "shop-cache")["status"]["readyReplicas"] == 1
    assert platform.get("PersistentVolumeClaim", "data-shop-cache-0")["status"]["phase"] == "Bound"
    budget = platform.until("PodDisruptionBudget", "shop-app", lambda it: it["status"].get("expectedPods") == 2)
    assert budget["status"]["disruptionsAllowed"] == 1
    assert platform.get("Ingress", "shop-app")["spec"]["rules"][0]["host"] == "app.example"
    assert platform.kubectl("get", "widget", "shop-app", "-o", "jsonpath={.spec.color}") == "red"
    for name in ("migrate", "announce"):
        assert platform.kubectl("logs", f"job/shop-app-{name}") == f"{name} 1"
    with Load(address(platform), PORT) as load:
        eventually(lambda: load.count >= 20)
    assert load.failures == []


def test_its_account_may_what_its_role_says(platform: Platform) -> None:
    account = "--as=system:serviceaccount:default:shop-app"
    assert platform.kubectl("auth", "can-i", "get", "configmap/shop-app", account) == "yes"
    assert platform.whole("kubectl", "auth", "can-i", "get", "secret/shop-app", account).stdout.strip() == "no"


def test_its_tests_pass(platform: Platform) -> None:
    assert "Phase:          Succeeded" in helm(platform, "test", "shop", "--timeout", "60s")
    assert "1 " in platform.kubectl("logs", "shop-app-answers")


def answers_only(load: Load, version: str) -> bool:
    """Whether some answers in a row are of one version; the last of another may still have been ending."""
    if set(load.answers) - {version}:
        load.forget()
    return sum(load.answers.values()) >= 20


def test_an_upgrade_under_load_then_back(platform: Platform) -> None:
    changes = ("--set", "version=2,greeting=hi {{ .Release.Name }},autoscaling.enabled=true,cache.enabled=false")
    with Load(address(platform), PORT, kept=0) as load:
        helm(platform, "upgrade", "shop", CHART, "--reuse-values", *changes, "--wait", "--timeout", "60s")
        eventually(lambda: answers_only(load, "2"), lambda: load.answers)
    assert platform.get("ConfigMap", "shop-app")["data"]["greeting"] == "hi shop"
    assert platform.get("HorizontalPodAutoscaler", "shop-app")["spec"]["maxReplicas"] == 3
    platform.until_gone("StatefulSet", "shop-cache")
    assert platform.get("PersistentVolumeClaim", "data-shop-cache-0")["status"]["phase"] == "Bound"
    assert platform.kubectl("get", "widget", "shop-app", "-o", "jsonpath={.spec.color}") == "blue"
    helm(platform, "rollback", "shop", "1", "--wait", "--timeout", "60s")
    with Load(address(platform), PORT, kept=0) as load:
        eventually(lambda: answers_only(load, "1"), lambda: load.answers)
    assert platform.get("StatefulSet", "shop-cache")["status"]["readyReplicas"] == 1


def test_an_upgrade_that_cannot_be_is_undone_by_itself(platform: Platform) -> None:
    broken = ("--set", "image.repository=oci:/no/such/image", "--rollback-on-failure", "--timeout", "5s")
    done = platform.whole("helm", "upgrade", "shop", CHART, "--reuse-values", *broken, "--wait")
    assert done.returncode != 0
    assert [each["status"] for each in json.loads(helm(platform, "history", "shop", "-o", "json"))][-1] == "deployed"
    eventually(lambda: ready(platform)["status"].get("updatedReplicas") == 2)
    with Load(address(platform), PORT) as load:
        eventually(lambda: load.count >= 20)


def test_nothing_stays_but_claims_and_definitions(platform: Platform) -> None:
    helm(platform, "uninstall", "shop", "--wait", "--timeout", "60s")
    for kind in ("Deployment", "StatefulSet", "Ingress", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Role"):
        assert platform.items(kind) == []
    eventually(lambda: not platform.items("Pod", "component=web") + platform.items("Pod", "app=shop-cache"))
    assert len(platform.items("PersistentVolumeClaim")) == 1
    assert platform.kubectl("get", "crd", "widgets.app.example", "-o", "name").endswith("/widgets.app.example")
