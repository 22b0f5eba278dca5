from __future__ import annotations

import base64
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.apiserver.access.authenticator import RequestAuthenticator, TokenVerdict, without_credentials
from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.access.frontproxy import FrontProxy
from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.access.signing import KeyRing, new_key
from pilothouse.apiserver.access.tokens import StaticTokens, TokenAnswer, TokenError
from pilothouse.apiserver.model import ANONYMOUS, Request, User
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.status import Unauthorized
from support.accessview import MemoryView, bearer, pod, request, service_account

CLOCK = FakeClock()
CA = tls.make_ca("cluster", clock=CLOCK)
PROXY_CA = tls.make_ca("front-proxy", clock=CLOCK)
KEY = new_key()
UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")


def der(credentials: tls.Credentials) -> bytes:
    return x509.load_pem_x509_certificate(credentials.certificate).public_bytes(serialization.Encoding.DER)


ALICE = der(tls.issue(CA, "alice", organizations=["devs", "ops"], client=True, days=10, clock=CLOCK))
PROXY = der(tls.issue(PROXY_CA, "aggregator", client=True, clock=CLOCK))
SERVER = der(tls.issue(CA, "host", hosts=["host"], server=True, clock=CLOCK))


def custom(names: Sequence[tuple[x509.ObjectIdentifier, str]], *, usage: bool = True, days: int = 10) -> bytes:
    """Make a client certificate of the cluster's CA with any subject."""
    ca = x509.load_pem_x509_certificate(CA.certificate)
    key = serialization.load_pem_private_key(CA.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    start = CLOCK.now() - timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca.subject)
    builder = builder.public_key(ec.generate_private_key(ec.SECP256R1()).public_key()).serial_number(7)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class House:
    def __init__(self, **options: Any) -> None:
        self.view, self.clock = MemoryView(), FakeClock()
        self.view.put("serviceaccounts", service_account("robot"))
        self.accounts = ServiceAccountTokens(self.view, KeyRing(KEY), ["https://issuer"], clock=self.clock)
        static = StaticTokens({"good": User("carol", "c-1", ("devs",)), "nobody": User("system:anonymous")})
        self.certificates = CertificateUsers(CA.certificate, clock=self.clock)
        self.authenticator = RequestAuthenticator(
            self.view,
            **{
                "certificates": self.certificates,
                "tokens": [static, self.accounts],
                "clock": self.clock,
                **options,
            },
        )

    def who(self, asked: Request) -> User:
        found = self.authenticator.authenticate(asked)
        assert isinstance(found, User)
        return found

    def refuses(self, asked: Request) -> None:
        with pytest.raises(Unauthorized) as caught:
            self.authenticator.authenticate(asked)
        assert caught.value.to_dict() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Unauthorized",
            "reason": "Unauthorized",
            "code": 401,
        }

    def token(self, seconds: int = 3600, **bound: Any) -> str:
        return self.accounts.sign(service_account("robot"), ["https://issuer"], seconds, bound)[0]


@pytest.fixture
def house() -> House:
    return House()


def test_without_credentials_one_is_anonymous_or_refused(house: House) -> None:
    assert house.who(request()) is ANONYMOUS
    assert house.who(request(("Authorization", "Basic YTpi"))) is ANONYMOUS
    House(anonymous=False).refuses(request())


def test_a_token_of_the_file(house: House) -> None:
    assert house.who(bearer("good")) == User("carol", "c-1", ("devs", "system:authenticated"))
    assert house.who(request(("Authorization", "bEaReR good"))).name == "carol"
    assert house.who(bearer("nobody")).groups == ()
    house.refuses(bearer("bad"))
    house.refuses(bearer("x" * 100_000))


def test_a_space_too_many_is_warned_of(house: House) -> None:
    asked = request(("Authorization", "Bearer  good"))
    assert house.who(asked) is ANONYMOUS
    assert asked.warnings == [
        "the provided Authorization header contains extra space before the bearer token, and is ignored"
    ]


def test_a_client_certificate(house: House) -> None:
    alice = house.who(request(certificate=ALICE))
    assert (alice.name, alice.groups) == ("alice", ("devs", "ops", "system:authenticated"))
    (credential,) = alice.extra["authentication.kubernetes.io/credential-id"]
    assert credential.startswith("X509SHA256=")
    assert len(credential) == len("X509SHA256=") + 64
    assert house.who(request(certificate=ALICE)) is alice


def test_a_certificate_comes_before_a_token(house: House) -> None:
    assert house.who(request(("Authorization", "Bearer good"), certificate=ALICE)).name == "alice"
    assert house.who(request(("Authorization", "Bearer bad"), certificate=ALICE)).name == "alice"


