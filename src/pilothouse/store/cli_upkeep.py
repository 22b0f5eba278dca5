"""`pilothouse store status|defrag|alarm|member|lease`: the state of a store and its upkeep."""

from __future__ import annotations

import asyncio

import click
import msgspec

from pilothouse.foundation.grpc import GrpcCode
from pilothouse.foundation.terminal import emit, examples, output_option
from pilothouse.store.cli_client import Connect, client_options, command_error, lease_id, run, text
from pilothouse.store.errors import StoreError
from pilothouse.store.etcd.backend import EtcdStore
from pilothouse.store.etcd.balancer import Balancer
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.maintenance_service import STATUS_PATH
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.model import AlarmAction, Status

__all__ = ["alarm", "defrag", "lease", "member", "status"]


@click.command(epilog=examples("pilothouse store status", "pilothouse store status --endpoints 127.0.0.1:2379 -o json"))
@client_options
@output_option
def status(connect: Connect, output: str) -> None:
    """Show revision, sizes, errors and advice. Against a plain etcd, what it tells."""
    settings = connect.settings()
    try:
        found = asyncio.run(_status(settings))
    except StoreError as error:
        raise command_error(error) from error
    plain = msgspec.to_builtins(found) | {
        "cluster_id": f"{found.cluster_id:x}",
        "member_id": f"{found.member_id:x}",
        "leader": f"{found.leader:x}",
    }
    if output != "table":
        emit(plain, output)
        return
    emit(plain, output, [name for name in plain if name not in {"errors", "advice"}])
    for problem in found.errors:
        click.echo(f"error: {problem}")
    for sentence in found.advice:
        click.echo(f"advice: {sentence}")


async def _status(settings: EtcdOptions) -> Status:
    balancer = Balancer(settings)
    try:
        answer = await Caller(settings, balancer).unary(STATUS_PATH, b"", safe=True, local=True)
        return msgspec.json.decode(answer, type=Status)
    except StoreError as error:
        if error.code != GrpcCode.UNIMPLEMENTED:
            raise
    finally:
        await balancer.close()
    store = EtcdStore(settings)
    try:
        return await store.status()
    finally:
        await store.close()


@click.command(epilog=examples("pilothouse store defrag", "pilothouse store defrag --timeout 60"))
@client_options
def defrag(connect: Connect) -> None:
    """Give disk space that is no longer needed back to the operating system."""
    run(connect, lambda store: store.defragment())
    click.echo("done")


@click.group(epilog=examples("pilothouse store alarm list", "pilothouse store alarm disarm"))
def alarm() -> None:
    """Show and clear alarms: out of space, corrupt."""


@alarm.command("list", epilog=examples("pilothouse store alarm list", "pilothouse store alarm list -o json"))
@client_options
@output_option
def alarm_list(connect: Connect, output: str) -> None:
    """Show the alarms that are raised."""
    found = run(connect, lambda store: store.alarm(AlarmAction.GET))
    emit([{"member": f"{one.member_id:x}", "alarm": one.alarm.name} for one in found], output)


@alarm.command("disarm", epilog=examples("# after space was made", "pilothouse store alarm disarm"))
@client_options
@output_option
def alarm_disarm(connect: Connect, output: str) -> None:
    """Clear all alarms, once their cause is gone."""

    async def clear(store: EtcdStore) -> list[dict[str, str]]:
        raised = await store.alarm(AlarmAction.GET)
        for one in raised:
            await store.alarm(AlarmAction.DEACTIVATE, one.alarm, one.member_id)
        return [{"member": f"{one.member_id:x}", "alarm": one.alarm.name} for one in raised]

    emit(run(connect, clear), output)


@click.group(epilog=examples("pilothouse store member list"))
def member() -> None:
    """Show the members that serve the store."""


@member.command("list", epilog=examples("pilothouse store member list", "pilothouse store member list -o json"))
@client_options
@output_option
def member_list(connect: Connect, output: str) -> None:
    """Show the members."""
    found = run(connect, lambda store: store.members())
    emit(
        [
            {"id": f"{one.id:x}", "name": one.name, "client_urls": list(one.client_urls), "learner": one.is_learner}
            for one in found
        ],
        output,
    )


@click.group(epilog=examples("pilothouse store lease grant 60", "pilothouse store lease list"))
def lease() -> None:
    """Grant, renew, show and revoke leases."""


@lease.command("grant", epilog=examples("pilothouse store lease grant 60", "pilothouse store lease grant 60 -o json"))
@click.argument("ttl", type=click.IntRange(1))
@client_options
@output_option
def lease_grant(ttl: int, connect: Connect, output: str) -> None:
    """Create a lease of TTL seconds."""
    granted = run(connect, lambda store: store.lease_grant(ttl))
    emit({"lease": f"{granted.id:x}", "ttl": granted.ttl}, output)


@lease.command("revoke", epilog=examples("pilothouse store lease revoke 694d81417acd4754"))
@click.argument("lease")
@client_options
@output_option
def lease_revoke(lease: str, connect: Connect, output: str) -> None:
    """End LEASE and delete its keys."""
    number = lease_id(lease)
    emit({"revision": run(connect, lambda store: store.lease_revoke(number))}, output)


@lease.command("keep-alive", epilog=examples("pilothouse store lease keep-alive 694d81417acd4754"))
@click.argument("lease")
@client_options
@output_option
def lease_keep_alive(lease: str, connect: Connect, output: str) -> None:
    """Start the time of LEASE anew, once; 0 seconds means that it is gone."""
    number = lease_id(lease)
    emit({"lease": lease, "ttl": run(connect, lambda store: store.lease_keep_alive(number))}, output)


@lease.command("ttl", epilog=examples("pilothouse store lease ttl 694d81417acd4754 --keys"))
@click.argument("lease")
@click.option("--keys", is_flag=True, help="Show the keys bound to it.")
@client_options
@output_option
def lease_ttl(lease: str, keys: bool, connect: Connect, output: str) -> None:
    """Show the seconds that LEASE has left; -1 means that it is gone."""
    number = lease_id(lease)
    found = run(connect, lambda store: store.lease_time_to_live(number, keys=keys))
    shown: dict[str, object] = {"lease": lease, "ttl": found.ttl, "granted_ttl": found.granted_ttl}
    if keys:
        shown["keys"] = [text(key) for key in found.keys]
    emit(shown, output)


@lease.command("list", epilog=examples("pilothouse store lease list", "pilothouse store lease list -o json"))
@client_options
@output_option
def lease_list(connect: Connect, output: str) -> None:
    """Show all leases, the one that ends first at the top."""
    emit([{"lease": f"{number:x}"} for number in run(connect, lambda store: store.lease_leases())], output)
