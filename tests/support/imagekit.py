"""Images made in tests out of this machine's shell, in OCI layouts, and a small registry that serves them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse.node.images.oci import own_architecture

__all__ = ["Blobs", "Entry", "Registry", "layer", "serve", "shell_files", "write_layout"]

Entry = tuple[str, dict[str, Any]]
PROGRAMS = ("sh", "cat", "ls", "id", "stat", "touch", "sleep", "mkdir")


def layer(*entries: Entry) -> bytes:
    """Return a packed layer. Each entry is a name with `data`, `link`, `hard`, `dir`, `mode`, `uid`, `type`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields in entries:
            info = tarfile.TarInfo(name)
            info.mode = fields.get("mode", 0o755 if "dir" in fields else 0o644)
            info.uid = info.gid = fields.get("uid", 0)
            data: bytes = fields.get("data", b"")
            if "link" in fields:
                info.type, info.linkname = tarfile.SYMTYPE, fields["link"]
            elif "hard" in fields:
                info.type, info.linkname = tarfile.LNKTYPE, fields["hard"]
            elif "dir" in fields:
                info.type = tarfile.DIRTYPE
            else:
                info.type = fields.get("type", tarfile.REGTYPE)
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


@lru_cache(maxsize=1)
def shell_files() -> tuple[Entry, ...]:
    """Return a small root: some programs of this machine with the libraries that they want."""
    wanted: dict[str, bytes] = {}
    for name in PROGRAMS:
        path = shutil.which(name)
        assert path, f"no program {name}"
        wanted[f"bin/{name}"] = Path(path).read_bytes()
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+\.so\S*)", listed):
            wanted[library.lstrip("/")] = Path(library).read_bytes()
    passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:app:/home/app:/bin/sh\n"
    group = b"root:x:0:\napp:x:2345:\nextra:x:77:app\n"
    files: list[Entry] = [(name, {"data": data, "mode": 0o755}) for name, data in sorted(wanted.items())]
    files += [("etc/passwd", {"data": passwd}), ("etc/group", {"data": group}), ("tmp", {"dir": True, "mode": 0o1777})]
    return tuple(files)


class Blobs:
    """Content by digest, and images made of it."""

    def __init__(self) -> None:
        self.by_digest: dict[str, bytes] = {}

    def add(self, data: bytes, media_type: str = "") -> dict[str, Any]:
        """Keep bytes and return their descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.by_digest[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(self, *layers: bytes, index: bool = False, **config: Any) -> dict[str, Any]:
        """Make an image and return the descriptor of its manifest, or of an index with one for another machine too."""
        diff_ids = [f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}" for data in layers]
        document = {
            "architecture": own_architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.add(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.add(data, "application/vnd.oci.image.layer.v1.tar+gzip") for data in layers],
        }
        found = self.add(json.dumps(manifest).encode(), manifest["mediaType"])  # type: ignore[arg-type]
        if not index:
            return found
        other = self.add(b'{"config":{"digest":"sha256:00"},"layers":[]}', str(manifest["mediaType"]))
        entries = [
            other | {"platform": {"architecture": "mips", "os": "linux"}},
            found | {"platform": {"architecture": own_architecture(), "os": "linux"}},
        ]
        whole = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
        return self.add(json.dumps(whole).encode(), str(whole["mediaType"]))


def write_layout(directory: Path, blobs: Blobs, **images: dict[str, Any]) -> Path:
    """Write an OCI layout with images by tag; return its directory."""
    place = directory / "blobs" / "sha256"
    place.mkdir(parents=True)
    for digest, data in blobs.by_digest.items():
        (place / digest.partition(":")[2]).write_bytes(data)
    entries = [entry | {"annotations": {"org.opencontainers.image.ref.name": tag}} for tag, entry in images.items()]
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for path in [directory, *directory.rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    return directory


class Registry:
    """A registry on loopback that wants a token for `user` and `secret`, and sends blobs from another host's path.

    basic: it wants name and password themselves. allowed: those, in base64.
    """

    def __init__(self, blobs: Blobs, tags: dict[str, str]) -> None:
        self.blobs = blobs
        self.tags = tags
        self.address = ""
        self.requests: list[str] = []
        self.broken = False
        self.basic = False
        self.allowed = base64.b64encode(b"user:secret").decode()

    @property
    def _wanted(self) -> str:
        return f"Basic {self.allowed}" if self.basic else "Bearer good"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        if request.path == "/token":
            if request.headers.get("Authorization") != f"Basic {self.allowed}":
                return web.Response(status=401)
            return web.json_response({"token": "good"})
        if request.path.startswith("/elsewhere/"):
            assert request.headers.get("Authorization") in {None, self._wanted}
            data = self.blobs.by_digest[request.path.rpartition("/")[2]]
            return web.Response(body=data[:-1] + b"\0" if self.broken else data)
        if request.headers.get("Authorization") != self._wanted:
            if self.basic:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
            challenge = f'Bearer realm="http://{self.address}/token",service="test",scope="repository:team/app:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        found = re.fullmatch(r"/v2/team/app/(manifests|blobs)/(.+)", request.path)
        if found is None:
            return web.Response(status=404)
        digest = self.tags.get(found[2], found[2])
        if digest not in self.blobs.by_digest:
            return web.Response(status=404)
        if found[1] == "blobs":
            return web.Response(status=307, headers={"Location": f"/elsewhere/{digest}"})
        media_type = json.loads(self.blobs.by_digest[digest]).get("mediaType", "")
        return web.Response(body=self.blobs.by_digest[digest], headers={"Content-Type": media_type})


@asynccontextmanager
async def serve(blobs: Blobs, **tags: dict[str, Any]) -> AsyncIterator[Registry]:
    """Serve images by tag in the repository team/app."""
    registry = Registry(blobs, {tag: entry["digest"] for tag, entry in tags.items()})
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", registry.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    registry.address = f"127.0.0.1:{port}"
    try:
        yield registry
    finally:
        await runner.cleanup()
