"""`pilothouse operator manifests`: what it prints can be applied, and the operator works with exactly those rights."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pilothouse.apiserver.options import ServerOptions
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import Forbidden
from pilothouse.kinds.structs import Event, Lease, ObjectMeta, Secret
from pilothouse.operator import BuildError, Harness, Installation, LeaderElection, Manager, NotConverged, manifests_of
from pilothouse.operator.cli import operator
from pilothouse.operator.cli_crd import load_module
from pilothouse.operator.cli_run import webhook_options
from pilothouse.testing import BlockingPlane, ControlPlane

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "website.py"

FLEET = '''
from collections.abc import Sequence

from pilothouse.kinds.structs import Condition, ConfigMap, Deployment, ObjectMeta, Resource, Secret, Struct
from pilothouse.operator import GenericReconciler, Request, controller, converts, custom_resource, needs, webhook


class FleetStatus(Struct):
    observed_generation: int = 0
    conditions: Sequence[Condition] = ()


class Port(Resource, group="fleet.example.com", version="v1", plural="ports", namespaced=False):
    """A kind of the whole cluster that is only looked at."""


@custom_resource(storage=True)
class Fleet(Resource, group="fleet.example.com", version="v1", plural="fleets"):
    size: int = 1
    status: FleetStatus = FleetStatus()


class FleetV1Beta1(Resource, group="fleet.example.com", version="v1beta1", kind="Fleet", plural="fleets"):
    size: int = 1


class Certificate(Resource, group="cert-manager.io", version="v1", plural="certificates"):
    """A kind of others."""


@needs(Secret, "get", names=["password"])
class FleetReconciler(GenericReconciler[Fleet, ConfigMap]):
    owned = (ConfigMap,)
    finalizer = "fleet.example.com/harbour"

    def children(self, parent):
        for number in range(parent.size):
            yield ConfigMap(metadata=ObjectMeta(name=f"{parent.metadata.name}-{number}"), data={"ship": str(number)})

    async def reconcile(self, obj, context):
        await context.client.get(Secret, "password", obj.metadata.namespace)
        return await super().reconcile(obj, context)

    async def finalize(self, parent, context):
        context.recorder.normal(parent, "Left", "the harbour is free")
        return True


def build(manager):
    manager.scheme.register(Fleet, Port, Certificate)
    everyone = lambda port: [Request(port.metadata.namespace, "armada")]
    controller(manager).for_(Fleet).watches(Port, everyone).build(FleetReconciler())


def judged(manager):
    build(manager)
    webhook(manager).for_(Fleet).defaulted_by(fill_in).validated_by(judge).converted_by(newer, older).build()


def only_judged(manager):
    manager.scheme.register(Fleet)
    webhook(manager).for_(Fleet).validated_by(judge).converted_by(newer, older).build()


def fill_in(fleet, request):
    return fleet


def judge(fleet, request):
    return None


@converts
def newer(old: FleetV1Beta1) -> Fleet:
    return Fleet(metadata=old.metadata, size=old.size)


@converts
def older(new: Fleet) -> FleetV1Beta1:
    return FleetV1Beta1(metadata=new.metadata, size=new.size)


def nothing(manager):
    pass
'''


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "fleet_operator.py"
    path.write_text(FLEET)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(operator, ["manifests", *arguments])


def printed(*arguments: str) -> list[dict[str, Any]]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return [*yaml.safe_load_all(done.stdout)]


def named(objects: list[dict[str, Any]]) -> list[str]:
    return [f"{each['kind']} {each['metadata']['name']}" for each in objects]


async def apply(client: Client, objects: list[dict[str, Any]]) -> None:
    for each in objects:
        await client.dynamic(each["apiVersion"], each["kind"]).apply(each, force=True)


def test_everything_is_printed_in_an_order_that_can_be_applied(fleet: Path) -> None:
    objects = printed(str(fleet), "--image", "registry.example.com/fleet:2")
    name = "fleet-operator"
    assert named(objects) == [
        f"Namespace {name}",
        "CustomResourceDefinition fleets.fleet.example.com",
        "CustomResourceDefinition ports.fleet.example.com",
        f"ServiceAccount {name}",
        f"ClusterRole {name}",
        f"ClusterRoleBinding {name}",
        f"Role {name}",
        f"RoleBinding {name}",
        f"Deployment {name}",
    ]
    assert [one["name"] for one in objects[1]["spec"]["versions"]] == ["v1", "v1beta1"]


def test_the_deployment_is_fit_for_a_restricted_namespace(fleet: Path) -> None:
    arguments = [
        str(fleet),
        "--image",
        "registry.example.com/fleet:2",
        "--replicas",
        "3",
        "--name",
        "armada",
        "-n",
        "sea",
    ]
    deployment = printed(*arguments, "--command", "python -m fleet")[-1]
    assert deployment["metadata"]["namespace"] == "sea"
    assert deployment["spec"]["replicas"] == 3
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "armada"
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["terminationGracePeriodSeconds"] > 30
    container = pod["containers"][0]
    assert container["image"] == "registry.example.com/fleet:2"
    assert container["command"] == ["python", "-m", "fleet"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert container["resources"]["limits"].keys() == {"memory"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment == {
        "PILOTHOUSE_OPERATOR_HEALTH": f"0.0.0.0:{ports['health']}",
        "PILOTHOUSE_OPERATOR_LEADER_ELECT": "armada",
    }
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health", "scheme": "HTTPS"}


async def test_its_pod_is_admitted_there(fleet: Path) -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        objects = await asyncio.to_thread(printed, str(fleet), "--name", "op")
        await apply(client, objects)
        template = objects[-1]["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **template["metadata"]}}
        pods = client.dynamic("v1", "Pod")
        made = await pods.create({**pod, "spec": template["spec"]}, "op")
        assert made["spec"]["serviceAccountName"] == "op"
        free = {**template["spec"], "securityContext": {}}
        with pytest.raises(Forbidden, match='violates PodSecurity "restricted'):
            await pods.create({**pod, "metadata": {"name": "two"}, "spec": free}, "op")


def test_parts_can_be_left_out(fleet: Path) -> None:
    objects = printed(str(fleet), "--no-crds", "--no-leader-elect", "-n", "default", "--watch-namespace", "default")
    assert [each["kind"] for each in objects] == [
        "ServiceAccount",
        "ClusterRole",  # of ports, which are of the whole cluster
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Deployment",
    ]
    assert objects[1]["rules"] == [
        {"apiGroups": ["fleet.example.com"], "resources": ["ports"], "verbs": ["get", "list", "watch"]}
    ]
    container = objects[-1]["spec"]["template"]["spec"]["containers"][0]
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "PILOTHOUSE_OPERATOR_HEALTH": "0.0.0.0:8081",
        "PILOTHOUSE_OPERATOR_NAMESPACE": "default",
    }


def test_json_is_one_list_and_files_are_in_order(fleet: Path, tmp_path: Path) -> None:
    done = run(str(fleet), "-o", "json")
    assert named(json.loads(done.stdout)["items"]) == named(printed(str(fleet)))
    directory = tmp_path / "new" / "manifests"
    done = run(str(fleet), "--output-dir", str(directory))
    assert done.exit_code == 0, done.output
    written = sorted(directory.iterdir())
    assert [path.name for path in written] == [
        "00-namespace.yaml",
        "10-definitions.yaml",
        "20-rights.yaml",
        "30-deployment.yaml",
    ]
    assert done.stdout.split() == [str(path) for path in written]
    listed = [each for path in written for each in yaml.safe_load_all(path.read_text())]
    assert listed == printed(str(fleet))


def test_the_same_twice_is_the_same_text(fleet: Path) -> None:
    assert run(str(fleet)).stdout == run(str(fleet)).stdout
    assert "&id" not in run(str(fleet)).stdout


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["{fleet}:missing"], "it has no function missing", 2),
        (["{fleet}:nothing"], "it built no controllers", 1),
        (["no_such_module_at_all"], "no_such_module_at_all", 4),
        (["{fleet}", "--name", "No Name"], "name 'No Name': a DNS-1035 label", 2),
        (["{fleet}", "--namespace", "UP"], "namespace 'UP': a DNS-1035 label", 2),
        (["{fleet}", "--image", "two words"], "image 'two words': want a reference", 2),
        (["{fleet}", "--replicas", "2", "--no-leader-elect"], "without leader election", 2),
        (["{fleet}", "--replicas", "-1"], "-1 is not in the range", 2),
        (["{fleet}", "--command", "an 'open quote"], "--command", 2),
    ],
)
def test_what_is_wrong_is_said(fleet: Path, arguments: list[str], said: str, code: int) -> None:
    done = run(*(each.replace("{fleet}", str(fleet)) for each in arguments))
    assert said in done.output
    assert done.exit_code == code
    assert "Traceback" not in done.output


def test_help_has_examples() -> None:
    assert "kubectl apply" in run("--help").output


async def test_a_module_cannot_ask_a_server(fleet: Path) -> None:
    from pilothouse.client import ClientError
    from pilothouse.operator.cli_manifests import _NoServer

    client = Client.for_transport(_NoServer())
    with pytest.raises(ClientError, match="manifests are made without a server"):
        await client.get(Lease, "any")


async def rights_of(client: Client, account: str) -> Client:
    namespace, name = account.split("/")
    await client.dynamic("v1", "ServiceAccount").get(name, namespace)
    return client.as_user(f"system:serviceaccount:{namespace}:{name}")


WEBSITE = {"apiVersion": "example.com/v1", "kind": "Website", "metadata": {"name": "a"}, "spec": {"html": "a"}}
ARMADA = {"apiVersion": "fleet.example.com/v1", "kind": "Fleet", "metadata": {"name": "armada"}, "size": 2}
ELECTION = LeaderElection(name="op", namespace="home", identity="me")


def strict() -> ServerOptions:
    """Have the server ask who may block the deletion of an owner, as some clusters do: who may set finalizers."""
    return ServerOptions(metrics=Metrics(), enable_admission=("OwnerReferencesPermissionEnforcement",))


@pytest.mark.parametrize("followed", ["*", "default"])
async def test_the_operator_works_with_exactly_these_rights(fleet: Path, followed: str) -> None:
    module = load_module(str(fleet))
    async with (
        ControlPlane(options=strict()) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        arguments = ["--name", "op", "-n", "home", "--watch-namespace", followed]
        await apply(client, await asyncio.to_thread(printed, str(fleet), *arguments))
        await client.create(Secret(metadata=ObjectMeta(name="password")))
        account = await rights_of(client, "home/op")
        harness = Harness(account, namespace=followed, leader_election=ELECTION)
        module.build(harness.manager)
        async with harness:
            fleets = client.dynamic("fleet.example.com/v1", "Fleet")
            await fleets.create(ARMADA)
            await harness.converge()
            await fleets.patch("armada", {"size": 1})  # one child is deleted, which is told by an event
            await harness.converge()
            found = await fleets.get("armada")
            assert found["metadata"]["finalizers"] == ["fleet.example.com/harbour"]
            assert found["status"]["conditions"][0]["reason"] == "ChildrenReady"
            assert (await client.get(Lease, "op", "home")).spec.holder_identity == "me"
            await harness.advance(1.0)  # events about one object within one moment have one name
            await fleets.delete("armada")
            await harness.converge()
            assert [each async for each in fleets.list()] == []
        reasons = {each.reason async for each in client.list(Event, "default")}
        assert {"Deleted", "Left"} <= reasons


def without(objects: list[dict[str, Any]], resource: str, verb: str) -> list[dict[str, Any]]:
    """Return the objects, their roles without a verb for a resource."""
    less: list[dict[str, Any]] = json.loads(json.dumps(objects))
    for role in (each for each in less if each["kind"].endswith("Role")):
        split = [{**rule, "resources": [name]} for rule in role["rules"] for name in rule["resources"]]
        for rule in (each for each in split if each["resources"] == [resource]):
            rule["verbs"] = [each for each in rule["verbs"] if each != verb]
        role["rules"] = [rule for rule in split if rule["verbs"]]
    return less


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("configmaps", "create"),
        ("configmaps", "patch"),
        ("fleets", "patch"),
        ("fleets/status", "patch"),
        ("fleets/finalizers", "update"),
        ("secrets", "get"),
    ],
)
async def test_without_one_of_them_it_does_not(fleet: Path, resource: str, verb: str) -> None:
    module = load_module(str(fleet))
    async with (
        ControlPlane(options=strict()) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        objects = await asyncio.to_thread(printed, str(fleet), "--name", "op", "-n", "home")
        await apply(client, without(objects, resource, verb))
        await client.create(Secret(metadata=ObjectMeta(name="password")))
        harness = Harness(await rights_of(client, "home/op"))
        module.build(harness.manager)
        async with harness:
            await client.dynamic("fleet.example.com/v1", "Fleet").create(ARMADA)
            said = (
                "cannot set blockOwnerDeletion" if "finalizers" in resource else f'cannot {verb} resource "{resource}"'
            )
            with pytest.raises(NotConverged, match=said):
                await harness.converge(seconds=3.0)


def test_webhooks_have_a_service_and_configurations(fleet: Path) -> None:
    objects = printed(f"{fleet}:judged", "--name", "op", "-n", "home")
    assert named(objects)[-3:] == [
        "Service op-webhooks",
        "MutatingWebhookConfiguration op-webhooks",
        "ValidatingWebhookConfiguration op-webhooks",
    ]
    container = objects[-4]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "webhooks", "containerPort": 9443} in container["ports"]
    assert {"name": "PILOTHOUSE_OPERATOR_WEBHOOKS", "value": "home/op-webhooks"} in container["env"]
    service = objects[-3]["spec"]
    assert service["selector"] == objects[-4]["spec"]["selector"]["matchLabels"]
    assert service["ports"] == [{"name": "webhooks", "port": 443, "targetPort": "webhooks"}]
    definition = next(each for each in objects if each["metadata"]["name"] == "fleets.fleet.example.com")
    client = definition["spec"]["conversion"]["webhook"]["clientConfig"]
    assert client["service"] == {"namespace": "home", "name": "op-webhooks", "path": "/convert", "port": 443}
    assert not any(each["kind"] == "Service" for each in printed(str(fleet)))


def test_an_operator_of_webhooks_alone_has_only_their_rights(fleet: Path) -> None:
    objects = printed(f"{fleet}:only_judged", "--name", "op", "-n", "home", "--no-leader-elect")
    assert "CustomResourceDefinition fleets.fleet.example.com" in named(objects)
    granted = {name for role in objects for rule in role.get("rules", ()) for name in rule["resources"]}
    assert granted == {"events", "secrets", "validatingwebhookconfigurations", "customresourcedefinitions"}


async def test_certificates_are_made_and_injected_with_exactly_these_rights(fleet: Path) -> None:
    module = load_module(str(fleet))
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        objects = await asyncio.to_thread(printed, f"{fleet}:judged", "--name", "op", "-n", "home")
        await apply(client, objects)
        options = dataclasses.replace(webhook_options("home/op-webhooks"), address="127.0.0.1:0")
        manager = Manager(await rights_of(client, "home/op"), leader_election=ELECTION, webhooks=options)
        module.judged(manager)
        async with manager, asyncio.timeout(30):
            assert manager.webhooks is not None
            await manager.webhooks.wait_ready()
            for kind in ("Mutating", "Validating"):
                handle = client.dynamic("admissionregistration.k8s.io/v1", f"{kind}WebhookConfiguration")
                found = await handle.get("op-webhooks")
                assert found["webhooks"][0]["clientConfig"]["caBundle"]
            assert (await client.get(Secret, "op-webhooks", "home")).data.keys() >= {"tls.crt", "tls.key"}
            crd = client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition")
            converted = (await crd.get("fleets.fleet.example.com"))["spec"]["conversion"]["webhook"]
            assert converted["clientConfig"]["caBundle"]


def test_webhooks_are_reached_by_a_service_or_a_url() -> None:
    assert webhook_options("home/op").secret_name("other") == ("home", "op")
    options = webhook_options("https://laptop.example.com:9444", "op")
    assert (options.name, options.address) == ("op-webhooks", "0.0.0.0:9444")
    with pytest.raises(BuildError, match="NAMESPACE/NAME"):
        webhook_options("op")


@pytest.mark.slow
def test_the_deployment_runs_as_printed(control_plane: BlockingPlane, tmp_path: Path) -> None:
    """The process that the Deployment starts, by its environment and its account's token, does its work over HTTPS."""
    objects = printed(str(EXAMPLE), "--name", "site")
    paths = {
        "Namespace": "/api/v1/namespaces",
        "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "ServiceAccount": "/api/v1/namespaces/site/serviceaccounts",
        "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/site/roles",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/site/rolebindings",
        "Deployment": "/apis/apps/v1/namespaces/site/deployments",
    }
    for each in objects:
        control_plane.call("POST", paths[each["kind"]], each)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = control_plane.call("POST", f"{paths['ServiceAccount']}/site/token", request)["status"]["token"]
    config = yaml.safe_load(Path(control_plane.kubeconfig).read_text())
    config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
    for each in config["contexts"]:
        each["context"]["namespace"] = "site"
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(config))
    container = objects[-1]["spec"]["template"]["spec"]["containers"][0]
    environment = {each["name"]: each["value"] for each in container["env"]}
    command = [sys.executable, "-m", "pilothouse", "operator", "run", str(EXAMPLE)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = environment["PILOTHOUSE_OPERATOR_HEALTH"].partition(":")[0]
    environment |= os.environ | {"KUBECONFIG": str(kubeconfig), "PILOTHOUSE_OPERATOR_HEALTH": f"{host}:{port}"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        try:
            control_plane.wait_for(
                f"{paths['CustomResourceDefinition']}/websites.example.com", lambda found: "Established" in str(found)
            )
            control_plane.call("POST", "/apis/example.com/v1/namespaces/default/websites", WEBSITE)
            control_plane.wait_for("/api/v1/namespaces/default/services/a", timeout=30)
            lease = control_plane.call("GET", "/apis/coordination.k8s.io/v1/namespaces/site/leases/site")
            assert lease["spec"]["holderIdentity"]
            probe = container["readinessProbe"]["httpGet"]
            unverified = ssl._create_unverified_context()
            url = f"{probe['scheme'].lower()}://127.0.0.1:{port}{probe['path']}"
            with urllib.request.urlopen(url, context=unverified) as answer:
                assert answer.read() == b"ok"
        finally:
            running.terminate()
            _, errors = running.communicate(timeout=30)
    assert running.returncode == 0, errors
    assert "orbidden" not in errors


def test_an_installation_says_what_is_wrong() -> None:
    with pytest.raises(BuildError, match="replicas: -1"):
        Installation(name="a", image="a:1", replicas=-1)


async def test_it_is_a_function_too(fleet: Path) -> None:
    module = load_module(str(fleet))
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client)
        module.build(harness.manager)
        made = manifests_of(harness.manager, Installation(name="op", image="op:1"), module.build)
    assert "Deployment op" in named(made)
