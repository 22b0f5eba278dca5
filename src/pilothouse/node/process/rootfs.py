"""A container's own tree of mounts, put together in the process that becomes its first one, and entered by pivot.

Every target is looked up with the new root as the root (`openat2`), so links of an image lead nowhere outside; every
source is a detached copy that is attached by descriptor, so nothing can be swapped in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from pilothouse.node.config import Mount

from . import syscalls as sys
from .spec import ContainerSpec, Mode

__all__ = ["SetupError", "assemble"]

_MAX_LINKS = 20
_HOST_OWN = frozenset({"proc", "sys", "dev", "tmp", "run", "lost+found"})
_NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
_USUAL = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC


class SetupError(Exception):
    """A container's surroundings could not be made; the message is for people."""


def assemble(spec: ContainerSpec, mode: Mode, shared_memory: str, host_mounts: int) -> None:
    """Make this process's mounts those of the container and enter its root.

    `shared_memory` is the pod's directory for /dev/shm; `host_mounts` the machine's mount namespace, from which volumes
    come whose mounts are to be seen outside. Raises `SetupError`.
    """
    os.umask(0)
    sources = dict(_shared_sources(spec, host_mounts))
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("", "/", flags=sys.MS_REC | sys.MS_SLAVE)
    tree = _Tree(spec, mode)
    tree.mount_root()
    mounts = sorted(spec.mounts, key=lambda mount: mount.container_path.rstrip("/").count("/"))
    volumes = [
        (mount, sources[path] if (path := mount.container_path) in sources else _source(mount)) for mount in mounts
    ]
    tree.make_places(volumes)
    tree.mount_own()
    tree.mount_kernel()
    tree.mount_devices(shared_memory)
    for mount, source in volumes:
        tree.mount_volume(mount, source)
    tree.make_working_directory()
    tree.close_paths()
    tree.enter()


def _shared_sources(spec: ContainerSpec, host_mounts: int) -> Iterator[tuple[str, int]]:
    shared = [mount for mount in spec.mounts if mount.propagation == "Bidirectional"]
    if not shared:
        return
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    sys.setns(host_mounts, sys.CLONE_NEWNS)
    found = [(mount.container_path, _source(mount)) for mount in shared]
    sys.setns(own, sys.CLONE_NEWNS)
    os.close(own)
    yield from found


def _source(mount: Mount) -> int:
    """Return a detached copy of what a volume shows."""
    try:
        base = os.open(mount.host_path, os.O_PATH | os.O_CLOEXEC)
        if mount.sub_path:
            outer, base = base, sys.open_in_root(base, mount.sub_path)
            os.close(outer)
        tree = sys.open_tree(base, "", recursive=True)
    except OSError as error:
        within = f' sub path "{mount.sub_path}"' if mount.sub_path else ""
        raise SetupError(
            f'error mounting "{mount.host_path}"{within} to rootfs at "{mount.container_path}": {_why(error)}'
        ) from error
    os.close(base)
    return tree