def test_a_certificate_expires_while_it_is_remembered(house: House) -> None:
    house.who(request(certificate=ALICE))
    house.clock.advance(11 * 86400)
    house.refuses(request(certificate=ALICE))
    # a good token helps out, as in Kubernetes
    assert house.who(request(("Authorization", "Bearer good"), certificate=ALICE)).name == "carol"


def test_certificates_of_others_are_refused(house: House) -> None:
    stranger = tls.make_ca("cluster", clock=CLOCK)  # of the same name
    house.refuses(request(certificate=der(tls.issue(stranger, "root", organizations=["system:masters"], client=True))))
    house.refuses(request(certificate=SERVER))
    house.refuses(request(certificate=PROXY))
    house.refuses(request(certificate=b"nonsense"))
    house.refuses(request(certificate=ALICE[:-1] + bytes([ALICE[-1] ^ 1])))


def test_a_replaced_authority_is_no_longer_believed(house: House) -> None:
    house.who(request(certificate=ALICE))
    fresh = tls.make_ca("cluster", clock=CLOCK)
    house.certificates.set_authorities(fresh.certificate + CA.certificate)
    house.who(request(certificate=ALICE))
    house.certificates.set_authorities(fresh.certificate)
    house.refuses(request(certificate=ALICE))
    with pytest.raises(CertificateError, match="holds no valid PEM"):
        house.certificates.set_authorities(b"")


def test_the_uid_of_a_certificate(house: House) -> None:
    assert house.who(request(certificate=custom([(NameOID.COMMON_NAME, "eve"), (UID, "e-1")]))).uid == "e-1"
    assert house.who(request(certificate=custom([(NameOID.COMMON_NAME, "eve")], usage=False))).name == "eve"
    house.refuses(request(certificate=custom([(NameOID.COMMON_NAME, "eve"), (UID, "a"), (UID, "b")])))
    assert house.who(request(certificate=custom([(NameOID.ORGANIZATION_NAME, "devs")]))) is ANONYMOUS


def proxied(**options: Any) -> House:
    front = FrontProxy(CertificateUsers(PROXY_CA.certificate, clock=FakeClock()), **options)
    return House(front_proxy=front)


HEADERS = [
    ("X-Remote-User", "dora"),
    ("X-Remote-Uid", "d-1"),
    ("X-Remote-Group", "a"),
    ("X-Remote-Group", "b"),
    ("X-Remote-Extra-Scopes", "x"),
    ("X-Remote-Extra-Scopes", "y"),
    ("X-Remote-Extra-Acme.com%2fproject", "p"),
    ("X-Remote-Extra-Bad%zz", "q"),
]


def test_a_front_proxy_speaks_for_others() -> None:
    dora = proxied(allowed_names=["aggregator"]).who(request(*HEADERS, certificate=PROXY))
    extra = {"scopes": ("x", "y"), "acme.com/project": ("p",), "bad%zz": ("q",)}
    assert dora == User("dora", "d-1", ("a", "b", "system:authenticated"), extra)


def test_only_the_front_proxy_may_do_so() -> None:
    house = proxied()
    assert house.who(request(*HEADERS)) is ANONYMOUS
    assert house.who(request(*HEADERS, certificate=ALICE)).name == "alice"
    house.refuses(request(certificate=PROXY))  # it is no user itself
    proxied(allowed_names=["other"]).refuses(request(*HEADERS, certificate=PROXY))
    House().refuses(request(*HEADERS, certificate=PROXY))


