"""What importing a client costs: milliseconds and megabytes above the bare interpreter, in processes of their own.

Goals: `import pilothouse.client` 0.2 s and 40 MB, ourselves 60 ms; users complain of 0.5 s and 35-40 MB of the official
client. The package imports what is needed only then, so it is also measured with what a client over HTTPS needs, and
with an operator's manager, which is what kopf is beside.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time

from _kit import Spread, arguments, note, report

PROGRAMS = {
    "pilothouse.client": "import pilothouse.client",
    "pilothouse.client.Client": "from pilothouse.client import Client, HttpTransport",
    "pilothouse.operator": "from pilothouse.operator import Manager, Reconciler, controller",
    "kubernetes": "from kubernetes import client, config",
    "kubernetes_asyncio": "from kubernetes_asyncio import client, config",
    "lightkube": "import lightkube",
    "kr8s": "import kr8s",
    "kopf": "import kopf",
}
_TAIL = "\nprint([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
# Compiled modules are kept, as after any installation.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def once(program: str) -> tuple[float, float]:
    """Return milliseconds and MiB of one process."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program + _TAIL], capture_output=True, text=True, check=True, env=_ENVIRONMENT
    )
    return (time.perf_counter() - begun) * 1e3, int(done.stdout) / 1024


def main() -> None:
    """Import each client."""
    rounds = 2 if arguments(__doc__).quick else 9
    bare = [once("pass") for _ in range(rounds)]
    base_ms, base_mb = min(ms for ms, _ in bare), min(mb for _, mb in bare)
    found: dict[str, tuple[Spread, Spread]] = {}
    for name, program in PROGRAMS.items():
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            note(f"{name} is not installed: left out")
            continue
        runs = [once(program) for _ in range(rounds)]
        found[name] = Spread.of([ms - base_ms for ms, _ in runs]), Spread.of([mb - base_mb for _, mb in runs])
    report("client.import_ms", found["pilothouse.client"][0], "ms", goal=200)
    report("client.import_mb", found["pilothouse.client"][1], "MiB", goal=40)
    for name, (ms, mb) in found.items():
        if name.startswith("pilothouse"):
            continue
        kind = "operator" if name == "kopf" else "client"
        own_ms, own_mb = found["pilothouse.operator" if name == "kopf" else "pilothouse.client.Client"]
        report(f"client.import_{kind}_ms", own_ms, "ms", peer=name, peer_spread=ms)
        report(f"client.import_{kind}_mb", own_mb, "MiB", peer=name, peer_spread=mb)


if __name__ == "__main__":
    main()
