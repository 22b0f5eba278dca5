"""The cluster's DNS: answers a second, out of the kept encodings and by UDP on loopback, and encoding anew as the peer.

1,000 services and 100 headless ones with 10 endpoints; questions go over all of them. `in_process` is one question
after the other without sockets; `udp` is 16 clients in another process that wait for each answer. The peer of
`in_process` is dnspython parsing the question and rendering the answer each time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time

import dns.message
import dns.rrset

from _kit import Spread, arguments, report, run
from pilothouse.kinds.structs import EndpointSlice, Service, from_dict
from pilothouse.node.dns.answers import Answers
from pilothouse.node.dns.listening import DnsSockets
from pilothouse.node.dns.records import service_records
from pilothouse.node.dns.wire import parse, reply
from pilothouse.node.dns.zone import Zone

_DOMAIN = "cluster.local"


def filled() -> Answers:
    """Return answers about many services."""
    zone = Zone(_DOMAIN)
    for number in range(1_100):
        address = "None" if number >= 1_000 else f"10.96.{number // 250}.{number % 250 + 1}"
        spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80, "name": "http"}]}
        found = from_dict({"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec}, Service)
        endpoints = [{"addresses": [f"10.0.{number % 250}.{each + 1}"]} for each in range(10)]
        body = {"metadata": {"name": "s", "namespace": "default"}, "addressType": "IPv4", "endpoints": endpoints}
        zone.put(f"s{number}", service_records(found, [from_dict(body, EndpointSlice)], _DOMAIN))
    return Answers(zone)


def questions() -> list[bytes]:
    """Return a question about each service."""
    return [dns.message.make_query(f"s{number}.default.svc.{_DOMAIN}", "A").to_wire() for number in range(1_100)]


def answered(answers: Answers, data: bytes) -> bytes:
    """Return the answer to a question, as the server does."""
    query = parse(data)
    tail = answers.answer(query)
    assert tail is not None
    return reply(query, tail, most=query.size)


def rendered(data: bytes) -> bytes:
    """Return an answer as dnspython makes it anew."""
    query = dns.message.from_wire(data)
    made = dns.message.make_response(query)
    made.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "10.96.0.1"))
    return made.to_wire()


def rate(function: object, wires: list[bytes], seconds: float) -> float:
    """Return how often a function does its work in a second."""
    assert callable(function)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for wire in wires[:200]:
            function(wire)
        count += 200
    return count / (time.perf_counter() - begun)


async def serve(answers: Answers, ready: int) -> None:
    """Answer by UDP until killed; the port goes to a descriptor."""
    sockets = DnsSockets(lambda data, _: answered(answers, data))
    port = await sockets.listen("127.0.0.1", 0)
    os.write(ready, str(port).encode())
    await asyncio.sleep(3_600)


def udp(port: int, wires: list[bytes], seconds: float) -> float:
    """Return answers a second of 16 clients."""
    counts = [0] * 16

    def client(at: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                sock.send(wires[(at * 61 + counts[at]) % len(wires)])
                sock.recv(2_048)
                counts[at] += 1

    threads = [threading.Thread(target=client, args=(at,)) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main() -> None:
    """Measure."""
    args = arguments(__doc__, seconds=2, rounds=5)
    seconds, rounds = (0.2, 1) if args.quick else (float(args.seconds), args.rounds)
    answers, wires = filled(), questions()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(rate(lambda wire: answered(answers, wire), wires, seconds))
        theirs.append(rate(rendered, wires, seconds))
    report(
        "cluster_dns_in_process",
        Spread.of(ours),
        "answers/s",
        peer="dnspython, anew",
        peer_spread=Spread.of(theirs),
        digits=0,
    )
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            run(serve(answers, write))
        finally:
            os._exit(0)
    try:
        port = int(os.read(read, 16))
        report("cluster_dns_udp", Spread.of([udp(port, wires, seconds) for _ in range(rounds)]), "answers/s", digits=0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
