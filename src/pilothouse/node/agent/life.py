"""A pod's life on its node: what happened becomes what is to be done. Pure: no input or output, time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from pilothouse.kinds.structs.core_pod_status import PodStatus
from pilothouse.kinds.structs.core_pods import Pod

from .backoff import Backoff
from .containers import Containers
from .facts import grace_of, role_of, should_restart
from .model import (
    Action,
    Adopted,
    Created,
    Event,
    Failed,
    Finish,
    HookDone,
    KillPod,
    Observed,
    PodGone,
    PodSeen,
    Probed,
    Pulled,
    RunSandbox,
    SandboxGone,
    SandboxMade,
    StopSandbox,
    Tell,
    Tick,
    WriteStatus,
)
from .slot import Slot
from .statuses import NodeFacts, View, pod_status

__all__ = ["PodLife"]

_DEADLINE = "Pod was active on the node longer than the specified deadline"
_GONE_GRACE = 2.0
_LOST_CODE = 137


class PodLife:
    """The state machine of one pod.

    `handle` takes an event and returns what to do; every action but `Tell` and `WriteStatus` is answered by an event.
    `due` is when a `Tick` is wanted, in seconds since the epoch as all times are; None for never.
    """

    def __init__(self, pod: Pod, node: NodeFacts) -> None:
        self.pod = pod
        self.node = node
        self.sandbox_id = ""
        self.ip = ""
        self.due: float | None = None
        self.finished = False
        self.status: PodStatus = pod.status
        self._written: PodStatus | None = None
        self._epoch = -1
        self._making = False
        self._stopping = False
        self._had_sandbox = False
        self._gone = False
        self._kill: KillPod | None = None
        self._sandbox_backoff = Backoff(first=1.0, cap=60.0)
        self._failed_at = 0.0
        self._end_by: float | None = None
        self._deletable = False
        self._start_time = pod.status.start_time
        self._out: list[Action] = []
        self.slots: dict[str, Slot] = {}
        self._containers = Containers(self._out.append, self._wake)
        self._fit_slots()

    @property
    def is_ending(self) -> bool:
        """Whether all of the pod is to end."""
        return self._gone or self._kill is not None or self.pod.metadata.deletion_timestamp is not None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing of the pod runs any more or will run again."""
        return self.finished

    @property
    def kill_reason(self) -> str:
        """Why the node ended the pod, empty where it did not."""
        return "" if self._kill is None else self._kill.reason

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event and return what is to be done, in this order."""
        self._out.clear()
        self.due = None
        if self._start_time is None:
            self._start_time = self.node.moment(now)
        self._apply(event, now)
        self._decide(now)
        self._tell_status(now)
        return list(self._out)

    def _apply(self, event: Event, now: float) -> None:  # noqa: C901  one line each
        match event:
            case PodSeen(pod=pod):
                self.pod = pod
                self._fit_slots()
            case PodGone():
                self._gone = True
            case KillPod():
                self._kill = self._kill or event
            case Adopted():
                self._adopt(event, now)
            case SandboxMade(id=sandbox_id, ip=ip):
                self.sandbox_id, self.ip = sandbox_id, ip
                self._making, self._had_sandbox = False, True
                self._sandbox_backoff = Backoff(first=1.0, cap=60.0)
            case SandboxGone(id=sandbox_id):
                self._lost(sandbox_id, now)
            case Failed(what="sandbox" | "mounts"):
                self._sandbox_failed(event, now)
            case Failed() | Pulled() | Created() | Observed() | Probed() | HookDone():
                slot = self.slots.get(event.name)
                if slot is not None:
                    self._containers.take(slot, event, self.pod, now, ending=self.is_ending)
            case Tick():
                pass

    def _fit_slots(self) -> None:
        roles = role_of(self.pod)
        for name, (role, spec) in roles.items():
            slot = self.slots.get(name)
            if slot is None:
                self.slots[name] = Slot(name, role, spec)
                self.slots[name].first_attempt = self._runs_known(name)
            else:
                slot.spec = spec
        self.slots = {name: self.slots[name] for name in roles}

    def _runs_known(self, name: str) -> int:
        """Return how many runs of a container the API knows of, whatever became of them."""
        status = self.pod.status
        listed = (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
        known = next((each for each in listed if each.name == name and each.container_id), None)
        return 0 if known is None else known.restart_count + 1

    def _adopt(self, event: Adopted, now: float) -> None:
        self._epoch = event.attempt
        self._had_sandbox = self._epoch >= 0
        self.sandbox_id, self.ip = event.sandbox_id, event.ip
        known = {
            each.name: each for each in (*self.pod.status.container_statuses, *self.pod.status.init_container_statuses)
        }
        for name, record in event.records:
            slot = self.slots.get(name)
            if slot is None:
                continue
            slot.last, slot.current = slot.current or slot.last, record
            slot.epoch, slot.image_id = self._epoch, record.image_id
            if record.state == "Running":
                slot.begun(now)
                before = known.get(name)
                if before is not None and before.container_id.endswith(record.id):
                    self._containers.remember(slot, started=bool(before.started), ready=bool(before.ready))
        if not event.sandbox_id:
            self._lose_containers(now)

    def _lost(self, sandbox_id: str, now: float) -> None:
        if sandbox_id != self.sandbox_id or not sandbox_id:
            return
        if not self._stopping and not self.is_ending and not self._is_over():
            self._out.append(Tell("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."))
        self.sandbox_id, self._stopping = "", False
        self._lose_containers(now)

    def _lose_containers(self, now: float) -> None:
        """Without its sandbox nothing of the pod can run."""
        for slot in self.slots.values():
            slot.made, slot.pulled = "", False
            if slot.current is not None and slot.current.state != "Exited":
                slot.current = msgspec.structs.replace(
                    slot.current,
                    state="Exited",
                    finished_at=now,
                    exit_code=_LOST_CODE,
                    reason="ContainerStatusUnknown",
                    message="The container could not be located when the pod was terminated",
                )
                slot.ended()

    def _sandbox_failed(self, event: Failed, now: float) -> None:
        self._making = False
        self._failed_at = now
        self._sandbox_backoff.next(now, now)
        if event.what == "mounts":
            self._out.append(Tell("Warning", event.reason or "FailedMount", event.message))
        else:
            text = f"Failed to create pod sandbox: {event.message}"
            self._out.append(Tell("Warning", "FailedCreatePodSandBox", text))

    def _decide(self, now: float) -> None:
        if self.finished:
            self._late_deletion()
            return
        self._check_deadline(now)
        if self.is_ending or self._is_over():
            self._end(now)
        else:
            self._run(now)

    def _late_deletion(self) -> None:
        """Let a pod go at once that was over before it was deleted."""
        deleted = self.pod.metadata.deletion_timestamp is not None and not self._gone
        if deleted and not self._deletable:
            self._deletable = True
            self._out.append(Finish(delete=True))

    def _check_deadline(self, now: float) -> None:
        seconds = self.pod.spec.active_deadline_seconds
        if seconds is None or self._start_time is None or self.is_ending or self._is_over():
            return
        end = datetime.fromisoformat(self._start_time).timestamp() + seconds
        if now < end:
            self._wake(end)
            return
        self._kill = KillPod(reason="DeadlineExceeded", message=_DEADLINE)
        self._out.append(Tell("Normal", "DeadlineExceeded", _DEADLINE))

    def _run(self, now: float) -> None:
        if not self.sandbox_id:
            self._want_sandbox(now)
            return
        advance = self._advance_with(now)
        for slot in self._of("ephemeral"):
            if slot.current is None or slot.current.state != "Exited":
                advance(slot)
        if self._run_inits(advance):
            for slot in self._of("main"):
                advance(slot)

    def _advance_with(self, now: float) -> Callable[[Slot], None]:
        def advance(slot: Slot) -> None:
            self._containers.advance(slot, self.pod, self.sandbox_id, self._epoch, now)

        return advance

    def _run_inits(self, advance: Callable[[Slot], None]) -> bool:
        """Bring on init containers and sidecars; return whether main containers may run."""
        begun = self._mains_begun()
        for slot in self._of("init", "sidecar"):
            if slot.role == "sidecar":
                advance(slot)
                if not slot.is_started and not begun:
                    return False
            elif not begun and not self._init_done(slot):
                advance(slot)
                return False
        return True

    def _mains_begun(self) -> bool:
        return any(slot.epoch == self._epoch and slot.current is not None for slot in self._of("main"))

    def _init_done(self, slot: Slot) -> bool:
        record = slot.current
        done = record is not None and record.state == "Exited" and record.exit_code == 0
        return done and slot.epoch == self._epoch

    def _want_sandbox(self, now: float) -> None:
        if self._making or self._stopping:
            return
        remaining = self._sandbox_backoff.remaining(self._failed_at, now)
        if remaining > 0:
            self._wake(now + remaining)
            return
        self._making = True
        self._epoch += 1
        self._out.append(RunSandbox(self._epoch))

    def _is_over(self) -> bool:
        """Say whether no container of the pod will run again by itself."""
        for slot in self._of("init"):
            record = slot.current
            if record is not None and record.state == "Exited" and record.exit_code != 0 and not self._mains_begun():
                return not should_restart(self.pod, slot.role, slot.spec, record.exit_code) and not slot.busy
        mains = list(self._of("main"))
        return bool(mains) and all(self._is_done(slot) for slot in mains)

    def _is_done(self, slot: Slot) -> bool:
        record = slot.current
        if record is None or record.state != "Exited" or slot.busy:
            return False
        return not should_restart(self.pod, slot.role, slot.spec, record.exit_code)

    def _end(self, now: float) -> None:
        grace = self._grace()
        deadline = now + grace
        if self._end_by is None or deadline < self._end_by - 0.5:
            self._end_by = deadline  # a deletion may be made shorter while it is under way
        self._containers.end_all(self.slots.values(), self.pod, self._end_by, now)
        if self._making or any(slot.busy or slot.is_running for slot in self.slots.values()):
            return
        if self.sandbox_id:
            if not self._stopping:
                self._stopping = True
                self._out.append(StopSandbox(self.sandbox_id))
            return
        self._finish(now)

    def _grace(self) -> float:
        if self._gone:
            return _GONE_GRACE
        if self._kill is not None and self._kill.grace is not None:
            return self._kill.grace
        return grace_of(self.pod)

    def _finish(self, now: float) -> None:
        self.finished = True
        self._tell_status(now)
        self._deletable = self.pod.metadata.deletion_timestamp is not None and not self._gone
        self._out.append(Finish(delete=self._deletable))

    def _tell_status(self, now: float) -> None:
        made = pod_status(self._view(), now)
        if made != self._written and not self._gone:
            self.status = self._written = made
            self._out.append(WriteStatus(made))

    def _view(self) -> View:
        return View(
            pod=self.pod,
            slots=self.slots,
            node=self.node,
            ip=self.ip or self.status.pod_ip,
            sandbox_ready=bool(self.sandbox_id) and not self._stopping,
            had_sandbox=self._had_sandbox,
            start_time=self._start_time or "",
            before=self.status,
            kill=self._kill,
            finished=self.finished,
            epoch=self._epoch,
        )

    def _of(self, *roles: str) -> Iterable[Slot]:
        return (slot for slot in self.slots.values() if slot.role in roles)

    def _wake(self, at: float) -> None:
        self.due = at if self.due is None else min(self.due, at)
