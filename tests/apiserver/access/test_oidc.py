from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pilothouse.apiserver.access.jwks import JwksError, ProviderKeys
from pilothouse.apiserver.access.oidc import OidcError, OidcSettings, OidcTokens
from pilothouse.apiserver.access.tokens import TokenAnswer, TokenError
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import FakeClock

ISSUER = "https://login.example"
CONFIG = f"{ISSUER}/.well-known/openid-configuration"
KEYS = f"{ISSUER}/keys"
RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **fields: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    data: dict[str, Any] = kind.to_jwk(key.public_key(), as_dict=True)
    return {**data, "kid": kid, "use": "sig", **fields}


class Provider:
    """An OpenID provider in memory."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.keys: list[Any] = [jwk(RSA, "one")]
        self.config: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": KEYS}
        self.asked: list[str] = []
        self.down = False
        self.tokens = self.with_settings(**settings)

    def with_settings(self, **settings: Any) -> OidcTokens:
        chosen = OidcSettings(**{"issuer": ISSUER, "client_ids": ["app"], **settings})
        return OidcTokens(chosen, fetch=self.fetch, clock=self.clock, api_audiences=["api"])

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.down:
            raise JwksError(f"{url}: answers 503")
        return json.dumps({CONFIG: self.config, KEYS: {"keys": self.keys}}[url]).encode()

    def token(self, key: Any = RSA, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
        now = int(self.clock.now().timestamp())
        whole = {"iss": ISSUER, "aud": "app", "sub": "jane", "exp": now + 300, **claims}
        held = {name: value for name, value in whole.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weak keys are what some tests are about
            return jwt.encode(held, key, algorithm=algorithm, headers={"kid": kid} if kid else None)

    async def user(self, token: str) -> User:
        answer = await self.answer(token)
        assert answer is not None
        return answer.user

    async def answer(self, token: str, *audiences: str) -> TokenAnswer | None:
        found = self.tokens.authenticate_token(token, audiences)
        return await found if isinstance(found, Awaitable) else found

    async def refused(self, token: str) -> str:
        with pytest.raises(TokenError) as caught:
            await self.answer(token)
        return str(caught.value)


@pytest.fixture
def provider() -> Provider:
    return Provider()


async def test_a_token_of_the_provider(provider: Provider) -> None:
    token = provider.token()
    answer = await provider.answer(token)
    assert answer is not None
    assert answer.user == User(f"{ISSUER}#jane")
    assert answer.audiences == ("api",)
    assert answer.expires == provider.clock.now().timestamp() + 300
    assert provider.asked == [CONFIG, KEYS]
    # the keys are known now, so that the next is answered at once
    assert provider.tokens.authenticate_token(provider.token(sub="joe")) is not None
    assert isinstance(provider.tokens.authenticate_token(token), TokenAnswer)
    assert provider.tokens.authenticate_token(token, ("vault",)) is None
    assert len(provider.asked) == 2


async def test_tokens_of_others_are_left_to_them(provider: Provider) -> None:
    for token in ("x", "a.b.c", provider.token(iss="https://elsewhere"), provider.token(iss=None)):
        assert provider.tokens.authenticate_token(token) is None
    assert provider.asked == []


@pytest.mark.parametrize(
    ("settings", "claims", "name", "groups"),
    [
        ({"username_prefix": "-"}, {}, "jane", ()),
        ({"username_prefix": "corp:"}, {}, "corp:jane", ()),
        ({"username_claim": "email"}, {"email": "j@x"}, "j@x", ()),
        ({"username_claim": "email"}, {"email": "j@x", "email_verified": True}, "j@x", ()),
        ({"username_prefix": "-", "groups_claim": "g"}, {"g": ["a", "b"]}, "jane", ("a", "b")),
        ({"username_prefix": "-", "groups_claim": "g", "groups_prefix": "o:"}, {"g": "a"}, "jane", ("o:a",)),
        ({"username_prefix": "-", "groups_claim": "g"}, {}, "jane", ()),
        ({"username_prefix": "-", "required_claims": {"team": "x"}}, {"team": "x"}, "jane", ()),
        ({"username_prefix": "-", "client_ids": ["other", "app"]}, {"aud": ["x", "app"]}, "jane", ()),
    ],
)
async def test_how_users_are_read(settings: Any, claims: Any, name: str, groups: tuple[str, ...]) -> None:
    provider = Provider(**settings)
    assert await provider.user(provider.token(**claims)) == User(name, groups=groups)


@pytest.mark.parametrize(
    ("settings", "claims", "told"),
    [
        ({}, {"aud": "other"}, 'oidc: expected audience in ["app"] got ["other"]'),
        ({}, {"aud": None}, 'oidc: expected audience in ["app"] got []'),
        ({}, {"aud": {"app": 1}}, 'oidc: expected audience in ["app"] got []'),
        ({}, {"exp": 1}, "token is expired"),
        ({}, {"exp": None}, "token is expired"),
        ({}, {"nbf": 4102444800}, "not before"),
        ({}, {"sub": None}, 'oidc: parse username claims "sub": claim not present'),
        ({"username_claim": "n"}, {"n": 5}, 'oidc: parse username claims "n": is no text'),
        ({"username_claim": "email"}, {"email": "a", "email_verified": False}, "oidc: email not verified"),
        ({"username_claim": "email"}, {"email": "a", "email_verified": "true"}, "oidc: email not verified"),
        ({"groups_claim": "g"}, {"g": [1]}, 'oidc: parse groups claim "g"'),
        ({"required_claims": {"team": "x"}}, {}, "oidc: required claim team not present"),
        ({"required_claims": {"team": "x"}}, {"team": "y"}, "oidc: required claim team value does not match"),
    ],
)
async def test_what_is_refused(settings: Any, claims: Any, told: str) -> None:
    provider = Provider(**settings)
    assert told in await provider.refused(provider.token(**claims))


async def test_other_algorithms_and_keys_are_refused(provider: Provider) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = jwt.encode({"iss": ISSUER, "aud": "app", "sub": "x", "exp": 9e9}, "", algorithm="none")
    assert "unsupported algorithm" in await provider.refused(unsigned)
    assert "unsupported algorithm" in await provider.refused(provider.token(public.hex(), algorithm="HS256"))
    assert "unsupported algorithm" in await provider.refused(provider.token(algorithm="RS512"))
    assert "unsupported algorithm" in await provider.refused(provider.token(EC, algorithm="ES256"))
    assert "failed to verify" in await provider.refused(provider.token(OTHER))
    assert "failed to verify" in await provider.refused(provider.token(kid="two"))
    head, payload, signature = provider.token().split(".")
    forged = provider.token(sub="root").split(".")[1]
    assert "failed to verify" in await provider.refused(f"{head}.{forged}.{signature}")
    assert payload != forged


async def test_keys_that_cannot_be_used_are_passed_over(provider: Provider) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    provider.tokens = provider.with_settings(signing_algorithms=["RS256", "ES256", "PS256"])
    provider.keys = [
        "nonsense",
        {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"},
        {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "broken"},
        jwk(weak, "weak"),
        jwk(RSA, "encrypts", use="enc"),
        jwk(RSA, "fixed", alg="PS256"),
        jwk(EC, "ec"),
    ]
    for key, kid, algorithm in ((weak, "weak", "RS256"), (RSA, "encrypts", "RS256"), (RSA, "fixed", "RS256")):
        await provider.refused(provider.token(key, kid, algorithm))
    assert (await provider.user(provider.token(RSA, "fixed", "PS256"))).name.endswith("#jane")
    assert (await provider.user(provider.token(EC, "ec", "ES256"))).name.endswith("#jane")
    assert (await provider.user(provider.token(EC, None, "ES256"))).name.endswith("#jane")


async def test_a_new_key_is_fetched_and_a_withdrawn_one_goes(provider: Provider) -> None:
    await provider.user(provider.token())
    provider.keys = [jwk(OTHER, "two")]
    fresh = provider.token(OTHER, "two")
    # not at once again: invented key ids must not set off a fetch each
    assert "failed to verify" in await provider.refused(fresh)
    assert len(provider.asked) == 2
    provider.clock.advance(11)
    await provider.user(provider.token(OTHER, "two"))
    assert len(provider.asked) == 4
    await provider.refused(provider.token(RSA, "one"))


async def test_keys_grow_old(provider: Provider) -> None:
    await provider.user(provider.token())
    provider.keys = []
    provider.clock.advance(3601)
    assert "failed to verify" in await provider.refused(provider.token())


async def test_many_at_once_share_one_fetch(provider: Provider) -> None:
    users = await asyncio.gather(*(provider.user(provider.token(sub=f"u{number}")) for number in range(20)))
    assert len({user.name for user in users}) == 20
    assert provider.asked == [CONFIG, KEYS]


async def test_a_provider_that_is_away(provider: Provider) -> None:
    provider.down = True
    assert await provider.refused(provider.token()) == "oidc: authenticator not initialized"
    assert await provider.refused(provider.token()) == "oidc: authenticator not initialized"
    assert len(provider.asked) == 1
    provider.down = False
    provider.clock.advance(11)
    await provider.user(provider.token())
    provider.down = True
    provider.clock.advance(1800)
    await provider.user(provider.token())
    provider.clock.advance(1900)
    assert await provider.refused(provider.token()) == "oidc: authenticator not initialized"


@pytest.mark.parametrize(
    "config",
    [{"issuer": "https://evil", "jwks_uri": KEYS}, {"issuer": ISSUER, "jwks_uri": "http://login.example/keys"}, {}],
)
async def test_a_provider_that_says_something_else(provider: Provider, config: dict[str, str]) -> None:
    provider.config = config
    assert await provider.refused(provider.token()) == "oidc: authenticator not initialized"


async def test_documents_are_bounded() -> None:
    for body in (b"[]", b"{", b" " * (1 << 21), b"[" * 100_000):

        async def fetch(url: str, body: bytes = body) -> bytes:
            return body

        with pytest.raises(JwksError):
            await ProviderKeys(ISSUER, fetch=fetch, clock=FakeClock()).fetch("a", "RS256")
    many = Provider()
    many.keys = [jwk(RSA, "one")] * 101
    assert await many.refused(many.token()) == "oidc: authenticator not initialized"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"issuer": "http://login.example"}, "issuer"),
        ({"issuer": "https://login.example?x"}, "issuer"),
        ({"client_ids": []}, "client_ids"),
        ({"username_claim": ""}, "username_claim"),
        ({"signing_algorithms": ["HS256"]}, "signing_algorithms: 'HS256' is not one of ES256"),
        ({"signing_algorithms": []}, "signing_algorithms"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(OidcError, match=told):
        Provider(**settings)
