"""The tables of views in PostgreSQL: changes of the view, tables that were there before, whose they are."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from tests.adapters import stores
from tests.adapters.stores import FIRST, Numbered, get, put

import readside
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.errors import RefusedError, SchemaError, UnwritableError
from readside.core.folding import Batch, Stored, Write
from readside.core.projection import Projection
from readside.core.table import Table
from readside.ports.store import Outcome

ask, declared = stores.ask, stores.declared


class Before(readside.View):
    name: str
    gone: int


class After(readside.View):
    name: str | None
    age: int = 7
    tags: list[str] = []  # noqa: RUF012 - msgspec copies it
    when: dt.timedelta = dt.timedelta(days=-1, seconds=5)
    raw: bytes = b"\\'%"
    note: str | None = None


async def test_new_fields_are_new_columns_and_old_rows_have_their_defaults(declared, ask, unique):
    store = await declared(Before)
    await put(store, {"1": Before("a", 1)})
    await store.close()
    store = await declared(After)
    assert store.done[0] == f"read store: column age of {unique}.doc"
    assert await get(store, After, "1") == After("a")
    assert await put(store, {"1": After(None), "2": After("b", note="x")}, 2) is Outcome.APPLIED
    assert await get(store, After, "1") == After(None)
    assert ask(f"SELECT gone FROM {unique}.doc ORDER BY key") == [(1,), (None,)]
    await store.close()
    again = await declared(After)
    assert again.done == []
    await again.close()


async def test_a_new_field_without_a_default_is_refused_where_there_are_rows(declared):
    class Name(readside.View):
        name: str

    store = await declared(Name)
    await put(store, {"1": Name("a")})
    await store.close()
    with pytest.raises(RefusedError, match="no value for the new field gone"):
        await declared(Before)


async def test_a_changed_type_is_refused(declared):
    class Other(readside.View):
        name: int
        gone: int

    await (await declared(Before)).close()
    with pytest.raises(RefusedError, match="column name is text, not bigint"):
        await declared(Other)


async def test_indexes_and_constraints_come_and_go(declared, ask, unique):
    await (
        await declared(Before, Table(indexes=("lower(name)",), constraints=("CHECK (gone > 0)",)))
    ).close()
    indexes = f"SELECT indexdef FROM pg_indexes WHERE schemaname = '{unique}' AND indexname LIKE 'readside%'"
    assert [row[0].partition("USING ")[2] for row in ask(indexes)] == ["btree (lower(name))"]
    store = await declared(Before, Table(constraints=("CHECK (gone > 0)",)))
    assert ask(indexes) == []
    good, bad = Before("good", 1), Before("bad", 0)
    with pytest.raises(UnwritableError) as caught:
        await put(store, {"1": good, "2": bad, "3": good, "4": bad})
    assert caught.value.documents.keys() == {"2", "4"}
    assert await get(store, Before, "1") is None
    await store.close()
    await (await declared(Before)).close()
    assert ask(f"SELECT count(*) FROM {unique}.doc") == [(0,)]
    with pytest.raises(RefusedError, match="cannot be made"):
        await declared(Before, Table(indexes=("no_such_column",)))


async def test_a_table_of_the_users_is_taken_only_if_that_was_said(declared, ask, unique):
    ask(f"CREATE SCHEMA {unique}")
    ask(
        f"CREATE TABLE {unique}.people (id integer PRIMARY KEY, name varchar(5) NOT NULL,"
        " made_at timestamptz NOT NULL DEFAULT now())"
    )
    ask(f"INSERT INTO {unique}.people VALUES (9, 'mine')")
    name = f"{unique}.people"
    with pytest.raises(RefusedError, match="none of readside's"):
        await declared(Numbered, Table(name=name, key="id"))
    store = await declared(Numbered, Table(name=name, key="id", existing=True))
    assert await put(store, {"1": Numbered(1, "a")}) is Outcome.APPLIED
    with pytest.raises(UnwritableError, match="too long"):
        await put(store, {"1": Numbered(1, "toolong")}, 2)
    assert await store.reset("doc", None) == 1
    assert ask(f"SELECT id, name FROM {unique}.people") == [(9, "mine")]
    await store.close()


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        ("id integer PRIMARY KEY", "column name text is missing"),
        ("id text PRIMARY KEY, name text", "column id is text, not bigint"),
        ("id integer, name text", "no unique index"),
        ("id integer PRIMARY KEY, name text, x int NOT NULL", "column x must not be NULL"),
        ("id integer PRIMARY KEY, name text GENERATED ALWAYS AS ('x') STORED", "makes its own"),
    ],
)
async def test_a_table_that_does_not_fit_is_refused(declared, ask, unique, columns, wrong):
    ask(f"CREATE SCHEMA {unique}")
    ask(f"CREATE TABLE {unique}.t ({columns})")
    with pytest.raises(RefusedError, match=wrong):
        await declared(Numbered, Table(name=f"{unique}.t", key="id", existing=True))


async def test_an_existing_table_has_to_exist(declared, unique):
    with pytest.raises(RefusedError, match="There is no table"):
        await declared(Numbered, Table(name=f"{unique}.t", existing=True))


async def declare(servers: Any, app: str, **tables: Table) -> PostgresStore:
    """A store, prepared, with several projections and their tables."""
    store = PostgresStore(servers.write_store)
    store.declare({name: Projection(name, Numbered, table=one) for name, one in tables.items()})
    try:
        await store.prepare(app)
    except RefusedError:
        await store.close()
        raise
    return store


@pytest.mark.parametrize("names", [("doc", "other"), ("other", "doc")])
async def test_what_a_projection_left_behind_is_nobody_elses(servers, ask, unique, names):
    first, second = Table(name=f"{unique}.first"), Table(name=f"{unique}.second")
    store = await declare(servers, unique, doc=first)
    await put(store, {"1": Numbered(1, "a")})
    tables = {"doc": second, "other": first}
    with pytest.raises(RefusedError, match=r"belongs to projection doc|doc left there"):
        await declare(servers, unique, **{name: tables[name] for name in names})
    assert await get(store, Numbered, "1") == Numbered(1, "a")
    assert dict(await store.checkpoints("doc", [0])) == {0: FIRST}
    await store.close()
    await (await declare(servers, unique, doc=second)).close()
    for app in (unique, f"{unique}x"):
        for name in ("doc", "other"):
            with pytest.raises(RefusedError, match="doc left there when it got") as caught:
                await declare(servers, app, **{name: first})
    assert ask(f"SELECT id, name FROM {unique}.first") == [(1, "a")]
    ask(caught.value.mend.rpartition(": ")[2])
    store = await declare(servers, unique, doc=second, other=first)
    assert dict(await store.checkpoints("other", [0])) == {}
    assert await store.load("other", ["1"]) == [Stored(None, "")]
    await store.close()


async def test_rows_of_the_users_stay_when_a_projection_leaves_them(servers, ask, unique):
    ask(f"CREATE SCHEMA {unique}; CREATE TABLE {unique}.t (id integer PRIMARY KEY, name text)")
    ask(f"INSERT INTO {unique}.t VALUES (9, 'mine')")
    own = Table(name=f"{unique}.t", key="id", existing=True)
    store = await declare(servers, unique, doc=own)
    await put(store, {"1": Numbered(1, "a")})
    await store.close()
    await (await declare(servers, unique, doc=Table(name=f"{unique}.u"))).close()
    with pytest.raises(RefusedError, match="doc left there when it got") as caught:
        await declare(servers, unique, other=own)
    assert ask(f"SELECT id, name FROM {unique}.t ORDER BY id") == [(1, "a"), (9, "mine")]
    ask(f"DELETE FROM {unique}.t WHERE id = 1")
    ask(caught.value.mend.rpartition(" and ")[2])
    store = await declare(servers, unique, other=own)
    assert dict(await store.checkpoints("other", [0])) == {}
    assert await store.load("other", ["1"]) == [Stored(None, "")]
    await store.close()
    assert ask(f"SELECT id, name FROM {unique}.t") == [(9, "mine")]


async def test_what_was_forgotten_with_its_documents_leaves_the_table_free(servers, unique):
    table = Table(name=f"{unique}.t")
    store = await declare(servers, unique, doc=table)
    await put(store, {"1": Numbered(1, "a")})
    assert await store.reset("doc", None) == 1
    await store.close()
    store = await declare(servers, unique, other=table)
    assert dict(await store.checkpoints("other", [0])) == {}
    assert await store.load("other", ["1"]) == [Stored(None, "")]
    await store.close()


async def test_without_init_nothing_is_opened(servers, unique):
    store = PostgresStore(servers.write_store)
    store.declare({"doc": Projection("doc", Numbered)})
    with pytest.raises(SchemaError):
        await store.open(unique, ["doc"])
    await store.close()


async def test_a_table_that_was_dropped_begins_again(declared, ask, unique):
    store = await declared(Numbered)
    await put(store, {"1": Numbered(1, "a")})
    ask(f"DROP TABLE {unique}.doc")
    with pytest.raises(SchemaError):
        await store.read("doc", ["1"])
    await store.close()
    store = await declared(Numbered)
    assert dict(await store.checkpoints("doc", [0])) == {}
    assert await store.load("doc", ["1"]) == [Stored(None, "")]
    await store.close()


async def test_a_reader_does_not_notice_that_its_connection_was_ended(declared, ask):
    store = await declared(Numbered)
    await put(store, {"1": Numbered(1, "a")})
    for _ in range(3):
        ask(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'readside store'"
        )
        assert await get(store, Numbered, "1") == Numbered(1, "a")


async def test_two_partitions_that_feed_the_same_documents_never_wait_in_a_circle(declared):
    """Whoever is refused loads again; both get all of their events in, without a deadlock."""
    import asyncio

    class Count(readside.View):
        n: int

    store = await declared(Count)
    keys = [str(number) for number in range(30)]

    async def feed(partition: int) -> None:
        order = keys if partition % 2 else keys[::-1]
        checkpoint = None
        for nth in range(1, 11):
            outcome = None
            while outcome is not Outcome.APPLIED:
                stored = await store.load("doc", order)
                writes = tuple(
                    Write(
                        key,
                        one.positions,
                        f"{one.positions};{partition}:{nth}".lstrip(";"),
                        msgspec.json.encode(
                            Count(
                                msgspec.json.decode(one.document, type=Count).n + 1
                                if one.document
                                else 1
                            )
                        ),
                    )
                    for key, one in zip(order, stored, strict=True)
                )
                after = FIRST._replace(nth=nth)
                outcome = await store.apply(Batch("doc", partition, checkpoint, after, writes))
                assert outcome is not Outcome.FENCED
            checkpoint = after

    await asyncio.gather(*(feed(partition) for partition in range(4)))
    for key in keys:
        assert await get(store, Count, key) == Count(40)
    await store.close()
