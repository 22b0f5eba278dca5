"""Helm 4: installs, upgrades, rolls back and removes a chart with hooks and custom objects, by server-side apply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clientskit import Command, Server, client_program, eventually, line_of, running, serving_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
CHART = str(Path(__file__).parents[1] / "support" / "helmchart")
MAPS = ["one", "one-plain", "one-before", "one-passing", "one-after"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    client_program("helm")
    with serving_program(tmp_path_factory.mktemp("helm")) as found:
        yield found


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("_", "-")


@pytest.fixture
def helm(server: Server, namespace: str) -> Command:
    return Command(client_program("helm"), server, ("-n", namespace))


@pytest.fixture
def kubectl(server: Server, namespace: str) -> Command:
    return Command(client_program("kubectl"), server, ("-n", namespace))


@pytest.fixture
def installed(helm: Command) -> str:
    return helm("install", "one", CHART, "--create-namespace")


def maps(kubectl: Command) -> list[str]:
    """The config maps of the chart and its hooks that are there."""
    names = kubectl("get", "cm", "-o", "jsonpath={.items[*].metadata.name}").split()
    return [name for name in MAPS if name in names]


def history(helm: Command) -> list[tuple[int, str]]:
    return [(each["revision"], each["status"]) for each in json.loads(helm("history", "one", "-o", "json"))]


def test_install(helm: Command, kubectl: Command, installed: str) -> None:
    assert "STATUS: deployed\nREVISION: 1" in installed
    assert maps(kubectl) == ["one", "one-plain", "one-before"]
    assert kubectl("get", "boat", "one", "-o", "jsonpath={.spec.crew}") == "3"
    assert kubectl("get", "deploy,svc,sa,role,rolebinding", "one", "-o", "name").split("\n") == [
        "deployment.apps/one",
        "service/one",
        "serviceaccount/one",
        "role.rbac.authorization.k8s.io/one",
        "rolebinding.rbac.authorization.k8s.io/one",
    ]
    found = kubectl.json("get", "deploy", "one", "--show-managed-fields")["metadata"]
    assert [(each["manager"], each["operation"]) for each in found["managedFields"]] == [("helm", "Apply")]
    assert found["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    data = kubectl.json("get", "cm", "one")["data"]
    assert (data["seen"], data["kube"].split("+")[0]) == ("default", "v1.36.0")
    account = f"system:serviceaccount:{helm.always[1]}:one"
    assert kubectl("auth", "can-i", "get", "pods", f"--as={account}") == "yes"
    assert "==> v1/Boat" in helm("status", "one")
    assert json.loads(helm("list", "-o", "json"))[0]["chart"] == "fleet-0.1.0"
    assert "cannot reuse a name that is still in use" in helm.fails("install", "one", CHART)


@pytest.mark.usefixtures("installed")
def test_upgrade_and_rollback(helm: Command, kubectl: Command) -> None:
    values = ("--set", "replicas=2", "--set", "extra=true", "--set", "crew=9")
    dry = helm("upgrade", "one", CHART, *values, "--dry-run=server")
    assert "STATUS: pending-upgrade" in dry
    assert history(helm) == [(1, "deployed")]
    assert "has been upgraded" in helm("upgrade", "one", CHART, *values)
    assert maps(kubectl) == ["one", "one-before", "one-after"]
    assert kubectl("get", "secret", "one-extra", "-o", "jsonpath={.data.a}") == "Yg=="
    assert kubectl("get", "deploy", "one", "-o", "jsonpath={.spec.replicas}") == "2"
    assert kubectl("get", "boat", "one", "-o", "jsonpath={.spec.crew}") == "9"
    assert kubectl("get", "cm", "one-after", "-o", "jsonpath={.data.revision}") == "2"
    assert 'replicas: "2"' in helm("get", "manifest", "one")
    assert json.loads(helm("get", "values", "one", "-o", "json")) == {"crew": 9, "extra": True, "replicas": 2}
    assert "Rollback was a success" in helm("rollback", "one", "1")
    assert history(helm) == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    assert "one-plain" in maps(kubectl)
    assert "not found" in kubectl.fails("get", "secret", "one-extra")
    assert kubectl("get", "deploy", "one", "-o", "jsonpath={.spec.replicas}") == "1"
    assert "already exists" not in helm("upgrade", "one", CHART)
    assert helm("uninstall", "one") == 'release "one" uninstalled'
    assert maps(kubectl) == ["one-before", "one-after"]
    assert "not found" in kubectl.fails("get", "boat", "one")
    assert json.loads(helm("list", "-o", "json")) == []


@pytest.mark.usefixtures("installed")
def test_conflicts_with_other_managers(helm: Command, kubectl: Command) -> None:
    scale: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}}
    scale["spec"] = {"replicas": 7}
    applied = ("apply", "--server-side", "--field-manager=scaler", "--force-conflicts", "-f", "-")
    kubectl(*applied, data=json.dumps(scale))
    said = helm.fails("upgrade", "one", CHART, "--set", "replicas=2")
    assert re.search(r'conflict with "scaler".*\.spec\.replicas', said, re.DOTALL)
    assert history(helm) == [(1, "deployed"), (2, "failed")]
    assert kubectl("get", "deploy", "one", "-o", "jsonpath={.spec.replicas}") == "7"
    assert "has been upgraded" in helm("upgrade", "one", CHART, "--set", "replicas=2", "--force-conflicts")
    assert kubectl("get", "deploy", "one", "-o", "jsonpath={.spec.replicas}") == "2"


@pytest.mark.usefixtures("installed")
def test_waiting_for_what_becomes_ready(helm: Command, kubectl: Command) -> None:
    assert "Deployment" in helm.fails("upgrade", "one", CHART, "--wait", "--timeout=1s")
    with running(helm, "upgrade", "one", CHART, "--wait", "--timeout=30s") as upgrading:
        eventually(lambda: (3, "pending-upgrade") in history(helm))
        generation = kubectl.json("get", "deploy", "one")["metadata"]["generation"]
        full = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        available = {"type": "Available", "status": "True", "reason": "R", "message": ""}
        progressing = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""}
        status = {**full, "observedGeneration": generation, "conditions": [available, progressing]}
        kubectl("patch", "deploy", "one", "--subresource=status", "-p", json.dumps({"status": status}))
        assert "has been upgraded" in line_of(upgrading, 30)


@pytest.mark.usefixtures("installed")
def test_tests_of_a_chart(helm: Command, kubectl: Command) -> None:
    with running(helm, "test", "one", "--timeout=30s") as testing:
        eventually(lambda: kubectl("get", "pod", "one-test", "--ignore-not-found", "-o", "name") == "pod/one-test")
        kubectl("patch", "pod", "one-test", "--subresource=status", "-p", '{"status":{"phase":"Succeeded"}}')
        said = "".join(iter(lambda: line_of(testing, 30), ""))
        assert "Phase:          Succeeded" in said
        assert testing.wait(10) == 0
