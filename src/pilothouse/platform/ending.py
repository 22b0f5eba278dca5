"""Ending what `pilothouse up` started: the platform of a data directory, then its pods and what its node made."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from .former import end_parts
from .nodeplan import NodePlan, PlanError, read_plan
from .state import holder, read_state, take_lock

__all__ = ["EndError", "Ended", "end_pods", "end_supervisor"]

_PATIENCE_SECONDS: Final = 6.0
"""How long a platform has that keeps its promise to end within 5 s; then it is told to end at once."""
_KILL_SECONDS: Final = 3.0


class EndError(Exception):
    """A platform cannot be ended; the message says why. hint: the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a platform and its pods. pid: 0 where none ran. how: stopped, killed, or "not running".

    pods: how many were ended, None where they were left alone. removed, problems: of the machine, in words.
    """

    pid: int = 0
    how: str = "not running"
    seconds: float = 0.0
    pods: int | None = None
    removed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def end_supervisor(directory: str, seconds: float) -> Ended:
    """End the platform that has a data directory, and no other process. Blocks.

    It is told with SIGTERM and has `seconds`; then it is killed, and its parts with it. Raises EndError.
    """
    _check_owner(directory)
    pid = holder(directory)
    if pid is None:
        return Ended()
    state = read_state(directory)
    if state is not None and state.pid == pid and state.service:
        raise EndError(
            f"{directory}: systemd runs this platform as {state.service} and would start it again",
            f"`systemctl stop {state.service}`, then `pilothouse down` for its pods",
        )
    began = time.monotonic()
    with _process_of(directory, pid) as process:
        how = _end(process, seconds)
    if state is not None and state.pid == pid:
        end_parts(state.parts.values(), _KILL_SECONDS)
    return Ended(pid=pid, how=how, seconds=round(time.monotonic() - began, 2))


def _check_owner(directory: str) -> None:
    """Refuse the platform of another user: names of bridges and tables that it has may be those of one of ours."""
    with contextlib.suppress(FileNotFoundError):
        if (owner := os.stat(directory).st_uid) != os.geteuid():
            raise EndError(f"{directory}: is of user {owner}", f"call this as that user: `sudo -u '#{owner}' ...`")


@contextlib.contextmanager
def _process_of(directory: str, pid: int) -> Iterator[int]:
    """Give a descriptor of the process that has the directory: its number could be another's at any moment."""
    try:
        process = os.pidfd_open(pid) if pid else -1
    except OSError as error:
        raise EndError(f"process {pid}: {error.strerror}") from error
    if process < 0:
        raise EndError(f"{directory}: a platform runs here, but which process that is, is not written down")
    try:
        if holder(directory) != pid:
            raise EndError(f"{directory}: another platform was started here at this moment", "call `down` again")
        yield process
    except PermissionError as error:
        raise EndError(f"process {pid} is of another user", "call `down` as that user, or as root") from error
    finally:
        os.close(process)


def _end(process: int, seconds: float) -> str:
    """Return how a process ended: by the signal, by a second one, or by none that it could refuse."""
    patience = min(_PATIENCE_SECONDS, seconds)
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGTERM, _KILL_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        if select.select([process], [], [], wait)[0]:
            return "killed" if number == signal.SIGKILL else "stopped"
    raise EndError("the supervisor does not end, not even by SIGKILL", "it waits for a disk or a network file system")


async def end_pods(directory: str, seconds: float) -> Ended:
    """End the pods of a data directory whose platform does not run, and remove what its node made of this machine.

    Each container has its own grace, `seconds` at most. What was done before is fine. Raises EndError, and InUse where
    a platform runs.
    """
    _check_owner(directory)
    path = os.path.join(directory, "node", "plan.json")
    try:
        plan = read_plan(path)
    except FileNotFoundError:
        return Ended(pods=0)
    except (OSError, PlanError) as error:
        raise EndError(f"{path}: {error}", "`pilothouse up` writes it anew; call `down` after that") from error
    lock = take_lock(directory)
    try:
        return await _clear(plan, seconds)
    finally:
        os.close(lock)


async def _clear(plan: NodePlan, seconds: float) -> Ended:
    from pilothouse.node.clearing import clear  # noqa: PLC0415  # only where there was a node
    from pilothouse.node.errors import NodeError  # noqa: PLC0415

    from .agent import runtime_options  # noqa: PLC0415

    try:
        cleared = await clear(
            runtime_options(plan),
            at_most=seconds,
            pods=os.path.join(plan.directory, "agent", "pods"),
            tables=(plan.services_table, plan.policies_table),
            addresses=tuple(filter(None, (plan.dns,))),
            cluster_cidr=plan.cluster_cidr,
        )
    except (NodeError, OSError) as error:
        raise EndError(f"{plan.directory}: {error}") from error
    return Ended(pods=cleared.pods, removed=cleared.removed, problems=cleared.problems)
