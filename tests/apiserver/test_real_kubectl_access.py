"""Real kubectl, 1.37 and 1.20, with people and nodes: imperative creation, access, certificates, drain, proxies."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.clientskit import (
    Command,
    Server,
    client_program,
    eventually,
    line_of,
    make_namespace,
    running,
    serving_program,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
Object = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_program(tmp_path_factory.mktemp("access")) as found:
        yield found


@pytest.fixture(scope="module")
def new(server: Server) -> Command:
    """The newest kubectl, for what the tests set up."""
    return Command(client_program("kubectl"), server)


@pytest.fixture(scope="module", params=["kubectl", "kubectl-1.20"])
def kubectl(request: pytest.FixtureRequest, server: Server) -> Command:
    return Command(client_program(str(request.param)), server)


@pytest.fixture
def name(kubectl: Command, request: pytest.FixtureRequest) -> str:
    """A name of the test's own, also that of its namespace."""
    text = re.sub("[^a-z]+", "-", request.node.name.replace("kubectl", "")).strip("-")
    return text + ("-old" if kubectl.old else "")


@pytest.fixture
def k(kubectl: Command, name: str) -> Command:
    """Kubectl in a namespace of the test's own."""
    make_namespace(kubectl.server, name)
    return kubectl.with_("-n", name)


@pytest.fixture(scope="module")
def shared(kubectl: Command) -> Command:
    """Kubectl in a namespace that tests share which make one object each; kubectl itself makes it."""
    name = "shared-old" if kubectl.old else "shared"
    assert kubectl("create", "namespace", name) == f"namespace/{name} created"
    return kubectl.with_("-n", name)


def nobody(k: Command, tmp_path: Path) -> Command:
    """Return kubectl with a kubeconfig that knows the server and has no credentials, made by kubectl itself."""
    file = tmp_path / "kubeconfig"
    alone = Command(k.program, k.server, (f"--kubeconfig={file}",))
    found = json.loads(k("config", "view", "--raw", "-o", "json"))["clusters"][0]["cluster"]
    authority = tmp_path / "ca.crt"
    authority.write_bytes(base64.b64decode(found["certificate-authority-data"]))
    alone("config", "set-cluster", "c", f"--server={found['server']}", f"--certificate-authority={authority}")
    alone("config", "set-context", "x", "--cluster=c")
    alone("config", "use-context", "x")
    return k.with_(*alone.always)


