"""Real kubectl, 1.37 and 1.20, with objects: apply, get, describe, edit, patch, scale, roll out, wait, delete."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clientskit import (
    Command,
    Server,
    client_program,
    dump,
    eventually,
    line_of,
    make_namespace,
    running,
    serving_program,
    ship_definition,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
Object = dict[str, Any]

SHIPS = "ships.example.com"


def deployment(name: str = "web", replicas: int = 2, image: str = "nginx:1") -> Object:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "web", "image": image, "ports": [{"containerPort": 80}]}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name: str = "web") -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config(name: str = "c", data: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"a": "b"} if data is None else data,
    }


def pod(name: str, node: str = "", **metadata: Any) -> Object:
    spec: Object = {"containers": [{"name": "app", "image": "nginx", "resources": {"requests": {"cpu": "1"}}}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def ship(name: str, crew: Any = 3) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Ship", "metadata": {"name": name}, "spec": {"crew": crew}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_program(tmp_path_factory.mktemp("kubectl")) as found:
        yield found


@pytest.fixture(scope="module")
def new(server: Server) -> Command:
    """The newest kubectl, for what the tests set up."""
    return Command(client_program("kubectl"), server)


@pytest.fixture(scope="module", params=["kubectl", "kubectl-1.20"])
def kubectl(request: pytest.FixtureRequest, server: Server) -> Command:
    return Command(client_program(str(request.param)), server)


@pytest.fixture(scope="module")
def ships(new: Command) -> None:
    new("apply", "-f", "-", data=dump(ship_definition()))
    new("wait", "--for=condition=Established", f"crd/{SHIPS}")


@pytest.fixture
def k(kubectl: Command, request: pytest.FixtureRequest) -> Command:
    """Kubectl in a namespace of the test's own."""
    name = re.sub("[^a-z]+", "-", request.node.name.replace("kubectl", "")).strip("-") + ("-old" if kubectl.old else "")
    make_namespace(kubectl.server, name)
    return kubectl.with_("-n", name)


def namespace(k: Command) -> str:
    return k.always[-1]


def deleted(k: Command, *lines: str) -> str:
    """What kubectl says about deleted objects: the new one adds the namespace."""
    return "\n".join(line if k.old else f"{line} from {namespace(k)} namespace" for line in lines)


