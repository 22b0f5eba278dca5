from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.apiserver.access.default_roles import reconcile
from pilothouse.apiserver.access.forbidden import forbidden_for
from pilothouse.apiserver.access.impersonation import impersonated, wanted_user
from pilothouse.apiserver.access.oidc import OidcSettings
from pilothouse.apiserver.access.pki import Pki
from pilothouse.apiserver.access.tokens import TokenFileError
from pilothouse.apiserver.access.wiring import (
    DEFAULT_ISSUER,
    Access,
    AccessSettings,
    authentication_config_map,
    write_client_kubeconfig,
)
from pilothouse.apiserver.model import Request, User
from pilothouse.apiserver.ports import Attributes
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import Unauthorized
from support.accessview import MemoryLocal, MemoryView, asks, bearer, pod, request, service_account

GOLDEN = Path(__file__).parents[2] / "golden" / "errors.json"


class Server:
    def __init__(self, directory: Path, **settings: Any) -> None:
        self.view, self.clock = MemoryView(), FakeClock()
        self.local = MemoryLocal(self.view)
        self.pki = Pki(str(directory / "pki"), clock=self.clock)
        self.pki.ensure()
        self.access = Access(self.view, self.pki, AccessSettings(**settings), clock=self.clock)

    async def start(self) -> Server:
        await reconcile(self.view, self.local)
        return self

    def admin(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pki.read("admin.crt").decode())

    def who(self, asked: Request) -> User:
        found = self.access.authenticator.authenticate(asked)
        assert isinstance(found, User)
        return found


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    return await Server(tmp_path).start()


async def test_the_administrator_may_do_everything(server: Server) -> None:
    admin = server.who(request(certificate=server.admin()))
    for wanted in (asks(admin, "delete", "nodes", "", "n1"), asks(admin, "create", "clusterroles")):
        assert server.access.authorizer.authorize(wanted).allowed


async def test_a_service_account_from_its_token_to_its_rights(server: Server) -> None:
    server.view.put("serviceaccounts", service_account("robot"))
    server.view.put("pods", pod("web"))
    answer = server.access.token_requests.create(
        "default", "robot", {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}}}
    )
    token = answer["status"]["token"]
    robot = server.who(bearer(token))
    assert not server.access.authorizer.authorize(asks(robot, "list", "pods", "default")).allowed
    server.view.bind("robots", "view", {"kind": "ServiceAccount", "name": "robot"}, namespace="default")
    server.view.role("view", {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]})
    assert server.access.authorizer.authorize(asks(robot, "list", "pods", "default")).allowed
    review = server.access.reviews.answer("TokenReview", {"spec": {"token": token}}, robot)
    assert isinstance(review, dict)
    assert review["status"]["user"]["username"] == robot.name
    assert review["status"]["audiences"] == [DEFAULT_ISSUER]
    server.view.remove("pods", "default", "web")
    with pytest.raises(Unauthorized):
        server.who(bearer(token))


async def test_new_keys_are_taken_up(server: Server) -> None:
    server.view.put("serviceaccounts", service_account("robot"))
    old = server.access.token_requests.issue("default", "robot")["status"]["token"]
    admin = server.admin()
    server.who(bearer(old))
    server.pki.rotate_signing_key()
    server.pki.rotate_ca()
    server.pki.rotate_ca()
    server.access.reload()
    for asked in (bearer(old), request(certificate=admin), request(certificate=server.admin())):
        server.who(asked)
    server.pki.retire_ca()
    server.pki.retire_signing_keys()
    server.access.reload()
    server.who(request(certificate=server.admin()))
    for asked in (bearer(old), request(certificate=admin)):
        with pytest.raises(Unauthorized):
            server.who(asked)


async def test_the_documents_of_the_issuer(server: Server) -> None:
    document = json.loads(server.access.openid_configuration("10.0.0.1:6443"))
    assert document["issuer"] == DEFAULT_ISSUER
    assert document["jwks_uri"] == "https://10.0.0.1:6443/openid/v1/jwks"
    (key,) = json.loads(server.access.jwks())["keys"]
    assert key["alg"] == "ES256"
    assert "d" not in key


def test_the_settings_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "tokens.csv").write_text('s3cret,alice,1,"devs"\n')
    (tmp_path / "tokens.csv").chmod(0o600)
    oidc = [OidcSettings("https://login.example", ["app"])]
    server = Server(tmp_path, token_file=str(tmp_path / "tokens.csv"), anonymous=False, oidc=oidc)
    assert server.who(bearer("s3cret")).name == "alice"
    with pytest.raises(Unauthorized):
        server.who(request())
    with pytest.raises(TokenFileError):
        Server(tmp_path, token_file=str(tmp_path / "gone.csv"))


