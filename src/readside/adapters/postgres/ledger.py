"""readside's notes about capture and progress, in the write store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from readside.adapters.postgres.history import follow, how
from readside.adapters.postgres.installation import check_schema
from readside.adapters.postgres.session import Session, rows
from readside.core.chain import Head
from readside.core.errors import SchemaError
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position, parse_lsn, settled
from readside.core.settling import Bookmark
from readside.ports.ledger import Capture, Progress, Rewind, Shipped, Survey

#: Behind the end of every log.
_END = 2**63 - 1


def heads_json(heads: Sequence[Head]) -> str:
    """Write heads for a jsonb column."""
    return msgspec.json.encode([(head.position.encode(), head.nth) for head in heads]).decode()


def heads_of(value: Any, partitions: int, origin: Position) -> tuple[Head, ...]:
    """Read heads from a jsonb column; an empty list means the origin everywhere."""
    found = [Head(Position.decode(text), nth) for text, nth in value]
    return tuple(found) if found else tuple(Head(origin, 0) for _ in range(partitions))


class PostgresLedger:
    """The relay's and the projectors' notes of one app.

    Args:
        session: to the write store.
        app: whose notes.
        alone: the app has no projection which follows the log, so that nothing is kept for one
            that never started.
    """

    def __init__(self, session: Session, app: str, *, alone: bool = False) -> None:
        self._alone = alone
        self._session = session
        self._app = app

    async def capture(self, app: str, newest: Position = BEGINNING) -> Capture:
        """See ports.ledger; begins a new epoch where the history has restarted."""
        self._app = app
        await follow(self._session, app, newest)
        return await self._capture()

    async def _capture(self) -> Capture:
        found = await self._session.query(
            "SELECT epoch, complete, origin_lsn, partitions, confirmed_lsn, confirmed_heads"
            " FROM readside.capture WHERE app = %s",
            [self._app],
        )
        if not found:
            raise SchemaError(
                f"App {self._app} is not installed.", mend="run: readside init module:app"
            )
        epoch, complete, origin_lsn, partitions, lsn, heads = found[0]
        origin = settled(epoch, origin_lsn)
        return Capture(
            epoch, complete, origin, partitions, Bookmark(lsn, heads_of(heads, partitions, origin))
        )

    async def confirm(self, bookmark: Bookmark, resets: int) -> bool:
        """See ports.ledger."""
        found = await self._session.query(
            # Never back, and never into another history: a relay may wake up late.
            "UPDATE readside.capture SET"
            " confirmed_lsn = CASE WHEN epoch = %s THEN greatest(confirmed_lsn, %s) ELSE confirmed_lsn END,"
            " confirmed_heads = CASE WHEN epoch = %s AND confirmed_lsn <= %s THEN %s ELSE confirmed_heads END"
            " WHERE app = %s AND resets = %s RETURNING resets",
            [
                bookmark.heads[0].position.epoch,
                bookmark.lsn,
                bookmark.heads[0].position.epoch,
                bookmark.lsn,
                heads_json(bookmark.heads),
                self._app,
                resets,
            ],
        )
        return bool(found)

    async def ship(self, shipped: Shipped) -> None:
        """See ports.ledger."""
        samples = {str(number): some for number, some in shipped.samples.items()}
        shipped_at = max((some[-1].recorded_at for some in shipped.samples.values()), default=0)
        await self._session.query(
            "UPDATE readside.capture SET shipped_lsn = %s, shipped_heads = %s, samples = %s,"
            " shipped_at = greatest(shipped_at, %s), state = %s, updated_at = clock_timestamp()"
            " WHERE app = %s AND epoch = %s",
            [
                shipped.lsn,
                heads_json(shipped.heads),
                msgspec.json.encode(samples).decode(),
                shipped_at,
                shipped.state,
                self._app,
                shipped.heads[0].position.epoch,
            ],
        )

    async def tell(self, state: str) -> None:
        """See ports.ledger."""
        await self._session.query(
            # Not where another relay ships: this one may be a standby.
            "UPDATE readside.capture SET state = %s, updated_at = clock_timestamp() WHERE app = %s"
            " AND (state LIKE 'retrying%%' OR updated_at < clock_timestamp() - interval '2 seconds')",
            [state, self._app],
        )

    async def survey(self) -> Survey:
        """See ports.ledger."""
        async with self._session.connection() as connection:
            ((lowest, kept, units, epoch, resets),) = await rows(
                connection,
                # Nothing is kept back for what is lost: it cannot be healed from here any more.
                "SELECT min(coalesce(g.durable, ''))"
                " FILTER (WHERE coalesce(g.state, '') <> 'lost'),"
                " count(*) FILTER (WHERE coalesce(g.state, '') <> 'lost'), count(*),"
                # Of the capture itself: an app without projections that follow the log has these too.
                " (SELECT epoch FROM readside.capture WHERE app = %s),"
                " (SELECT resets FROM readside.capture WHERE app = %s)"
                " FROM readside.capture c"
                " JOIN readside.projections p USING (app)"
                " CROSS JOIN generate_series(0, c.partitions - 1) n"
                " LEFT JOIN readside.progress g ON g.app = p.app AND g.projection = p.projection"
                " AND g.partition = n WHERE c.app = %s",
                [self._app, self._app, self._app],
            )
            wishes = await rows(
                connection,
                "SELECT projection, partition, after FROM readside.rewinds"
                " WHERE app = %s AND reachable IS NULL",
                [self._app],
            )
        rewinds = tuple(
            Rewind(Unit(name, number), Position.decode(after)) for name, number, after in wishes
        )
        if not kept and (units or self._alone):
            return Survey(Position(epoch, _END, 0), rewinds, resets)
        return Survey(Position.decode(lowest) if lowest else None, rewinds, resets)

    async def answer(self, rewind: Rewind, *, reachable: bool) -> None:
        """See ports.ledger."""
        await self._session.query(
            "UPDATE readside.rewinds SET reachable = %s"
            " WHERE app = %s AND projection = %s AND partition = %s AND after = %s",
            [reachable, self._app, *rewind.unit, rewind.after.encode()],
        )

    async def register(self, app: str, projections: Sequence[str]) -> Capture:
        """See ports.ledger."""
        self._app = app
        async with self._session.connection() as connection:
            await check_schema(connection)
        if projections:
            await self._session.query(
                "INSERT INTO readside.projections (app, projection) SELECT %s, unnest(%s::text[])"
                " ON CONFLICT DO NOTHING",
                [app, list(projections)],
            )
        return await self._capture()

    async def others(self, projections: Sequence[str]) -> list[str]:
        """Projections which readside still keeps WAL for, though they are not among these."""
        found = await self._session.query(
            "SELECT projection FROM readside.projections"
            " WHERE app = %s AND NOT projection = ANY(%s) ORDER BY 1",
            [self._app, list(projections)],
        )
        return [row[0] for row in found]

    async def captures(self) -> str:
        """How events leave PostgreSQL: the setting `capture` as it was installed."""
        async with self._session.connection() as connection:
            return (await how(connection, self._app)).capture

    async def history(self) -> Capture:
        """See ports.ledger."""
        return await self._capture()

    async def begun_again(self) -> Capture:
        """See ports.ledger."""
        await self._session.query(
            "UPDATE readside.capture SET resets = resets + 1 WHERE app = %s", [self._app]
        )
        return await self._capture()

    async def report(self, progress: Sequence[Progress]) -> bool:
        """See ports.ledger."""
        if not progress:
            return True
        columns = [
            [row.unit.projection for row in progress],
            [row.unit.partition for row in progress],
            [row.position.encode() for row in progress],
            [row.durable.encode() if row.durable else None for row in progress],
            [row.nth for row in progress],
            [row.state for row in progress],
            [row.detail for row in progress],
            [row.rate for row in progress],
            [row.token for row in progress],
        ]
        noted = await self._session.query(
            "INSERT INTO readside.progress AS p (app, projection, partition, position, durable, nth,"
            " state, detail, rate, token) SELECT %s, * FROM unnest(%s::text[], %s::int[],"
            " %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::bigint[])"
            " ON CONFLICT (app, projection, partition) DO UPDATE SET position = excluded.position,"
            # A new owner does not know yet; a store that went back takes it back, too.
            " durable = CASE WHEN coalesce(excluded.durable, p.durable) > excluded.position"
            " THEN excluded.position ELSE coalesce(excluded.durable, p.durable) END,"
            " nth = excluded.nth, state = excluded.state, detail = excluded.detail,"
            " rate = excluded.rate, token = excluded.token, updated_at = clock_timestamp()"
            " WHERE p.token <= excluded.token RETURNING 1",
            [self._app, *columns],
        )
        return len(noted) == len(progress)

    async def wish(self, rewind: Rewind) -> None:
        """See ports.ledger."""
        await self._session.query(
            "INSERT INTO readside.rewinds AS r (app, projection, partition, after)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (app, projection, partition)"
            " DO UPDATE SET after = excluded.after, reachable = NULL, asked_at = clock_timestamp()",
            [self._app, *rewind.unit, rewind.after.encode()],
        )

    async def unreachable(self, unit: Unit) -> bool:
        """See ports.ledger."""
        found = await self._session.query(
            "SELECT reachable FROM readside.rewinds"
            " WHERE app = %s AND projection = %s AND partition = %s",
            [self._app, *unit],
        )
        return found == [(False,)]

    async def flushed(self) -> int:
        """See ports.ledger."""
        ((lsn,),) = await self._session.query("SELECT pg_current_wal_flush_lsn()::text")
        return parse_lsn(lsn)

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()
