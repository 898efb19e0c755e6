"""Leases as rows, judged by PostgreSQL's clock only."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.session import Session, rows
from readside.core.leases import LONGEST, RESETS, Unit, plan
from readside.core.position import Position
from readside.ports.ledger import Lease


def lasts(longest: float = LONGEST, of: str = "") -> str:
    """The condition that a lease has not run out, nor been given by a clock that has stepped back since.

    Args:
        longest: seconds that a lease lasts at most.
        of: the table's name in the statement, with a dot.
    """
    return (
        f"({of}expires_at > clock_timestamp()"
        f" AND {of}expires_at <= clock_timestamp() + interval '{longest} seconds')"
    )


_TAKE = (
    "UPDATE readside.leases l SET owner = %s, starts = starts + 1,"
    # Above what was reported, too: an owner of before a restore may have reported after it.
    " token = 1 + greatest(token, (SELECT p.token FROM readside.progress p WHERE p.app = l.app"
    " AND p.projection = l.projection AND p.partition = l.partition)),"
    " expires_at = clock_timestamp() + make_interval(secs => %s)"
    " FROM unnest(%s::text[], %s::int[]) AS u(projection, partition)"
    " WHERE l.app = %s AND l.projection = u.projection AND l.partition = u.partition"
    # Never from under a reset: it is emptying documents.
    " AND NOT (starts_with(coalesce(l.owner, ''), %s) AND l.owner <> %s AND {lasts})"
)


class PostgresLeases:
    """Who works on which partition, for one app.

    Args:
        ttl: seconds after which a silent worker loses its units.
    """

    def __init__(self, session: Session, app: str, ttl: float) -> None:
        self._session = session
        self._app = app
        self._ttl = ttl
        self._longest = max(ttl, LONGEST)
        self._lasts = lasts(self._longest)

    async def tend(
        self,
        worker: str,
        units: Sequence[Unit],
        *,
        thriving: Collection[Unit] = (),
        alone: bool = False,
    ) -> list[Lease]:
        """See ports.ledger."""
        async with self._session.transaction() as connection:
            await self._appear(connection, worker, units)
            await self._praise(connection, worker, thriving)
            crew = [] if alone else await self._crew(connection)
            table = await rows(
                connection,
                f"SELECT projection, partition, CASE WHEN {self._lasts} THEN owner END"
                " FROM readside.leases WHERE app = %s AND projection = ANY(%s) FOR UPDATE",
                [self._app, sorted({unit.projection for unit in units})],
            )
            wanted = set(units)
            view = {
                Unit(name, number): owner
                for name, number, owner in table
                if (name, number) in wanted
            }
            decided = plan(worker, crew, view)
            await self._release(connection, worker, decided.release)
            await rows(
                connection,
                "UPDATE readside.leases SET expires_at = clock_timestamp() + make_interval(secs => %s)"
                f" WHERE app = %s AND owner = %s AND {self._lasts}",
                [self._ttl, self._app, worker],
            )
            await self._take(connection, worker, decided.acquire)
            return await self._held(connection, worker, wanted)

    async def outbid(self, worker: str, lease: Lease, token: int) -> Lease | None:
        """See ports.ledger."""
        found = await self._session.query(
            "UPDATE readside.leases SET token = %s + 1 WHERE app = %s AND projection = %s"
            f" AND partition = %s AND owner = %s AND token = %s AND {self._lasts}"
            " RETURNING token",
            [token, self._app, *lease.unit, worker, lease.token],
        )
        return lease._replace(token=found[0][0]) if found else None

    async def seize(self, worker: str, units: Sequence[Unit]) -> list[Lease]:
        """See ports.ledger."""
        async with self._session.transaction() as connection:
            await self._appear(connection, worker, units)
            await self._take(connection, worker, units)
            return await self._held(connection, worker, set(units))

    async def attempt(self, lease: Lease, position: Position | None) -> int:
        """See ports.ledger."""
        text = position.encode() if position else ""
        found = await self._session.query(
            "UPDATE readside.leases SET attempting = %s,"
            " tries = CASE WHEN %s = '' THEN 0 WHEN attempting = %s THEN tries + 1 ELSE 1 END"
            " WHERE app = %s AND projection = %s AND partition = %s AND token = %s"
            " RETURNING tries",
            [text, text, text, self._app, *lease.unit, lease.token],
        )
        return int(found[0][0]) if found else 0

    async def leave(self, worker: str) -> None:
        """See ports.ledger."""
        async with self._session.transaction() as connection:
            await rows(
                connection,
                "UPDATE readside.leases SET owner = NULL, expires_at = '-infinity', starts = 0"
                " WHERE app = %s AND owner = %s",
                [self._app, worker],
            )
            await rows(
                connection,
                "DELETE FROM readside.workers WHERE app = %s AND worker = %s",
                [self._app, worker],
            )

    async def _appear(self, connection: Connection, worker: str, units: Sequence[Unit]) -> None:
        await rows(
            connection,
            "INSERT INTO readside.workers (app, worker, seen_at) VALUES (%s, %s, clock_timestamp())"
            " ON CONFLICT (app, worker) DO UPDATE SET seen_at = clock_timestamp()",
            [self._app, worker],
        )
        await rows(
            connection,
            "DELETE FROM readside.workers WHERE app = %s"
            " AND seen_at < clock_timestamp() - interval '1 hour'",
            [self._app],
        )
        # One at a time: everybody decides on what the one before has left.
        await rows(
            connection,
            "SELECT pg_advisory_xact_lock(hashtext('readside leases ' || %s))",
            [self._app],
        )
        await rows(
            connection,
            "INSERT INTO readside.leases (app, projection, partition)"
            " SELECT %s, * FROM unnest(%s::text[], %s::int[]) ON CONFLICT DO NOTHING",
            [self._app, *_columns(units)],
        )

    async def _crew(self, connection: Connection) -> list[str]:
        found = await rows(
            connection,
            "SELECT worker FROM readside.workers WHERE app = %s"
            " AND seen_at > clock_timestamp() - make_interval(secs => %s)"
            " AND seen_at <= clock_timestamp() + make_interval(secs => %s)",
            [self._app, self._ttl, self._longest],
        )
        return [row[0] for row in found]

    async def _praise(self, connection: Connection, worker: str, units: Collection[Unit]) -> None:
        """Clear the suspicion against units on which something was applied."""
        if units:
            await rows(
                connection,
                "UPDATE readside.leases l SET starts = 0, attempting = '', tries = 0"
                " FROM unnest(%s::text[], %s::int[]) AS u(projection, partition)"
                " WHERE l.app = %s AND l.owner = %s AND (l.starts > 0 OR l.tries > 0)"
                " AND l.projection = u.projection AND l.partition = u.partition",
                [*_columns(units), self._app, worker],
            )

    async def _take(self, connection: Connection, worker: str, units: Sequence[Unit]) -> None:
        if units:
            values = [worker, self._ttl, *_columns(units), self._app, RESETS, worker]
            await rows(connection, _TAKE.format(lasts=lasts(self._longest, "l.")), values)

    async def _release(self, connection: Connection, worker: str, units: Sequence[Unit]) -> None:
        if units:
            await rows(
                connection,
                "UPDATE readside.leases l SET owner = NULL, expires_at = '-infinity', starts = 0"
                " FROM unnest(%s::text[], %s::int[]) AS u(projection, partition)"
                " WHERE l.app = %s AND l.owner = %s"
                " AND l.projection = u.projection AND l.partition = u.partition",
                [*_columns(units), self._app, worker],
            )

    async def _held(self, connection: Connection, worker: str, wanted: set[Unit]) -> list[Lease]:
        found = await rows(
            connection,
            "SELECT projection, partition, token, starts FROM readside.leases"
            f" WHERE app = %s AND owner = %s AND {self._lasts}",
            [self._app, worker],
        )
        leases = [Lease(Unit(name, number), token, starts) for name, number, token, starts in found]
        return [lease for lease in leases if lease.unit in wanted]


def _columns(units: Collection[Unit]) -> tuple[list[str], list[int]]:
    return [unit.projection for unit in units], [unit.partition for unit in units]
