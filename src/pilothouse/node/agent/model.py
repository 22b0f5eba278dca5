"""What a pod's life is told and what it asks for: events and actions, and what is known of one container. Pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from pilothouse.kinds.structs.core_pod_status import PodStatus
from pilothouse.kinds.structs.core_pods import Pod

__all__ = [
    "Action",
    "Adopted",
    "CreateContainer",
    "Created",
    "Event",
    "Failed",
    "Finish",
    "HookDone",
    "HookKind",
    "KillPod",
    "Observed",
    "PodGone",
    "PodSeen",
    "ProbeKind",
    "Probed",
    "PullImage",
    "Pulled",
    "Record",
    "RemoveContainer",
    "RunHook",
    "RunProbe",
    "RunSandbox",
    "SandboxGone",
    "SandboxMade",
    "StartContainer",
    "StopContainer",
    "StopSandbox",
    "Tell",
    "Tick",
    "WriteStatus",
]

ProbeKind: TypeAlias = Literal["startup", "liveness", "readiness"]
HookKind: TypeAlias = Literal["postStart", "preStop"]


class _Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class Record(_Fact, frozen=True, kw_only=True):
    """One container of the runtime; times are seconds since the epoch."""

    id: str
    attempt: int = 0
    state: Literal["Created", "Running", "Exited"] = "Created"
    started_at: float = 0
    finished_at: float = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""


# Events


class PodSeen(_Fact, frozen=True):
    """The pod as the API has it now, its deletion included."""

    pod: Pod


class PodGone(_Fact, frozen=True):
    """The API has the pod no more: it ends at once, and nothing is written of it."""


class Adopted(_Fact, frozen=True, kw_only=True):
    """What an earlier agent left: the sandbox that is ready, if one is, and the containers by name, old ones first.

    `attempt` is the newest sandbox's, ready or not; -1 where there is none.
    """

    sandbox_id: str = ""
    ip: str = ""
    attempt: int = -1
    records: tuple[tuple[str, Record], ...] = ()


class SandboxMade(_Fact, frozen=True):
    """A sandbox is there."""

    id: str
    ip: str = ""


class SandboxGone(_Fact, frozen=True):
    """A sandbox has ended, asked for or not."""

    id: str


class Pulled(_Fact, frozen=True, kw_only=True):
    """A container's image is here; `text` is what to tell of it."""

    name: str
    image_id: str
    text: str


class Created(_Fact, frozen=True):
    """A container was made and does not run yet."""

    name: str
    id: str


class Failed(_Fact, frozen=True, kw_only=True):
    """An action failed; `reason` is the word that a status shows. For a sandbox and mounts `name` is empty."""

    what: Literal["sandbox", "mounts", "pull", "create", "start"]
    name: str = ""
    reason: str = ""
    message: str = ""


class Observed(_Fact, frozen=True):
    """The runtime's word of one container."""

    name: str
    record: Record


class Probed(_Fact, frozen=True, kw_only=True):
    """How a probe of a container went; an error of the prober itself is neither success nor failure."""

    name: str
    id: str
    kind: ProbeKind
    result: Literal["success", "failure", "error"]
    output: str = ""


class HookDone(_Fact, frozen=True, kw_only=True):
    """A hook has ended; `message` says why it failed, empty for success."""

    name: str
    id: str
    hook: HookKind
    message: str = ""


class KillPod(_Fact, frozen=True, kw_only=True):
    """The node ends the pod: its status is then Failed with this reason and message."""

    reason: str
    message: str
    grace: float | None = None
    condition: str = ""


class Tick(_Fact, frozen=True):
    """Time has passed."""


Event: TypeAlias = (
    PodSeen
    | PodGone
    | Adopted
    | SandboxMade
    | SandboxGone
    | Pulled
    | Created
    | Failed
    | Observed
    | Probed
    | HookDone
    | KillPod
    | Tick
)

# Actions


class RunSandbox(_Fact, frozen=True):
    """Mount the pod's volumes, then make a sandbox: `SandboxMade`, or `Failed` of "mounts" or "sandbox"."""

    attempt: int


class StopSandbox(_Fact, frozen=True):
    """Stop a sandbox: `SandboxGone`."""

    id: str


class PullImage(_Fact, frozen=True):
    """See to it that a container's image is here: `Pulled`, or `Failed` of "pull"."""

    name: str


class CreateContainer(_Fact, frozen=True):
    """Make a container: `Created`, or `Failed` of "create"."""

    name: str
    sandbox_id: str
    attempt: int


class StartContainer(_Fact, frozen=True):
    """Start a container: `Observed`, or `Failed` of "start" and `Observed`."""

    name: str
    id: str


class StopContainer(_Fact, frozen=True):
    """Send the stop signal, and SIGKILL after `grace` seconds: `Observed`."""

    name: str
    id: str
    grace: float


class RemoveContainer(_Fact, frozen=True):
    """Remove a container that has ended and that nobody looks at any more."""

    id: str


class RunProbe(_Fact, frozen=True):
    """Probe a container: `Probed`."""

    name: str
    id: str
    kind: ProbeKind


class RunHook(_Fact, frozen=True):
    """Run a hook of a container, for `seconds` at most (0: as long as it takes): `HookDone`."""

    name: str
    id: str
    hook: HookKind
    seconds: float = 0


class Tell(_Fact, frozen=True):
    """Record an event about the pod, or about one of its containers."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    container: str = ""


class WriteStatus(_Fact, frozen=True):
    """Write the pod's status."""

    status: PodStatus


class Finish(_Fact, frozen=True):
    """Nothing of the pod runs any more: unmount, and where it was deleted remove it from the API after its status."""

    delete: bool


Action: TypeAlias = (
    RunSandbox
    | StopSandbox
    | PullImage
    | CreateContainer
    | StartContainer
    | StopContainer
    | RemoveContainer
    | RunProbe
    | RunHook
    | Tell
    | WriteStatus
    | Finish
)
