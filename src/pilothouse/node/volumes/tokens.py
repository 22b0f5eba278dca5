"""Service-account tokens bound to pods, asked for and renewed as a kubelet does: after 80 % of their time, or a day."""

from __future__ import annotations

import msgspec

from pilothouse.client import Client
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_volumes import ServiceAccountTokenProjection

__all__ = ["DEFAULT_SECONDS", "Tokens"]

DEFAULT_SECONDS = 3600
_DAY = 24 * 3600.0
_RENEW_AT = 0.8


class _Token(msgspec.Struct, frozen=True):
    text: str
    renew: float
    ends: float

    def __repr__(self) -> str:
        return f"_Token(renew={self.renew})"


class Tokens:
    """The tokens of a node's pods, in memory only. Times are seconds since the epoch."""

    def __init__(self, client: Client, *, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._tokens: dict[str, dict[tuple[str, int], _Token]] = {}

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def get(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        """Return a token that is good for a while yet; one that cannot be renewed is given until it ends.

        Raises ApiStatus, ClientError, OSError.
        """
        seconds = wanted.expiration_seconds or DEFAULT_SECONDS
        own = self._tokens.setdefault(pod.metadata.uid, {})
        key = (wanted.audience, seconds)
        found, now = own.get(key), self._now()
        if found is not None and now < found.renew:
            return found.text
        try:
            made = own[key] = await self._ask(pod, wanted.audience, seconds)
        except Exception:
            if found is not None and now < found.ends:
                return found.text
            raise
        return made.text

    async def _ask(self, pod: Pod, audience: str, seconds: int) -> _Token:
        meta = pod.metadata
        account = pod.spec.service_account_name or "default"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid}
        spec = {"audiences": [audience] if audience else [], "expirationSeconds": seconds, "boundObjectRef": bound}
        body = msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
        path = f"/api/v1/namespaces/{meta.namespace}/serviceaccounts/{account}/token"
        before = self._now()
        answer = msgspec.json.decode(await self._client.request("POST", path, body))
        # The server may give more or less than was asked for, and says how much.
        given = float(answer["spec"].get("expirationSeconds") or seconds)
        lasts = min(given, float(seconds)) if seconds else given
        return _Token(answer["status"]["token"], before + min(lasts * _RENEW_AT, _DAY), before + given)

    def due(self, uid: str) -> float | None:
        """Return when the first of a pod's tokens is to be renewed, None where it has none."""
        own = self._tokens.get(uid)
        return min(each.renew for each in own.values()) if own else None

    def forget(self, uid: str) -> None:
        """Forget a pod's tokens."""
        self._tokens.pop(uid, None)
