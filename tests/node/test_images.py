"""Images: names, documents, the store, layouts and registries. No rights are wanted."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.node.config import RegistryAuth
from pilothouse.node.errors import ImagePullError, InvalidImageName, NotFound, RegistryUnavailable
from pilothouse.node.images.model import Bundle
from pilothouse.node.images.oci import Descriptor, Index, Platform, chain_ids, digest_of, read_document, select
from pilothouse.node.images.reference import parse
from pilothouse.node.images.store import ImageStore
from pilothouse.node.process.options import Options
from support.imagekit import Blobs, layer, serve, write_layout

AUTH = RegistryAuth(username="user", password="secret")


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("localhost:5000/a/b/c:x_y.z", "localhost:5000/a/b/c:x_y.z"),
        ("quay.io/a__b/c-d", "quay.io/a__b/c-d:latest"),
        (f"nginx@sha256:{'a' * 64}", f"docker.io/library/nginx@sha256:{'a' * 64}"),
        (f"nginx:1@sha256:{'a' * 64}", f"docker.io/library/nginx:1@sha256:{'a' * 64}"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
    ],
)
def test_names_are_completed(image: str, full: str) -> None:
    assert str(parse(image)) == full
    assert parse(full) == parse(image)


@pytest.mark.parametrize(
    "image", ["", "UPPER", "a b", "a:b:c/d:", "a//b", "/a", "a@sha256:1", "a:" + "t" * 129, "x" * 300, "-a"]
)
def test_bad_names_are_refused_in_the_kubelets_words(image: str) -> None:
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        parse(image)
    if image == "UPPER":
        with pytest.raises(InvalidImageName, match=r"repository name \(library/UPPER\) must be lowercase"):
            parse(image)


@given(st.text(max_size=40))
def test_a_name_is_complete_or_refused(image: str) -> None:
    try:
        found = parse(image)
    except InvalidImageName:
        return
    assert parse(str(found)) == found


def test_the_manifest_for_this_machine_is_chosen() -> None:
    def entry(digest: str, *platform: str) -> Descriptor:
        return Descriptor(digest=digest, platform=Platform(*platform) if platform else None)

    index = Index(
        manifests=(
            entry("any"),
            entry("arm", "arm64", "linux"),
            entry("win", "amd64", "windows"),
            entry("us", "amd64", "linux"),
        )
    )
    assert select(index, "amd64").digest == "us"
    assert select(index, "riscv64").digest == "any"
    with pytest.raises(ValueError, match=r"linux/s390x is wanted, there are: linux/arm64"):
        select(Index(manifests=(entry("arm", "arm64", "linux"),)), "s390x")
    with pytest.raises(ValueError, match="not a manifest"):
        read_document(b'{"schemaVersion": 1}')


def test_chains_are_as_specified() -> None:
    one, two = chain_ids(["sha256:aa", "sha256:bb"])
    assert one == "sha256:aa"
    assert two == digest_of(b"sha256:aa sha256:bb")


def read(bundle: Bundle, name: str) -> str:
    return Path(bundle.base, bundle.layers[0], name).read_text()


async def store(root: Path, **changes: object) -> ImageStore:
    options = msgspec.convert({"root": str(root / "node"), "local_images": [str(root)], **changes}, Options)
    made = ImageStore(options, owners=os.geteuid() == 0, overlay=True)
    await made.start()
    return made


async def test_an_image_comes_from_a_layout_and_goes(tmp_path: Path) -> None:
    blobs = Blobs()
    base = layer(("a", {"data": b"1"}), ("etc/x", {"data": b"2"}))
    first = blobs.image(base, layer(("b", {"data": b"3"})), Cmd=["run"], Env=["A=1"], User="app", StopSignal="SIGINT")
    second = blobs.image(base, index=True)
    path = write_layout(tmp_path / "layout", blobs, one=first, two=second)
    images = await store(tmp_path)
    assert await images.status(f"oci:{path}:one") is None
    with pytest.raises(NotFound):
        await images.bundle(f"oci:{path}:one")
    one = await images.pull(f"oci:{path}:one")
    two = await images.load(f"oci:{path}:two", "team/two:1")
    status = await images.status(one)
    assert status is not None
    assert (status.user, status.tags) == ("app", (f"oci:{path}:one",))
    found = await images.bundle("docker.io/team/two:1")
    assert found.id == two
    bundle = await images.bundle(f"oci:{path}:one")
    assert (bundle.config.cmd, bundle.config.env, bundle.config.stop_signal) == (("run",), ("A=1",), "SIGINT")
    assert bundle.layers[-1:] == found.layers
    assert read(bundle, "b") == "3"
    assert (await images.filesystem()).used_bytes > 0
    again = await store(tmp_path)
    assert {image.id for image in await again.list()} == {one, two}
    await again.remove(f"oci:{path}:one")
    assert len(os.listdir(bundle.base)) == 2, "the shared layer and the empty one stay"
    await again.remove(two)
    assert os.listdir(bundle.base) == ["empty"]
    assert await again.list() == []
    with pytest.raises(ImagePullError, match='no image "three": not found'):
        await again.pull(f"oci:{path}:three")
    with pytest.raises(ImagePullError, match="2 images"):
        await again.pull(f"oci:{path}")


async def test_an_archive_is_a_layout_too(tmp_path: Path) -> None:
    blobs = Blobs()
    path = write_layout(tmp_path / "layout", blobs, one=blobs.image(layer(("a", {"data": b"1"}))))
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        tar.add(path, arcname=".")
    images = await store(tmp_path)
    await images.pull(f"oci-archive:{tmp_path}/image.tar")
    bundle = await images.bundle(f"oci-archive:{tmp_path}/image.tar")
    assert read(bundle, "a") == "1"


async def test_what_the_node_does_not_allow_is_refused(tmp_path: Path) -> None:
    images = await store(tmp_path, local_images=[str(tmp_path / "allowed")], host_image=False)
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "out").symlink_to("/etc")
    for image in (f"dir:{tmp_path}", f"dir:{tmp_path}/allowed/../x", f"dir:{tmp_path}/allowed/out", "oci:/etc"):
        with pytest.raises(ImagePullError, match="not below a directory that this node allows"):
            await images.pull(image)
    assert await images.pull(f"dir:{tmp_path}/allowed") == f"dir:{tmp_path}/allowed"
    with pytest.raises(ImagePullError, match="image: host is not allowed on this node"):
        await images.pull("host")


async def test_damaged_content_is_refused(tmp_path: Path) -> None:
    blobs = Blobs()
    path = write_layout(tmp_path / "layout", blobs, one=blobs.image(layer(("a", {"data": b"1"}))))
    packed = next(digest for digest, data in blobs.by_digest.items() if data[:2] == b"\x1f\x8b")
    (path / "blobs/sha256" / packed.partition(":")[2]).write_bytes(layer(("a", {"data": b"2"})))
    images = await store(tmp_path)
    with pytest.raises(ImagePullError, match="unexpected digest sha256:"):
        await images.pull(f"oci:{path}:one")
    assert not [name for name in os.listdir(tmp_path / "node/images") if name.startswith("tmp-")]
    assert os.listdir(tmp_path / "node/images/layers") == ["empty"]


async def test_a_registry_gives_images_to_those_it_knows(tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image(layer(("a", {"data": b"1"})), index=True)
    async with serve(blobs, v1=image) as registry:
        images = await store(tmp_path)
        name = f"{registry.address}/team/app:v1"
        with pytest.raises(
            ImagePullError, match=r"pull access denied, repository does not exist or may require authorization"
        ):
            await images.pull(name)
        pulled = await images.pull(name, AUTH)
        assert registry.requests.count("/token") == 2
        status = await images.status(name)
        assert status is not None
        assert (status.id, status.tags, status.digests) == (
            pulled,
            (name,),
            (f"{registry.address}/team/app@{image['digest']}",),
        )
        by_digest = await images.status(f"{registry.address}/team/app@{image['digest']}")
        assert by_digest == status
        with pytest.raises(ImagePullError, match=r"v2: not found"):
            await images.pull(f"{registry.address}/team/app:v2", AUTH)
        with pytest.raises(ImagePullError) as caught:
            await images.pull(f"{registry.address}/team/app:v1", RegistryAuth(username="user", password="wrong"))
        assert "wrong" not in str(caught.value)
    with pytest.raises(RegistryUnavailable, match="failed to do request"):
        await images.pull(name, AUTH)


async def test_an_image_is_pulled_by_one_at_a_time_whoever_comes_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs()
    image = blobs.image(layer(("a", {"data": b"1"})))
    at_once: list[int] = []
    taking = 0

    async def take(self: ImageStore, name: str, source: object) -> str:
        nonlocal taking
        taking += 1
        at_once.append(taking)
        await asyncio.sleep(0.01)  # so that others could come in
        taking -= 1
        return name

    monkeypatch.setattr(ImageStore, "_take", take)
    async with serve(blobs, v1=image) as registry:
        images = await store(tmp_path)
        name = f"{registry.address}/team/app:v1"
        first, second = (asyncio.create_task(images.pull(name, AUTH)) for _ in range(2))
        await first
        await asyncio.gather(second, *(images.pull(name, AUTH) for _ in range(3)))
    assert at_once == [1] * 5
    assert len(images._locks) == 0


async def test_a_registry_that_sends_something_else_is_noticed(tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image(layer(("a", {"data": os.urandom(3000)})))
    async with serve(blobs, v1=image) as registry:
        registry.broken = True
        images = await store(tmp_path)
        with pytest.raises(ImagePullError, match=r"unexpected digest|unexpected commit digest"):
            await images.pull(f"{registry.address}/team/app:v1", AUTH)
        assert await images.list() == []
