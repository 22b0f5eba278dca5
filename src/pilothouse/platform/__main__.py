"""The supervisor's process: `python -m pilothouse.platform PARTS`, which `pilothouse up` becomes."""

from __future__ import annotations

import sys
from typing import Final

from .core import Ended, Event, Ready
from .supervisor import Supervisor, parts_from

__all__: list[str] = []

_SERVER: Final = "apiserver"


class _Progress:
    """Tells what happens: one line when all is ready, one for each part that had to be started again."""

    def __init__(self) -> None:
        self._told = False

    def changed(self, supervisor: Supervisor, event: Event) -> None:
        core = supervisor.core
        if isinstance(event, Ended) and not core.is_stopping:
            sys.stderr.write(f"{event.name} ended with {event.code} and is started again\n")
        if isinstance(event, Ready) and core.is_ready and not self._told:
            self._told = True
            told = core.told(_SERVER)
            sys.stdout.write(f"ready: serving Kubernetes on {told['url']}, kubeconfig in {told['kubeconfig']}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(Supervisor(parts_from(sys.argv[1]), changed=_Progress().changed).run())
