"""The supervisor's process: `python -m pilothouse.platform PLAN`, which `pilothouse up` becomes."""

from __future__ import annotations

import sys

from .forking import is_module, preload
from .progress import Progress
from .record import Record, RecordError
from .supervisor import Supervisor, Watcher, plan_from

__all__: list[str] = []


def _main(text: str) -> int:
    plan = plan_from(text)
    try:
        record = Record.open(plan.directory) if plan.directory else None
    except RecordError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.code
    watchers: list[Watcher] = [Progress(sys.stdout, sys.stderr)]
    if record is not None:
        watchers.insert(0, record)  # who waits for the ready line may look at what is written down
    if sum(is_module(part.command) for part in plan.parts) > 1:
        preload()
    try:
        return Supervisor(plan.parts, watchers).run()
    finally:
        if record is not None:
            record.close()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
