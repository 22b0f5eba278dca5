"""Containers out of images: what an image says of user, directory and command; layers, copies, read-only roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.node.config import SecurityContext
from pilothouse.node.errors import NotFound, StartError
from pilothouse.node.process.runtime import ProcessRuntime
from support.imagekit import Blobs, layer, shell_files, write_layout
from support.nodekit import NEEDS_ROOT, Place, container, logged_lines, place, sandbox, until_exited

pytestmark = NEEDS_ROOT


def layout(made: Place) -> Path:
    blobs = Blobs()
    image = blobs.image(
        layer(*shell_files(), ("data/old", {"data": b"old"}), ("data/kept", {"data": b"kept"})),
        layer(
            ("data/.wh.old", {}),
            ("srv/file", {"data": b"deep", "uid": 1234, "mode": 0o600}),
            ("var/run", {"link": "/run"}),
        ),
        User="app",
        WorkingDir="/srv",
        Env=["FROM=image", "BOTH=image"],
        Entrypoint=["/bin/sh", "-c"],
        Cmd=["id; ls /data; cat file; echo $FROM $BOTH $HOME; echo new 2>/dev/null > /data/new || echo no"],
    )
    return write_layout(made.directory / "layout", blobs, v1=image)


async def run(runtime: ProcessRuntime, made: Place, pod: str, name: str, **fields: object) -> list[str]:
    found = await runtime.create_container(pod, container(name=name, **({"command": ()} | fields)))
    await runtime.start_container(found)
    await until_exited(runtime, found)
    return logged_lines(made, name)


@pytest.mark.parametrize("overlay", [True, False], ids=["stacked", "copied"])
async def test_an_image_says_how_it_runs(overlay: bool) -> None:
    async with place() as made:
        runtime = await made.runtime()
        runtime.images._overlay = overlay
        image = f"oci:{layout(made)}:v1"
        await runtime.images.pull(image)
        pod = await runtime.run_sandbox(sandbox(made))
        identity = "uid=1234(app) gid=2345(app) groups=2345(app),77(extra)"
        plain = await run(runtime, made, pod, "plain", image=image, envs=(("BOTH", "pod"),))
        assert plain == [identity, "kept", "deepimage pod /home/app", "no"]
        root = SecurityContext(run_as_user=0)
        writing = await run(
            runtime,
            made,
            pod,
            "root",
            image=image,
            security=root,
            command=("/bin/sh", "-c", "pwd; echo new > /data/new; cat /data/new"),
        )
        assert writing == ["/srv", "new"]
        stats = await runtime.container_stats((await runtime.list_containers(pod))[1].id)
        assert stats.filesystem is not None
        again = await run(runtime, made, pod, "again", image=image, security=root, args=("ls /data; cat /proc/1/comm",))
        assert again == ["kept", "sh"]
        fixed = SecurityContext(run_as_user=0, read_only_root=True)
        refused = await run(
            runtime,
            made,
            pod,
            "fixed",
            image=image,
            security=fixed,
            args=("touch /data/x 2>/dev/null || echo read-only",),
        )
        assert refused == ["read-only"]
        with pytest.raises(NotFound, match="not found"):
            await runtime.create_container(pod, container("x", image="no/such:image"))


async def test_users_that_the_image_does_not_know(tmp_path: Path) -> None:
    async with place() as made:
        runtime = await made.runtime()
        image = f"oci:{layout(made)}:v1"
        await runtime.images.pull(image)
        pod = await runtime.run_sandbox(sandbox(made))
        unknown = SecurityContext(run_as_username="ghost")
        found = await runtime.create_container(pod, container("id", image=image, security=unknown))
        with pytest.raises(StartError, match="unable to find user ghost: no matching entries in passwd file"):
            await runtime.start_container(found)
        number = SecurityContext(run_as_user=4321)
        ids = await run(runtime, made, pod, "n", image=image, security=number, args=("id -u; id -g",))
        assert ids == ["4321", "0"]


async def test_a_directory_is_an_image_and_stays_as_it_is() -> None:
    async with place() as made:
        root = made.directory / "root,fs:x"
        for name, fields in shell_files():
            if "data" in fields:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(fields["data"])
                (root / name).chmod(0o755)
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        script = ("/bin/sh", "-c", "echo changed > /etc/passwd; cat /etc/passwd")
        assert await run(runtime, made, pod, "d", image=f"dir:{root}", command=script) == ["changed"]
        assert (root / "etc/passwd").read_text().startswith("root:")


async def test_layers_in_use_stay_until_their_container_is_gone() -> None:
    async with place() as made:
        runtime = await made.runtime()
        image = f"oci:{layout(made)}:v1"
        await runtime.images.pull(image)
        pod = await runtime.run_sandbox(sandbox(made))
        command = ("/bin/sh", "-c", "while ! test -e /tmp/go; do sleep 0.05; done; cat /data/kept")
        found = await runtime.create_container(pod, container(name="u", image=image, command=command))
        await runtime.start_container(found)
        await runtime.images.remove(image)
        assert await runtime.images.collect() == 0
        done = await runtime.exec_sync(found, ["/bin/cat", "/data/kept"])
        assert done.stdout == b"kept"
        await runtime.remove_container(found)
        assert await runtime.images.collect() == 2
