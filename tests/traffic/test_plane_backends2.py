"""Backends that speak HTTP/2: gRPC by grpcio from end to end, and bodies from and to clients of either version."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from ngh2 import Configuration, Connection, DataReceived, RequestReceived, Role, TrailersReceived

from pilothouse.traffic.config import HttpRoute, HttpRule, Limits, Weighted
from support.planekit import Origin, Plane, Raw, configuration, free_port, plane, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Echo:
    """Answers each stream with what it sent, or as its path says."""

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.origin = Origin(self.serve)

    def serve(self, sock: socket.socket, number: int) -> None:
        del number
        engine = Connection(Role.SERVER, Configuration())
        engine.initiate_connection()
        bodies: dict[int, bytearray] = {}
        paths: dict[int, bytes] = {}
        while True:
            while data := engine.data_to_send():
                sock.sendall(data)
            data = sock.recv(65536)
            if not data:
                return
            engine.receive_data(data)
            for event in engine.events():
                if isinstance(event, RequestReceived):
                    head = {bytes(name): bytes(value) for name, value in event.headers}
                    self.heads.append(head)
                    bodies[event.stream_id], paths[event.stream_id] = bytearray(), head[b":path"]
                    if event.end_stream:
                        self.answer(engine, event.stream_id, paths[event.stream_id], b"")
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    if event.end_stream:
                        self.answer(engine, event.stream_id, paths[event.stream_id], bytes(bodies[event.stream_id]))
                elif isinstance(event, TrailersReceived):
                    self.answer(engine, event.stream_id, paths[event.stream_id], bytes(bodies[event.stream_id]))

    def answer(self, engine: Connection, stream: int, path: bytes, body: bytes) -> None:
        if path == b"/reset":
            engine.reset_stream(stream, 2)
        elif path == b"/half":
            engine.send_response(stream, [(b":status", b"200")])
            engine.send_data(stream, b"half")

        elif path == b"/goaway":
            engine.send_goaway(0)
            engine.send_response(stream, [(b":status", b"200")], end_stream=True)
        elif path == b"/sized":
            engine.send_response(stream, [(b":status", b"200"), (b"content-length", b"%d" % len(body))])
            engine.send_data(stream, body, end_stream=True)
        else:
            engine.send_response(stream, [(b":status", b"200"), (b"x-a", b"b")])
            engine.send_data(stream, body or b"hello")
            if path == b"/trailers":
                engine.send_trailers(stream, [(b"x-sum", b"1")])
            else:
                engine.end_stream(stream)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    with made.origin:
        yield made


@pytest.fixture
def served(echo: Echo) -> Iterator[Plane]:
    limits = Limits(body_idle_seconds=0.5)
    with plane(configuration(echo.origin.port, port=free_port(), backend={"protocol": "h2"}, limits=limits)) as made:
        yield made


def chunks(client: Raw) -> bytes:
    body = b""
    while True:
        while b"\r\n" not in client.rest:
            client.rest += client.sock.recv(65536)
        line, _, rest = client.rest.partition(b"\r\n")
        size = int(line, 16)
        while len(rest) < size + 2:
            rest += client.sock.recv(65536)
        body, client.rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return body


class TestClientsOfHttp1:
    def test_many_requests_on_one_connection(self, served: Plane, echo: Echo) -> None:
        clients = [Raw(served.port) for _ in range(10)]
        for _ in range(3):
            for client in clients:
                client.send(GET)
            for client in clients:
                status, _, body = client.response()
                assert (status, body) in {(200, b"hello"), (200, b"")}
                if not body:
                    assert chunks(client) == b"hello"
        assert echo.origin.connections == 1
        assert echo.heads[0][b":authority"] == b"a"
        assert echo.heads[0][b"x-forwarded-for"] == b"127.0.0.1"
        for client in clients:
            client.close()

    @pytest.mark.parametrize("size", [1, 3000, 2_000_000])
    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_bodies(self, served: Plane, size: int, is_chunked: bool) -> None:
        body = (hashlib.sha256().digest() * (size // 32 + 1))[:size]
        head = b"POST /sized HTTP/1.1\r\nHost: a\r\n"
        if is_chunked:
            data = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        else:
            data = head + b"Content-Length: %d\r\n\r\n" % size + body
        with Raw(served.port) as client:
            for _ in range(2):
                threading.Thread(target=client.send, args=(data,)).start()
                assert client.response()[2] == body

    def test_answers_without_a_length(self, served: Plane) -> None:
        with Raw(served.port) as client:
            head = b"POST / HTTP/1.%d\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
            client.send(head % 1 + b"z" * 300_000)
            assert b"transfer-encoding: chunked" in client.head()
            assert chunks(client) == b"z" * 300_000
        with Raw(served.port) as client:
            client.send(head % 0 + b"z" * 300_000)
            assert client.everything().partition(b"\r\n\r\n")[2] == b"z" * 300_000

    def test_trailers(self, served: Plane) -> None:
        with Raw(served.port) as client:
            client.send(GET.replace(b"/ ", b"/trailers "))
            head = client.head()
            assert b"transfer-encoding: chunked" in head
            while not client.rest.endswith(b"\r\n\r\n"):
                client.rest += client.sock.recv(65536)
            assert client.rest == b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"

    def test_resets_and_goodbyes(self, served: Plane, echo: Echo) -> None:
        with Raw(served.port) as client:
            assert client.send(GET.replace(b"/ ", b"/reset ")).response()[0] == 502
            assert client.send(GET.replace(b"/ ", b"/goaway ")).response()[0] == 200
            until(lambda: served.do(lambda: served.worker.pools["b"].connections) == 0)
            assert client.send(GET).status() == 200
        assert echo.origin.connections == 2
        until(lambda: served.do(lambda: [each.active for each in served.worker.pools["b"].balancer.states]) == [0])

    def test_clients_that_go_away(self, served: Plane, echo: Echo) -> None:
        for _ in range(5):
            with Raw(served.port) as client:
                client.send(GET.replace(b"/ ", b"/half "))
                client.head()
        until(lambda: served.do(lambda: served.worker.pools["b"].active) == 0)
        with Raw(served.port) as client:
            assert client.send(GET).status() == 200
        assert echo.origin.connections == 1

    def test_nobody_listens(self) -> None:
        with (
            plane(configuration(free_port(), port=free_port(), backend={"protocol": "h2"})) as served,
            Raw(served.port) as client,
        ):
            assert client.send(GET).response()[0] == 503

    def test_what_is_no_http2(self) -> None:
        with (
            Origin.answering(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n") as origin,
            plane(configuration(origin.port, port=free_port(), backend={"protocol": "h2"})) as served,
            Raw(served.port) as client,
        ):
            assert client.send(GET).response()[0] == 502


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            return request

        def both(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            context.set_trailing_metadata((("x-sum", "1"),))
            for request in requests:
                yield request * 2

        return {
            "/t.T/Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/t.T/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/t.T/Both": grpc.stream_stream_rpc_method_handler(both),
            "/t.T/Many": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 500)),
        }.get(handler_call_details.method)


class TestGrpc:
    @pytest.fixture
    def channel(self) -> Iterator[grpc.Channel]:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((Service(),))
        backend = server.add_insecure_port("127.0.0.1:0")
        server.start()
        rule = HttpRule(backends=(Weighted(backend="b"),))
        config = configuration(backend, port=free_port(), backend={"protocol": "h2"})
        route = HttpRoute(name="default/r", listeners=("web",), rules=(rule,), is_grpc=True, hostnames=("localhost",))
        config = configuration(backend, port=config.listeners[0].port, backend={"protocol": "h2"}, routes=(route,))
        with plane(config) as served, grpc.insecure_channel(f"localhost:{served.port}") as channel:
            yield channel
        server.stop(None)

    def test_unary(self, channel: grpc.Channel) -> None:
        echo = channel.unary_unary("/t.T/Echo")
        for size in (0, 10, 1_000_000):
            assert echo(b"x" * size, timeout=20) == b"x" * size

    def test_errors(self, channel: grpc.Channel) -> None:
        for method, code in (("Fail", grpc.StatusCode.NOT_FOUND), ("None", grpc.StatusCode.UNIMPLEMENTED)):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/t.T/{method}")(b"", timeout=20)
            assert error.value.code() == code

    def test_streams(self, channel: grpc.Channel) -> None:
        gate = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"a"
            assert gate.wait(20)
            yield b"b"

        answers = channel.stream_stream("/t.T/Both")(requests(), timeout=20)
        assert next(answers) == b"aa"
        gate.set()
        assert list(answers) == [b"bb"]
        assert ("x-sum", "1") in [(each.key, each.value) for each in answers.trailing_metadata()]
        assert len(list(channel.unary_stream("/t.T/Many")(b"x" * 1000, timeout=20))) == 500

    def test_refusals_are_told_the_grpc_way(self) -> None:
        route = HttpRoute(
            name="default/r",
            listeners=("web",),
            rules=(HttpRule(backends=(Weighted(backend="b"),)),),
            is_grpc=True,
        )
        config = configuration(free_port(), port=free_port(), backend={"protocol": "h2"}, routes=(route,))
        with plane(config) as served, grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary("/t.T/Echo")(b"", timeout=20)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