def pod(name: str, node: str = "", **labels: str) -> Object:
    spec: Object = {"containers": [{"name": "app", "image": "nginx"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


class TestImperatives:
    @pytest.mark.parametrize(
        ("arguments", "made", "path", "value"),
        [
            ("deployment x --image=nginx --replicas=2 --port=80", "deployment.apps/x", "{.spec.replicas}", "2"),
            ("service clusterip x --tcp=80:8080", "service/x", "{.spec.ports[0].targetPort}", "8080"),
            ("service nodeport y --tcp=80", "service/y", "{.spec.type}", "NodePort"),
            ("service externalname z --external-name=a.b", "service/z", "{.spec.externalName}", "a.b"),
            ("configmap x --from-literal=a=b", "configmap/x", "{.data.a}", "b"),
            ("secret generic x --from-literal=a=b", "secret/x", "{.data.a}", "Yg=="),
            (
                "secret docker-registry y --docker-username=u --docker-password=p --docker-server=s",
                "secret/y",
                "{.type}",
                "kubernetes.io/dockerconfigjson",
            ),
            ("serviceaccount x", "serviceaccount/x", "{.metadata.name}", "x"),
            (
                "role x --verb=get,list --resource=pods",
                "role.rbac.authorization.k8s.io/x",
                "{.rules[0].verbs}",
                '["get","list"]',
            ),
            (
                "rolebinding x --role=x --user=alice --serviceaccount=a:b",
                "rolebinding.rbac.authorization.k8s.io/x",
                "{.subjects[*].name}",
                "alice b",
            ),
            ("quota x --hard=pods=3,cpu=1000m", "resourcequota/x", "{.spec.hard.cpu}", "1"),
            ("job x --image=busybox", "job.batch/x", "{.spec.completions}", "1"),
            ("ingress x --rule=a.b/c=x:80", "ingress.networking.k8s.io/x", "{.spec.rules[0].host}", "a.b"),
        ],
        ids=lambda text: text.partition(" --")[0].replace(" ", "-") if " " in text else "",
    )
    def test_creation(self, shared: Command, arguments: str, made: str, path: str, value: str) -> None:
        assert shared("create", *arguments.split()) == f"{made} created"
        assert shared("get", made, "-o", f"jsonpath={path}") in {value, value.replace(",", " ")}

    def test_names_are_taken_once(self, k: Command) -> None:
        k("create", "configmap", "x")
        assert 'configmaps "x" already exists' in k.fails("create", "configmap", "x")

    def test_newer_creation(self, k: Command) -> None:
        if k.old:
            assert "could not find the requested resource" in k.fails(
                "create", "cronjob", "x", "--image=i", "--schedule=* * * * *"
            )
            assert 'no matches for kind "PodDisruptionBudget" in version "policy/v1beta1"' in k.fails(
                "create", "pdb", "x", "--selector=a=b", "--min-available=1"
            )
            return
        assert k("create", "cronjob", "x", "--image=i", "--schedule=* * * * *") == "cronjob.batch/x created"
        assert k("create", "job", "j", "--from=cronjob/x") == "job.batch/j created"
        owner = k.json("get", "job", "j")["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"]) == ("CronJob", "x")
        made = k("create", "pdb", "x", "--selector=a=b", "--min-available=1")
        assert made == "poddisruptionbudget.policy/x created"
        assert k("create", "priorityclass", "p", "--value=7") == "priorityclass.scheduling.k8s.io/p created"

    def test_running_and_exposing(self, k: Command) -> None:
        assert k("run", "p", "--image=nginx", "--port=80", "--dry-run=server") == "pod/p created (server dry run)"
        assert "not found" in k.fails("get", "pod", "p")
        assert k("run", "p", "--image=nginx", "--port=80", "--labels=a=b") == "pod/p created"
        assert k("expose", "pod", "p") == "service/p exposed"
        assert k("get", "service", "p", "-o", "jsonpath={.spec.selector.a} {.spec.ports[0].port}") == "b 80"
        k("create", "deployment", "web", "--image=nginx")
        assert k("expose", "deployment", "web", "--port=80", "--type=NodePort") == "service/web exposed"
        port = int(k("get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"))
        assert 30000 <= port <= 32767

    def test_pods_that_change(self, k: Command) -> None:
        if k.old:
            pytest.skip("kubectl 1.20 debugs through an API that went with Kubernetes 1.25")
        k.made(pod("p"))
        k("debug", "p", "--image=busybox", "-c", "dbg", "--profile=general", warns="")
        found = k.json("get", "pod", "p")["spec"]["ephemeralContainers"]
        assert [(each["name"], each["image"]) for each in found] == [("dbg", "busybox")]
        smaller = '{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"100m"}}}]}}'
        assert "Pod QOS Class may not change" in k.fails("patch", "pod", "p", "--subresource=resize", "-p", smaller)
        assert "pod updates may not change fields other than" in k.fails(
            "patch", "pod", "p", "-p", '{"spec":{"hostname":"other"}}'
        )


class TestAccess:
    def test_what_one_may(self, k: Command) -> None:
        assert k("auth", "can-i", "create", "pods") == "yes"
        code, out, _ = k.whole("auth", "can-i", "create", "pods", "--as=alice")
        assert (code, out) == (1, "no\n")
        k("create", "role", "reader", "--verb=get,list", "--resource=pods")
        k("create", "rolebinding", "reader", "--role=reader", "--group=crew")
        ann = k.with_("--as=ann", "--as-group=crew")
        assert ann("auth", "can-i", "list", "pods") == "yes"
        lines = [line.split() for line in ann("auth", "can-i", "--list").split("\n")]
        assert ["pods", "[]", "[]", "[get", "list]"] in lines
        assert ann("get", "pods", warns="No resources found") == ""
        said = ann.fails("get", "secrets")
        assert 'secrets is forbidden: User "ann" cannot list resource "secrets" in API group "" in the' in said
        assert 'cannot delete resource "pods"' in ann.fails("delete", "pod", "p")
        wider = ann.fails("create", "role", "more", "--verb=get", "--resource=secrets")
        assert 'roles.rbac.authorization.k8s.io is forbidden: User "ann" cannot create' in wider
        assert re.search(r"Group +crew", k("describe", "rolebinding", "reader"))
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        role: Object = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": rules}
        role["metadata"] = {"name": "reader", "namespace": k.always[-1]}
        assert "reconciled" in k("auth", "reconcile", "-f", "-", data=json.dumps(role), warns="Verbs:[watch]")
        assert ann("auth", "can-i", "watch", "pods") == "yes"

    def test_who_one_is(self, k: Command, tmp_path: Path) -> None:
        bare = nobody(k, tmp_path)
        assert "Unauthorized" in bare.with_("--token=wrong").fails("get", "pods")
        alice = bare.with_("--token=alice-token")
        assert 'pods is forbidden: User "alice" cannot list resource "pods"' in alice.fails("get", "pods")
        root = bare.with_("--token=root-token")
        assert root("auth", "can-i", "*", "*") == "yes"
        # Without credentials kubectl asks for a name and a password, which nobody gives it here.
        assert bare.fails("get", "pods").endswith("EOF")
        if not k.old:
            assert [line.split() for line in alice("auth", "whoami").split("\n")][1:4] == [
                ["Username", "alice"],
                ["UID", "alice-uid"],
                ["Groups", "[devs", "system:authenticated]"],
            ]

    def test_tokens_of_service_accounts(self, k: Command, name: str, tmp_path: Path) -> None:
        if k.old:
            pytest.skip("kubectl 1.20 has no `create token`")
        k("create", "serviceaccount", "robot")
        token = k("create", "token", "robot", "--duration=20m")
        robot = nobody(k, tmp_path).with_(f"--token={token}")
        user = f"system:serviceaccount:{name}:robot"
        assert f'User "{user}" cannot list' in robot.fails("get", "cm")
        k("create", "rolebinding", "robot", "--clusterrole=view", f"--serviceaccount={name}:robot")
        assert robot("get", "cm", "-o", "name") == "configmap/kube-root-ca.crt"
        assert "secrets is forbidden" in robot.fails("get", "secrets")
        k("delete", "serviceaccount", "robot")
        assert "Unauthorized" in robot.fails("get", "cm")

    def test_certificates(self, k: Command, name: str, tmp_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, "eve"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "crew")]
        )
        wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        text = base64.b64encode(wanted.public_bytes(serialization.Encoding.PEM)).decode()
        spec = {"request": text, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
        for each in (name, f"{name}-no"):
            k.made(
                {
                    "apiVersion": "certificates.k8s.io/v1",
                    "kind": "CertificateSigningRequest",
                    "metadata": {"name": each},
                    "spec": spec,
                }
            )
        assert k("get", "csr", name).split("\n")[1].split()[-1] == "Pending"
        said = f"certificatesigningrequest.certificates.k8s.io/{name}"
        assert k("certificate", "approve", name) == f"{said} approved"
        assert k("certificate", "deny", f"{name}-no") == f"{said}-no denied"
        path = "jsonpath={.status.certificate}"
        eventually(lambda: k("get", "csr", name, "-o", path) != "")
        assert k("get", "csr", name).split("\n")[1].split()[-1] == "Approved,Issued"
        assert k("get", "csr", f"{name}-no").split("\n")[1].split()[-1] == "Denied"
        assert k("get", "csr", f"{name}-no", "-o", path) == ""
        condition = k.json("get", "csr", name)["status"]["conditions"][0]
        assert condition["lastTransitionTime"]
        certificate, secret = tmp_path / "eve.crt", tmp_path / "eve.key"
        certificate.write_bytes(base64.b64decode(k("get", "csr", name, "-o", path)))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        eve = nobody(k, tmp_path).with_(f"--client-certificate={certificate}", f"--client-key={secret}")
        assert 'User "eve" cannot list resource "pods"' in eve.fails("get", "pods")
        k("create", "rolebinding", "crew", "--clusterrole=view", "--group=crew")
        assert eve("get", "cm", "-o", "name") == "configmap/kube-root-ca.crt"


class TestNodes:
    def test_drain(self, k: Command, new: Command, name: str) -> None:
        new = new.with_("-n", name)
        k.made({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        k.made(pod("free", name), pod("kept", name, app="kept"))
        running_now = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        new("patch", "pod", "kept", "--subresource=status", "-p", json.dumps({"status": running_now}))
        new("create", "pdb", "kept", "--selector=app=kept", "--min-available=1")
        counted = {"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        new("patch", "pdb", "kept", "--subresource=status", "--type=merge", "-p", json.dumps({"status": counted}))
        assert k("cordon", name) == f"node/{name} cordoned"
        assert k("get", "node", name, "-o", "jsonpath={.spec.unschedulable}") == "true"
        assert k("uncordon", name) == f"node/{name} uncordoned"
        options = ("--grace-period=0", f"--pod-selector={'app=kept'}", "--timeout=1s", "--force")
        code, _, err = k.whole("drain", name, *options)
        assert code == 1
        assert "Cannot evict pod as it would violate the pod's disruption budget." in err
        new("delete", "pdb", "kept")
        code, out, err = k.whole("drain", name, "--grace-period=0", "--force", "--timeout=20s")
        assert code == 0, err
        assert {"evicting pod " + name + "/free", "pod/kept evicted", "pod/free evicted"} <= set(
            (out + err).split("\n")
        )
        assert k("get", "pods", warns="No resources found") == ""
        assert k("get", "node", name).split("\n")[1].split()[1].endswith(",SchedulingDisabled")
        assert Command(k.program, k.server)("delete", "node", name) == f'node "{name}" deleted'

    def test_streams_without_a_node_agent(self, k: Command, name: str) -> None:
        k.made(pod("p", "nowhere"), pod("waiting"))
        assert "pod waiting does not have a host assigned" in k.fails("exec", "waiting", "--", "true")
        assert "nowhere" in k.fails("logs", "p")
        assert "nowhere" in k.fails("exec", "p", "--", "true")
        said = k.fails("port-forward", "pod/waiting", "0:80")
        assert said == "error: unable to forward port because pod is not running. Current status=Pending"
        assert "container nothing is not valid for pod p" in k.fails("logs", "p", "-c", "nothing")


def test_proxy(k: Command) -> None:
    k("create", "configmap", "c", "--from-literal=a=b")
    with running(k, "proxy", "--port=0") as proxy:
        found = re.search(r"127\.0\.0\.1:(\d+)", line_of(proxy))
        assert found is not None
        path = f"http://{found[0]}/api/v1/namespaces/{k.always[-1]}/configmaps/c"
        with urllib.request.urlopen(path, timeout=10) as answer:
            assert answer.status == 200
            assert json.load(answer)["data"] == {"a": "b"}


def test_kubeconfig(k: Command) -> None:
    shown = json.loads(k("config", "view", "-o", "json"))
    assert shown["clusters"][0]["cluster"]["server"] == k.server.url
    assert k("config", "current-context") == shown["contexts"][0]["name"]
    assert "PRIVATE" not in json.dumps(shown)
    assert k.server.kubeconfig.stat().st_mode & 0o777 == 0o600
