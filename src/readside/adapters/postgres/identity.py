"""Which database answers, and whether it can be captured from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.installation import check_level
from readside.adapters.postgres.session import rows
from readside.core.errors import RefusedError, UnavailableError
from readside.core.position import parse_lsn


class Identity(NamedTuple):
    """A cluster and its timeline."""

    system: str
    timeline: int
    #: Where the log left each earlier timeline.
    switches: Mapping[int, int]


async def identify(connection: Connection, streamed: Identity | None) -> Identity:
    """Ask the server who it is, as a plain user may.

    Args:
        connection: the one that is going to be trusted.
        streamed: who answered by replication, if events come so.

    Raises:
        UnavailableError: two servers have answered.
    """
    here = await _plainly(connection)
    if streamed is None:
        return here
    if (streamed.system, streamed.timeline) != (here.system, here.timeline):
        raise UnavailableError(
            f"Two servers answer to one address: one has timeline {here.timeline} of"
            f" system {here.system}, another has timeline {streamed.timeline} of {streamed.system}.",
            mend="it is tried again; with several hosts, let target_session_attrs=read-write find the primary",
        )
    return streamed


async def by_replication(dsn: str) -> Identity:
    """Ask the server who it is on a replication connection: so it tells where the log left each timeline."""
    async with opened(dsn, "relay", replication="database") as connection:
        ((system, timeline, *_),) = await rows(connection, "IDENTIFY_SYSTEM")
        history = b""
        if int(timeline) > 1:  # the first has no file
            ((_, history),) = await rows(connection, f"TIMELINE_HISTORY {int(timeline)}")
    return Identity(str(system), int(timeline), _switches(history))


async def _plainly(connection: Connection) -> Identity:
    """Where the log has left a timeline is not told to such a one."""
    ((system, timeline),) = await rows(
        connection,
        "SELECT system_identifier::text, CASE WHEN pg_is_in_recovery() THEN 0 ELSE"
        " ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END"
        " FROM pg_control_system()",
    )
    return Identity(system, timeline, {})


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
