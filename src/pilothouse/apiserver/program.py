"""The API server as a program: its directory, keys, store, sockets and the time it lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pilothouse.apiserver.access.kubeconfig import KubeconfigError
from pilothouse.apiserver.access.pki import ADMIN, ClientName, Pki, PkiError
from pilothouse.apiserver.access.pkibundle import export_bundle, import_bundle
from pilothouse.apiserver.access.wiring import write_client_kubeconfig
from pilothouse.apiserver.encryption import EncryptionError
from pilothouse.apiserver.encryption_config import Encryption
from pilothouse.apiserver.http import HttpLimits, HttpServer
from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.server import ApiServer
from pilothouse.apiserver.snapshots import SNAPSHOT_PATH, Snapshots
from pilothouse.foundation import logs
from pilothouse.foundation.addresses import LOOPBACK, own_address, own_addresses
from pilothouse.foundation.files import OsFileSystem, write_whole
from pilothouse.foundation.tls import ReloadingContext, TlsError
from pilothouse.kinds.names import dns1123_subdomain
from pilothouse.kinds.status import ApiStatus
from pilothouse.store import (
    Compare,
    CompareTarget,
    PutRequest,
    RangeRequest,
    Store,
    StoreError,
    StoreOptions,
    TxnRequest,
)

__all__ = ["Program", "ProgramOptions"]

_log = logs.get_logger(__name__)

_RELOAD_SECONDS = 10.0
_BUNDLE = b"/pilothouse/keys"
"""Where servers that share a store find the cluster's keys; encrypted with the key of `keys.key`, which is copied."""
_ENCRYPTED = "secrets"
_ALL = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared
"""Where a server listens that is reached by all addresses of its machine."""
_QUOTA = 8 * 1024 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramOptions:
    """Settings of a `Program`.

    data_dir: where keys, the store and the kubeconfig are kept, mode 0700. store: URL of an etcd cluster, empty for
    the embedded engine. advertise: address at which pods and nodes reach this server, empty for `host`, or this
    machine's own where it listens on all. hosts: names and addresses for the serving certificate, besides the usual.
    encryption: path of an EncryptionConfiguration, empty for one made here. components, gateway, delivery: whether the
    platform's controllers, its gateway and who delivers have kubeconfigs beside the administrator's, each by its name;
    node: the node of this machine that has one (`agent.kubeconfig`), empty for none.
    kubeconfig: a file of the user's that has the administrator's too, under the context `pilothouse`, or empty.
    """

    data_dir: str
    host: str = "127.0.0.1"
    port: int = 6443
    store: str = ""
    advertise: str = ""
    hosts: tuple[str, ...] = ()
    encryption: str = ""
    components: bool = False
    gateway: bool = False
    delivery: bool = False
    node: str = ""
    kubeconfig: str = ""
    server: ServerOptions = field(default_factory=ServerOptions)
    limits: HttpLimits = field(default_factory=lambda: HttpLimits(http2=True))


