"""Containers as root: namespaces, network, files, rights, limits, ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from pilothouse.node.config import (
    Capabilities,
    DNSConfig,
    Mount,
    NamespaceOptions,
    Resources,
    SecurityContext,
)
from pilothouse.node.errors import (
    AddressesExhausted,
    CreateContainerError,
    NodeError,
    NotFound,
    RuntimeUnavailable,
    StartError,
)
from pilothouse.node.process.netlink import hardware_address
from support.nodekit import NEEDS_ROOT, container, eventually, logged_lines, place, sandbox, until_exited

pytestmark = NEEDS_ROOT


def read(path: Path) -> str:
    return path.read_text()


def mount_command(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "-R", path], check=False)


async def test_a_container_runs_in_its_own_world() -> None:
    async with place() as made:
        runtime = await made.runtime()
        settings = {"net.core.somaxconn": "77", "kernel.shmmax": "123456"}
        dns = DNSConfig(servers=("10.0.0.10",), searches=("a.b",))
        pod = await runtime.run_sandbox(sandbox(made, "web", sysctls=settings, dns=dns))
        script = (
            "hostname; echo $$; echo $HOSTNAME; cat /etc/resolv.conf; grep web /etc/hosts;"
            "set -- /proc/[0-9]*; echo $#; cat /sys/class/net/eth0/operstate; "
            "touch /usr/x 2>/dev/null || echo read-only; echo kept > /tmp/x && cat /tmp/x; echo x > /dev/null;"
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax;"
            "head -c 4 /dev/zero | wc -c; test -e /dev/vda || echo no disk"
        )
        made_id = await runtime.create_container(pod, container(script))
        assert (await runtime.container_status(made_id)).state == "Created"
        await runtime.start_container(made_id)
        status = await until_exited(runtime, made_id)
        address = (await runtime.sandbox_status(pod)).ip
        assert status.exit_code == 0, logged_lines(made)
        assert (status.reason, status.signal) == ("Completed", 0)
        assert logged_lines(made) == [
            "web",
            "1",
            "web",
            "search a.b",
            "nameserver 10.0.0.10",
            f"{address}\tweb",
            "1",
            "up",
            "read-only",
            "kept",
            "77",
            "123456",
            "4",
            "no disk",
        ]
        assert 0 < status.started_at <= status.finished_at


async def test_pods_and_machine_reach_each_other() -> None:
    async with place() as made:
        runtime = await made.runtime()
        first = await runtime.run_sandbox(sandbox(made, "a"))
        second = await runtime.run_sandbox(sandbox(made, "b"))
        server = (
            "import socket\ns = socket.create_server(('0.0.0.0', 80))\n"
            "while True:\n c, _ = s.accept(); c.sendall(b'hello'); c.close()"
        )
        serving = await runtime.create_container(first, container("/usr/bin/env", "python3", "-c", server, name="s"))
        await runtime.start_container(serving)
        address = (await runtime.sandbox_status(first)).ip
        hardware = await runtime.exec_sync(serving, ["/bin/cat", "/sys/class/net/eth0/address"])
        assert bytes.fromhex(hardware.stdout.decode().strip().replace(":", "")) == hardware_address(address)
        client = f"import socket; print(socket.create_connection(('{address}', 80), 20).recv(9).decode())"

        def reached() -> bool:
            try:
                with socket.create_connection((address, 80), 5) as sock:
                    return sock.recv(9) == b"hello"
            except OSError:
                return False

        await eventually(reached)
        asking = await runtime.create_container(second, container("/usr/bin/env", "python3", "-c", client, name="c"))
        await runtime.start_container(asking)
        assert (await until_exited(runtime, asking)).exit_code == 0
        assert logged_lines(made, "c") == ["hello"]
        through = await runtime.port_forward(first, 80)
        assert await through.reader.read() == b"hello"
        through.writer.close()
        with pytest.raises(ConnectionRefusedError, match="failed to connect to localhost:81"):
            await runtime.port_forward(first, 81)


async def test_containers_of_a_pod_share_network_memory_and_names_but_not_processes() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made, "pair"))
        scratch = Mount(container_path="/scratch", type="tmpfs", name="cache", size=1 << 20)
        one = await runtime.create_container(
            pod,
            container("echo shared > /dev/shm/x; echo cached > /scratch/y; sleep 1000", name="one", mounts=(scratch,)),
        )
        await runtime.start_container(one)
        wait = (
            "while ! test -s /dev/shm/x || ! test -s /scratch/y; do sleep 0.05; done; cat /dev/shm/x /scratch/y; "
            "hostname; set -- /proc/[0-9]*; echo $#"
        )
        two = await runtime.create_container(pod, container(wait, name="two", mounts=(scratch,)))
        await runtime.start_container(two)
        await until_exited(runtime, two)
        assert logged_lines(made, "two") == ["shared", "cached", "pair", "1"]


async def test_shared_process_namespaces() -> None:
    async with place() as made:
        runtime = await made.runtime()
        shared = SecurityContext(namespaces=NamespaceOptions(pid="Pod"))
        pod = await runtime.run_sandbox(sandbox(made, "shared", security=shared))
        one = await runtime.create_container(pod, container("sleep 1234", name="one", security=shared))
        await runtime.start_container(one)
        two = await runtime.create_container(pod, container("ps ax; echo $$ > /dev/null", name="two", security=shared))
        await runtime.start_container(two)
        await until_exited(runtime, two)
        assert any("sleep 1234" in line for line in logged_lines(made, "two"))
        await runtime.stop_container(one, 0)
        assert (await until_exited(runtime, one)).exit_code == 137


async def test_a_debugging_container_sees_its_targets_processes() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(pod, container("exec sleep 4321"))
        target = SecurityContext(namespaces=NamespaceOptions(pid="Target", target_id=main))
        early = await runtime.create_container(pod, container("true", name="early", security=target))
        with pytest.raises(StartError, match="is not running"):
            await runtime.start_container(early)
        await runtime.start_container(main)
        debug = await runtime.create_container(pod, container("ps ax -o args=", name="debug", security=target))
        await runtime.start_container(debug)
        await until_exited(runtime, debug)
        assert "sleep 4321" in logged_lines(made, "debug")
        assert (await runtime.container_status(main)).state == "Running"


async def test_a_directory_is_one_agents() -> None:
    async with place() as made:
        first = await made.runtime()
        with pytest.raises(RuntimeUnavailable, match="is used by another agent"):
            await made.runtime()
        await first.close()
        await made.runtime()


async def test_rights_are_few_unless_asked_for() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        show = (
            "import os,re; s=open('/proc/self/status').read();"
            "print(re.findall('(?:CapEff|CapBnd|NoNewPrivs|Seccomp):\\\\s*(\\\\w+)', s));"
            "print(os.getuid(), os.getgid(), os.getgroups())"
        )
        cases = {
            "plain": SecurityContext(),
            "user": SecurityContext(run_as_user=1000, run_as_group=2000, supplemental_groups=(3000,)),
            "none": SecurityContext(
                capabilities=Capabilities(drop=("ALL",), add=("NET_BIND_SERVICE",)), no_new_privileges=False
            ),
            "all": SecurityContext(privileged=True),
        }
        for name, security in cases.items():
            found = await runtime.create_container(
                pod, container("/usr/bin/env", "python3", "-c", show, name=name, security=security)
            )
            await runtime.start_container(found)
            assert (await until_exited(runtime, found)).exit_code == 0, logged_lines(made, name)
        assert logged_lines(made, "plain") == ["['00000000a80425fb', '00000000a80425fb', '1', '2']", "0 0 [0]"]
        assert logged_lines(made, "user") == [
            "['0000000000000000', '00000000a80425fb', '1', '2']",
            "1000 2000 [2000, 3000]",
        ]
        assert logged_lines(made, "none") == ["['0000000000000400', '0000000000000400', '0', '2']", "0 0 [0]"]
        own = int(
            next(line for line in read(Path("/proc/self/status")).splitlines() if "CapBnd" in line).split()[1], 16
        )
        rights, ids = logged_lines(made, "all")
        assert int(rights.split("'")[1], 16) == own & (1 << 41) - 1
        assert rights.endswith("'0', '0']")
        assert ids.startswith("0 0")


async def test_the_filter_refuses_what_reaches_beyond_a_container() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        program = (
            "import ctypes, os, socket\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "def call(*a):\n r = libc.syscall(*a); print(ctypes.get_errno() if r < 0 else 'ok')\n"
            "call(272, 0x10000000)\n"  # unshare of users
            "call(250, 0, 0, 0)\n"  # keyctl
            "call(435, 0, 0)\n"  # clone3: not there, so that programs take clone
            "call(9999)\n"
            "try:\n socket.socket(38, 5); print('ok')\nexcept OSError as e: print(e.errno)\n"
            "pid = os.fork() or os._exit(0)\nos.waitpid(pid, 0)\nprint('forked')\n"
        )
        found = await runtime.create_container(pod, container("/usr/bin/env", "python3", "-c", program))
        await runtime.start_container(found)
        await until_exited(runtime, found)
        assert logged_lines(made) == ["1", "1", "38", "38", "1", "forked"]


async def test_volumes_are_mounted_as_asked_and_links_lead_nowhere(tmp_path: Path) -> None:
    async with place() as made:
        volume = made.directory / "volume"
        (volume / "inner").mkdir(parents=True)
        (volume / "file").write_text("one\n")
        (volume / "inner" / "deep").write_text("two\n")
        (volume / "out").symlink_to("/etc")
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        mounts = (
            Mount(container_path="/mnt/all", host_path=str(volume)),
            Mount(container_path="/mnt/all/inner", host_path=str(volume), sub_path="inner", read_only=True),
            Mount(container_path="/etc/deeper/file", host_path=str(volume / "file"), read_only=True),
        )
        script = (
            "cat /mnt/all/file /mnt/all/inner/deep /etc/deeper/file; echo three > /mnt/all/new; "
            "touch /mnt/all/inner/x || touch /etc/deeper/file || echo both read-only"
        )
        found = await runtime.create_container(pod, container(script, mounts=mounts))
        await runtime.start_container(found)
        await until_exited(runtime, found)
        assert [line for line in logged_lines(made) if "cannot touch" not in line] == [
            "one",
            "two",
            "one",
            "both read-only",
        ]
        assert (volume / "new").read_text() == "three\n"
        escaping = Mount(container_path="/mnt/x", host_path=str(volume), sub_path="out/passwd")
        bad = await runtime.create_container(pod, container("true", name="bad", mounts=(escaping,)))
        with pytest.raises(StartError, match=r"error mounting .* sub path \"out/passwd\" .*no such file or directory"):
            await runtime.start_container(bad)


async def test_a_volume_in_a_directory_of_the_machine_leaves_what_the_pod_has_there(tmp_path: Path) -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made, dns=DNSConfig(servers=("192.0.2.53",))))
        mounts = tuple(Mount(container_path=f"/{name}/of-a-test", host_path=str(tmp_path)) for name in ("etc", "var"))
        script = "cat /etc/resolv.conf; cat /etc/hostname; touch /var/tmp/x /etc/of-a-test/x && echo both"
        found = await runtime.create_container(pod, container(script, mounts=mounts, working_dir="/etc/of-others/y"))
        await runtime.start_container(found)
        await until_exited(runtime, found)
        assert logged_lines(made) == ["nameserver 192.0.2.53", sandbox(made).hostname, "both"]


async def test_mounts_go_both_ways_where_asked() -> None:
    async with place() as made:
        shared = made.directory / "shared"
        shared.mkdir()
        mount_command("--bind", shared, shared)
        mount_command("--make-shared", shared)
        try:
            (shared / "in").mkdir()
            (shared / "out").mkdir()
            runtime = await made.runtime()
            pod = await runtime.run_sandbox(sandbox(made))
            mount = Mount(container_path="/both", host_path=str(shared), propagation="Bidirectional")
            one_way = Mount(container_path="/down", host_path=str(shared), propagation="HostToContainer")
            script = (
                "mount -t tmpfs x /both/out && touch /both/out/made; echo done; "
                "while ! test -e /down/in/seen; do sleep 0.05; done; echo seen"
            )
            found = await runtime.create_container(
                pod, container(script, mounts=(mount, one_way), security=SecurityContext(privileged=True))
            )
            await runtime.start_container(found)
            await eventually((shared / "out" / "made").exists, lambda: str(logged_lines(made)))
            mount_command("-t", "tmpfs", "x", shared / "in")
            (shared / "in" / "seen").touch()
            await until_exited(runtime, found)
            assert logged_lines(made) == ["done", "seen"]
        finally:
            unmount(shared)


async def test_limits_hold_and_lack_of_memory_is_told() -> None:
    async with place() as made:
        runtime = await made.runtime()
        if runtime._all.groups.version == 0:
            pytest.skip("no control groups that are writable")
        pod = await runtime.run_sandbox(sandbox(made, "limited"))
        limits = Resources(memory_limit=64 << 20, cpu_shares=512, cpu_quota=50_000, cpu_period=100_000, pids_limit=64)
        greedy = await runtime.create_container(
            pod, container("/usr/bin/env", "python3", "-c", "x = bytearray(1 << 30)", name="greedy", resources=limits)
        )
        await runtime.start_container(greedy)
        status = await until_exited(runtime, greedy)
        assert (status.reason, status.exit_code) == ("OOMKilled", 137)
        alone = await runtime.create_container(pod, container("true", name="alone", resources=Resources(pids_limit=1)))
        with pytest.raises(StartError, match="resource temporarily unavailable"):
            await runtime.start_container(alone)
        steady = await runtime.create_container(pod, container("sleep 1000", name="steady", resources=limits))
        await runtime.start_container(steady)
        stats = await runtime.container_stats(steady)
        assert stats.pids >= 1
        assert 0 < stats.memory_working_set_bytes <= stats.memory_usage_bytes <= 64 << 20
        assert stats.cpu_usage_ns > 0
        directories = runtime._all.groups.directories(f"/kubepods/podlimited/{steady}")
        file = "cpu.max" if "" in directories else "cpu.cfs_quota_us"
        text = read(Path(directories.get("", directories.get("cpu", "")), file))
        assert text.split()[0] == "50000"


async def test_ends_are_told_as_they_were() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        events = runtime.events()
        cases = {
            "three": "exit 3",
            "term": "kill -TERM $$; sleep 1000",
            "trap": "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
        }
        made_ids = {}
        for name, script in cases.items():
            # A first process ignores signals it has no handler for, so the shell is not the first one here.
            command = (
                ("/bin/sh", "-c", script)
                if name != "term"
                else ("/usr/bin/env", "python3", "-c", "import os; os.abort()")
            )
            made_ids[name] = await runtime.create_container(pod, container(*command, name=name))
            await runtime.start_container(made_ids[name])
        assert (await until_exited(runtime, made_ids["three"])).exit_code == 3
        aborted = await until_exited(runtime, made_ids["term"])
        assert (aborted.exit_code, aborted.signal, aborted.reason) in {(134, 6, "Error"), (139, 11, "Error")}
        await eventually(lambda: logged_lines(made, "trap") == ["up"])
        await runtime.stop_container(made_ids["trap"], grace=20)
        assert (await runtime.container_status(made_ids["trap"])).exit_code == 7
        deaf = await runtime.create_container(
            pod, container("trap '' TERM; echo up; while :; do sleep 0.05; done", name="deaf")
        )
        await runtime.start_container(deaf)
        await eventually(lambda: logged_lines(made, "deaf") == ["up"])
        await runtime.stop_container(deaf, grace=0.2)
        ended = await runtime.container_status(deaf)
        assert (ended.exit_code, ended.signal) == (137, 9)
        await runtime.remove_container(deaf)
        with pytest.raises(NotFound, match="not found"):
            await runtime.container_status(deaf)
        seen = [(await anext(events)) for _ in range(9)]
        assert [event.type for event in seen if event.container_id == made_ids["three"]] == [
            "Created",
            "Started",
            "Stopped",
        ]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("nowhere",), r'exec: "nowhere": executable file not found in \$PATH'),
        (("/no/where",), 'exec: "/no/where": stat /no/where: no such file or directory'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
        (("/etc",), 'exec: "/etc": is a directory'),
    ],
)
async def test_what_cannot_be_started_says_why(command: tuple[str, ...], why: str) -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        found = await runtime.create_container(pod, container("x", "y", command=command))
        with pytest.raises(StartError, match=f"unable to start container process: {why}"):
            await runtime.start_container(found)
        status = await runtime.container_status(found)
        assert (status.state, status.exit_code, status.reason) == ("Exited", 128, "StartError")
        with pytest.raises(CreateContainerError, match="no command specified"):
            await runtime.create_container(pod, container("x", "y", command=()))


async def test_addresses_run_out_and_come_back() -> None:
    async with place() as made:
        network = made.options.pod_cidr.partition("/")[0]
        runtime = await made.runtime(pod_cidr=f"{network}/30")
        only = await runtime.run_sandbox(sandbox(made, "only"))
        with pytest.raises(AddressesExhausted, match="no address is left"):
            await runtime.run_sandbox(sandbox(made, "more"))
        await runtime.remove_sandbox(only)
        await runtime.run_sandbox(sandbox(made, "again"))


async def test_the_machines_network_and_processes_where_asked() -> None:
    async with place() as made:
        runtime = await made.runtime()
        host = SecurityContext(namespaces=NamespaceOptions(network="Node", pid="Node", ipc="Node"))
        pod = await runtime.run_sandbox(sandbox(made, "host", security=host))
        assert (await runtime.sandbox_status(pod)).ip == ""
        found = await runtime.create_container(
            pod, container(f"ls /sys/class/net; test -d /proc/{os.getpid()} && echo seen; sleep 1000", security=host)
        )
        await runtime.start_container(found)
        await eventually(lambda: "seen" in logged_lines(made))
        assert made.name in logged_lines(made)
        await runtime.stop_container(found, 0)
        await asyncio.sleep(0)


async def test_containers_that_are_made_while_their_sandbox_is_stopped_do_not_keep_it() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        for number in range(3):
            running = await runtime.create_container(pod, container("exec sleep 100", name=f"running-{number}"))
            await runtime.start_container(running)

        async def create(number: int) -> None:
            with contextlib.suppress(NodeError):
                await runtime.create_container(pod, container("true", name=f"new-{number}"))

        await asyncio.gather(runtime.stop_sandbox(pod), *(create(number) for number in range(10)))
        assert (await runtime.sandbox_status(pod)).state == "NotReady"
