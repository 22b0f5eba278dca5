"""A make-believe runtime for a pod's life: answers its actions by rules, in made-up time, and objects to nonsense."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilothouse.kinds.structs import Pod, from_dict, to_dict
from pilothouse.node.agent.life import PodLife
from pilothouse.node.agent.model import (
    Action,
    Adopted,
    CreateContainer,
    Created,
    Event,
    Failed,
    Finish,
    HookDone,
    Observed,
    Probed,
    Pulled,
    PullImage,
    Record,
    RemoveContainer,
    RunHook,
    RunProbe,
    RunSandbox,
    SandboxGone,
    SandboxMade,
    StartContainer,
    StopContainer,
    StopSandbox,
    Tell,
    Tick,
    WriteStatus,
)
from pilothouse.node.agent.statuses import NodeFacts

__all__ = ["Rules", "World", "make_pod"]

EPOCH = 1_700_000_000.0
NODE = NodeFacts(name="one", host_ips=("192.0.2.1",), runtime="test")


@dataclass(frozen=True)
class Rules:
    """How one container behaves: the runs in order (seconds, exit code), the last again and again; None runs on.

    stop_seconds: how long it takes to end after the signal, None for only SIGKILL ends it. pulls: failures before
    the image is there. starts, creates: failures likewise. probes: answers by kind, the last again and again.
    """

    runs: Sequence[tuple[float | None, int]] = ((None, 0),)
    stop_seconds: float | None = 0.5
    pulls: int = 0
    creates: int = 0
    starts: int = 0
    reason: str = ""
    probes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hook_seconds: float = 0.5
    hook_message: str = ""


@dataclass
class _Container:
    record: Record
    name: str
    sandbox: str
    generation: int = 0


class World:
    """One pod, its life, and what the runtime has of it. `trace` has all that happened, line by line."""

    def __init__(self, pod: dict[str, Any], rules: dict[str, Rules] | None = None) -> None:
        self.body = pod
        self.rules = rules or {}
        self.now = EPOCH
        self.trace: list[str] = []
        self.containers: dict[str, _Container] = {}
        self.sandboxes: dict[str, bool] = {}
        self.starts: dict[str, int] = {}
        self.finished = False
        self.deleted = False
        self.statuses: list[Any] = []
        self.sandbox_failures = 0
        self.attempt = -1
        self._counts: dict[tuple[str, str], int] = {}
        self._queue: list[tuple[float, int, Event | Callable[[], None]]] = []
        self._order = 0
        self._shown = ""
        self.life = PodLife(self.pod, NODE)
        self.incarnation = 0

    @property
    def pod(self) -> Pod:
        """The pod as the API has it."""
        return from_dict(self.body, Pod)

    def at(self, seconds: float, event: Event | Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        self._order += 1
        heapq.heappush(self._queue, (self.now + seconds, self._order, event))

    def run(self, seconds: float, steps: int = 3000) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(steps):
            moment = self._queue[0][0] if self._queue else None
            due = self.life.due
            if due is not None and (moment is None or due < moment) and due <= end:
                self.now = max(self.now, due)
                self.tell(Tick())
            elif moment is not None and moment <= end:
                self.now = max(self.now, moment)
                self._take(heapq.heappop(self._queue)[2])
            else:
                self.now = end
                return
        raise AssertionError("it never comes to rest")

    def _take(self, what: Event | Callable[[], None]) -> None:
        if callable(what):
            what()
        else:
            self.tell(what)

    def tell(self, event: Event) -> None:
        """Tell the pod's life of something."""
        self._line("<-", event)
        for action in self.life.handle(event, self.now):
            self._do(action)
        if self.life.due is not None:
            assert self.life.due > self.now - 1e-6, f"due in the past after {event}"

    def crash(self) -> None:
        """End the agent; a new one finds what the runtime has."""
        self.trace.append(f"{self.now - EPOCH:9.2f} ** the agent is gone, and comes back")
        self.incarnation += 1
        self.finished = False
        if self.statuses:
            self.body = {**self.body, "status": to_dict(self.statuses[-1])}
        self._queue = [each for each in self._queue if not isinstance(each[2], msgspec.Struct)]
        heapq.heapify(self._queue)
        self.life = PodLife(self.pod, NODE)
        ready = [each for each, up in self.sandboxes.items() if up]
        newest = ready[-1] if ready else ""
        records = tuple((each.name, each.record) for each in self.containers.values())
        ip = "10.0.0.9" if newest else ""
        self.tell(Adopted(sandbox_id=newest, ip=ip, attempt=self.attempt, records=records))

    def change(self, **metadata: Any) -> None:
        """Change the pod's metadata."""
        self.body = {**self.body, "metadata": {**self.body["metadata"], **metadata}}

    def running(self) -> list[str]:
        """Return the names of containers that run."""
        return [each.name for each in self.containers.values() if each.record.state == "Running"]

    def lose_sandbox(self) -> None:
        """Let the sandbox die by itself."""
        for sandbox, up in list(self.sandboxes.items()):
            if up:
                self._end_sandbox(sandbox)
                self.at(0.02, SandboxGone(sandbox))

    # What actions do

    def _do(self, action: Action) -> None:  # noqa: C901, PLR0912  one line each
        if not isinstance(action, WriteStatus):
            self._line("->", action)
        match action:
            case RunSandbox(attempt=attempt):
                self._run_sandbox(attempt)
            case StopSandbox(id=sandbox):
                assert not [each for each in self.running() if self.sandboxes.get(sandbox)], "stopped under containers"
                self._end_sandbox(sandbox)
                self.at(0.01, SandboxGone(sandbox))
            case PullImage(name=name):
                self._pull(name)
            case CreateContainer():
                self._create(action)
            case StartContainer():
                self._start(action)
            case StopContainer():
                self._stop(action)
            case RunProbe():
                answer = self._next(
                    action.name, action.kind, self._rules(action.name).probes.get(action.kind, ("success",))
                )
                self.at(0.01, Probed(name=action.name, id=action.id, kind=action.kind, result=answer, output="told"))
            case RunHook():
                self._hook(action)
            case RemoveContainer(id=container_id):
                found = self.containers.pop(container_id, None)
                assert found is None or found.record.state != "Running", "a running container is removed"
            case Finish(delete=delete):
                assert not self.running(), f"finished while {self.running()} run"
                self.finished, self.deleted = True, self.deleted or delete
            case WriteStatus(status=status):
                self._status(status)
            case Tell():
                pass

    def _rules(self, name: str) -> Rules:
        return self.rules.get(name, Rules())

    def _next(self, name: str, what: str, answers: Sequence[Any]) -> Any:
        count = self._counts.get((name, what), 0)
        self._counts[name, what] = count + 1
        return answers[min(count, len(answers) - 1)]

    def _run_sandbox(self, attempt: int) -> None:
        assert not any(self.sandboxes.values()), "two sandboxes at once"
        if self.sandbox_failures:
            self.sandbox_failures -= 1
            self.at(0.01, Failed(what="sandbox", message="no room"))
            return
        name = f"s{len(self.sandboxes)}"
        assert attempt > self.attempt, f"sandbox attempt {attempt} after {self.attempt}"
        self.attempt = attempt
        self.sandboxes[name] = True
        self.at(0.01, SandboxMade(name, "10.0.0.9"))

    def _pull(self, name: str) -> None:
        if self._next(name, "pull", (False,) * self._rules(name).pulls + (True,)):
            self.at(0.01, Pulled(name=name, image_id="sha256:1", text="pulled"))
        else:
            self.at(0.01, Failed(what="pull", name=name, reason="ErrImagePull", message="no such image"))

    def _create(self, action: CreateContainer) -> None:
        if not self._next(action.name, "create", (False,) * self._rules(action.name).creates + (True,)):
            reason = "CreateContainerConfigError"
            self.at(0.01, Failed(what="create", name=action.name, reason=reason, message="no such config map"))
            return
        if not self.sandboxes.get(action.sandbox_id):
            reason = "CreateContainerError"
            self.at(0.01, Failed(what="create", name=action.name, reason=reason, message="no sandbox"))
            return
        container_id = f"{action.name}-{action.attempt}"
        while container_id in self.containers:
            container_id += "x"
        record = Record(id=container_id, attempt=action.attempt, image_id="sha256:1")
        self.containers[container_id] = _Container(record, action.name, action.sandbox_id)
        self.at(0.01, Created(action.name, container_id))

    def _start(self, action: StartContainer) -> None:
        found = self.containers.get(action.id)
        rules = self._rules(action.name)
        fails = not self._next(action.name, "start", (False,) * rules.starts + (True,))
        if found is None or fails or not self.sandboxes.get(found.sandbox):
            attempt = found.record.attempt if found is not None else 0
            record = Record(
                id=action.id, attempt=attempt, state="Exited", finished_at=self.now, exit_code=128, reason="StartError"
            )
            if found is not None:
                found.record = record
            self.at(0.01, Failed(what="start", name=action.name, reason="RunContainerError", message="not there"))
            self.at(0.01, Observed(action.name, record))
            return
        assert found.record.state == "Created", f"{action.id} is started again"
        assert action.name not in self.running(), f"{action.name} runs twice"
        self.starts[action.name] = self.starts.get(action.name, 0) + 1
        found.record = msgspec.structs.replace(found.record, state="Running", started_at=self.now)
        self.at(0.01, Observed(action.name, found.record))
        seconds, code = self._next(action.name, "run", rules.runs)
        if seconds is not None:
            self.at(seconds, lambda: self._exit(action.id, code, rules.reason))

    def _exit(self, container_id: str, code: int, reason: str = "") -> None:
        found = self.containers.get(container_id)
        if found is None or found.record.state != "Running":
            return
        found.record = msgspec.structs.replace(
            found.record, state="Exited", finished_at=self.now, exit_code=code, reason=reason
        )
        self.at(0.01, Observed(found.name, found.record))

    def _stop(self, action: StopContainer) -> None:
        assert action.grace >= 2, "less than the least grace"
        takes = self._rules(action.name).stop_seconds
        if takes is not None and takes <= action.grace:
            self.at(takes, lambda: self._exit(action.id, 143))
        else:
            self.at(action.grace, lambda: self._exit(action.id, 137))

    def _hook(self, action: RunHook) -> None:
        rules = self._rules(action.name)
        seconds, message = rules.hook_seconds, rules.hook_message
        if action.seconds and seconds > action.seconds:
            seconds, message = action.seconds, "too late"
        self.at(seconds, HookDone(name=action.name, id=action.id, hook=action.hook, message=message))

    def _end_sandbox(self, sandbox: str) -> None:
        self.sandboxes[sandbox] = False
        for found in list(self.containers.values()):
            if found.sandbox == sandbox:
                self._exit(found.record.id, 137)

    # The trace

    def _status(self, status: Any) -> None:
        self.statuses.append(status)
        words = [status.phase, *([f"({status.reason})"] if status.reason else [])]
        true = "".join(each.type[0] if each.status == "True" else "-" for each in status.conditions)
        for each in (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses):
            state = each.state
            text = "?"
            if state.waiting is not None:
                text = f"waiting:{state.waiting.reason}"
            elif state.running is not None:
                text = "running" + (",started" if each.started else "") + (",ready" if each.ready else "")
            elif state.terminated is not None:
                text = f"ended:{state.terminated.reason}:{state.terminated.exit_code}"
            words.append(f"{each.name}={text}" + (f"*{each.restart_count}" if each.restart_count else ""))
        self._write(f"   status {' '.join(words)} [{true}]")

    def _line(self, sign: str, what: Event | Action) -> None:
        fields = [
            f"{name}={getattr(what, name)!r}"
            for name, default in zip(what.__struct_fields__, _defaults(what), strict=True)
            if getattr(what, name) != default and name not in {"pod", "record", "records"}
        ]
        record = getattr(what, "record", None)
        if record is not None:
            fields.append(f"{record.id} {record.state}" + (f" {record.exit_code}" if record.state == "Exited" else ""))
        if hasattr(what, "records"):
            fields += [f"{record.id} {record.state}" for _, record in what.records]
        self._write(f"{sign} {type(what).__name__} {' '.join(fields)}".rstrip())

    def _write(self, text: str) -> None:
        shown = f"{self.now - EPOCH:9.2f}"
        self.trace.append(f"{shown if shown != self._shown else '':9} {text}")
        self._shown = shown


def _defaults(what: msgspec.Struct) -> list[Any]:
    given = what.__struct_defaults__
    return [object()] * (len(what.__struct_fields__) - len(given)) + list(given)


def make_pod(*containers: dict[str, Any] | str, inits: Sequence[dict[str, Any]] = (), **spec: Any) -> dict[str, Any]:
    """Return a pod of containers, a text being the name of a plain one."""
    listed = [{"name": each} if isinstance(each, str) else each for each in containers]
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 1},
        "spec": {
            "containers": [{"image": "app:1", **each} for each in listed],
            "initContainers": [{"image": "app:1", **each} for each in inits],
            **spec,
        },
    }