class Program:
    """A running API server with its sockets. Make one with `await Program.start(options)`, end it with `close`.

    url: where clients reach it. kubeconfig: path of the administrator's, mode 0600.
    """

    def __init__(self, options: ProgramOptions) -> None:
        self.options = options
        self.url = ""
        self.kubeconfig = os.path.join(options.data_dir, f"{ADMIN.file}.kubeconfig")
        self._clients = _clients(options)
        self.pki = Pki(
            os.path.join(options.data_dir, "pki"),
            _hosts(options),
            service_address=str(ipaddress.ip_network(options.server.allocation.service_cidr)[1]),
            clients=self._clients,
            clock=options.server.clock,
            ids=options.server.ids,
        )
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    async def start(cls, options: ProgramOptions) -> Program:
        """Open the store, make what is missing, and listen. Raises StoreError, PkiError, EncryptionError, OSError."""
        program = cls(options)
        try:
            await program._start()
        except BaseException:
            await program.close()
            raise
        return program

    async def close(self) -> None:
        """Answer what is under way, then stop."""
        await self._stack.aclose()

    async def _start(self) -> None:
        options = self.options
        OsFileSystem().makedirs(options.data_dir, 0o700)
        store = await self._open_store()
        self._stack.push_async_callback(store.close)
        if options.store:
            await self._share_keys(store)
        self.pki.ensure()
        encryption = self._encryption()
        self._transformer = encryption.transformer(_ENCRYPTED)
        self.server = ApiServer(
            store,
            replace(options.server, advertise=options.server.advertise or f"{self._advertised_host()}:{options.port}"),
            pki=self.pki,
            ciphers={_ENCRYPTED: self._transformer} if self._transformer is not None else {},
            front_proxy=(self.pki.path("front-proxy-client.crt"), self.pki.path("front-proxy-client.key")),
            node_client=self._node_client(),
        )
        if not options.store:
            self.server.also_answer(SNAPSHOT_PATH, Snapshots(store).answer)
        await self.server.start()
        self._stack.push_async_callback(self.server.close)
        await self._listen(encryption)
        _quieten_collector()

    def _node_client(self) -> NodeClient | None:
        certificate, key, ca = map(
            self.pki.path, ("apiserver-kubelet-client.crt", "apiserver-kubelet-client.key", "ca.crt")
        )
        return NodeClient(certificate, key, ca) if os.path.exists(certificate) else None

    async def _open_store(self) -> Store:
        if self.options.store:
            from pilothouse.store.etcd.backend import open_etcd  # noqa: PLC0415  # only where one is named

            return await open_etcd(self.options.store)
        from pilothouse.store.engine import EmbeddedStore  # noqa: PLC0415

        directory = os.path.join(self.options.data_dir, "store")
        server = self.options.server
        return await EmbeddedStore.open(
            StoreOptions(
                data_dir=directory, quota_bytes=_QUOTA, clock=server.clock, ids=server.ids, metrics=server.metrics
            )
        )

    async def _share_keys(self, store: Store) -> None:
        """Take the cluster's keys from the store, or put the ones made here there; the first server's count."""
        path = os.path.join(self.options.data_dir, "keys.key")
        found = (await store.range(RangeRequest(_BUNDLE))).kvs
        if not found:
            self.pki.ensure()
            absent = Compare(_BUNDLE, CompareTarget.VERSION, operand=0)
            bundle = export_bundle(self.pki, _bundle_key(path))
            if (await store.txn(TxnRequest((absent,), (PutRequest(_BUNDLE, bundle),)))).succeeded:
                return
            found = (await store.range(RangeRequest(_BUNDLE))).kvs
        if not OsFileSystem().exists(path):
            raise PkiError(
                f"{path}: is missing; the store has a cluster's keys already, encrypted with the file of this name "
                "of the server that was first: copy it here (mode 0600), with encryption.json beside it"
            )
        import_bundle(self.pki.directory, found[0].value, _bundle_key(path))

    def _encryption(self) -> Encryption:
        if self.options.encryption:
            return Encryption.load(self.options.encryption)
        return Encryption.ensure(os.path.join(self.options.data_dir, "pki", "encryption.json"), (_ENCRYPTED,))

    async def _listen(self, encryption: Encryption) -> None:
        options, pki = self.options, self.pki
        tls = ReloadingContext(
            pki.path("apiserver.crt"), pki.path("apiserver.key"), client_ca=pki.path("ca.crt"), client_required=False
        )
        tls.context.load_verify_locations(pki.path("front-proxy-ca.crt"))
        http = HttpServer(self.server.handle, tls=tls.context, limits=options.limits, clock=options.server.clock)
        self._stack.push_async_callback(http.close)
        _, port = await http.start(options.host, options.port)
        self.url = f"https://{self._shown_host()}:{port}"
        self.server.listening_at(self._advertised_host(), port)
        for task in (self._renew(tls), self._encrypt(encryption), pki.run(self._renewed)):
            running = asyncio.get_running_loop().create_task(task)
            self._stack.callback(running.cancel)
        self._write_kubeconfigs()

    def _shown_host(self) -> str:
        """Where clients on this machine reach it."""
        return _in_url(LOOPBACK if self.options.host in _ALL else self.options.host)

    def _advertised_host(self) -> str:
        """Where pods and other machines reach it."""
        options = self.options
        return _in_url(options.advertise or (own_address() if options.host in _ALL else options.host))

    def _write_kubeconfigs(self) -> None:
        for client in (ADMIN, *self._clients):
            path = os.path.join(self.options.data_dir, f"{client.file}.kubeconfig")
            if os.path.exists(self.pki.path(f"{client.file}.crt")):
                write_client_kubeconfig(self.pki, path, self.url, client)
        if self.options.kubeconfig:
            self._merge_kubeconfig(self.options.kubeconfig)

    def _merge_kubeconfig(self, path: str) -> None:
        from pilothouse.apiserver.access.kubeconfigmerge import merge_kubeconfig  # noqa: PLC0415  # seldom wanted

        try:
            merge_kubeconfig(self.kubeconfig, path)
        except KubeconfigError as error:  # somebody's file, which may be wrong for a while; the server does without
            _log.warning("the administrator's kubeconfig is in the data directory only", reason=str(error))

    def _renewed(self, names: Sequence[str]) -> None:
        if any(client.file in names for client in (ADMIN, *self._clients)):
            self._write_kubeconfigs()

    async def _encrypt(self, encryption: Encryption) -> None:
        """Write secrets again that were not written with the newest key: now, and when the file has another."""
        ours = not self.options.encryption and not self.options.store
        before = 0
        while True:
            try:
                if _changed(encryption.path) != before:
                    encryption.reload()
                    await self._encrypt_anew(encryption, forget=ours and len(encryption.key_names()) > 1)
                    before = _changed(encryption.path)
            except (EncryptionError, ApiStatus, StoreError) as error:
                _log.warning("secrets could not be encrypted with the newest key; tried again", reason=str(error))
            await self.options.server.clock.sleep(_RELOAD_SECONDS)

    async def _encrypt_anew(self, encryption: Encryption, *, forget: bool) -> None:
        if self._transformer is None:
            return
        written = await self.server.encrypt_anew(_ENCRYPTED, self._transformer.stale)
        if written:
            _log.info("secrets were encrypted with the newest key", count=written)
        if forget and (gone := encryption.prune()):
            _log.info("former keys of secrets are forgotten", key_name=", ".join(gone))

    async def _renew(self, tls: ReloadingContext) -> None:
        """Take up certificates that were renewed or exchanged, by us or by somebody."""
        while True:
            await self.options.server.clock.sleep(_RELOAD_SECONDS)
            try:
                if tls.reload_if_changed():
                    self.server.access.reload()
                    self.pki.ensure()  # what `pilothouse keys` does not know of is signed by a new CA too
                    self._write_kubeconfigs()
                    self.server.background.authorities_changed()
                    _log.info("the serving certificate was loaded anew")
            except (TlsError, PkiError, KubeconfigError) as error:
                _log.warning("renewed keys cannot be used; the old ones stay", reason=str(error))


