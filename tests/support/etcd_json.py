"""Drive a real etcd through its JSON gateway, sharing no code with the project's own etcd client.

Debian's etcd 3.4 serves its gRPC gateway under `/v3/` on the client port: bytes are base64, 64-bit integers are
strings, zeros are left out. Every call returns the structs of `pilothouse.store.model` or raises the error whose
text etcd sent.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from pilothouse.store import errors
from pilothouse.store.model import (
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    KeyValue,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Op,
    OpResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

__all__ = ["EtcdJson", "running_etcd"]

Json: TypeAlias = dict[str, Any]

_ERRORS = {
    kind.text: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.StoreError) and kind.text.startswith("etcdserver")
}
_OPERAND_FIELDS: dict[int, str] = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.LEASE: "lease",
}


@contextlib.contextmanager
def running_etcd(directory: Path, *, start_seconds: float = 20) -> Iterator[int]:
    """Run one etcd member in `directory` on loopback; yield its client port."""
    client_port, peer_port = _free_port(), _free_port()
    peer = f"http://127.0.0.1:{peer_port}"
    client = f"http://127.0.0.1:{client_port}"
    command = ["etcd", "--name=m", f"--data-dir={directory / 'etcd'}", f"--listen-client-urls={client}"]
    command += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", "--logger=zap"]
    command += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=m={peer}", "--unsafe-no-fsync"]
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_healthy(process, client_port, time.monotonic() + start_seconds, directory / "etcd.log")
            yield client_port
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, deadline: float, log: Path) -> None:
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            with connection.getresponse() as response:
                if response.status == http.HTTPStatus.OK:
                    return
        # Another process is waited for, so this is the one place where real time passes.
        time.sleep(0.05)
    raise RuntimeError(f"etcd did not become healthy; its log ends: {log.read_text()[-2000:]}")


class EtcdJson:
    """A synchronous client of one etcd's JSON gateway with the calls of `Store` that the comparison needs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, path: str, body: Json) -> Json:
        self._connection.request("POST", "/v3" + path, json.dumps(body), {"Content-Type": "application/json"})
        answer: Json = json.loads(self._connection.getresponse().read())
        if "error" in answer:
            text = str(answer.get("message") or answer["error"])
            raise _ERRORS[text] if text in _ERRORS else errors.StoreError(text)
        return answer

    def range(self, request: RangeRequest) -> RangeResponse:
        """Read."""
        return _range_response(self._call("/kv/range", _range_json(request)))

    def put(self, request: PutRequest) -> PutResponse:
        """Write one key."""
        return _put_response(self._call("/kv/put", _put_json(request)))

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Delete."""
        return _delete_response(self._call("/kv/deleterange", _delete_json(request)))

    def txn(self, request: TxnRequest) -> TxnResponse:
        """Run a transaction."""
        return _txn_response(self._call("/kv/txn", _txn_json(request)))

    def compact(self, revision: int) -> int:
        """Compact and wait until it is done physically."""
        return _revision(self._call("/kv/compaction", {"revision": str(revision), "physical": True}))

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """Hash the key space by etcdctl: the gateway of 3.4 serves only `Hash`, which covers more than the keys."""
        endpoint = f"--endpoints=http://127.0.0.1:{self._port}"
        command = ["etcdctl", endpoint, "endpoint", "hashkv", f"--rev={revision}", "--write-out=json"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        for text, kind in _ERRORS.items():
            if text.encode() in done.stderr:
                raise kind
        done.check_returncode()
        answer: Json = json.loads(done.stdout)[0]["HashKV"]
        current = _revision(answer)
        return HashKVResponse(
            revision=current,
            hash=int(answer.get("hash", 0)),
            hash_revision=revision or current,
            compact_revision=int(answer.get("compact_revision", 0)),
        )

    def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        """Create a lease."""
        answer = self._call("/lease/grant", {"TTL": str(ttl), "ID": str(lease_id)})
        return LeaseGrantResponse(revision=_revision(answer), id=int(answer["ID"]), ttl=int(answer["TTL"]))

    def lease_revoke(self, lease_id: int) -> int:
        """End a lease."""
        return _revision(self._call("/lease/revoke", {"ID": str(lease_id)}))

    def lease_keep_alive(self, lease_id: int) -> int:
        """Start a lease's time anew."""
        answer = self._call("/lease/keepalive", {"ID": str(lease_id)})
        return int(answer["result"].get("TTL", 0))

    def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Ask for a lease's rest; etcd answers its keys in no order, here they are sorted."""
        answer = self._call("/lease/timetolive", {"ID": str(lease_id), "keys": keys})
        return LeaseTimeToLiveResponse(
            revision=_revision(answer),
            id=int(answer.get("ID", 0)),
            ttl=int(answer.get("TTL", 0)),
            granted_ttl=int(answer.get("grantedTTL", 0)),
            keys=sorted(base64.b64decode(key) for key in answer.get("keys", [])),
        )

    def lease_leases(self) -> list[int]:
        """Return the ids of all leases in order."""
        return sorted(int(lease["ID"]) for lease in self._call("/lease/leases", {}).get("leases", []))

    def watch(self, key: bytes, range_end: bytes, start_revision: int, *, prev_kv: bool = False) -> Iterator[Json]:
        """Yield the raw results of one watch, on this client's connection, which then serves nothing else."""
        create = {"key": _b64(key), "range_end": _b64(range_end), "start_revision": str(start_revision)}
        body = json.dumps({"create_request": create | {"prev_kv": prev_kv}})
        self._connection.request("POST", "/v3/watch", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        while line := response.readline():
            yield json.loads(line)["result"]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _revision(answer: Json) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def _range_json(request: RangeRequest) -> Json:
    numbers = ("limit", "revision", "min_mod_revision", "max_mod_revision", "min_create_revision")
    return {
        "key": _b64(request.key),
        "range_end": _b64(request.range_end),
        "sort_order": int(request.sort_order),
        "sort_target": int(request.sort_target),
        "serializable": request.serializable,
        "keys_only": request.keys_only,
        "count_only": request.count_only,
        "max_create_revision": str(request.max_create_revision),
    } | {name: str(getattr(request, name)) for name in numbers}


def _put_json(request: PutRequest) -> Json:
    return {
        "key": _b64(request.key),
        "value": _b64(request.value),
        "lease": str(request.lease),
        "prev_kv": request.prev_kv,
        "ignore_value": request.ignore_value,
        "ignore_lease": request.ignore_lease,
    }


def _delete_json(request: DeleteRangeRequest) -> Json:
    return {"key": _b64(request.key), "range_end": _b64(request.range_end), "prev_kv": request.prev_kv}


def _compare_json(compare: Compare) -> Json:
    body: Json = {
        "key": _b64(compare.key),
        "range_end": _b64(compare.range_end),
        "target": int(compare.target),
        "result": int(compare.result),
    }
    if isinstance(compare.operand, bytes):
        return body | {"value": _b64(compare.operand)}
    return body | {_OPERAND_FIELDS.get(compare.target, "version"): str(compare.operand)}


def _op_json(op: Op) -> Json:
    if isinstance(op, RangeRequest):
        return {"request_range": _range_json(op)}
    if isinstance(op, PutRequest):
        return {"request_put": _put_json(op)}
    if isinstance(op, DeleteRangeRequest):
        return {"request_delete_range": _delete_json(op)}
    return {"request_txn": _txn_json(op)}


def _txn_json(request: TxnRequest) -> Json:
    return {
        "compare": [_compare_json(compare) for compare in request.compare],
        "success": [_op_json(op) for op in request.success],
        "failure": [_op_json(op) for op in request.failure],
    }


def _key_value(body: Json) -> KeyValue:
    return KeyValue(
        key=base64.b64decode(body.get("key", "")),
        value=base64.b64decode(body.get("value", "")),
        create_revision=int(body.get("create_revision", 0)),
        mod_revision=int(body.get("mod_revision", 0)),
        version=int(body.get("version", 0)),
        lease=int(body.get("lease", 0)),
    )


def _range_response(answer: Json) -> RangeResponse:
    return RangeResponse(
        revision=_revision(answer),
        kvs=[_key_value(kv) for kv in answer.get("kvs", [])],
        count=int(answer.get("count", 0)),
        more=bool(answer.get("more", False)),
    )


def _put_response(answer: Json) -> PutResponse:
    return PutResponse(_revision(answer), _key_value(answer["prev_kv"]) if "prev_kv" in answer else None)


def _delete_response(answer: Json) -> DeleteRangeResponse:
    prev_kvs = [_key_value(kv) for kv in answer.get("prev_kvs", [])]
    return DeleteRangeResponse(_revision(answer), int(answer.get("deleted", 0)), prev_kvs)


def _op_response(answer: Json) -> OpResponse:
    if "response_range" in answer:
        return _range_response(answer["response_range"])
    if "response_put" in answer:
        return _put_response(answer["response_put"])
    if "response_delete_range" in answer:
        return _delete_response(answer["response_delete_range"])
    return _txn_response(answer["response_txn"])


def _txn_response(answer: Json) -> TxnResponse:
    responses = tuple(_op_response(response) for response in answer.get("responses", []))
    return TxnResponse(_revision(answer), bool(answer.get("succeeded", False)), responses)
