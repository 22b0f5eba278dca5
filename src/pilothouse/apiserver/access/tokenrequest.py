"""TokenRequest: tokens for service accounts on demand, validated as Kubernetes does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.ports import Object, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds import times
from pilothouse.kinds.fielderrors import ErrorList, Path, quote
from pilothouse.kinds.status import ApiStatus, BadRequest, conflict, invalid, not_found

__all__ = ["DEFAULT_SECONDS", "ISSUED", "LONGEST_SECONDS", "SHORTEST_SECONDS", "TokenRequests"]

GROUP: Final = "authentication.k8s.io"
SHORTEST_SECONDS: Final = 600
LONGEST_SECONDS: Final = 1 << 32
DEFAULT_SECONDS: Final = 3600
ISSUED: Final = "authentication.kubernetes.io/issued-credential-id"
"""The annotation of the audit event that says which token was given."""

_EXPIRATION: Final = Path("spec.expirationSeconds")


class TokenRequests:
    """Gives tokens for service accounts that are there, bound to objects that are there."""

    def __init__(self, view: View, tokens: ServiceAccountTokens, *, clock: Clock | None = None) -> None:
        self._view = view
        self._tokens = tokens
        self._clock = clock or SystemClock()

    def issue(
        self,
        namespace: str,
        name: str,
        audiences: Sequence[str] = (),
        expiration: int = DEFAULT_SECONDS,
        bound_object: Object | None = None,
    ) -> Object:
        """Return a TokenRequest with its status for a service account.

        audiences: the API server itself if empty. expiration: seconds. bound_object: a reference as in
        `spec.boundObjectRef`. Raises ApiStatus.
        """
        spec: Object = {"audiences": list(audiences), "expirationSeconds": expiration, "boundObjectRef": bound_object}
        return self.create(namespace, name, {"spec": spec})

    def create(
        self,
        namespace: str,
        name: str,
        body: Object,
        annotate: Callable[[str, str], None] = lambda name, text: None,
    ) -> Object:
        """Answer a TokenRequest posted to the subresource `token` of a service account.

        annotate: adds to the audit event. Raises Invalid, BadRequest, NotFound, Conflict.
        """
        _same_place(body, namespace, name)
        account = self._view.get("serviceaccounts", namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        spec = {"audiences": None, "expirationSeconds": None, "boundObjectRef": None, **(body.get("spec") or {})}
        spec["audiences"] = spec["audiences"] or list(self._tokens.api_audiences)
        if spec["expirationSeconds"] is None:
            spec["expirationSeconds"] = DEFAULT_SECONDS
        seconds = int(spec["expirationSeconds"])
        _validate(seconds)
        bound = self._bound(namespace, name, spec["boundObjectRef"])
        now = times.format_seconds(self._clock.now())
        expires = self._tokens.expiration(seconds)
        token, jti = self._tokens.sign(account, spec["audiences"], seconds, bound)
        annotate(ISSUED, f"JTI={jti}")
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {
                **(body.get("metadata") or {}),
                "name": name,
                "namespace": namespace,
                "creationTimestamp": now,
            },
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": expires},
        }

    def _bound(self, namespace: str, account: str, reference: Object | None) -> dict[str, Object]:
        if reference is None:
            return {}
        group, version = _group_version(reference.get("apiVersion") or "")
        kind, name = reference.get("kind") or "", reference.get("name") or ""
        if group or kind not in {"Pod", "Secret", "Node"}:
            raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        resource = f"{kind.lower()}s"
        found = self._view.get(resource, "" if kind == "Node" else namespace, name)
        if found is None:
            raise not_found("", resource, name)
        bound = {kind.lower(): found}
        if kind == "Pod":
            bound.update(self._node_of(found, account))
        wanted = reference.get("uid") or ""
        if wanted and wanted != found["metadata"].get("uid"):
            raise _other_object(kind, name, wanted)
        return bound

    def _node_of(self, pod: Object, account: str) -> dict[str, Object]:
        spec = pod.get("spec") or {}
        if (spec.get("serviceAccountName") or "") != account:
            raise BadRequest(
                f"cannot bind token for serviceaccount {quote(account)} "
                "to pod running with different serviceaccount name."
            )
        node = spec.get("nodeName") or ""
        if not node:
            return {}
        # a pod may be on a node that is not registered; the token then names it without its uid
        return {"node": self._view.get("nodes", "", node) or {"metadata": {"name": node}}}


def _other_object(kind: str, name: str, uid: str) -> ApiStatus:
    why = (
        f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        "The object might have been deleted and then recreated"
    )
    return conflict("", kind, name, why)


def _group_version(api_version: str) -> tuple[str, str]:
    group, slash, version = api_version.rpartition("/")
    return (group, version) if slash else ("", api_version)


def _same_place(body: Object, namespace: str, name: str) -> None:
    errors = ErrorList()
    metadata: dict[str, Any] = body.get("metadata") or {}
    for field, wanted, what in (("name", name, "name"), ("namespace", namespace, "namespace")):
        held = metadata.get(field) or ""
        if held and held != wanted:
            errors.invalid(Path("metadata").child(field), held, f"must match the service account {what} if specified")
            raise invalid(GROUP, "TokenRequest", name, errors)


def _validate(seconds: int) -> None:
    errors = ErrorList()
    if seconds < SHORTEST_SECONDS:
        errors.invalid(_EXPIRATION, seconds, "may not specify a duration less than 10 minutes")
    if seconds > LONGEST_SECONDS:
        errors.invalid(_EXPIRATION, seconds, "may not specify a duration larger than 2^32 seconds")
    if errors:
        raise invalid(GROUP, "TokenRequest", "", errors)
