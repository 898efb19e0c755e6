"""The rights which docs/operations.md names are enough, and are needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import readside
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.errors import RefusedError
from readside.core.folding import Batch, Write
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.ports.store import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
FIRST = Checkpoint(Position(1, 1, 1), 1, "", 1)


class Added(readside.Event, key="id"):
    id: str


class Thing(readside.View):
    id: str


def grants(app: str, role: str) -> list[str]:
    """The page's own commands for a role of app shop, for another app."""
    found = re.findall(r"^    (GRANT [^;]*;)", PAGE.read_text(), re.MULTILINE)
    wanted = [one for one in found if one.endswith(f" TO shop_{role};")]
    return [re.sub(r"\bshop\b", app, one.replace("shop_", f"{app}_")) for one in wanted]


@pytest.fixture
def roles(servers: Any, unique: str) -> Any:
    names = [f"{unique}_{role}" for role in ("projector", "reader", "app")]
    with psycopg.connect(servers.write_store, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE ROLE {name} LOGIN".encode())

        def grant(role: str) -> str:
            for one in grants(unique, role):
                connection.execute(one.encode())
            return servers.write_store.replace("//readside@", f"//{unique}_{role}@")

        yield grant
        for name in names:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


async def test_a_projector_and_a_reader(servers: Any, unique: str, roles: Any) -> None:
    projections = {"doc": Projection("doc", Thing)}
    owner = PostgresStore(servers.write_store)
    owner.declare(projections)
    await owner.prepare(unique)
    projector, reader = (PostgresStore(roles(role)) for role in ("projector", "reader"))
    for store in (projector, reader):
        store.declare(projections)
    await projector.open(unique, ["doc"])
    write = Write("1", "", "0:1", b'{"id":"1"}')
    for expected, batch in (
        (None, (write,)),
        (FIRST, (write._replace(expected="0:1", document=None),)),
    ):
        after = FIRST._replace(nth=FIRST.nth + (expected is not None))
        found = Batch("doc", 0, expected, after, batch, (("1", "p"),))
        assert await projector.apply(found) is Outcome.APPLIED
    await projector.apply(Batch("doc", 0, None, None, (Write("2", "", "0:2", b'{"id":"2"}'),)))
    await projector.unpark("doc", 0, "1", "p")
    await projector.halt("doc", 0, "x")
    await reader.open(unique)
    assert (await reader.read("doc", ["2"], [0])).documents == [b'{"id":"2"}']
    with pytest.raises(RefusedError, match="permission denied"):
        await reader.halt("doc", 0, "")
    with pytest.raises(RefusedError, match="permission denied"):
        await reader.apply(found)
    assert await projector.reset("doc", {0: FIRST._replace(token=2)}) == 1
    assert await projector.reset("doc", None) == 0
    for store in (owner, projector, reader):
        await store.close()


async def test_who_may_not_look_into_the_store_of_another_app_can_install(
    servers: Any, unique: str
) -> None:
    """Two apps of different owners in one database; this one's documents are in Redis."""
    role = f"{unique}_owner"
    url = servers.write_store.rpartition("/")[0] + f"/{unique}"
    with psycopg.connect(servers.write_store, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {unique}".encode())
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        admin.execute(f"GRANT CREATE ON DATABASE {unique} TO {role}".encode())
    try:
        other = PostgresStore(url)
        other.declare({"doc": Projection("doc", Thing)})
        await other.prepare("other")
        await other.close()
        app = readside.App(
            unique,
            write_store=url.replace("//readside@", f"//{role}@"),
            broker="direct:",
            read_store=servers.read_store,
            capture="polling",
        )
        app.projection(f"{unique}-doc", Thing)
        done = await (await app.runtime()).install()
        assert any(unique in one for one in done)
        await app.close()
    finally:
        with psycopg.connect(servers.write_store, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {unique} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE {role}".encode())


async def test_an_application_with_an_inline_projection(
    make_app: Any, servers: Any, unique: str, roles: Any
) -> None:
    owner = make_app(servers.broker)
    owner.projection("doc", Thing, mode="inline")
    await (await owner.runtime()).install()
    await owner.close()
    app = readside.App(
        unique, write_store=roles("app"), broker=servers.broker, read_store="postgresql:"
    )
    things = app.projection("doc", Thing, mode="inline")

    @things.on
    def added(event: Added) -> Thing:
        return Thing(event.id)

    async with app:
        for id_ in ("1", "2", "1"):
            async with app.transaction() as tx:
                tx.record(Added(id_))
        assert await things.get_many([1, 2, 3]) == [Thing("1"), Thing("2"), None]
