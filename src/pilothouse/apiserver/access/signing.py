"""The keys that sign service-account tokens: signing, checking signatures, and telling others the public keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = [
    "JWKS_PATH",
    "OPENID_PATH",
    "KeyRing",
    "PublicKey",
    "SigningKeyError",
    "new_key",
    "openid_configuration",
    "unverified",
]

OPENID_PATH: Final = "/.well-known/openid-configuration"
JWKS_PATH: Final = "/openid/v1/jwks"

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CURVES: Final[Mapping[str, tuple[str, str, int]]] = {
    "secp256r1": ("ES256", "P-256", 32),
    "secp384r1": ("ES384", "P-384", 48),
    "secp521r1": ("ES512", "P-521", 66),
}
_LONGEST: Final = 64 * 1024
"""Characters of the longest token that is looked into."""
_FEWEST_BITS: Final = 2048


class SigningKeyError(Exception):
    """A key cannot be used; the message says why and which are good."""


def new_key() -> bytes:
    """Return a new private key (ECDSA P-256, PEM). Tokens that it signs have the algorithm ES256."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key with the one algorithm it is used with, so that a token cannot choose another."""

    kid: str
    algorithm: str
    key: PublicKey


class KeyRing:
    """One key that signs and all keys whose signatures are good.

    signing: a private key, PEM; None for a ring that only checks. verification: further public or private keys, PEM,
    several in one text too. Good are RSA of 2,048 bits and more, and ECDSA P-256, P-384, P-521. Raises SigningKeyError.
    """

    def __init__(self, signing: bytes | None, verification: Iterable[bytes] = ()) -> None:
        self._private: _PrivateKey | None = None
        keys: list[_Key] = []
        if signing is not None:
            self._private = _load_private(signing)
            keys.append(_key(self._private.public_key()))
        keys += [_key(public) for text in verification for public in _load_public(text)]
        self._keys = {key.kid: key for key in keys}
        if not self._keys:
            raise SigningKeyError("service-account keys: none given; make one with `new_key`")
        self._first = keys[0]

    def __repr__(self) -> str:
        return f"KeyRing(kids={list(self._keys)})"

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed token with these claims. Raises SigningKeyError where there is no private key."""
        if self._private is None:
            raise SigningKeyError("service-account keys: no private key to sign with")
        from jwt import api_jws  # noqa: PLC0415  # a tenth of the start's time, and not needed before the first token

        payload = msgspec.json.encode(claims)
        return api_jws.encode(
            payload, self._private, self._first.algorithm, headers={"kid": self._first.kid, "typ": None}
        )

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that one of the keys signed. Only the signature is checked.

        Raises ValueError with Kubernetes' text.
        """
        from jwt import PyJWTError, api_jws, get_unverified_header  # noqa: PLC0415  # as above

        try:
            header = get_unverified_header(token)
        except PyJWTError as error:
            raise ValueError("invalid bearer token") from error
        kid = header.get("kid")
        candidates = [self._keys[kid]] if kid in self._keys else [] if kid else list(self._keys.values())
        if not candidates:
            raise ValueError("invalid signature, no keys found")
        for key in candidates:
            try:
                # the algorithm is the key's, whatever the token says: no `none`, no HMAC with a public key
                payload = api_jws.decode(token, key.key, algorithms=[key.algorithm])
                return _claims(payload)
            except PyJWTError:
                continue
        raise ValueError("go-jose/go-jose: error in cryptographic primitive")

    @property
    def algorithms(self) -> list[str]:
        """The algorithms of all keys, sorted."""
        return sorted({key.algorithm for key in self._keys.values()})

    def jwks(self) -> bytes:
        """Return the document served at `JWKS_PATH`, JSON (RFC 7517)."""
        return msgspec.json.encode({"keys": [_jwk(key) for key in self._keys.values()]})


def openid_configuration(issuer: str, jwks_uri: str, ring: KeyRing) -> bytes:
    """Return the document served at `OPENID_PATH`, JSON (OpenID Connect Discovery 1.0)."""
    document = {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ring.algorithms,
    }
    return msgspec.json.encode(document)


def unverified(token: str) -> dict[str, Any] | None:
    """Return the claims of a token nobody has checked, to find who could; None where it is no token."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return None
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        return _claims(payload)
    except ValueError:
        return None


def _claims(payload: Any) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("the claims are no JSON object") from error


def _load_private(text: bytes) -> _PrivateKey:
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError) as error:
        raise SigningKeyError("service-account signing key: is no unencrypted PEM private key") from error
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise SigningKeyError(f"service-account signing key: {type(key).__name__} is neither RSA nor ECDSA")


def _load_public(text: bytes) -> list[PublicKey]:
    found: list[PublicKey] = []
    for block in _blocks(text):
        if b"PRIVATE KEY" in block:
            found.append(_load_private(block).public_key())
            continue
        try:
            key = serialization.load_pem_public_key(block)
        except ValueError as error:
            raise SigningKeyError("service-account key: is no PEM public key") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise SigningKeyError(f"service-account key: {type(key).__name__} is neither RSA nor ECDSA")
        found.append(key)
    return found


def _blocks(text: bytes) -> Sequence[bytes]:
    mark = b"-----BEGIN "
    return [mark + rest for rest in text.split(mark)[1:]]


def _key(public: PublicKey) -> _Key:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    kid = _base64(hashlib.sha256(der).digest())
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _FEWEST_BITS:
            raise SigningKeyError(
                f"service-account key: RSA of {public.key_size} bits; at least {_FEWEST_BITS} are needed"
            )
        return _Key(kid, "RS256", public)
    curve = _CURVES.get(public.curve.name)
    if curve is None:
        raise SigningKeyError(f"service-account key: curve {public.curve.name}; use P-256, P-384 or P-521")
    return _Key(kid, curve[0], public)


def _jwk(key: _Key) -> dict[str, str]:
    if isinstance(key.key, rsa.RSAPublicKey):
        numbers = key.key.public_numbers()
        kind = {"kty": "RSA", "kid": key.kid, "alg": key.algorithm, "n": _integer(numbers.n), "e": _integer(numbers.e)}
        return {"use": "sig", **kind}
    _, curve, size = _CURVES[key.key.curve.name]
    point = key.key.public_numbers()
    where = {"crv": curve, "alg": key.algorithm, "x": _integer(point.x, size), "y": _integer(point.y, size)}
    return {"use": "sig", "kty": "EC", "kid": key.kid, **where}


def _integer(value: int, size: int = 0) -> str:
    return _base64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
