"""Begin a projection again, or let readside forget it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.leases import PostgresLeases
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.session import Session, rows
from readside.core.errors import (
    DecodeError,
    FencedError,
    HistoryLostError,
    ReadsideError,
    RefusedError,
    SettingsError,
)
from readside.core.leases import RESETS, Unit
from readside.core.record import Checkpoint
from readside.ports.ending import end
from readside.ports.ledger import Capture, Lease, Leases, Progress, ProjectorLedger
from readside.ports.probe import probe
from readside.ports.store import Store

log = logging.getLogger("readside.reset")

#: Seconds that the projectors are kept away at a time, and between two renewals.
HELD = 30.0
_RENEW_EVERY = 8.0
#: Seconds until a renewal that failed is tried again.
_AGAIN = 1.0


#: One statement, so that its locks never wait for this process, and in turn with all that shares leases.
_FORGET_NOTES = (
    "WITH turn AS MATERIALIZED"
    " (SELECT pg_advisory_xact_lock(hashtext('readside leases ' || %s))),"
    " held AS MATERIALIZED (SELECT l.app, l.projection FROM turn, readside.leases l"
    " JOIN unnest(%s::int[], %s::bigint[]) AS h(partition, token) USING (partition, token)"
    " WHERE l.app = %s AND l.projection = %s AND l.owner = %s FOR UPDATE OF l),"
    " mine AS MATERIALIZED (SELECT app, projection FROM held GROUP BY 1, 2 HAVING count(*) = %s),"
    " wishes AS (DELETE FROM readside.rewinds n USING mine m"
    " WHERE n.app = m.app AND n.projection = m.projection),"
    " events AS (DELETE FROM readside.parked_events n USING mine m"
    " WHERE n.app = m.app AND n.projection = m.projection),"
    " documents AS (DELETE FROM readside.parked_documents n USING mine m"
    " WHERE n.app = m.app AND n.projection = m.projection)"
    " SELECT EXISTS (SELECT FROM mine)"
)


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

    The order: the projectors are kept away, and what they said of their progress is taken back, so
    that the relay confirms nothing more; what it has chosen to confirm before, it cannot confirm any
    more, however late it comes; then the store's checkpoints fence off whoever still
    writes; then the documents go. If a projector has taken over meanwhile, as after a long sleep of this
    process, nothing of its work is removed: the step that comes is refused, and the reset has to be repeated.

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
        RefusedError, FencedError: somebody else is at it; repeat.
    """
    ledger, leases = PostgresLedger(session, app), PostgresLeases(session, app, HELD)
    await _known(session, app, projection)

    async def forget_notes(worker: str, held: Sequence[Lease]) -> bool:
        tokens = [lease.token for lease in held]
        numbers = [lease.unit.partition for lease in held]
        ((done,),) = await session.query(
            _FORGET_NOTES, [app, numbers, tokens, app, projection, worker, len(held)]
        )
        return bool(done)

    return await begin_again(app, projection, ledger, leases, store, forget_notes, give_up=give_up)


async def begin_again(
    app: str,
    projection: str,
    ledger: ProjectorLedger,
    leases: Leases,
    store: Store,
    forget_notes: Callable[[str, Sequence[Lease]], Awaitable[bool]],
    *,
    give_up: bool,
) -> Reset:
    """Do it, whatever the notes are kept in; see `reset`.

    Args:
        app: the app.
        projection: its projection.
        ledger: the projectors' notes.
        leases: held for `HELD` seconds.
        store: the read store, opened.
        forget_notes: removes its wishes and its parked documents from the notes, if a worker still owns
            these leases; returns whether.
        give_up: see `reset`.
    """
    capture = await ledger.history()
    if not capture.complete and not give_up:
        raise HistoryLostError(
            f"The history of {app} has restarted; what came before is in no log.",
            mend="repeat with --give-up, to begin with what there is",
        )
    units = [Unit(projection, number) for number in range(capture.partitions)]
    async with _kept_away(leases, units) as (worker, seized):
        probe("reset.seized")
        held = await _outbid(leases, worker, seized, store)
        if not await ledger.report([_from_the_beginning(lease, capture) for lease in held]):
            raise _too_late(projection)
        capture = await ledger.begun_again()
        probe("reset.begun")
        removed = await store.reset(projection, _begins(held, capture, give_up=give_up))
        probe("reset.emptied")
        if not await forget_notes(worker, held):
            raise _too_late(projection)
    where = "where PostgreSQL's log reaches back to" if give_up else "the first event"
    return Reset(projection, removed, where)


@asynccontextmanager
async def _kept_away(
    leases: Leases, units: Sequence[Unit]
) -> AsyncIterator[tuple[str, Sequence[Lease]]]:
    """Hold the leases of all units, and go on holding them; yields the worker that does, and the leases."""
    worker = f"{RESETS}{uuid4().hex[:8]}"

    async def renew() -> None:
        pause = _RENEW_EVERY
        while True:
            await asyncio.sleep(pause)
            try:
                await leases.tend(worker, units, alone=True)
            except ReadsideError as error:
                log.debug("the hold on the partitions is not renewed: %s", error)
                pause = _AGAIN
            else:
                pause = _RENEW_EVERY

    renewing = asyncio.ensure_future(renew())
    try:
        held = await leases.seize(worker, units)
        if len(held) < len(units):
            raise RefusedError(
                "Another reset of this projection is under way.",
                mend=f"wait for it; if it was killed, repeat in {HELD:.0f} seconds",
            )
        yield worker, held
    finally:
        await end([renewing])
        await leases.leave(worker)


async def _outbid(leases: Leases, worker: str, held: Sequence[Lease], store: Store) -> list[Lease]:
    """Renew the leases with tokens above all that the store knows: higher ones, if the ledger was restored.

    That they still are held is asked even if they are high enough: after a restore, whoever has taken
    them over may have lower ones.
    """
    projection = held[0].unit.projection
    try:
        there = await store.checkpoints(projection, [lease.unit.partition for lease in held])
    except DecodeError:
        there = {}  # what nobody can read goes
    outbid: list[Lease] = []
    for lease in held:
        known = there.get(lease.unit.partition)
        token = max(lease.token, known.token if known else 0)
        higher = await leases.outbid(worker, lease, token)
        if higher is None:
            raise _too_late(projection)
        outbid.append(higher)
    return outbid


def _too_late(projection: str) -> FencedError:
    return FencedError(
        f"This process slept for too long: its hold on {projection} ran out.",
        mend="repeat the command",
    )


def _from_the_beginning(lease: Lease, capture: Capture) -> Progress:
    return Progress(lease.unit, capture.origin, None, 0, "starting", "", 0.0, lease.token)


def _begins(held: Sequence[Lease], capture: Capture, *, give_up: bool) -> dict[int, Checkpoint]:
    begins = {
        lease.unit.partition: Checkpoint(capture.origin, 0, "", lease.token) for lease in held
    }
    if give_up:
        for number, head in enumerate(capture.bookmark.heads):
            begins[number] = begins[number]._replace(position=head.position, nth=head.nth)
    return begins


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
    async with session.transaction() as connection:
        await _delete(
            connection, app, projection,
            "rewinds", "parked_events", "parked_documents", "leases", "progress", "projections",
        )  # fmt: skip
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


async def _delete(connection: Connection, app: str, projection: str, *tables: str) -> None:
    for table in tables:
        await rows(
            connection,
            f"DELETE FROM readside.{table} WHERE app = %s AND projection = %s",
            [app, projection],
        )
