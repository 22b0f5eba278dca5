"""Registries of the OCI distribution specification: manifests and blobs over HTTP, with tokens where wanted."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import msgspec

from pilothouse.node.config import RegistryAuth
from pilothouse.node.errors import ImagePullError, RegistryUnavailable, RuntimeUnavailable

from .oci import ACCEPTED, Descriptor, check_digest
from .reference import Reference

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Registry"]

_MAX_MANIFEST = 4 << 20
_MAX_TOKEN = 1 << 20
_MAX_REDIRECTS = 5
_CHUNK = 1 << 20
_CONNECT_SECONDS, _READ_SECONDS = 15, 60
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_DOCKER_HOST = "registry-1.docker.io"


class Registry:
    """One repository of a registry, for the length of one pull. Use it as an asynchronous context."""

    def __init__(self, reference: Reference, auth: RegistryAuth | None, *, insecure: bool = False) -> None:
        self._reference = reference
        self._auth = auth
        host = _DOCKER_HOST if reference.registry == "docker.io" else reference.registry
        local = host.rpartition(":")[0] or host
        self._scheme = "http" if insecure or local in {"localhost", "127.0.0.1", "[::1]"} else "https"
        self._base = f"{self._scheme}://{host}/v2/{reference.repository}"
        self._authorization = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        try:
            import aiohttp  # noqa: PLC0415  # only a pull wants it
        except ImportError:
            raise RuntimeUnavailable("pulling images wants aiohttp: pip install 'pilothouse[server]'") from None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def manifest(self, wanted: str) -> tuple[bytes, str, str]:
        """Return a manifest's or index's bytes, media type and digest, by tag or digest. Raises `ImagePullError`."""
        async with self._get(f"{self._base}/manifests/{wanted}", {"Accept": ACCEPTED}) as response:
            data = await _bounded(response, _MAX_MANIFEST)
            media_type = response.headers.get("Content-Type", "")
        digest = wanted if ":" in wanted else f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            check_digest(data, digest)
        except ValueError as error:
            raise ImagePullError(self._failed(str(error))) from error
        return data, media_type, digest

    async def small_blob(self, wanted: Descriptor, limit: int) -> bytes:
        """Return a blob of at most `limit` bytes, not checked. Raises `ImagePullError`."""
        async with self._get(f"{self._base}/blobs/{wanted.digest}", {}) as response:
            return await _bounded(response, limit)

    async def blob(self, wanted: Descriptor, path: str) -> None:
        """Write a blob to a new file, its digest and size checked. Raises `ImagePullError`, `OSError`."""
        algorithm, _, expected = wanted.digest.partition(":")
        if algorithm not in {"sha256", "sha512"}:
            raise ImagePullError(self._failed(f'digest "{wanted.digest}": unknown algorithm'))
        hashing = hashlib.new(algorithm)
        count = 0
        async with self._get(f"{self._base}/blobs/{wanted.digest}", {}) as response:
            with open(path, "xb") as file:  # noqa: ASYNC230  # a chunk at a time into the page cache
                async for chunk in response.content.iter_chunked(_CHUNK):
                    count += len(chunk)
                    if wanted.size and count > wanted.size:
                        raise ImagePullError(
                            self._failed(f"blob {wanted.digest} is longer than its {wanted.size} bytes")
                        )
                    hashing.update(chunk)
                    file.write(chunk)
        if hashing.hexdigest() != expected:
            found = f"{algorithm}:{hashing.hexdigest()}"
            raise ImagePullError(
                self._failed(f"unexpected commit digest {found}, expected {wanted.digest}: failed precondition")
            )

    @asynccontextmanager
    async def _get(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp  # noqa: PLC0415  # only a pull wants it

        try:
            response = await self._follow(url, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise RegistryUnavailable(self._failed(f'failed to do request: Get "{url}": {why}')) from error
        try:
            if response.status != 200:
                raise self._refused(response.status)
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnavailable(self._failed(f"{type(error).__name__}: {error}")) from error
        finally:
            response.close()

    async def _follow(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        asked = False
        current = url
        for _ in range(_MAX_REDIRECTS + 2):
            # Credentials are the registry's; where it sends us to gets none.
            own = urlsplit(current).netloc == urlsplit(self._base).netloc
            sent = headers | ({"Authorization": self._authorization} if own and self._authorization else {})
            response = await self._open.get(current, headers=sent, allow_redirects=False)
            if response.status == 401 and own and not asked:
                asked = True
                challenge = response.headers.get("WWW-Authenticate", "")
                response.close()
                await self._authorize(challenge)
                continue
            if response.status not in {301, 302, 303, 307, 308}:
                return response
            current = urljoin(current, response.headers.get("Location", ""))
            response.close()
            if urlsplit(current).scheme not in {"https", self._scheme}:
                raise ImagePullError(self._failed("the registry leads to an address without TLS"))
        raise ImagePullError(self._failed("too many redirects"))

    async def _authorize(self, challenge: str) -> None:
        kind, _, rest = challenge.partition(" ")
        auth = self._auth or RegistryAuth()
        if auth.registry_token:
            self._authorization = f"Bearer {auth.registry_token}"
            return
        if kind.lower() == "basic":
            if not auth.username:
                raise self._refused(401)
            self._authorization = _basic(auth)
            return
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.get("realm", "")
        if kind.lower() != "bearer" or urlsplit(realm).scheme not in {"https", self._scheme}:
            raise ImagePullError(self._failed(f"the registry asks for a login that is not known: {kind}"))
        scope = parameters.get("scope") or f"repository:{self._reference.repository}:pull"
        query = {"service": parameters.get("service", ""), "scope": scope}
        self._authorization = f"Bearer {await self._token(realm, query, auth)}"

    async def _token(self, realm: str, query: dict[str, str], auth: RegistryAuth) -> str:
        if auth.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": auth.identity_token,
                "client_id": "pilothouse",
            }
            request = self._open.post(realm, data=form)
        else:
            headers = {"Authorization": _basic(auth)} if auth.username else {}
            request = self._open.get(realm, params=query, headers=headers)
        async with request as response:
            if response.status != 200:
                raise self._refused(response.status)
            try:
                answer: dict[str, Any] = msgspec.json.decode(await _bounded(response, _MAX_TOKEN), type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise ImagePullError(self._failed(f"the token's answer cannot be read: {error}")) from error
        return str(answer.get("token") or answer.get("access_token") or "")

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeUnavailable("the registry is not open")
        return self._session

    def _refused(self, status: int) -> ImagePullError:
        name = str(self._reference)
        if status == 404:
            return ImagePullError(self._failed(f"{name}: not found"))
        if status in {401, 403}:
            return ImagePullError(
                self._failed(
                    "pull access denied, repository does not exist or may require authorization: "
                    "server message: insufficient_scope: authorization failed"
                )
            )
        if status in {429, 502, 503, 504}:
            return RegistryUnavailable(self._failed(f"unexpected status from GET request: {status}"))
        return ImagePullError(self._failed(f"unexpected status from GET request: {status}"))

    def _failed(self, why: str) -> str:
        name = str(self._reference)
        return f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {why}'


def _basic(auth: RegistryAuth) -> str:
    return f"Basic {b64encode(f'{auth.username}:{auth.password}'.encode()).decode()}"


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    data = await response.content.read(limit + 1)
    while len(data) <= limit and (more := await response.content.read(limit + 1 - len(data))):
        data += more
    if len(data) > limit:
        raise ImagePullError(f"the registry's answer is longer than {limit} bytes")
    return data
