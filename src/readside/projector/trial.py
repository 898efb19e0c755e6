"""Finds the event that ends the process, again and again, and parks it without another try."""

from __future__ import annotations

from readside.core.batching import Limits
from readside.core.errors import HandlerError, LeaseLostError
from readside.core.record import Checkpoint, Record
from readside.ports.ledger import Lease
from readside.ports.probe import probe
from readside.projector.folds import Folds
from readside.projector.surroundings import Surroundings

#: Owners in a row which applied nothing: from then on, one record at a time, each announced before.
_SUSPICIOUS = 3
#: Tries of one record which ended with the process, before it is parked without another.
_FATAL_TRIES = 3
#: Records applied one at a time before the suspicion is dropped.
_CAREFUL_RECORDS = 100


class Trial:
    """Whether a unit is under suspicion, and how its records are applied meanwhile.

    A handler which ends the process, or hangs until it is ended, leaves no error to park. But the
    lease remembers owners which applied nothing, and which record was being tried.
    """

    def __init__(self, lease: Lease, around: Surroundings) -> None:
        self._around = around
        self._left = _CAREFUL_RECORDS if lease.starts >= _SUSPICIOUS else 0

    @property
    def on(self) -> bool:
        """Whether records are applied one at a time."""
        return self._left > 0

    def limits(self) -> Limits:
        """How much to read at once."""
        limits = self._around.limits
        return limits._replace(records=1) if self.on else limits

    async def apply(
        self,
        lease: Lease,
        folds: Folds,
        record: Record,
        expected: Checkpoint,
        checkpoint: Checkpoint,
    ) -> None:
        """Apply one record, announced before; see `Folds.apply`.

        Raises:
            LeaseLostError: the unit is another's.
        """
        async with self._around.trial:
            await self._try(lease, folds, record, expected, checkpoint)
        self._left -= 1

    async def _try(
        self,
        lease: Lease,
        folds: Folds,
        record: Record,
        expected: Checkpoint,
        checkpoint: Checkpoint,
    ) -> None:
        leases = self._around.leases
        tries = await leases.attempt(lease, record.position)
        probe("projector.announced")
        if tries == 0:
            raise LeaseLostError("the lease has run out")

        async def survived() -> None:
            await leases.attempt(lease, None)

        try:
            await folds.apply(
                [record], expected, checkpoint, _verdict(record, tries), survived=survived
            )
        except Exception:
            await survived()  # it was a server, not the record
            raise


def _verdict(record: Record, tries: int) -> HandlerError | None:
    if tries <= _FATAL_TRIES:
        return None
    return HandlerError(
        f"{tries - 1} processes died or hung while they applied {record.type} of key {record.key}.",
        mend="look for endless loops, deep recursion and memory in the handler",
    )
