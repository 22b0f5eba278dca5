"""A lock that ends with its holder: a lease, one transaction to take it, a watch to wait for it.

It works on any `Store`: the embedded one here, or `EtcdStore` for a cluster.
"""

import asyncio
import tempfile

from pilothouse.store import (
    Compare,
    CompareTarget,
    EmbeddedStore,
    PutRequest,
    RangeRequest,
    Store,
    StoreOptions,
    TxnRequest,
    WatchRequest,
)

LOCK = b"/locks/helm"


async def take(store: Store, name: str, seconds: int) -> int:
    """Take the lock as `name`, waiting for whoever has it; return the lease that holds it."""
    lease = await store.lease_grant(seconds)
    while True:
        taken = await store.txn(
            TxnRequest(
                compare=(Compare(LOCK, CompareTarget.CREATE, operand=0),),  # nobody has it
                success=(PutRequest(LOCK, name.encode(), lease=lease.id),),
                failure=(RangeRequest(LOCK),),
            )
        )
        if taken.succeeded:
            return lease.id
        # From the revision after the look on, so that a release in between is not missed.
        async with store.watch(WatchRequest(LOCK, start_revision=taken.revision + 1)) as watch:
            async for response in watch:
                if response.canceled or any(event.is_delete for event in response.events):
                    break


async def main() -> None:
    """Let three sailors take the helm, one after the other."""
    with tempfile.TemporaryDirectory() as directory:
        async with await EmbeddedStore.open(StoreOptions(data_dir=f"{directory}/store")) as store:

            async def steer(name: str) -> None:
                lease = await take(store, name, seconds=30)
                found = await store.range(RangeRequest(LOCK))
                print(f"{found.kvs[0].value.decode()} has the helm")
                await store.lease_revoke(lease)

            await asyncio.gather(steer("ada"), steer("grace"), steer("edsger"))


asyncio.run(main())
