"""The life of one container within its pod: pulled, created, started, probed, stopped, started again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pilothouse.kinds.structs.core_pods import Pod

from . import wording
from .backoff import go_seconds
from .facts import grace_of, hook_of, named_pod, probe_of, should_restart
from .model import (
    Action,
    CreateContainer,
    Created,
    Failed,
    HookDone,
    Observed,
    Probed,
    Pulled,
    PullImage,
    RemoveContainer,
    RunHook,
    RunProbe,
    StartContainer,
    StopContainer,
    Tell,
)
from .slot import Slot, Stopping

__all__ = ["Containers", "field_path"]

_MIN_GRACE = 2.0
_CREATE_PAUSE = 10.0
_BACKOFF_SHOWS_AFTER = 1.0


class Containers:
    """Decides about containers. `out` takes actions, `wake` moments at which to look again."""

    def __init__(self, out: Callable[[Action], None], wake: Callable[[float], None]) -> None:
        self._out = out
        self._wake = wake

    # What happened

    def take(
        self,
        slot: Slot,
        event: Failed | Pulled | Created | Observed | Probed | HookDone,
        pod: Pod,
        now: float,
        *,
        ending: bool,
    ) -> None:
        """Take an event about a container."""
        match event:
            case Pulled():
                self._pulled(slot, event)
            case Created():
                slot.busy, slot.made = "", event.id
                self._tell("Normal", "Created", wording.CREATED, slot)
            case Failed():
                self._failed(slot, event, now)
            case Observed():
                self._observed(slot, event, pod, now)
            case Probed():
                self._probed(slot, event, pod, now, ending=ending)
            case HookDone():
                self._hook_done(slot, event, pod, now)

    def remember(self, slot: Slot, *, started: bool, ready: bool) -> None:
        """Take over what the API says of a run that an earlier agent looked after."""
        if started:
            slot.startup_done = True
        readiness = slot.probes.get("readiness")
        if readiness is not None and ready:
            readiness.result = True

    def _pulled(self, slot: Slot, event: Pulled) -> None:
        slot.busy = ""
        slot.image_id = event.image_id
        slot.pull_failed = None
        slot.image_backoff = type(slot.image_backoff)()
        self._tell("Normal", "Pulled", event.text, slot)
        slot.pulled = True

    def _failed(self, slot: Slot, event: Failed, now: float) -> None:
        if event.what != "start":  # which is over when the runtime says how it ended; that may have been before
            slot.busy = ""
        slot.pulled = False
        slot.waiting = (event.reason, event.message)
        if event.what == "pull":
            self._pull_failed(slot, event, now)
        elif event.what == "create":
            slot.retry_at = now + _CREATE_PAUSE
            self._tell("Warning", "Failed", f"Error: {event.message}", slot)
        else:
            self._tell("Warning", "Failed", f"Error: {event.message}", slot)

    def _pull_failed(self, slot: Slot, event: Failed, now: float) -> None:
        image = slot.spec.image
        told = wording.pull_failure(event.reason, image, event.message)
        if told is not None:
            self._tell("Warning", told[0], told[1], slot)
        self._tell("Warning", "Failed", f"Error: {event.reason}", slot)
        if event.reason in wording.NO_BACKOFF:
            slot.retry_at = now + _CREATE_PAUSE
            return
        slot.image_backoff.next(now, now)
        slot.retry_at = now + slot.image_backoff.seconds
        slot.pull_failed = (now, event.reason, event.message)

    def _observed(self, slot: Slot, event: Observed, pod: Pod, now: float) -> None:
        record, known = event.record, slot.current
        if known is not None and record.attempt < known.attempt:
            return
        if known is not None and record.id == known.id and known.state == "Exited":
            return
        if known is None or known.id != record.id:
            if slot.last is not None and known is not None:
                self._out(RemoveContainer(slot.last.id))
            slot.last = known if known is not None else slot.last
            slot.ended()
            slot.epoch = slot.next_epoch
            known = None
        was_running = known is not None and known.state == "Running"
        slot.current = record
        if record.state == "Created":
            return
        slot.busy = "" if slot.busy == "start" else slot.busy
        if record.state == "Running" and not was_running:
            self._began(slot, pod, now)
        elif record.state == "Exited":
            slot.ended()
            if record.reason != "StartError" and not slot.hook_failed:
                slot.waiting = ("", "")
            elif slot.hook_failed:
                slot.waiting = ("PostStartHookError", slot.hook_failed)

    def _began(self, slot: Slot, pod: Pod, now: float) -> None:
        slot.waiting = ("", "")
        slot.hook_failed = ""
        self._tell("Normal", "Started", wording.STARTED, slot)
        slot.begun(now)
        if hook_of(slot.spec, "postStart") is not None and slot.current is not None:
            slot.hooking = True
            self._out(RunHook(slot.name, slot.current.id, "postStart"))

    def _probed(self, slot: Slot, event: Probed, pod: Pod, now: float, *, ending: bool) -> None:
        state = slot.probes.get(event.kind)
        if state is None or slot.current is None or slot.current.id != event.id:
            return
        decided = state.answered(event.result, now)
        if event.result != "success":
            self._tell("Warning", "Unhealthy", wording.unhealthy(event.kind, event.result, event.output), slot)
        if event.kind == "startup" and state.result:
            slot.startup_done = True
        if not decided or state.result or event.kind == "readiness" or slot.stopping is not None or ending:
            return
        restarts = should_restart(pod, slot.role, slot.spec, 137)
        probe = probe_of(slot.spec, event.kind)
        own = probe.termination_grace_period_seconds if probe is not None else None
        state.begin_again()
        grace = float(own) if own is not None else grace_of(pod)
        self.stop(slot, now + grace, wording.failed_probe(slot.name, event.kind, restarts=restarts), now)

    def _hook_done(self, slot: Slot, event: HookDone, pod: Pod, now: float) -> None:
        if slot.current is None or slot.current.id != event.id or not slot.is_running:
            return
        if event.hook == "postStart":
            slot.hooking = bool(event.message)  # what is to be killed for it never counts as started
            if event.message:
                slot.hook_failed = event.message
                self._tell("Warning", "FailedPostStartHook", wording.hook_failed("PostStartHook"), slot)
                self.stop(slot, now + grace_of(pod), "FailedPostStartHook", now)
            return
        if event.message:
            self._tell("Warning", "FailedPreStopHook", wording.hook_failed("PreStopHook"), slot)
        if slot.stopping is not None and slot.stopping.phase == "hook":
            slot.stopping.phase = "turn"

    # What is to be done

    def advance(self, slot: Slot, pod: Pod, sandbox_id: str, epoch: int, now: float) -> None:
        """Bring a container on that is to run."""
        if slot.busy:
            return
        if slot.stopping is not None:
            self._go_on_stopping(slot, now, turn=True)
            return
        if slot.made:
            self._start(slot)
            return
        if slot.pulled:
            slot.pulled, slot.busy = False, "create"
            slot.next_epoch = epoch
            self._out(CreateContainer(slot.name, sandbox_id, slot.next_attempt))
            return
        record = slot.current
        if record is not None and record.state == "Running":
            self._look_after(slot, pod, now)
        elif record is not None and record.state == "Created":
            self._start(slot)
        elif record is None or (slot.role == "init" and slot.epoch != epoch) or self._may_restart(slot, pod, now):
            self._pull(slot, now)

    def _start(self, slot: Slot) -> None:
        container_id = slot.made or (slot.current.id if slot.current is not None else "")
        slot.made, slot.busy = "", "start"
        self._out(StartContainer(slot.name, container_id))

    def _may_restart(self, slot: Slot, pod: Pod, now: float) -> bool:
        record = slot.current
        if record is None or not should_restart(pod, slot.role, slot.spec, record.exit_code):
            return False
        if slot.cleared:
            return True
        remaining = slot.crash.remaining(record.finished_at, now)
        if remaining <= 0:
            slot.crash.next(record.finished_at, now)
            slot.cleared = True
            return True
        self._wake(now + remaining)
        named, wait = named_pod(pod), go_seconds(slot.crash.seconds)
        slot.waiting = ("CrashLoopBackOff", f"back-off {wait} restarting failed container={slot.name} pod={named}")
        if not slot.told_backoff:
            slot.told_backoff = True
            self._tell("Warning", "BackOff", f"Back-off restarting failed container {slot.name} in pod {named}", slot)
        return False

    def _pull(self, slot: Slot, now: float) -> None:
        if now < slot.retry_at:
            self._wake(slot.retry_at)
            self._show_pull_backoff(slot, now)
            return
        slot.busy = "pull"
        self._out(PullImage(slot.name))

    def _show_pull_backoff(self, slot: Slot, now: float) -> None:
        if slot.pull_failed is None:
            return
        failed_at, reason, message = slot.pull_failed
        if now < failed_at + _BACKOFF_SHOWS_AFTER:
            self._wake(failed_at + _BACKOFF_SHOWS_AFTER)
            return
        slot.pull_failed = None
        text = f'Back-off pulling image "{slot.spec.image}"'
        slot.waiting = ("ImagePullBackOff", f"{text}: {reason}: {message}")
        self._tell("Normal", "BackOff", text, slot)
        self._tell("Warning", "Failed", "Error: ImagePullBackOff", slot)

    def _look_after(self, slot: Slot, pod: Pod, now: float) -> None:
        record = slot.current
        if record is None:
            return
        if record.image and record.image != slot.spec.image and slot.role != "ephemeral":
            self.stop(slot, now + grace_of(pod), f"Container {slot.name} definition changed, will be restarted", now)
            self._go_on_stopping(slot, now, turn=True)
            return
        self._probe(slot, now, ending=False)

    def _probe(self, slot: Slot, now: float, *, ending: bool) -> None:
        if slot.current is None or slot.hooking:
            return
        for kind, state in slot.probes.items():
            if state.due is None or (kind == "startup") == slot.startup_done or (ending and kind != "readiness"):
                continue
            if state.due > now:
                self._wake(state.due)
                continue
            state.due = None
            self._out(RunProbe(slot.name, slot.current.id, kind))

    # Ends

    def end_all(self, slots: Iterable[Slot], pod: Pod, deadline: float, now: float) -> None:
        """Bring all containers to their end: main ones at once, sidecars after those, the last one first."""
        listed = list(slots)
        for slot in listed:
            slot.pulled, slot.made = False, ""
            if slot.busy == "pull":
                slot.busy = ""  # nobody waits for it any more
            if slot.busy:
                continue
            if slot.is_running and slot.stopping is None:
                self.stop(slot, deadline, f"Stopping container {slot.name}", now)
        for slot in listed:
            if slot.stopping is not None and slot.is_running:
                if deadline < slot.stopping.deadline - 0.5:
                    self._hurry(slot, deadline, now)
                self._go_on_stopping(slot, now, turn=_has_turn(slot, listed))
                self._probe(slot, now, ending=True)

    def stop(self, slot: Slot, deadline: float, message: str, now: float) -> None:
        """Begin to stop a running container, with its hook before the signal."""
        if slot.current is None or slot.stopping is not None:
            return
        slot.stopping = Stopping(deadline)
        self._tell("Normal", "Killing", message, slot)
        seconds = deadline - now
        if hook_of(slot.spec, "preStop") is not None and seconds > 0:
            slot.stopping.phase = "hook"
            self._out(RunHook(slot.name, slot.current.id, "preStop", round(seconds, 3)))
            self._wake(deadline)
        else:
            slot.stopping.phase = "turn"

    def _hurry(self, slot: Slot, deadline: float, now: float) -> None:
        if slot.stopping is None:
            return
        slot.stopping.deadline = deadline
        if slot.stopping.phase == "signal":
            self._signal(slot, now)

    def _go_on_stopping(self, slot: Slot, now: float, *, turn: bool) -> None:
        stopping = slot.stopping
        if stopping is None or slot.current is None or stopping.phase == "signal":
            return
        if now < stopping.deadline and (stopping.phase == "hook" or not turn):
            self._wake(stopping.deadline)
            return
        stopping.phase = "signal"
        self._signal(slot, now)

    def _signal(self, slot: Slot, now: float) -> None:
        if slot.stopping is not None and slot.current is not None:
            grace = max(round(slot.stopping.deadline - now, 3), _MIN_GRACE)
            self._out(StopContainer(slot.name, slot.current.id, grace))

    def _tell(self, kind: str, reason: str, message: str, slot: Slot) -> None:
        self._out(Tell("Warning" if kind == "Warning" else "Normal", reason, message, field_path(slot)))


def _has_turn(slot: Slot, slots: list[Slot]) -> bool:
    """Say whether a container may be sent its signal: sidecars wait for main containers and later sidecars."""
    if slot.role != "sidecar":
        return True
    later = slots[slots.index(slot) + 1 :]
    return not any(each.is_running for each in later if each.role in {"sidecar", "main"})


def field_path(slot: Slot) -> str:
    """Return where the container is in its pod, as events name it."""
    place = {"main": "containers", "ephemeral": "ephemeralContainers"}.get(slot.role, "initContainers")
    return f"spec.{place}{{{slot.name}}}"