def _clients(options: ProgramOptions) -> tuple[ClientName, ...]:
    """Return the platform's own processes that have kubeconfigs beside the administrator's."""
    controllers = ClientName("controllers", "system:pilothouse:controllers")
    gateway = ClientName("gateway", "system:pilothouse:gateway")
    delivery = ClientName("delivery", "system:pilothouse:delivery")
    agent = ClientName("agent", f"system:node:{options.node}", ("system:nodes",))
    wanted = (
        (controllers, options.components),
        (gateway, options.gateway),
        (delivery, options.delivery),
        (agent, bool(options.node)),
    )
    return tuple(client for client, is_wanted in wanted if is_wanted)


def _hosts(options: ProgramOptions) -> tuple[str, ...]:
    """Return the names and addresses for the serving certificate, besides those that it always has."""
    advertised = (options.advertise,) if options.advertise else ()
    if options.host not in _ALL:
        return (*options.hosts, *advertised, options.host)
    named = socket.gethostname().lower()
    return (*options.hosts, *advertised, *own_addresses(), *(() if dns1123_subdomain(named) else (named,)))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _changed(path: str) -> int:
    """Return when a file was last changed, 0 where it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _bundle_key(path: str) -> bytes:
    """Return the key of the bundle in the store, made where there is none."""
    if not os.path.exists(path):
        write_whole(OsFileSystem(), path, os.urandom(32).hex().encode(), 0o600)
    with open(path, encoding="ascii") as file:
        text = file.read().strip()
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise PkiError(f"{path}: is no key; it must have 64 hexadecimal digits") from None


def _quieten_collector() -> None:
    """Let the collector pass over what was loaded, and run rarely: requests leave no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