async def test_it_stops_following_the_view(server: Server) -> None:
    server.access.close()
    assert server.view.listeners() == 0


def test_the_kubeconfig_and_config_map_of_the_cluster(tmp_path: Path) -> None:
    server = Server(tmp_path)
    path = tmp_path / "admin.kubeconfig"
    write_client_kubeconfig(server.pki, str(path), "https://127.0.0.1:6443")
    assert yaml.safe_load(path.read_text())["users"][0]["name"] == "kubernetes-admin"
    found = authentication_config_map(server.pki)
    assert found["data"]["client-ca-file"] == server.pki.read("ca.crt").decode()
    assert json.loads(found["data"]["requestheader-allowed-names"]) == ["front-proxy-client"]


@pytest.mark.parametrize("label", ["anonymous", "impersonated forbidden", "impersonated forbidden named"])
async def test_refusals_are_those_that_were_recorded(server: Server, label: str) -> None:
    (step,) = [step for step in json.loads(GOLDEN.read_text())["steps"] if step["label"] == label]
    headers = {name: value for name, value in step["headers"].items() if value is not None}
    asked = request(*headers.items(), certificate=None if label == "anonymous" else server.admin())
    user, access = server.who(asked), server.access
    verb = {"GET": "list", "DELETE": "delete"}[step["method"]]
    namespace, name = step["path"].split("/")[4], "".join(step["path"].split("/")[6:])
    attributes = asks(user, verb, "configmaps", namespace, name)
    wanted = wanted_user(asked)
    if wanted is not None:
        user = impersonated(wanted, attributes, access.authorizer)
        attributes = asks(user, verb, "configmaps", namespace, name)
    refusal = forbidden_for(attributes, access.authorizer.authorize(attributes))
    assert refusal.to_dict() == step["response"]


WHO = {
    "anonymous": User("system:anonymous", groups=("system:unauthenticated",)),
    "user": User("jane", groups=("system:authenticated",)),
    "node": User("system:node:n1", groups=("system:nodes", "system:authenticated")),
    "scheduler": User("system:kube-scheduler", groups=("system:authenticated",)),
    "account": User("system:serviceaccount:a:b", groups=("system:serviceaccounts", "system:authenticated")),
    "master": User("root", groups=("system:masters", "system:authenticated")),
}
MATRIX: dict[tuple[str, str, str, str], set[str]] = {
    # verb, resource with subresource, namespace, group: who may
    ("list", "pods", "", ""): {"scheduler", "master"},
    ("create", "pods/binding", "a", ""): {"scheduler", "master"},
    ("create", "pods/exec", "a", ""): {"master"},
    ("get", "secrets", "a", ""): {"master"},
    ("list", "secrets", "", ""): {"master"},
    ("create", "nodes", "", ""): {"node", "master"},
    ("update", "nodes/status", "", ""): {"node", "master"},
    ("delete", "nodes", "", ""): {"master"},
    ("impersonate", "users", "", ""): {"master"},
    ("impersonate", "groups", "", ""): {"master"},
    ("escalate", "clusterroles", "", "rbac.authorization.k8s.io"): {"master"},
    ("bind", "clusterroles", "", "rbac.authorization.k8s.io"): {"master"},
    ("create", "serviceaccounts/token", "a", ""): {"master"},
    ("approve", "signers", "", "certificates.k8s.io"): {"master"},
    ("create", "certificatesigningrequests", "", "certificates.k8s.io"): {"node", "master"},
    ("create", "tokenreviews", "", "authentication.k8s.io"): {"node", "scheduler", "master"},
    ("create", "selfsubjectreviews", "", "authentication.k8s.io"): {"user", "node", "scheduler", "account", "master"},
}


async def test_who_may_do_what_from_the_start(server: Server) -> None:
    for (verb, resource, namespace, group), expected in MATRIX.items():
        for name, user in WHO.items():
            wanted = asks(user, verb, resource, namespace, "", group)
            allowed = server.access.authorizer.authorize(wanted).allowed
            assert allowed is (name in expected), (name, verb, resource)


PATHS = {
    "/healthz": set(WHO),
    "/version": set(WHO),
    "/api": set(WHO) - {"anonymous"},
    "/apis/apps/v1": set(WHO) - {"anonymous"},
    "/metrics": {"master"},
    "/debug/pprof": {"master"},
    "/openid/v1/jwks": {"account", "master"},
}


async def test_who_may_see_which_path_from_the_start(server: Server) -> None:
    for path, expected in PATHS.items():
        for name, user in WHO.items():
            told = server.access.authorizer.authorize(Attributes(user, "get", is_resource=False, path=path))
            assert told.allowed is (name in expected), (name, path)