class TestApply:
    def test_apply_creates_changes_and_leaves_alone(self, k: Command, tmp_path: Path) -> None:
        first, second = tmp_path / "first.json", tmp_path / "second.json"
        first.write_text(dump(deployment(), service(), config(data={"a": "b", "gone": "x"})))
        second.write_text(dump(deployment(replicas=3), service(), config(data={"a": "c"})))
        names = ("deployment.apps/web", "service/web", "configmap/c")
        assert k("apply", "-f", str(first)).split("\n") == [f"{name} created" for name in names]
        k("annotate", "cm", "c", "others=stays")
        assert k("apply", "-f", str(first)).split("\n") == [f"{name} unchanged" for name in names]
        code, out, _ = k.whole("diff", "-f", str(second))
        assert code == 1
        assert {"-  replicas: 2", "+  replicas: 3", "-  a: b", "+  a: c", "-  gone: x"} <= set(out.split("\n"))
        assert k("apply", "--dry-run=server", "-f", str(second)).startswith(
            "deployment.apps/web configured (server dry"
        )
        assert k("apply", "-f", str(second)).split("\n") == [
            "deployment.apps/web configured",
            "service/web unchanged",
            "configmap/c configured",
        ]
        assert k("diff", "-f", str(second)) == ""
        found = k.json("get", "cm", "c")
        assert found["data"] == {"a": "c"}
        assert found["metadata"]["annotations"]["others"] == "stays"

    def test_apply_on_the_server(self, k: Command, tmp_path: Path) -> None:
        file = tmp_path / "app.json"
        file.write_text(dump(deployment(), config()))
        applied = "deployment.apps/web serverside-applied\nconfigmap/c serverside-applied"
        assert k("apply", "--server-side", "-f", str(file)) == applied
        assert k("apply", "--server-side", "-f", str(file)) == applied
        file.write_text(dump(config(data={"a": "other"})))
        said = k.fails("apply", "--server-side", "--field-manager=mine", "-f", str(file))
        assert 'conflict with "kubectl": .data.a' in said
        k("apply", "--server-side", "--field-manager=mine", "--force-conflicts", "-f", str(file))
        found = k.json("get", "cm", "c", *([] if k.old else ["--show-managed-fields"]))
        owned = {each["manager"]: each for each in found["metadata"]["managedFields"]}
        assert found["data"] == {"a": "other"}
        assert owned["mine"]["operation"] == "Apply"
        assert "f:a" not in owned.get("kubectl", {"fieldsV1": {}})["fieldsV1"].get("f:data", {})

    def test_server_side_apply_takes_over_from_client_side(self, k: Command, tmp_path: Path) -> None:
        file = tmp_path / "app.json"
        file.write_text(dump(config(data={"a": "b", "x": "y"})))
        k("apply", "-f", str(file))
        file.write_text(dump(config(data={"a": "z"})))
        assert k("apply", "--server-side", "-f", str(file)) == "configmap/c serverside-applied"
        wanted = {"a": "z", "x": "y"} if k.old else {"a": "z"}
        assert k.json("get", "cm", "c")["data"] == wanted

    def test_prune(self, k: Command, tmp_path: Path) -> None:
        file = tmp_path / "app.json"
        file.write_text(dump(config("one", labels={"set": "s"}), config("two", labels={"set": "s"})))
        k("apply", "-f", str(file))
        file.write_text(dump(config("one", labels={"set": "s"})))
        code, out, _ = k.whole(
            "apply",
            "--prune",
            "-l",
            "set=s",
            "--prune-whitelist=core/v1/ConfigMap" if k.old else "--prune-allowlist=core/v1/ConfigMap",
            "-f",
            str(file),
        )
        assert (code, out) == (0, "configmap/one unchanged\nconfigmap/two pruned\n")
        assert k("get", "cm", "-l", "set=s", "-o", "name") == "configmap/one"

    def test_sets_of_applied_objects(self, k: Command, tmp_path: Path) -> None:
        if k.old:
            pytest.skip("kubectl 1.20 has no --applyset")
        file = tmp_path / "app.json"
        k = k.with_(KUBECTL_APPLYSET="true")
        arguments = ("apply", "--prune", "--applyset=configmaps/set", "--server-side", "-f", str(file))
        file.write_text(dump(service(), config("member")))
        assert k(*arguments) == "service/web serverside-applied\nconfigmap/member serverside-applied"
        file.write_text(dump(service()))
        assert k(*arguments) == "service/web serverside-applied\nconfigmap/member pruned"
        assert k("get", "cm", "-l", "applyset.kubernetes.io/id", "-o", "name") == "configmap/set"

    def test_kustomize(self, k: Command, tmp_path: Path) -> None:
        (tmp_path / "cm.json").write_text(json.dumps(config()))
        (tmp_path / "kustomization.yaml").write_text(
            "resources: [cm.json]\nnamePrefix: my-\n"
            "generatorOptions: {disableNameSuffixHash: true}\nsecretGenerator:\n- name: s\n  literals: [p=w]\n"
        )
        said = k("apply", "-k", str(tmp_path)).split("\n")
        assert sorted(said) == ["configmap/my-c created", "secret/my-s created"]
        assert set(k("get", "cm/my-c", "secret/my-s", "-o", "name").split("\n")) == {"configmap/my-c", "secret/my-s"}
        said = k("delete", "-k", str(tmp_path)).split("\n")
        assert sorted(said) == deleted(k, 'configmap "my-c" deleted', 'secret "my-s" deleted').split("\n")

    def test_replace(self, k: Command) -> None:
        k.made(config())
        before = k.json("get", "cm", "c")["metadata"]["uid"]
        sent = json.dumps(config(data={"n": "1"}))
        assert k("replace", "-f", "-", data=sent) == "configmap/c replaced"
        assert k("replace", "--force", "-f", "-", data=sent) == (
            deleted(k, 'configmap "c" deleted') + "\nconfigmap/c replaced"
        )
        assert k.json("get", "cm", "c")["metadata"]["uid"] != before
        stale = config(resourceVersion="1")
        assert "the object has been modified" in k.fails("replace", "-f", "-", data=json.dumps(stale))

    def test_wrong_objects_are_refused(self, k: Command) -> None:
        wrong = deployment(replicas=-1)
        said = k.fails("create", "-f", "-", data=json.dumps(wrong))
        assert 'The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than' in said
        unknown = {**config(), "dta": {}}
        said = k.fails("create", "-f", "-", data=json.dumps(unknown))
        assert ('unknown field "dta" in io.k8s.api.core.v1.ConfigMap' if k.old else 'unknown field "dta"') in said
        assert 'configmaps "absent" not found' in k.fails("get", "cm", "absent")
        assert k.fails("get", "nothings") == 'error: the server doesn\'t have a resource type "nothings"'


