"""What the parts of the API server need of each other, as typed ports; `server.py` plugs them together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from pilothouse.apiserver.model import Duplex, Request, Sink, User

__all__ = [
    "AdmissionPlugin",
    "AdmissionRequest",
    "Attributes",
    "Authenticator",
    "Authorizer",
    "ContainerStreams",
    "Decision",
    "Gvk",
    "Gvr",
    "Local",
    "NodeStreams",
    "Object",
    "Operation",
    "View",
]

Object: TypeAlias = dict[str, Any]
Gvk: TypeAlias = tuple[str, str, str]
Gvr: TypeAlias = tuple[str, str, str]
Operation: TypeAlias = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


class View(Protocol):
    """The objects that the watch cache holds now, decoded on demand.

    Resources go by their full name (`pods`, `roles.rbac.authorization.k8s.io`). What comes back is shared and must not
    be changed. Custom resources come in the version they are kept in.
    """

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """Return one object; the namespace is empty for resources of the cluster."""

    def list(self, resource: str, namespace: str = "") -> Sequence[Object]:
        """Return all objects of a resource, or those of one namespace."""

    def version(self, resource: str) -> int:
        """Return a number that grows with every change of the resource, so that what was derived can be kept."""

    def subscribe(self, resource: str, changed: Callable[[Object | None, Object | None], None]) -> Callable[[], None]:
        """Call `changed(old, new)` for every change from now on, at once when it is applied; return how to stop it."""

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        """As `subscribe`, with the namespace and name alone: nothing is decoded for it."""


class Local(Protocol):
    """The API server called from within: same admission and validation, as a user that may do everything.

    Errors are raised as `ApiStatus`. Paths are those of the API (`/api/v1/namespaces/x/pods`).
    """

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        """Send one request and return the decoded answer. Raises ApiStatus for refusals."""


@dataclass(slots=True)
class Attributes:
    """What somebody wants to do, as authorization sees it. Without `is_resource` only `verb` and `path` count."""

    user: User
    verb: str
    is_resource: bool = True
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    field_selector: str = ""
    """Of a list, watch or deletecollection, as sent: what it narrows down may be allowed where all is not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed; `reason` is shown to the caller, `error` says what could not be evaluated."""

    allowed: bool
    reason: str = ""
    denied: bool = False
    """Whether it was refused outright rather than merely not allowed by anybody."""
    error: str = ""


class Authenticator(Protocol):
    """Finds out who asks."""

    def authenticate(self, request: Request) -> User | Awaitable[User | None] | None:
        """Return the user, None where no credentials are given.

        Raises Unauthorized (`kinds.status.generic(401)`'s Status) for credentials that are not good. At once for what
        is remembered or can be computed; else something to await.
        """


class Authorizer(Protocol):
    """Says who may do what."""

    def authorize(self, attributes: Attributes) -> Decision:
        """Decide. Cheap: called for each request; what is decided may be remembered until the rules change."""


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way through admission.

    kind, resource: of the object as it is handled (group, version, kind or plural). object: the new object, None for
    a deletion; mutating plugins change it in place or put another there. old: what is there now, None for a creation;
    never to be changed. options: the decoded CreateOptions, UpdateOptions, DeleteOptions, for CONNECT the decoded
    PodExecOptions and the like.
    """

    operation: Operation
    kind: Gvk
    resource: Gvr
    subresource: str
    namespace: str
    name: str
    object: Object | None
    old: Object | None
    options: Object
    dry_run: bool
    user: User
    namespaced: bool = True
    warn: Callable[[str], None] = lambda text: None
    """Adds a text for the caller's `Warning` headers."""
    annotate: Callable[[str, str], None] = lambda name, text: None
    """Adds an annotation to the audit event."""
    convert: Callable[[Object, str], Awaitable[Object]] | None = None
    """Gives an object in another API version of its kind; None where there is only one."""
    equivalents: Sequence[tuple[Gvr, Gvk]] = ()
    """The same resource in other groups and versions, for `matchPolicy: Equivalent`."""
    reinvocation: dict[str, Any] = field(default_factory=dict)
    """What plugins remember between their first call and the reinvocation of this request."""


class AdmissionPlugin(Protocol):
    """One step of admission. Refusals are raised as `ApiStatus` (Forbidden, mostly).

    Either method may do its work at once and return None, or return something to await.
    """

    name: str

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether it may ever have something to do there; asked again when `revision` changes."""

    @property
    def revision(self) -> int:
        """A number that changes when `handles` may answer otherwise (webhook configurations came or went)."""

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Change the object. Returning None means it is done."""

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Refuse what may not be, after all mutation."""


class NodeStreams(Protocol):
    """What runs pods: commands in containers, their output, their ports. Errors are raised as `ApiStatus`."""

    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        """Write a container's log; with `follow` until it ends. Options as in PodLogOptions, decoded."""

    async def exec(
        self, pod: Object, container: str, command: Sequence[str], streams: ContainerStreams, *, attach: bool = False
    ) -> int:
        """Run a command (or attach to the running one) until it ends; return its exit code."""

    async def port_forward(self, pod: Object, port: int, connection: Duplex) -> None:
        """Carry one TCP connection to a port of the pod until either side ends."""

    def address(self, node: Object) -> tuple[str, int] | None:
        """Return host and port where the node's own HTTP API answers, None where it has none."""


class ContainerStreams(Protocol):
    """The streams of one exec or attach."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    async def read_stdin(self) -> bytes:
        """Wait for input; empty at its end."""

    def write_stdout(self, data: bytes) -> None:
        """Send output."""

    def write_stderr(self, data: bytes) -> None:
        """Send error output."""

    async def drain(self) -> None:
        """Wait until the client has taken enough."""

    async def resized(self) -> tuple[int, int]:
        """Wait for the next size of the terminal: width, height in characters."""
