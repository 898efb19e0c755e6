"""Begin a projection again, or let readside forget it."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from readside.adapters.postgres.leases import PostgresLeases
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.session import Session, rows
from readside.core.errors import HistoryLostError, SettingsError
from readside.core.leases import Unit
from readside.core.record import Checkpoint
from readside.ports.probe import probe
from readside.ports.store import Store

#: Seconds that the projectors are kept away; an interrupted reset has to be repeated.
_HELD = 300.0
_NOTES = ("progress", "rewinds", "parked_events", "parked_documents")


class Reset(msgspec.Struct):
    """What was done."""

    projection: str
    #: Documents removed from the read store.
    removed: int
    #: Where it begins: the first event ever, or where PostgreSQL's log still reaches back to.
    begins: str


async def reset(
    session: Session, app: str, projection: str, store: Store, *, give_up: bool
) -> Reset:
    """Empty a projection and let it begin again, while the projectors run or not.

    Args:
        session: to the write store.
        app: the app.
        projection: its projection.
        store: the read store, opened.
        give_up: begin where PostgreSQL's log still reaches back to, without what came before;
            otherwise with the first event ever, which has to be in the broker's log.

    Raises:
        HistoryLostError: the first event ever is of an earlier history, and `give_up` is not set.
        SettingsError: readside does not know the projection.
    """
    ledger = PostgresLedger(session, app)
    capture = await ledger.history()
    await _known(session, app, projection)
    if not capture.complete and not give_up:
        raise HistoryLostError(
            f"The history of {app} has restarted; what came before is in no log.",
            mend="repeat with --give-up, to begin with what there is",
        )
    leases = PostgresLeases(session, app, _HELD)
    worker = f"reset-{uuid4().hex[:8]}"
    units = [Unit(projection, number) for number in range(capture.partitions)]
    try:
        held = await leases.seize(worker, units)
        probe("reset.seized")
        begins = {
            lease.unit.partition: Checkpoint(capture.origin, 0, "", lease.token) for lease in held
        }
        if give_up:
            for number, head in enumerate(capture.bookmark.heads):
                begins[number] = begins[number]._replace(position=head.position, nth=head.nth)
        removed = await store.reset(projection, begins)
        probe("reset.emptied")
        await _forget_notes(session, app, projection)
    finally:
        await leases.leave(worker)
    where = "where PostgreSQL's log reaches back to" if give_up else "the first event"
    return Reset(projection, removed, where)


async def forget(session: Session, app: str, projection: str, store: Store | None) -> int:
    """Let go of a projection which the code no longer declares, so that nothing waits for it.

    Args:
        session: to the write store.
        app: the app.
        projection: its projection.
        store: the read store, to remove the documents too.

    Returns:
        the number of documents removed.
    """
    await _known(session, app, projection)
    removed = await store.reset(projection, None) if store is not None else 0
    await _forget_notes(session, app, projection)
    await session.query(
        "DELETE FROM readside.leases WHERE app = %s AND projection = %s", [app, projection]
    )
    await session.query(
        "DELETE FROM readside.projections WHERE app = %s AND projection = %s", [app, projection]
    )
    return removed


async def _known(session: Session, app: str, projection: str) -> None:
    found = await session.query(
        "SELECT projection FROM readside.projections WHERE app = %s ORDER BY 1", [app]
    )
    names = [row[0] for row in found]
    if projection not in names:
        raise SettingsError(
            f"App {app} has no projection {projection!r}.",
            mend=f"it has: {', '.join(names) or 'none yet'}",
        )


async def _forget_notes(session: Session, app: str, projection: str) -> None:
    async with session.transaction() as connection:
        for table in _NOTES:
            await rows(
                connection,
                f"DELETE FROM readside.{table} WHERE app = %s AND projection = %s",
                [app, projection],
            )