class TestReading:
    def test_outputs(self, k: Command) -> None:
        k.made(deployment(), pod("p", labels={"app": "x"}))
        table = [line.split() for line in k("get", "deploy").split("\n")]
        assert table[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
        assert table[1][:4] == ["web", "0/2", "0", "0"]
        wide = [line.split() for line in k("get", "deploy", "web", "-o", "wide").split("\n")]
        assert wide[0][5:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
        assert wide[1][5:] == ["web", "nginx:1", "app=web"]
        assert k("get", "deploy", "--no-headers").split()[0] == "web"
        assert k("get", "po", "--show-labels").split("\n")[1].split()[-1] == "app=x"
        assert k("get", "po", "-L", "app").split("\n")[1].split()[-1] == "x"
        assert k("get", "deploy,po", "-o", "name") == "deployment.apps/web\npod/p"
        assert k("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {..image}") == "2 nginx:1"
        columns = k("get", "deploy", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas")
        assert [line.split() for line in columns.split("\n")] == [["N", "R"], ["web", "2"]]
        assert k("get", "deploy", "web", "-o", "go-template={{.spec.replicas}}") == "2"
        assert "  replicas: 2\n" in k("get", "deploy", "web", "-o", "yaml")
        found = k.json("get", "deploy")
        assert (found["kind"], found["items"][0]["spec"]["replicas"]) == ("List", 2)
        whole = k("get", "all", "-o", "wide").split("\n")
        assert [line.split()[0] for line in whole if line] == ["NAME", "pod/p", "NAME", "deployment.apps/web"]
        assert k.whole("get", "cronjobs") == (0, "", f"No resources found in {namespace(k)} namespace.\n")
        assert k("get", "cm", "absent", "--ignore-not-found") == ""

    def test_lists_in_chunks_and_selections(self, k: Command) -> None:
        k.made(*(config(f"c{number:02}", labels={"half": str(number % 2)}) for number in range(23)))
        names = [f"configmap/c{number:02}" for number in range(23)]
        assert k("get", "cm", "--chunk-size=5", "-o", "name").split("\n") == [*names, "configmap/kube-root-ca.crt"]
        assert len(k("get", "cm", "--chunk-size=5").split("\n")) == 25
        everywhere = k("get", "cm", "-A", "--chunk-size=5", "--no-headers").split("\n")
        assert len([line for line in everywhere if line.split()[0] == namespace(k)]) == 24
        assert k("get", "cm", "-l", "half=1", "-o", "name").split("\n") == names[1::2]
        assert k("get", "cm", "-l", "half notin (1),half", "-o", "name").split("\n") == names[::2]
        assert k("get", "cm", "--field-selector=metadata.name=c05", "-o", "name") == "configmap/c05"
        said = k.fails("get", "cm", "--field-selector=data.a=b")
        assert '"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"' in said
        assert k("get", "cm", "--sort-by=.metadata.name", "--no-headers").split("\n")[3].split()[0] == "c03"

    def test_watch(self, k: Command, new: Command) -> None:
        k.made(config("one"))
        arguments = ("get", "cm", "one", "-w", "-o", "jsonpath={.data.a}{'\\n'}")
        with running(k, *arguments) as watching:
            assert line_of(watching) == "b\n"
            k("patch", "cm", "one", "-p", '{"data":{"a":"seen"}}')
            assert line_of(watching) == "seen\n"
        with running(k, "get", "cm", "--watch-only", "--output-watch-events", "--no-headers") as watching:
            # Nothing says that the watch has begun, so what it should see happens until it does.
            for number in range(50):
                k.made(config(f"n{number}"))
                if line := line_of(watching, 0.3):
                    break
            assert line.split()[0] == "ADDED"
            assert line.split()[1].startswith("n")

    def test_describe(self, k: Command, ships: None) -> None:
        k.made(deployment(), service(), pod("p"), config("c", data={"key": "value"}), ship("s", 7))
        k("create", "secret", "generic", "s", "--from-literal=p=word")
        said = k("describe", "pod", "p")
        assert "Status:           Pending" in said or k.old
        assert "QoS Class:                   Burstable" in said
        assert "/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-" in said
        assert "Replicas:               2 desired | 0 updated | 0 total | 0 available" in k("describe", "deploy/web")
        said = k("describe", "service", "web")
        assert "80/TCP" in said
        assert f"IP:                {'' if k.old else '       '}10." in said
        said = k("describe", "secret", "s")
        assert "p:  4 bytes" in said
        assert "word" not in said
        assert "key:\n----\nvalue" in k("describe", "cm", "c")
        assert f"Name:         {namespace(k)}\n" in k("describe", "namespace", namespace(k))
        assert "Crew:  7" in k("describe", "ship", "s")
        assert re.search(r"Plural: +ships\n", k("describe", "crd", SHIPS))
        assert "Type:" in k("describe", "pods,services", "-A")

    def test_events(self, k: Command) -> None:
        k.made(
            pod("p"),
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": "p.1"},
                "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": namespace(k)},
                "reason": "Sailed",
                "message": "it has sailed",
                "type": "Normal",
                "lastTimestamp": "2026-01-01T00:00:00Z",
            },
        )
        assert k("get", "events").split("\n")[1].split()[1:] == ["Normal", "Sailed", "pod/p", "it", "has", "sailed"]
        uid = k.json("get", "pod", "p")["metadata"]["uid"]
        assert k("get", "events", f"--field-selector=involvedObject.uid={uid}", warns="No resources found") == ""
        named = "--field-selector=involvedObject.name=p,reason=Sailed"
        assert k("get", "events", named, "-o", "name") == "event/p.1"
        if not k.old:
            assert "it has sailed" in k("events", "--for=pod/p")

    def test_explain(self, k: Command, ships: None) -> None:
        assert "image" in k("explain", "pod.spec.containers.image")
        assert {"readinessProbe", "imagePullPolicy"} <= set(k("explain", "deployment", "--recursive").split())
        said = k("explain", "ships.spec")
        assert "How many sail." in said
        assert ("-required-" in said) == (not k.old or "-required-" in said)
        assert 'field "nothing" does not exist' in k.fails("explain", "pod.spec.nothing")

    def test_what_there_is(self, k: Command, ships: None) -> None:
        versions = k("api-versions").split("\n")
        assert {"v1", "apps/v1", "autoscaling/v2", "example.com/v1"} <= set(versions)
        assert versions == sorted(versions)
        found = k("api-resources", "--api-group=apps", "--no-headers").split("\n")
        assert [line.split() for line in found][1:3] == [
            ["daemonsets", "ds", "apps/v1", "true", "DaemonSet"],
            ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ]
        assert "ships.example.com" in k("api-resources", "-o", "name", "--verbs=list,watch").split("\n")
        said = k("cluster-info")
        assert k.server.url in said
        assert "control plane" in said
        assert "Server Version: v" in k("version") or k.old
        assert json.loads(k("get", "--raw", "/version"))["minor"] == "36"
        assert k("get", "--raw", "/readyz") == "ok"
        assert "Metrics API not available" in k.fails("top", "pods")
        assert "Metrics API not available" in k.fails("top", "nodes")

    def test_autoscalers_in_both_versions(self, k: Command) -> None:
        k.made(deployment())
        k("autoscale", "deployment", "web", "--max=5", "--cpu-percent=60" if k.old else "--cpu=60%")
        first = k.json("get", "horizontalpodautoscalers.v1.autoscaling", "web")
        second = k.json("get", "horizontalpodautoscalers.v2.autoscaling", "web")
        assert (first["apiVersion"], first["spec"]["targetCPUUtilizationPercentage"]) == ("autoscaling/v1", 60)
        wanted = {"name": "cpu", "target": {"averageUtilization": 60, "type": "Utilization"}}
        assert second["spec"]["metrics"] == [{"type": "Resource", "resource": wanted}]


class TestChanging:
    def test_edit(self, k: Command, tmp_path: Path) -> None:
        editor = tmp_path / "editor"
        editor.write_text('#!/bin/sh\nsed -i "s/a: b/a: edited/" "$1"\n')
        editor.chmod(0o755)
        k.made(config())
        edited = k.with_(EDITOR=str(editor))
        assert edited("edit", "cm", "c") == "configmap/c edited"
        assert k("get", "cm", "c", "-o", "jsonpath={.data.a}") == "edited"
        assert edited("edit", "cm", "c", warns="Edit cancelled, no changes made.") == ""

    def test_patches(self, k: Command, new: Command) -> None:
        k.made(deployment(), config())
        wanted = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"x"}]}}}}'
        assert k("patch", "deploy", "web", "-p", wanted) == "deployment.apps/web patched"
        assert k("get", "deploy", "web", "-o", "jsonpath={..image}") == "x nginx:1"
        assert k("patch", "deploy", "web", "-p", wanted) == "deployment.apps/web patched (no change)"
        k("patch", "deploy", "web", "--type=merge", "-p", wanted)
        assert k("get", "deploy", "web", "-o", "jsonpath={..image}") == "x"
        k("patch", "cm", "c", "--type=json", "-p", '[{"op":"add","path":"/data/z","value":"1"}]')
        k("patch", "cm", "c", "--type=merge", "-p", '{"data":{"a":null}}')
        assert k.json("get", "cm", "c")["data"] == {"z": "1"}
        wrong = '[{"op":"test","path":"/data/z","value":"2"}]'
        assert "The request is invalid" in k.fails("patch", "cm", "c", "--type=json", "-p", wrong)
        if not k.old:
            status = '{"spec":{"replicas":9},"status":{"replicas":4}}'
            k("patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", status)
            assert k("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.status.replicas}") == "2 4"
            scale = k("get", "deploy", "web", "--subresource=scale", "--no-headers").split()
            assert scale[:3] == ["web", "2", "4"]

    def test_labels_annotations_and_taints(self, k: Command) -> None:
        k.made(config())
        assert k("label", "cm", "c", "k=v") == "configmap/c labeled"
        assert k.fails("label", "cm", "c", "k=w") == "error: 'k' already has a value (v), and --overwrite is false"
        k("label", "cm", "c", "k=w", "--overwrite")
        assert k("annotate", "cm", "--all", "who=me").split("\n")[0] == "configmap/c annotated"
        metadata = k.json("get", "cm", "c")["metadata"]
        assert (metadata["labels"], metadata["annotations"]) == ({"k": "w"}, {"who": "me"})
        k("label", "cm", "c", "k-")
        assert "labels" not in k.json("get", "cm", "c")["metadata"]
        k(
            "create",
            "-f",
            "-",
            data=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": namespace(k)}}),
        )
        assert k("taint", "node", namespace(k), "a=b:NoSchedule") == f"node/{namespace(k)} tainted"
        assert "a=b:NoSchedule" in k("describe", "node", namespace(k))

    def test_scale(self, k: Command, ships: None) -> None:
        k.made(deployment(), ship("s", 3))
        assert k("scale", "deploy/web", "--replicas=4") == "deployment.apps/web scaled"
        said = k.fails("scale", "deploy", "web", "--replicas=5", "--current-replicas=3")
        assert said == "error: Expected replicas to be 3, was 4"
        assert k("scale", "deploy", "web", "--replicas=5", "--current-replicas=4") == "deployment.apps/web scaled"
        assert k("scale", "ship/s", "--replicas=8") == "ship.example.com/s scaled"
        assert k("get", "deploy/web", "ship/s", "-o", "jsonpath={.items[*].spec['replicas','crew']}") == "5 8"

    def test_setting(self, k: Command) -> None:
        k.made(deployment())
        assert k("set", "image", "deploy/web", "web=nginx:9") == "deployment.apps/web image updated"
        assert k("set", "env", "deploy/web", "A=1") == "deployment.apps/web env updated"
        k("set", "resources", "deploy/web", "--limits=cpu=1,memory=1Gi")
        found = k.json("get", "deploy", "web")["spec"]["template"]["spec"]["containers"][0]
        assert (found["image"], found["env"]) == ("nginx:9", [{"name": "A", "value": "1"}])
        assert found["resources"] == {"limits": {"cpu": "1", "memory": "1Gi"}}

    def test_rollouts(self, k: Command, new: Command) -> None:
        assert namespace(k)
        new = new.with_("-n", namespace(k))
        k.made(deployment(image="nginx:2"))
        found = k.json("get", "deploy", "web")
        for revision in (1, 2):
            new.made(replica_set(found, revision))
        k("annotate", "deploy", "web", "deployment.kubernetes.io/revision=2")
        lines = [line.split() for line in k("rollout", "history", "deploy/web").split("\n")]
        assert lines[1:] == [["REVISION", "CHANGE-CAUSE"], ["1", "first"], ["2", "<none>"]] or k.old
        assert "nginx:1" in k("rollout", "history", "deploy/web", "--revision=1")
        assert k.fails("rollout", "status", "deploy/web", "--timeout=1s").endswith(
            "timed out waiting for the condition"
        )
        full = {
            "observedGeneration": 9,
            "replicas": 2,
            "updatedReplicas": 2,
            "readyReplicas": 2,
            "availableReplicas": 2,
        }
        new("patch", "deploy", "web", "--subresource=status", "-p", json.dumps({"status": full}))
        assert k("rollout", "status", "deploy/web") == 'deployment "web" successfully rolled out'
        assert k("rollout", "undo", "deploy/web") == "deployment.apps/web rolled back"
        assert k("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:1"
        assert k("rollout", "pause", "deploy/web") == "deployment.apps/web paused"
        assert "paused" in k.fails("rollout", "restart", "deploy/web")
        assert k("rollout", "resume", "deploy/web") == "deployment.apps/web resumed"
        assert k("rollout", "restart", "deploy/web") == "deployment.apps/web restarted"
        assert "restartedAt" in k("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}")


def replica_set(owner: Object, revision: int) -> Object:
    """A replica set as the controller of deployments makes it."""
    digest = f"hash{revision}"
    template = json.loads(json.dumps(owner["spec"]["template"]))
    template["metadata"]["labels"]["pod-template-hash"] = digest
    template["spec"]["containers"][0]["image"] = f"nginx:{revision}"
    reference = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = template["metadata"]["labels"]
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    if revision == 1:
        annotations["kubernetes.io/change-cause"] = "first"
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"web-{digest}",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [reference],
        },
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }


