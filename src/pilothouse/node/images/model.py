"""What the rest of the node knows of an image: how to run it, and which layers it is made of."""

from __future__ import annotations

import msgspec

__all__ = ["HOST", "Bundle", "ImageConfig"]

HOST = "host"
"""The image name that stands for this machine's own files."""


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `config` part of an OCI image: what to run, as whom and where, unless the pod says otherwise."""

    user: str = msgspec.field(name="User", default="")
    env: tuple[str, ...] | None = msgspec.field(name="Env", default=None)
    entrypoint: tuple[str, ...] | None = msgspec.field(name="Entrypoint", default=None)
    cmd: tuple[str, ...] | None = msgspec.field(name="Cmd", default=None)
    working_dir: str = msgspec.field(name="WorkingDir", default="")
    volumes: dict[str, dict[str, str]] | None = msgspec.field(name="Volumes", default=None)
    stop_signal: str = msgspec.field(name="StopSignal", default="")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """An unpacked image: `layers`, the topmost first, are directories below `base`; `directory` is used as it is."""

    id: str
    config: ImageConfig = ImageConfig()
    base: str = ""
    layers: tuple[str, ...] = ()
    directory: str = ""
