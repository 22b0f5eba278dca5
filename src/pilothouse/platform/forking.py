"""Parts begun as forks of the supervisor, which has imported what they share: a third less to load, and shared memory.

A fork is safe here because the supervisor has one thread and no loop. What was loaded is frozen for the collector, so
that its pages stay shared.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NoReturn

from pilothouse.node.process.syscalls import parent_death_signal

__all__ = ["Forked", "is_module", "preload"]

_SHARED: Final = (
    "asyncio",
    "ssl",
    "click",
    "cryptography.x509",
    "msgspec",
    "prometheus_client",
    "uvloop",
    "yaml",
    "pilothouse.foundation._structured",
    "pilothouse.foundation.tls",
    "pilothouse.kinds.structs.core_pods",
    "pilothouse.kinds.structs.core_services",
    "pilothouse.kinds.structs.discovery",
    "pilothouse.apiserver.access.pki",
    "pilothouse.client.client",
    "pilothouse.operator.controllers",
    "pilothouse.operator.running",
)
"""What at least two parts import."""
_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_STANDARD: Final = 3


def is_module(command: Sequence[str]) -> bool:
    """Whether a command runs a module by the Python that runs this."""
    return len(command) > 2 and list(command[:2]) == [sys.executable, "-m"]


def preload() -> None:
    """Import what parts share; a library that is missing is told by the part that needs it."""
    for name in _SHARED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.collect()
    gc.freeze()


class Forked:
    """A part's process, as `subprocess.Popen` has it. Raises OSError where none can be begun.

    command: as `is_module` takes it. keep: descriptors that it has beside the standard ones.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], keep: Collection[int]) -> None:
        self._code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # A signal that comes before the child has given up the supervisor's handlers would be lost in them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.pid: Final = os.fork()
            if self.pid == 0:
                _become(command, environment, keep, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self) -> int | None:
        """Return the code with which it ended, or minus the number of the signal; None while it runs."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(command: Sequence[str], environment: Mapping[str, str], keep: Collection[int], parent: int) -> NoReturn:
    """Be the part, and never come back to what the supervisor does."""
    code = _FAILED
    try:
        _end_with(parent)
        _let_go(keep)
        _set_title(command)
        os.environ.update(environment)
        sys.argv = list(command[2:])
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = _code_of(error)
    except BaseException:  # noqa: BLE001  # as the interpreter does with what nobody caught
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()  # what `os._exit` leaves out
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _end_with(parent: int) -> None:
    """Have the kernel tell this process to end when the supervisor is gone, also before it reads its lifeline."""
    parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(_FAILED)


def _let_go(keep: Collection[int]) -> None:
    """Give up what belongs to the supervisor: its session, signals and descriptors."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    last = _STANDARD
    for descriptor in sorted(keep):
        os.closerange(last, descriptor)
        last = descriptor + 1
    os.closerange(last, os.sysconf("SC_OPEN_MAX"))


def _set_title(command: Sequence[str]) -> None:
    """Show the part's own command in `ps`; it is written where the environment lies, as long as that is untouched."""
    try:
        import setproctitle  # noqa: PLC0415  # in the child alone
    except ImportError:
        return
    setproctitle.setproctitle(" ".join(command))


def _code_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    sys.stderr.write(f"{error.code}\n")
    return _FAILED