def test_a_good_token_is_remembered_for_ten_seconds(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = house.accounts.authenticate_token

    def counting(token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer | None:
        asked.append(token)
        return real(token, audiences)

    monkeypatch.setattr(house.accounts, "authenticate_token", counting)
    token = house.token()
    first = house.who(bearer(token))
    assert first.groups[-1] == "system:authenticated"
    assert house.who(bearer(token)) is first
    assert len(asked) == 1
    house.clock.advance(10)
    house.who(bearer(token))
    assert len(asked) == 2
    for _ in range(3):
        house.refuses(bearer("x.y.z"))
    assert asked.count("x.y.z") == 3


def test_a_remembered_token_does_not_outlive_its_end(house: House) -> None:
    token = house.token(600)
    house.clock.advance(655)
    house.who(bearer(token))
    house.clock.advance(6)
    house.refuses(bearer(token))


def test_a_remembered_token_dies_at_once_with_what_it_depends_on(house: House) -> None:
    token = house.token()
    house.who(bearer(token))
    house.view.remove("serviceaccounts", "default", "robot")
    house.refuses(bearer(token))
    house.view.put("serviceaccounts", service_account("robot"))
    house.who(bearer(token))
    house.view.put("serviceaccounts", service_account("robot", uid="sa-2"))
    house.refuses(bearer(token))


def test_a_token_bound_to_a_pod_follows_that_pod(house: House) -> None:
    house.view.put("pods", pod("web"))
    token = house.token(pod=pod("web"))
    user = house.who(bearer(token))
    house.view.put("pods", pod("other", uid="p-2"))
    house.view.put("secrets", pod("web"))
    assert house.who(bearer(token)) is user
    deleted = times.format_seconds(house.clock.now() + timedelta(seconds=30))
    house.view.put("pods", pod("web", deletionTimestamp=deleted))
    assert house.who(bearer(token)) is not user
    house.clock.advance(88)
    house.who(bearer(token))
    house.clock.advance(3)
    house.refuses(bearer(token))
    house.view.remove("pods", "default", "web")
    house.refuses(bearer(token))


def test_memory_of_tokens_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.apiserver.access.authenticator._MEMO", 5)
    for number in range(20):
        house.who(bearer(house.token(600 + number)))
    assert len(house.authenticator._memo) <= 5
    held = {digest for holders in house.authenticator._dependents.values() for digest in holders}
    assert held == set(house.authenticator._memo)
    house.clock.advance(11)
    for number in range(20):
        house.who(bearer(house.token(600 + number)))
    house.authenticator.close()
    assert house.authenticator._dependents == {}
    assert house.view.listeners() == 0


def websocket(*protocols: str) -> Request:
    upgrade = [("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade")]
    return request(*upgrade, *(("Sec-WebSocket-Protocol", protocol) for protocol in protocols))


def carrier(token: str) -> str:
    return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def test_a_token_among_the_subprotocols_of_a_websocket(house: House) -> None:
    asked = websocket(f"v5.channel.k8s.io, {carrier('good')}", "v4.channel.k8s.io")
    assert house.who(asked).name == "carol"
    assert asked.headers["sec-websocket-protocol"] == "v5.channel.k8s.io,v4.channel.k8s.io"
    assert asked.all_headers("sec-websocket-protocol") == ["v5.channel.k8s.io,v4.channel.k8s.io"]
    house.refuses(websocket("v5.channel.k8s.io", carrier("bad")))
    house.refuses(websocket(carrier("good")))
    house.refuses(websocket("v5.channel.k8s.io", carrier("good"), carrier("good")))
    house.refuses(websocket("v5.channel.k8s.io", "base64url.bearer.authorization.k8s.io.!!"))
    house.refuses(websocket("v5.channel.k8s.io", carrier("good") + "="))
    assert house.who(websocket("v5.channel.k8s.io")) is ANONYMOUS
    assert house.who(request(("Sec-WebSocket-Protocol", f"a,{carrier('good')}"))) is ANONYMOUS


class Later:
    """Knows a token after a while."""

    def __init__(self, **users: str) -> None:
        self._users = users

    def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> Awaitable[TokenAnswer | None] | None:
        return self._find(token)

    async def _find(self, token: str) -> TokenAnswer | None:
        if token == "broken":
            raise TokenError("oidc: verify token: broken")
        name = self._users.get(token)
        return TokenAnswer(User(name)) if name else None


async def test_tokens_that_take_a_while() -> None:
    house = House(tokens=[Later(one="eve"), StaticTokens({"two": User("frank")}), Later(three="grace")])
    for token, name in (("one", "eve"), ("two", "frank"), ("three", "grace")):
        found = house.authenticator.authenticate(bearer(token))
        assert not isinstance(found, User)
        assert found is not None
        user = await found
        assert user is not None
        assert user.name == name
        assert house.authenticator.authenticate(bearer(token)) is user
    for token in ("four", "broken"):
        found = house.authenticator.authenticate(bearer(token))
        assert isinstance(found, Awaitable)
        with pytest.raises(Unauthorized):
            await found
    verdict = house.authenticator.check_token("broken")
    assert isinstance(verdict, Awaitable)
    assert await verdict == TokenVerdict(None, "oidc: verify token: broken")


def test_verdicts_tell_what_is_wrong(house: House) -> None:
    assert house.authenticator.check_token("x") == TokenVerdict(None, "invalid bearer token")
    house.view.remove("serviceaccounts", "default", "robot")
    verdict = house.authenticator.check_token(house.token())
    assert verdict == TokenVerdict(None, 'serviceaccounts "robot" not found')


def test_credentials_are_not_passed_on() -> None:
    headers = [("authorization", "Bearer x"), ("accept", "*/*"), ("impersonate-user", "a"), ("x-remote-user", "b")]
    assert without_credentials(headers) == [("accept", "*/*")]


def test_the_clock_of_certificates_is_injected() -> None:
    users = CertificateUsers(CA.certificate, clock=FakeClock(datetime.fromisoformat("2030-01-01T00:00:00+00:00")))
    with pytest.raises(CertificateError, match="expired or is not yet valid"):
        users.user(ALICE)
