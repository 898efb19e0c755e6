"""Begins at the store's checkpoint, and fences off whoever worked there before."""

from __future__ import annotations

from readside.core.errors import FencedError, HistoryLostError, LeaseLostError
from readside.core.folding import Batch
from readside.core.record import Checkpoint
from readside.ports.ledger import Capture, Lease
from readside.ports.probe import probe
from readside.ports.store import Outcome
from readside.projector.surroundings import Surroundings

#: What a person can do about history that is gone.
MEND = (
    "restore what is missing, or give it up and begin again with what there is:"
    " readside reset module:app projection --give-up"
)


async def claim(lease: Lease, around: Surroundings) -> tuple[Lease, Checkpoint]:
    """Put the lease's token into the store's checkpoint.

    From then on, a write which expects the checkpoint of an older owner is refused.

    Returns:
        the lease, perhaps with a higher token, and the checkpoint as it is now.

    Raises:
        LeaseLostError: a newer owner has been here.
        HistoryLostError: the store does not belong to the history that is shipped.
        FencedError: somebody else claimed at the same moment.
    """
    unit, store = lease.unit, around.store
    history = await around.ledger.history()
    found = (await store.checkpoints(unit.projection, [unit.partition])).get(unit.partition)
    if found is not None and found.token > lease.token:
        lease = await _outbid(lease, found.token, around)
    await _check(found, history, around)
    start = found or Checkpoint(history.origin, 0, "", 0)
    checkpoint = start._replace(token=lease.token)
    if found != checkpoint:
        batch = Batch(unit.projection, unit.partition, found, checkpoint, ())
        if await store.apply(batch) is not Outcome.APPLIED:
            raise FencedError("the checkpoint changed while it was claimed")
        probe("projector.claimed")
    return lease, checkpoint


async def _outbid(lease: Lease, token: int, around: Surroundings) -> Lease:
    newer = await around.leases.outbid(around.worker, lease, token)
    if newer is None:
        raise LeaseLostError(f"a worker with token {token} has it")
    return newer


async def _check(found: Checkpoint | None, history: Capture, around: Surroundings) -> None:
    if found is None:
        if not history.complete:
            raise HistoryLostError(
                "nothing is in the read store, and the history before its last restart is gone",
                mend=MEND,
            )
    elif found.position.epoch > history.epoch or (
        found.position.epoch == history.epoch and found.position.lsn > await around.ledger.flushed()
    ):
        raise HistoryLostError(
            f"the read store is at {found.position}, after the end of the database's log:"
            " the database went back in time",
            mend=MEND,
        )