class TestWaitingAndDeleting:
    def test_waits(self, k: Command, new: Command) -> None:
        new = new.with_("-n", namespace(k))
        k.made(pod("p"), config())
        said = k.fails("wait", "--for=condition=Ready", "pod/p", "--timeout=1s")
        assert said == "error: timed out waiting for the condition on pods/p"
        with running(k, "wait", "--for=condition=Ready", "pod/p", "--timeout=20s") as waiting:
            ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            new("patch", "pod", "p", "--subresource=status", "-p", json.dumps(ready))
            assert line_of(waiting) == "pod/p condition met\n"
            assert waiting.wait(10) == 0
        with running(k, "wait", "--for=delete", "cm/c", "--timeout=20s") as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            new("delete", "cm", "c")
            assert line_of(waiting) == "configmap/c condition met\n"
            assert waiting.wait(10) == 0
        if not k.old:
            with running(k, "wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=20s") as waiting:
                new("patch", "pod", "p", "--subresource=status", "-p", '{"status":{"phase":"Running"}}')
                assert line_of(waiting) == "pod/p condition met\n"

    @pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
    def test_dependents(self, k: Command, cascade: str) -> None:
        k.made(config(f"owner-{cascade}"))
        owner = k.json("get", "cm", f"owner-{cascade}")["metadata"]
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
        reference["blockOwnerDeletion"] = True
        k.made(config(f"kept-{cascade}", ownerReferences=[reference]))
        said = k("delete", "cm", owner["name"], f"--cascade={cascade}")
        assert said == deleted(k, f'configmap "{owner["name"]}" deleted')
        assert "not found" in k.fails("get", "cm", owner["name"])
        if cascade == "orphan":
            assert "ownerReferences" not in k.json("get", "cm", f"kept-{cascade}")["metadata"]
            return
        if cascade == "foreground":
            assert "not found" in k.fails("get", "cm", f"kept-{cascade}")
            return
        eventually(lambda: k("get", "cm", f"kept-{cascade}", "--ignore-not-found", "-o", "name") == "")

    def test_deleting_many(self, k: Command) -> None:
        k.made(config("a", labels={"x": "y"}), config("b", labels={"x": "y"}), config("c"), pod("p"))
        assert k("delete", "cm", "-l", "x=y") == deleted(k, 'configmap "a" deleted', 'configmap "b" deleted')
        assert "not found" in k.fails("delete", "cm", "a")
        assert k("delete", "cm", "a", "--ignore-not-found") == ""
        assert k("delete", "pod", "p", "--dry-run=server").startswith('pod "p" deleted')
        assert k("get", "pod", "p", "-o", "name") == "pod/p"
        code, out, _ = k.whole("delete", "pod", "p", "--grace-period=0", "--force")
        assert (code, out.split(" deleted")[0]) == (0, 'pod "p" force' if k.old or "force" in out else 'pod "p"')
        assert k("get", "pods", warns="No resources found") == ""

    def test_a_namespace_goes_with_what_it_has(self, k: Command) -> None:
        k.made(deployment(), config(finalizers=["example.com/hold"]))
        name = namespace(k)
        with running(k, "delete", "namespace", name) as deleting:
            eventually(lambda: k("get", "ns", name, "-o", "jsonpath={.status.phase}") == "Terminating")
            eventually(lambda: k("get", "deploy", "-o", "name") == "")
            said = k.fails("create", "cm", "late")
            assert "because it is being terminated" in said
            k("patch", "cm", "c", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            assert deleting.wait(15) == 0
        assert "not found" in k.fails("get", "ns", name)
