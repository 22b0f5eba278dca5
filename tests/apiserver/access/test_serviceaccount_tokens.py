from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pilothouse.apiserver.access.serviceaccounts import LEGACY_ISSUER, SECRET_TYPE, ServiceAccountTokens
from pilothouse.apiserver.access.signing import KeyRing, SigningKeyError, new_key, openid_configuration, unverified
from pilothouse.apiserver.access.tokens import TokenAnswer, TokenError
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds import times
from support.accessview import MemoryView, metadata, pod, secret, service_account

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY = new_key()


def rsa_key(bits: int = 2048) -> bytes:
    key = rsa.generate_private_key(65537, bits)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


RSA_KEY = rsa_key()


def public(private: bytes) -> bytes:
    key = serialization.load_pem_private_key(private, None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Cluster:
    def __init__(self) -> None:
        self.view, self.clock = MemoryView(), FakeClock()
        self.account = service_account("robot")
        self.view.put("serviceaccounts", self.account)
        self.tokens = self.with_keys(KeyRing(KEY))

    def with_keys(self, ring: KeyRing, **options: Any) -> ServiceAccountTokens:
        return ServiceAccountTokens(self.view, ring, [ISSUER], clock=self.clock, ids=SeededIds(), **options)

    def token(self, seconds: int = 3600, /, **bound: Any) -> str:
        return self.tokens.sign(self.account, [ISSUER], seconds, bound)[0]

    def whose(self, token: str, *audiences: str) -> TokenAnswer:
        answer = self.tokens.authenticate_token(token, audiences)
        assert answer is not None
        return answer

    def forged(self, claims: dict[str, Any] | None = None, key: Any = KEY, **options: Any) -> str:
        good = unverified(self.token())
        return jwt.encode({**(good or {}), **(claims or {})}, key, **{"algorithm": "ES256", **options})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_token_says_what_that_of_kubernetes_says(cluster: Cluster) -> None:
    token, jti = cluster.tokens.sign(cluster.account, ["a", "b"], 600, {"pod": pod("web")}, warn_after=300)
    now = int(cluster.clock.now().timestamp())
    assert unverified(token) == {
        "aud": ["a", "b"],
        "exp": now + 600,
        "iat": now,
        "nbf": now,
        "iss": ISSUER,
        "jti": jti,
        "kubernetes.io": {
            "namespace": "default",
            "pod": {"name": "web", "uid": "pod-1"},
            "serviceaccount": {"name": "robot", "uid": "sa-1"},
            "warnafter": now + 300,
        },
        "sub": "system:serviceaccount:default:robot",
    }
    header = jwt.get_unverified_header(token)
    assert header["alg"] == "ES256"
    assert header["kid"] == json.loads(cluster.tokens.ring.jwks())["keys"][0]["kid"]


def test_whose_token_it_is(cluster: Cluster) -> None:
    cluster.view.put("pods", pod("web"))
    node = {"metadata": metadata("n1", uid="node-1")}
    token, jti = cluster.tokens.sign(cluster.account, [ISSUER], 600, {"pod": pod("web"), "node": node})
    answer = cluster.whose(token)
    assert answer.user.name == "system:serviceaccount:default:robot"
    assert answer.user.uid == "sa-1"
    assert answer.user.groups == ("system:serviceaccounts", "system:serviceaccounts:default")
    assert answer.user.extra == {
        "authentication.kubernetes.io/credential-id": (f"JTI={jti}",),
        "authentication.kubernetes.io/node-name": ("n1",),
        "authentication.kubernetes.io/node-uid": ("node-1",),
        "authentication.kubernetes.io/pod-name": ("web",),
        "authentication.kubernetes.io/pod-uid": ("pod-1",),
    }
    assert answer.depends == (("serviceaccounts", "default", "robot"), ("pods", "default", "web"))
    assert answer.audiences == (ISSUER,)


def test_a_token_ends_with_the_leeway_of_a_minute(cluster: Cluster) -> None:
    token = cluster.token(600)
    cluster.clock.advance(659)
    cluster.whose(token)
    cluster.clock.advance(2)
    with pytest.raises(TokenError, match=r"^service account token has expired$"):
        cluster.whose(token)


def test_a_token_of_the_future_is_not_valid_yet(cluster: Cluster) -> None:
    now = int(cluster.clock.now().timestamp())
    cluster.whose(cluster.forged({"nbf": now + 59}))
    for claim in ("nbf", "iat"):
        with pytest.raises(TokenError, match="not valid yet"):
            cluster.whose(cluster.forged({claim: now + 62}))


def test_a_token_dies_with_its_service_account(cluster: Cluster) -> None:
    token = cluster.token()
    cluster.view.put("serviceaccounts", service_account("robot", uid="sa-2"))
    with pytest.raises(TokenError, match=r"service account UID \(sa-2\) does not match claim \(sa-1\)"):
        cluster.whose(token)
    cluster.view.remove("serviceaccounts", "default", "robot")
    with pytest.raises(TokenError, match='serviceaccounts "robot" not found'):
        cluster.whose(token)


def test_a_token_dies_a_minute_after_its_account_began_to_go(cluster: Cluster) -> None:
    token = cluster.token()
    deleted = times.format_seconds(cluster.clock.now())
    cluster.view.put("serviceaccounts", service_account("robot", deletionTimestamp=deleted))
    cluster.clock.advance(59)
    answer = cluster.whose(token)
    assert answer.expires == cluster.clock.now().timestamp() + 1
    cluster.clock.advance(2)
    with pytest.raises(TokenError, match="service account default/robot has been deleted"):
        cluster.whose(token)


@pytest.mark.parametrize(("kind", "resource"), [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")])
def test_a_token_dies_with_what_it_is_bound_to(cluster: Cluster, kind: str, resource: str) -> None:
    home = "" if kind == "node" else "default"
    bound = {"metadata": metadata("it", home, uid="u-1")}
    token = cluster.token(**{kind: bound})
    with pytest.raises(TokenError, match="service account token has been invalidated"):
        cluster.whose(token)
    cluster.view.put(resource, bound)
    cluster.whose(token)
    gone = times.format_seconds(cluster.clock.now() - timedelta(seconds=61))
    cluster.view.put(resource, {"metadata": metadata("it", home, uid="u-1", deletionTimestamp=gone)})
    with pytest.raises(TokenError, match="service account token has been invalidated"):
        cluster.whose(token)
    cluster.view.put(resource, {"metadata": metadata("it", home, uid="u-2")})
    with pytest.raises(
        TokenError, match=rf"^{kind} UID \(u-2\) does not match service account {kind} ref claim \(u-1\)"
    ):
        cluster.whose(token)


def test_a_token_is_good_for_its_audiences_only(cluster: Cluster) -> None:
    token = cluster.tokens.sign(cluster.account, ["vault", "other"], 600)[0]
    with pytest.raises(TokenError) as caught:
        cluster.whose(token)
    told = f'token audiences ["vault" "other"] is invalid for the target audiences ["{ISSUER}"]'
    assert str(caught.value) == told
    assert cluster.whose(token, "vault", "x").audiences == ("vault",)
    with pytest.raises(TokenError, match="is invalid for the target audiences"):
        cluster.whose(cluster.token(), "vault")


def test_tokens_of_others_are_left_to_them(cluster: Cluster) -> None:
    strange = jwt.encode({"iss": "https://elsewhere"}, KEY, algorithm="ES256")
    for token in (strange, "abc", "a.b.c", "a.!!.c", "", "x" * 100_000, cluster.token() + ".x", "é.é.é"):
        assert cluster.tokens.authenticate_token(token) is None


def test_a_token_without_signature_is_refused(cluster: Cluster) -> None:
    for algorithm in ("none", "None", "nOnE"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
        payload = cluster.token().split(".")[1]
        for signature in ("", cluster.token().split(".")[2]):
            with pytest.raises(TokenError):
                cluster.tokens.authenticate_token(f"{header}.{payload}.{signature}")


@pytest.mark.parametrize("private", [KEY, RSA_KEY], ids=["ec", "rsa"])
def test_the_public_key_is_no_password(cluster: Cluster, private: bytes) -> None:
    """A token with an HMAC under the public key, which everybody may know, must not pass."""
    tokens = cluster.with_keys(KeyRing(private))
    kid = json.loads(tokens.ring.jwks())["keys"][0]["kid"]
    payload = cluster.token().split(".")[1]
    for secret_text in (public(private), public(private).strip(), tokens.ring.jwks()):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": kid}):
            head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
            algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            digest = algorithm.sign(f"{head}.{payload}".encode(), secret_text)
            signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            with pytest.raises(TokenError):
                tokens.authenticate_token(f"{head}.{payload}.{signature}")


def test_a_key_id_does_not_choose_a_foreign_key(cluster: Cluster) -> None:
    own, foreign = new_key(), new_key()
    tokens = cluster.with_keys(KeyRing(KEY, [own]))
    kids = [key["kid"] for key in json.loads(tokens.ring.jwks())["keys"]]
    for kid in [*kids, "../../etc/passwd", "", "nobody"]:
        with pytest.raises(TokenError):
            tokens.authenticate_token(cluster.forged(key=foreign, headers={"kid": kid}))
    with pytest.raises(TokenError):
        tokens.authenticate_token(cluster.forged(key=own, headers={"kid": kids[0]}))
    embedded = {
        "jwk": json.loads(KeyRing(foreign).jwks())["keys"][0],
        "jku": "https://evil/jwks",
        "x5u": "https://evil",
    }
    with pytest.raises(TokenError):
        tokens.authenticate_token(cluster.forged(key=foreign, headers=embedded))
    assert tokens.authenticate_token(cluster.forged(key=own, headers={"kid": kids[1]})) is not None
    assert tokens.authenticate_token(cluster.forged(key=own)) is not None


def test_a_changed_token_is_refused(cluster: Cluster) -> None:
    head, payload, signature = cluster.token().split(".")
    claims = {**(unverified(cluster.token()) or {}), "sub": "system:serviceaccount:kube-system:root"}
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    for token in (f"{head}.{other}.{signature}", f"{head}.{payload}.{signature[:-4]}AAAA", f"{head}.{payload}."):
        with pytest.raises(TokenError):
            cluster.tokens.authenticate_token(token)


def test_keys_rotate(cluster: Cluster) -> None:
    old = cluster.token()
    fresh = new_key()
    cluster.tokens.replace_keys(KeyRing(fresh, [public(KEY)]))
    cluster.whose(old)
    new = cluster.token()
    assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
    cluster.tokens.replace_keys(KeyRing(fresh))
    cluster.whose(new)
    with pytest.raises(TokenError, match="invalid signature, no keys found"):
        cluster.whose(old)


def test_rsa_keys_sign_too(cluster: Cluster) -> None:
    cluster.tokens.replace_keys(KeyRing(RSA_KEY, [KEY + RSA_KEY]))
    token = cluster.token()
    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    cluster.whose(token)
    assert cluster.tokens.ring.algorithms == ["ES256", "RS256"]


def test_weak_and_strange_keys_are_refused() -> None:
    with pytest.raises(SigningKeyError, match="1024 bits; at least 2048"):
        KeyRing(rsa_key(1024))
    curve = ec.generate_private_key(ec.SECP256K1())
    text = curve.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(SigningKeyError, match="use P-256"):
        KeyRing(text)
    for nonsense in (b"", b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(SigningKeyError, match="is no unencrypted PEM"):
            KeyRing(nonsense)
    with pytest.raises(SigningKeyError, match="none given"):
        KeyRing(None)
    with pytest.raises(SigningKeyError, match="no private key to sign with"):
        KeyRing(None, [public(KEY)]).sign({})
    assert "PRIVATE" not in repr(KeyRing(KEY))


def test_others_can_check_tokens_by_the_published_documents(cluster: Cluster) -> None:
    cluster.tokens.replace_keys(KeyRing(KEY, [public(RSA_KEY)]))
    document = json.loads(openid_configuration(ISSUER, "https://host/openid/v1/jwks", cluster.tokens.ring))
    assert document == {
        "issuer": ISSUER,
        "jwks_uri": "https://host/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
    }
    keys = jwt.PyJWKSet.from_json(cluster.tokens.ring.jwks().decode())
    token = cluster.token()
    key = keys[jwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    assert jwt.decode(token, key, audience=ISSUER, issuer=ISSUER, options=options)["sub"].endswith(":robot")


def legacy(cluster: Cluster, **fields: Any) -> tuple[str, dict[str, Any]]:
    held = secret("robot-token", "default", SECRET_TYPE, {}, **fields)
    filled = cluster.tokens.filled_secret(cluster.account, held, b"CA")
    assert filled is not None
    cluster.view.put("secrets", filled)
    return base64.b64decode(filled["data"]["token"]).decode(), filled


def test_a_secret_is_filled_with_a_lasting_token(cluster: Cluster) -> None:
    token, filled = legacy(cluster)
    assert base64.b64decode(filled["data"]["ca.crt"]) == b"CA"
    assert base64.b64decode(filled["data"]["namespace"]) == b"default"
    assert filled["metadata"]["annotations"] == {"kubernetes.io/service-account.uid": "sa-1"}
    assert (unverified(token) or {})["iss"] == LEGACY_ISSUER
    assert cluster.tokens.filled_secret(cluster.account, filled, b"CA") is None
    cluster.clock.advance(10**9)
    answer = cluster.whose(token)
    assert answer.user.name == "system:serviceaccount:default:robot"
    assert answer.expires is None
    assert set(answer.depends) == {("secrets", "default", "robot-token"), ("serviceaccounts", "default", "robot")}


def test_a_lasting_token_dies_with_its_secret(cluster: Cluster) -> None:
    token, filled = legacy(cluster)
    cluster.view.put("secrets", {**filled, "data": {**filled["data"], "token": "eA=="}})
    with pytest.raises(TokenError, match="token does not match server's copy"):
        cluster.whose(token)
    label = {"kubernetes.io/legacy-token-invalid-since": "2025-01-01"}
    cluster.view.put("secrets", {**filled, "metadata": {**filled["metadata"], "labels": label}})
    with pytest.raises(TokenError, match="has been marked invalid"):
        cluster.whose(token)
    cluster.view.remove("secrets", "default", "robot-token")
    with pytest.raises(TokenError, match="token has been invalidated"):
        cluster.whose(token)
    cluster.view.put("secrets", filled)
    cluster.view.put("serviceaccounts", service_account("robot", uid="sa-9"))
    with pytest.raises(TokenError, match=r"ServiceAccount UID \(sa-9\) does not match claim \(sa-1\)"):
        cluster.whose(token)


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"sub": ""}, "sub claim is missing"),
        ({"sub": "system:serviceaccount:default:other"}, "sub claim is invalid"),
        ({"kubernetes.io/serviceaccount/namespace": 5}, "namespace claim is missing"),
        ({"kubernetes.io/serviceaccount/secret.name": None}, "secretName claim is missing"),
        ({"kubernetes.io/serviceaccount/service-account.uid": ""}, "serviceAccountUID claim is missing"),
    ],
)
def test_a_lasting_token_has_all_claims(cluster: Cluster, claims: dict[str, Any], told: str) -> None:
    token, _ = legacy(cluster)
    forged = cluster.tokens.ring.sign({**(unverified(token) or {}), **claims})
    with pytest.raises(TokenError, match=told):
        cluster.whose(forged)
