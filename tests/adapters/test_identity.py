"""Who answers: the server that tells its identity has to be the one whose notes are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import readside
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.postgres.history import follow
from readside.adapters.postgres.session import Session
from readside.core.errors import UnavailableError
from readside.core.position import BEGINNING

pytestmark = pytest.mark.asyncio


async def test_two_servers_are_told_apart(
    servers, make_app: Callable[..., readside.App], tmp_path: Path
) -> None:
    app = make_app()
    await (await app.runtime()).install()
    await app.close()
    session = Session(servers.write_store, "test")
    others = EmbeddedServers(tmp_path, services=frozenset({"postgres"}), durable=False)
    query = "SELECT to_jsonb(c) FROM readside.capture c WHERE app = %s"
    before = await session.query(query, [app.name])
    try:
        other = (await others.start()).write_store
        await follow(session, app.name, BEGINNING)
        session.dsn = other  # where its next connection leads, as during a failover
        with pytest.raises(UnavailableError, match="Two servers answer"):
            await follow(session, app.name, BEGINNING)
        session.dsn = servers.write_store
        await follow(session, app.name, BEGINNING)
        assert await session.query(query, [app.name]) == before
    finally:
        await session.close()
        others.stop_now()
