"""Commands in containers, terminals, input, attaching, logs and their rotation."""

from __future__ import annotations

import asyncio
import re

import pytest

from pilothouse.node.errors import ExecError
from support.nodekit import NEEDS_ROOT, container, eventually, logged_lines, place, sandbox, until_exited

pytestmark = NEEDS_ROOT

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [PF] ")


async def test_commands_run_in_the_containers_world() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made, "exec"))
        main = await runtime.create_container(pod, container("echo x > /tmp/x; sleep 1000", envs=(("A", "b c"),)))
        await runtime.start_container(main)
        script = (
            "hostname; echo $A; cat /tmp/x; ls -d /proc/1 /proc/self/fd/9 2>/dev/null; "
            "grep Seccomp: /proc/self/status; echo bad >&2; exit 5"
        )
        done = await runtime.exec_sync(main, ["/bin/sh", "-c", script])
        assert (done.exit_code, done.stderr) == (5, b"bad\n")
        assert done.stdout == b"exec\nb c\nx\n/proc/1\nSeccomp:\t2\n"
        groups = await runtime.exec_sync(main, ["/bin/cat", "/proc/self/cgroup"])
        assert main.encode() in groups.stdout
        with pytest.raises(ExecError, match=r'exec: "nowhere": executable file not found in \$PATH') as caught:
            await runtime.exec_sync(main, ["nowhere"])
        assert caught.value.exit_code == 127
        with pytest.raises(ExecError, match="permission denied") as caught:
            await runtime.exec_sync(main, ["/etc/passwd"])
        assert caught.value.exit_code == 126
        count = ["/bin/sh", "-c", "set -- /proc/[0-9]*; echo $#"]
        before = await runtime.exec_sync(main, count)
        with pytest.raises(ExecError, match="argument list too long"):
            await runtime.exec_sync(main, ["/bin/echo", "x" * 200_000])
        with pytest.raises(TimeoutError, match=r"timed out after 0\.2 s"):
            await runtime.exec_sync(main, ["/bin/sleep", "1000"], seconds=0.2)
        assert (await runtime.exec_sync(main, ["/bin/sh", "-c", "kill -9 $$"])).exit_code == 137
        limited = await runtime.exec_sync(main, ["/bin/sh", "-c", "head -c 300000 /dev/zero"], max_output=1000)
        assert len(limited.stdout) == 1000
        for _ in range(500):
            if (after := await runtime.exec_sync(main, count)).stdout == before.stdout:
                break
            await asyncio.sleep(0.02)
        assert after.stdout == before.stdout, "what ran too long is still there"


async def test_input_flows_and_ends() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(pod, container("sleep 1000"))
        await runtime.start_container(main)
        session = await runtime.exec(main, ["/bin/sh", "-c", "wc -c; echo done"], stdin=True)
        for _ in range(32):
            await session.write(b"x" * 65_536)
        await session.close_stdin()
        assert await session.stdout.read() == b"2097152\ndone\n"
        assert await session.wait() == 0
        with pytest.raises(BrokenPipeError):
            await session.write(b"more")
        await session.close()


async def test_a_terminal_is_one() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(pod, container("sleep 1000"))
        await runtime.start_container(main)
        session = await runtime.exec(main, ["/bin/sh"], stdin=True, tty=True)
        await session.resize(133, 44)
        await session.write(b"tty; stty size; exit 9\n")
        text = await session.stdout.read()
        assert b"/dev/pts/0" in text
        assert b"44 133" in text
        assert await session.stderr.read() == b""
        assert await session.wait() == 9
        await session.close()


@pytest.mark.parametrize("name", ["terminal", "own terminal", "input"])
def test_streams_are_the_same_on_uvloop(name: str) -> None:
    uvloop = pytest.importorskip("uvloop")
    test = {
        "terminal": test_a_terminal_is_one,
        "own terminal": test_a_containers_own_terminal,
        "input": test_input_flows_and_ends,
    }[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())


async def test_attaching_gives_what_comes_and_takes_input() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(
            pod,
            container(
                "while read line; do echo got $line; echo err $line >&2; done; exit 4", stdin=True, stdin_once=True
            ),
        )
        await runtime.start_container(main)
        session = await runtime.attach(main, stdin=True)
        await session.write(b"one\ntwo\n")
        assert await session.stdout.readline() == b"got one\n"
        assert await session.stderr.readline() == b"err one\n"
        await session.close_stdin()
        assert await session.stdout.read() == b"got two\n"
        assert await session.wait() == 4
        await session.close()
        assert sorted(logged_lines(made)) == ["err one", "err two", "got one", "got two"]


async def test_a_containers_own_terminal() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(pod, container("read x; stty size; echo $x", stdin=True, tty=True))
        await runtime.start_container(main)
        session = await runtime.attach(main, stdin=True)
        await session.resize(101, 33)
        await session.write(b"hello\n")
        text = await session.stdout.read()
        assert b"33 101\r\nhello\r\n" in text
        assert await session.wait() == 0
        await session.close()
        assert b" F hello\r\n" in (made.logs / "main.log").read_bytes()


async def test_logs_are_cri_lines_and_rotate() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        script = "i=0; while :; do i=$((i+1)); echo $i; test $i = 2000 && echo last && sleep 1000; done"
        main = await runtime.create_container(pod, container(script))
        await runtime.start_container(main)
        await eventually(lambda: len(logged_lines(made)) > 10)
        (made.logs / "main.log").rename(made.logs / "old.log")
        await runtime.reopen_log(main)
        await eventually(lambda: "last" in logged_lines(made, "old") + logged_lines(made))
        both = logged_lines(made, "old") + logged_lines(made)
        assert both == [*map(str, range(1, 2001)), "last"]
        assert (made.logs / "main.log").exists()
        assert all(LINE.match(line) for line in (made.logs / "old.log").read_text().splitlines())


async def test_a_full_disk_does_not_stop_a_container() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        (made.logs / "main.log").symlink_to("/dev/full")
        main = await runtime.create_container(pod, container("head -c 1000000 /dev/zero; exit 3"))
        await runtime.start_container(main)
        assert (await until_exited(runtime, main)).exit_code == 3


async def test_many_commands_at_once() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        main = await runtime.create_container(pod, container("sleep 1000"))
        await runtime.start_container(main)
        done = await asyncio.gather(
            *(runtime.exec_sync(main, ["/bin/sh", "-c", f"echo {number}; exit {number}"]) for number in range(16))
        )
        assert [(each.exit_code, each.stdout) for each in done] == [(n, f"{n}\n".encode()) for n in range(16)]
