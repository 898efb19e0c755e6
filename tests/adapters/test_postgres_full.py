"""PostgreSQL is there and has no connection left: waited for, and the mend says what to raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from readside.adapters.postgres.connection import connect, opened, translate
from readside.core.errors import UnavailableError


@pytest.fixture
def limited(servers: Any, unique: str) -> Iterator[str]:
    """The address of a role that may have no connection at all."""
    with psycopg.connect(servers.write_store, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {unique} LOGIN CONNECTION LIMIT 0".encode())
        yield servers.write_store.replace("//readside@", f"//{unique}@")
        connection.execute(f"DROP ROLE {unique}".encode())


async def test_a_role_without_a_connection_left(servers: Any, limited: str, unique: str) -> None:
    with pytest.raises(UnavailableError, match="too many connections for role") as caught:
        await connect(limited, "test")
    assert "CONNECTION LIMIT" in caught.value.mend
    assert "it is tried again" in caught.value.mend
    async with opened(servers.write_store, "test") as owner:
        await owner.execute(f"ALTER ROLE {unique} CONNECTION LIMIT 1".encode())
    await (await connect(limited, "test")).close()


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", "max_connections"),
        ("remaining connection slots are reserved for non-replication superuser connections", "max_connections"),
        ("sorry, too many clients already", "max_connections"),
        ('too many connections for database "shop"', "ALTER DATABASE"),
        ("number of requested standby connections exceeds max_wal_senders (currently 10)", "max_wal_senders"),
    ],
)  # fmt: skip
def test_the_mend_says_what_to_raise(said: str, mend: str) -> None:
    error = translate(psycopg.OperationalError(f"connection failed: FATAL:  {said}"), "PostgreSQL")
    assert isinstance(error, UnavailableError)
    assert said in error.detail
    assert mend in error.mend
