"""Which database answers, and whether it can be captured from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from readside.adapters.postgres.connection import Connection, address, opened
from readside.adapters.postgres.installation import check_level
from readside.adapters.postgres.session import Session, rows
from readside.core.errors import RefusedError, UnavailableError
from readside.core.position import parse_lsn


class Identity(NamedTuple):
    """A cluster and its timeline."""

    system: str
    timeline: int
    #: Where the log left each earlier timeline.
    switches: Mapping[int, int]


async def identify(session: Session, connection: Connection, *, polls: bool) -> Identity:
    """Ask the server who it is: as a plain user may, and where the log is streamed by replication, too.

    Args:
        session: to the write store.
        connection: a plain one of it, which is going to be trusted.
        polls: whether events are polled for.

    Raises:
        UnavailableError: two servers have answered.
    """
    here = await _plainly(connection)
    if polls:
        return here
    identity = await _by_replication(session)
    if (identity.system, identity.timeline) != (here.system, here.timeline) and here.timeline:
        raise UnavailableError(
            f"Two servers answer for {address(session.dsn)}: one has timeline {here.timeline} of"
            f" system {here.system}, another has timeline {identity.timeline} of {identity.system}.",
            mend="it is tried again; with several hosts, let target_session_attrs=read-write find the primary",
        )
    return identity


async def _plainly(connection: Connection) -> Identity:
    """Where the log has left a timeline is not told to such a one; a standby's timeline counts as 0."""
    ((system, timeline),) = await rows(
        connection,
        "SELECT system_identifier::text, CASE WHEN pg_is_in_recovery() THEN 0 ELSE"
        " ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END"
        " FROM pg_control_system()",
    )
    return Identity(system, timeline, {})


async def _by_replication(session: Session) -> Identity:
    async with opened(session.dsn, "relay", replication="database") as connection:
        ((system, timeline, *_),) = await rows(connection, "IDENTIFY_SYSTEM")
        history = b""
        if int(timeline) > 1:  # the first has no file
            ((_, history),) = await rows(connection, f"TIMELINE_HISTORY {int(timeline)}")
    return Identity(str(system), int(timeline), _switches(history))


def _switches(history: bytes | str) -> dict[int, int]:
    """Read a timeline history file: parent timeline, switch point and reason in each line."""
    found = {}
    text = history if isinstance(history, str) else bytes(history).decode(errors="replace")
    for line in text.splitlines():
        words = line.split("#")[0].split(None, 2)
        if len(words) >= 2:  # noqa: PLR2004 - the reason may be empty
            found[int(words[0])] = parse_lsn(words[1])
    return found


async def check_writable(connection: Connection, *, polls: bool) -> None:
    """Make sure that it is a primary, set up as the capture needs it.

    Raises:
        RefusedError: it is not.
    """
    ((standby, level, commits),) = await rows(
        connection,
        "SELECT pg_is_in_recovery(), current_setting('wal_level'),"
        " current_setting('synchronous_commit')",
    )
    if standby:
        raise RefusedError(
            "PostgreSQL is a standby.", mend="let READSIDE_WRITE_STORE name the primary"
        )
    if not polls:
        check_level(level)
    elif commits == "off":
        # Through a pooler it cannot be set for these connections alone.
        raise RefusedError(
            f"User {connection.info.user} has synchronous_commit = off.",
            mend=f"ALTER ROLE {connection.info.user} SET synchronous_commit = on, for readside's user",
        )