class _Tree:
    """The new root while it grows."""

    def __init__(self, spec: ContainerSpec, mode: Mode) -> None:
        self._spec = spec
        self._mode = mode
        self._root = -1
        self._where = f"{spec.directory}/root"
        self._read_only: list[int] = []
        self._scratch = 0

    def mount_root(self) -> None:
        root = self._spec.root
        os.makedirs(self._where, exist_ok=True)
        try:
            if root.type == "overlay":
                self._overlay()
            elif root.type == "directory":
                sys.mount(root.path, self._where, flags=sys.MS_BIND | sys.MS_REC)
            else:
                self._host()
        except OSError as error:
            raise SetupError(f"error preparing rootfs ({root.type}): {_why(error)}") from error
        self._root = os.open(self._where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not self._spec.privileged:
            with contextlib.suppress(OSError):
                sys.mount_setattr(self._root, add=sys.MOUNT_ATTR_NODEV)

    def make_places(self, volumes: Sequence[tuple[Mount, int]]) -> None:
        """Make the places where volumes go, and the working directory, before anything is mounted.

        A layer that has to be laid over a directory of the machine would hide what is mounted in it by then.
        """
        paths = [f"{mount.container_path.rstrip('/')}/" for mount, _ in volumes]
        for mount, tree in volumes:
            if any(mount.container_path.startswith(path) for path in paths):
                continue  # it is a place in another volume
            try:
                os.close(self._target(mount.container_path, directory=stat.S_ISDIR(os.fstat(tree).st_mode)))
            except OSError as error:
                raise _not_mounted(mount, error) from error
        if not any(f"{self._spec.cwd}/".startswith(path) for path in paths):
            self.make_working_directory()

    def mount_own(self) -> None:
        """Mount what a container on the machine's files has of its own: /tmp, /run and /var/tmp."""
        if self._spec.root.type != "host":
            return
        flags = sys.MS_NOSUID | sys.MS_NODEV
        self._mount("tmpfs", "/tmp", "tmpfs", flags, "mode=1777")  # noqa: S108  # the container's own
        self._mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
        with contextlib.suppress(SetupError):
            self._mount("tmpfs", "/var/tmp", "tmpfs", flags, "mode=1777")  # noqa: S108  # the container's own

    def mount_kernel(self) -> None:
        """Mount /proc and /sys."""
        spec = self._spec
        if spec.pid == "Node":
            self._bind("/proc", "/proc", read_only=False)
        else:
            self._mount("proc", "/proc", "proc", _USUAL)
        flags = _USUAL | (0 if spec.privileged else sys.MS_RDONLY)
        try:
            self._mount("sysfs", "/sys", "sysfs", flags)
        except SetupError:
            # The network is not ours, so its files are not either: those of the machine, read-only.
            self._bind("/sys", "/sys", read_only=True)
        views = dict(spec.cgroup_views)
        if "" in views:
            self._bind(views[""], "/sys/fs/cgroup", read_only=not spec.privileged)
        elif views:
            self._mount("tmpfs", "/sys/fs/cgroup", "tmpfs", _USUAL, "mode=755,size=64k")
            for name, path in views.items():
                self._bind(path, f"/sys/fs/cgroup/{name}", read_only=not spec.privileged)

    def mount_devices(self, shared_memory: str) -> None:
        """Make /dev: the harmless devices, terminals, shared memory and queues, and what was asked for."""
        self._mount("tmpfs", "/dev", "tmpfs", sys.MS_NOSUID, "mode=755,size=65536k")
        directory = self._open("/dev")
        wanted = {f"/dev/{name}": f"/dev/{name}" for name in (*_NODES, "tty")}
        if self._spec.privileged:
            wanted |= {path: path for path in _host_devices()}
        wanted |= {device.container_path: device.host_path for device in self._spec.devices}
        for path, source in wanted.items():
            self._device(path, source)
        for name, target in _LINKS.items():
            with contextlib.suppress(FileExistsError):
                os.symlink(target, name, dir_fd=directory)
        os.close(directory)
        group = "" if self._mode == "userns" else ",gid=5"
        self._mount(
            "devpts", "/dev/pts", "devpts", sys.MS_NOSUID | sys.MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}"
        )
        self._bind(shared_memory, "/dev/shm", read_only=False)  # noqa: S108  # the usual place of it
        with contextlib.suppress(SetupError):
            self._mount("mqueue", "/dev/mqueue", "mqueue", _USUAL)

    def mount_volume(self, mount: Mount, tree: int) -> None:
        """Attach a volume's tree, which is closed."""
        attributes = 0 if self._spec.privileged else sys.MOUNT_ATTR_NODEV
        if mount.propagation != "Bidirectional":
            propagation = sys.MS_SLAVE if mount.propagation == "HostToContainer" else sys.MS_PRIVATE
            sys.mount_setattr(tree, propagation=propagation, recursive=True)
        try:
            if attributes:
                sys.mount_setattr(tree, add=attributes)
            if mount.read_only:
                sys.mount_setattr(tree, add=sys.MOUNT_ATTR_RDONLY, recursive=mount.recursive_read_only)
            directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            target = self._target(mount.container_path, directory=directory)
            sys.move_mount(tree, target)
        except OSError as error:
            raise _not_mounted(mount, error) from error
        os.close(target)
        os.close(tree)

    def make_working_directory(self) -> None:
        """Make the working directory, where there is none, while that can be done."""
        with contextlib.suppress(OSError, SetupError):
            os.close(self._target(self._spec.cwd, directory=True))

    def close_paths(self) -> None:
        """Hide and protect what a container has no business with, and make the root read-only where asked."""
        # What a user without rights cannot reach, its containers cannot either.
        unreachable = (FileNotFoundError, NotADirectoryError, *((PermissionError,) if self._mode == "userns" else ()))
        for path in self._spec.read_only:
            with contextlib.suppress(*unreachable):
                fd = self._open(path)
                tree = sys.open_tree(fd, "", recursive=True)
                sys.mount_setattr(tree, add=sys.MOUNT_ATTR_RDONLY, recursive=True)
                sys.move_mount(tree, fd)
        hidden = self._spec.root.hidden if self._spec.root.type == "host" else ()
        for path in (*hidden, *self._spec.masked):
            with contextlib.suppress(*unreachable):
                self._mask(path)
        for fd in self._read_only:
            sys.mount_setattr(fd, add=sys.MOUNT_ATTR_RDONLY)
        if self._spec.read_only_root or self._spec.root.type == "host":
            sys.mount_setattr(self._root, add=sys.MOUNT_ATTR_RDONLY)

    def enter(self) -> None:
        """Make it the root; nothing of the machine's tree is left to this process."""
        os.fchdir(self._root)
        sys.pivot_root(".", ".")
        sys.umount(".", sys.MNT_DETACH)
        os.chdir("/")

    def _overlay(self) -> None:
        root = self._spec.root
        os.chdir(root.base)
        lower = ":".join(_escaped(layer).replace(":", r"\:") for layer in root.lower)
        options = f"lowerdir={lower},upperdir={_escaped(root.upper)},workdir={_escaped(root.work)}"
        sys.mount("overlay", self._where, "overlay", 0, options + (",userxattr" if self._mode == "userns" else ""))
        os.chdir("/")

    def _host(self) -> None:
        sys.mount("tmpfs", self._where, "tmpfs", sys.MS_NOSUID, "mode=755,size=16m")
        for entry in os.scandir("/"):
            place = f"{self._where}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir():
                os.mkdir(place)
                if entry.name in _HOST_OWN:
                    continue
                tree = sys.open_tree(-1, entry.path, recursive=True)
                sys.mount_setattr(tree, add=sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NODEV, recursive=True)
                fd = os.open(place, os.O_PATH)
                sys.move_mount(tree, fd)
                os.close(fd)
                os.close(tree)
        scratch = f"{self._spec.directory}/scratch"
        os.makedirs(scratch, exist_ok=True)
        sys.mount("tmpfs", scratch, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=700,size=16m")

    def _device(self, path: str, source: str) -> None:
        try:
            found = os.stat(source)
            if self._mode != "userns":
                parent = self._target(posixpath.dirname(path), directory=True)
                name = posixpath.basename(path)
                with contextlib.suppress(FileExistsError):
                    os.mknod(
                        name, stat.S_IFMT(found.st_mode) | stat.S_IMODE(found.st_mode), found.st_rdev, dir_fd=parent
                    )
                    os.chown(name, found.st_uid, found.st_gid, dir_fd=parent)
                os.close(parent)
                return
        except OSError as error:
            if path.removeprefix("/dev/") in {*_NODES, "tty"} and error.errno == errno.ENOENT:
                return
            raise SetupError(f'error creating device "{path}" from "{source}": {_why(error)}') from error
        self._bind(source, path, read_only=False)

    def _mask(self, path: str) -> None:
        fd = self._open(path)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            sys.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", sys.MS_RDONLY | sys.MS_NODEV | sys.MS_NOSUID, "size=0")
        else:
            tree = sys.open_tree(-1, "/dev/null")
            sys.move_mount(tree, fd)
            os.close(tree)
        os.close(fd)

    def _mount(self, source: str, path: str, kind: str, flags: int, data: str = "") -> None:
        try:
            target = self._target(path, directory=True)
            sys.mount(source, f"/proc/self/fd/{target}", kind, flags, data)
        except OSError as error:
            raise SetupError(f'error mounting "{source}" to rootfs at "{path}": {_why(error)}') from error
        os.close(target)

    def _bind(self, source: str, path: str, *, read_only: bool) -> None:
        try:
            tree = sys.open_tree(-1, source, recursive=True)
            if read_only:
                sys.mount_setattr(tree, add=sys.MOUNT_ATTR_RDONLY, recursive=True)
            target = self._target(path, directory=os.path.isdir(source))
            sys.move_mount(tree, target)
        except OSError as error:
            raise SetupError(f'error mounting "{source}" to rootfs at "{path}": {_why(error)}') from error
        os.close(target)
        os.close(tree)

    def _open(self, path: str) -> int:
        return sys.open_in_root(self._root, path)

    def _target(self, path: str, *, directory: bool, links: int = 0) -> int:
        """Return a descriptor of a place in the new root, made where it is missing."""
        clean = posixpath.normpath("/" + path)
        try:
            return self._open(clean)
        except FileNotFoundError:
            if clean == "/" or links > _MAX_LINKS:
                raise
        above = posixpath.dirname(clean)
        name = posixpath.basename(clean)
        parent = self._target(above, directory=True, links=links + 1)
        try:
            led = os.readlink(name, dir_fd=parent)
        except OSError:
            self._make(parent, above, name, directory=directory)
        else:
            # A link to something that is missing: make what it leads to.
            os.close(self._target(posixpath.join(above, led), directory=directory, links=links + 1))
        os.close(parent)
        return self._open(clean)

    def _make(self, parent: int, above: str, name: str, *, directory: bool) -> None:
        try:
            _create(parent, name, directory=directory)
        except OSError as error:
            if error.errno != errno.EROFS or self._spec.root.type != "host":
                raise
            cover = self._cover(parent, above)
            _create(cover, name, directory=directory)

    def _cover(self, fd: int, path: str) -> int:
        """Lay a writable layer over one directory of the machine, for the mount points in it."""
        self._scratch += 1
        upper, work = (f"{self._spec.directory}/scratch/{kind}{self._scratch}" for kind in "uw")
        os.mkdir(upper, 0o755)
        os.mkdir(work, 0o700)
        options = f"lowerdir=/proc/self/fd/{fd},upperdir={upper},workdir={work}"
        sys.mount(
            "overlay",
            f"/proc/self/fd/{fd}",
            "overlay",
            sys.MS_NODEV,
            options + (",userxattr" if self._mode == "userns" else ""),
        )
        cover = self._open(path)
        self._read_only.append(cover)
        return cover


def _not_mounted(mount: Mount, error: OSError) -> SetupError:
    shown = mount.host_path or mount.name
    return SetupError(f'error mounting "{shown}" to rootfs at "{mount.container_path}": {_why(error)}')


def _create(parent: int, name: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))


def _host_devices() -> Iterator[str]:
    for directory, below, names in os.walk("/dev"):
        if directory == "/dev":
            below[:] = [name for name in below if name not in {"pts", "shm", "mqueue", "fd"}]
        for name in names:
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                mode = os.lstat(path).st_mode
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    yield path


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,")


def _why(error: OSError) -> str:
    return (
        f"{error.filename}: {error.strerror}".lower()
        if error.filename and isinstance(error.filename, str)
        else str(error.strerror).lower()
    )
