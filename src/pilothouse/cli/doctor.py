"""`pilothouse doctor`: what this machine allows, what each missing piece costs, and what to do about it."""

from __future__ import annotations

from typing import Literal

import click
import msgspec

from pilothouse.cli import checks, podchecks
from pilothouse.foundation.terminal import emit, examples, output_option

__all__ = ["Finding", "diagnose", "doctor"]

State = Literal["ok", "limited", "missing"]


class Finding(msgspec.Struct, frozen=True):
    """One row of the report; `cost` and `remedy` are empty where `state` is ok."""

    check: str
    state: State
    detail: str
    cost: str = ""
    remedy: str = ""


_ADVICE: dict[str, tuple[str, str]] = {
    "root": (
        "no cgroups, network namespaces or ports below 1024 of our own; the store, API server and tests do not need it",
        "run as root, or give the service the capabilities it needs",
    ),
    "cgroup v2": (
        "no CPU and memory limits of pods by the unified hierarchy; version 1 is used where it is writable",
        "mount cgroup2 writable; for a service set Delegate=yes; in a container mount /sys/fs/cgroup read-write",
    ),
    "cgroup v1": (
        "no limits of pods by the older hierarchy; not needed where version 2 is ok",
        "nothing to do where cgroup v2 is ok; else mount the memory, cpu and pids controllers writable",
    ),
    "network namespaces": (
        "pods share this machine's network, so two of them cannot listen on the same port",
        "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN",
    ),
    "user namespaces": (
        "pods cannot be isolated without root",
        "sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces above 0",
    ),
    "pods": (
        "pods cannot be run in this program",
        "run as root with CAP_SYS_ADMIN, CAP_NET_ADMIN and writable control groups; install nftables; modprobe overlay",
    ),
    "services": (
        "services are carried by the program itself, which costs it CPU; network policies are not enforced",
        "run as root, and install nftables",
    ),
    "DNS port": (
        "names of services answer at another port, which resolvers do not ask; pods resolve names as this machine does",
        "run as root, or sysctl net.ipv4.ip_unprivileged_port_start=53; end what listens at port 53 of all addresses",
    ),
    "eBPF": (
        "no kernel-level events: runtime security and flow insight see only what the platform itself does",
        "run as root or with CAP_BPF and CAP_PERFMON on Linux 5.8 or newer; mount tracefs at /sys/kernel/tracing",
    ),
    "container runtime": (
        "pods run as processes of this machine (image: host) or from images unpacked by the platform itself",
        "install and start containerd or CRI-O, and let this user open its socket",
    ),
    "open files": (
        "fewer connections and watches at once than the limits foresee",
        "ulimit -n 65536; for a service set LimitNOFILE=65536",
    ),
    "kernel TLS": (
        "encrypted traffic is copied through the program; nothing else is lost",
        "modprobe tls",
    ),
    "io_uring": (
        "nothing: it is looked at for the record, no part needs it",
        "sysctl kernel.io_uring_disabled=0",
    ),
    "disk": (
        "each durable write waits this long, so one writer gets fewer writes a second",
        "put the data directory on a local SSD or NVMe disk with a write cache that survives power loss",
    ),
    "libraries": (
        "commands that need them say so and stop",
        "pip install 'pilothouse[server]'",
    ),
}


def diagnose(directory: str = ".") -> list[Finding]:
    """Look at everything; never raises and leaves nothing behind. `directory` is where the disk is measured."""
    return [
        _finding("root", checks.root),
        _finding("cgroup v2", checks.cgroup_v2),
        _finding("cgroup v1", checks.cgroup_v1),
        _finding("network namespaces", checks.network_namespaces),
        _finding("user namespaces", checks.user_namespaces),
        _pods(),
        _finding("services", podchecks.services),
        _finding("DNS port", podchecks.dns_port),
        _finding("eBPF", checks.ebpf),
        _finding("container runtime", checks.container_runtime),
        _finding("open files", checks.open_files),
        _finding("kernel TLS", checks.kernel_tls),
        _finding("io_uring", checks.io_uring),
        _finding("disk", lambda: checks.disk(directory)),
        _finding("libraries", checks.libraries),
    ]


def _finding(name: str, look: checks.Check) -> Finding:
    try:
        state, detail = look()
    except Exception as error:  # noqa: BLE001  # a report that stops half-way helps no one
        state, detail = "missing", f"could not be found out: {str(error) or type(error).__name__}"
    cost, remedy = ("", "") if state == "ok" else _ADVICE[name]
    return Finding(name, state, detail, cost, remedy)


def _pods() -> Finding:
    found = _finding("pods", podchecks.pods)
    if found.state != "limited":
        return found
    return msgspec.structs.replace(found, cost=podchecks.what_pods_lack())


@click.command(epilog=examples("pilothouse doctor", "pilothouse doctor --dir . -o json"))
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="Where to measure the disk: the place meant for the data.",
)
@output_option
def doctor(directory: str, output: str) -> None:
    """Show what this machine allows and what is missing.

    Nothing is changed. Every row says what a missing piece costs and what to do about it; the store, the API server
    and the test support run without any of them.
    """
    findings = diagnose(directory)
    emit(findings, output, ["check", "state", "detail"])
    if output == "table":
        for finding in findings:
            if finding.state != "ok":
                click.echo(f"\n{finding.check} ({finding.state})\n  costs:  {finding.cost}\n  remedy: {finding.remedy}")
