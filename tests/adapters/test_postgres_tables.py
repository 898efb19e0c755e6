"""The tables of views in PostgreSQL: types, changes of the view, tables that were there before."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import psycopg
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

import readside
from readside.adapters.postgres_store.columns import columns_of, literal, quoted
from readside.adapters.postgres_store.sheet import Sheet
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.errors import DeclarationError, RefusedError, SchemaError, UnwritableError
from readside.core.folding import Batch, Stored, Write
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.core.table import Table
from readside.ports.store import Outcome

FIRST = Checkpoint(Position(1, 1, 1), 1, "", 1)
UTC = dt.UTC


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Part(readside.View):
    name: str


class Everything(readside.View):
    number: int
    text: str
    real: float
    yes: bool
    money: decimal.Decimal
    id: uuid.UUID
    raw: bytes
    moment: dt.datetime
    local: Annotated[dt.datetime, msgspec.Meta(tz=False)]
    day: dt.date
    time: dt.time
    clock: Annotated[dt.time, msgspec.Meta(tz=False)]
    span: dt.timedelta
    colour: Colour
    level: Level
    word: Literal["a", "b"]
    either: int | str
    many: list[Part]
    table: dict[str, int]
    anything: Any
    maybe: int | None = None
    perhaps: Part | None = None
    words: tuple[str, ...] = ()


INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
AWARE = st.datetimes(timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
VIEWS = st.builds(
    Everything,
    number=INTEGERS,
    text=TEXTS,
    real=st.floats(allow_nan=False, allow_infinity=False),
    yes=st.booleans(),
    money=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
    id=st.uuids(),
    raw=st.binary(max_size=200),
    moment=AWARE,
    local=st.datetimes(),
    day=st.dates(),
    time=st.times(timezones=st.just(UTC)),
    clock=st.times(),
    span=st.timedeltas(),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(Level),
    word=st.sampled_from(["a", "b"]),
    either=st.integers(-(2**53), 2**53) | TEXTS,
    many=st.lists(st.builds(Part, TEXTS), max_size=3),
    table=st.dictionaries(TEXTS, st.integers(-(2**53), 2**53), max_size=3),
    anything=JSON,
    maybe=st.none() | INTEGERS,
    perhaps=st.none() | st.builds(Part, TEXTS),
    words=st.lists(TEXTS, max_size=3).map(tuple),
)


@pytest_asyncio.fixture
async def declared(servers, unique):
    """Makes an open store in which one projection is declared; the table of its own is empty."""

    async def make(view: type, table: Table | None = None, *, name: str = "doc") -> PostgresStore:
        store = PostgresStore(servers.write_store)
        stores.append(store)
        store.declare({name: Projection(name, view, table=table)})
        store.done = await store.prepare(unique)
        await store.open(unique, [name])
        return store

    stores: list[PostgresStore] = []
    yield make
    for store in stores:
        await store.close()


@pytest.fixture
def ask(servers):
    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(servers.write_store, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


async def put(store: PostgresStore, documents: dict[str, Any], nth: int = 1) -> Outcome:
    found = (await store.checkpoints("doc", [0])).get(0)
    stored = await store.load("doc", list(documents))
    writes = tuple(
        Write(key, was.positions, f"0:{nth}", None if one is None else msgspec.json.encode(one))
        for (key, one), was in zip(documents.items(), stored, strict=True)
    )
    return await store.apply(Batch("doc", 0, found, FIRST._replace(nth=nth), writes))


async def get(store: PostgresStore, view: Any, key: str) -> Any:
    (document,) = (await store.read("doc", [key])).documents
    return None if document is None else msgspec.json.decode(document, type=view)


async def test_every_type_comes_back_as_it_was(declared):
    store = await declared(Everything)

    examples: list[Everything] = []

    @given(VIEWS)
    def collect(view):
        examples.append(view)

    collect()
    for nth, start in enumerate(range(0, len(examples), 10), 1):
        part = {str(number): view for number, view in enumerate(examples[start : start + 10])}
        assert await put(store, part, nth) is Outcome.APPLIED
        for key, view in part.items():
            assert await get(store, Everything, key) == view
    await store.close()


async def test_columns_have_the_types_of_the_fields(declared, ask, unique):
    await (await declared(Everything)).close()
    found = dict(
        ask(
            "SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN '' ELSE ' null' END"
            f" FROM pg_attribute WHERE attrelid = '{unique}.doc'::regclass AND attnum > 0"
        )
    )
    assert found == {
        "key": "text",
        "number": "bigint",
        "text": "text",
        "real": "double precision",
        "yes": "boolean",
        "money": "numeric",
        "id": "uuid",
        "raw": "bytea",
        "moment": "timestamp with time zone",
        "local": "timestamp without time zone",
        "day": "date",
        "time": "text",
        "clock": "time without time zone",
        "span": "interval",
        "colour": "text",
        "level": "bigint",
        "word": "text",
        "either": "jsonb",
        "many": "jsonb",
        "table": "jsonb",
        "anything": "jsonb null",
        "maybe": "bigint null",
        "perhaps": "jsonb null",
        "words": "jsonb",
    }


class Numbered(readside.View):
    id: int
    name: str


async def test_a_field_may_be_the_key(declared, ask, unique):
    store = await declared(Numbered, Table(key="id"))
    assert await put(store, {"1": Numbered(1, "a"), "-7": Numbered(-7, "b")}) is Outcome.APPLIED
    assert ask(f"SELECT * FROM {unique}.doc ORDER BY id") == [(-7, "b"), (1, "a")]
    for other in ("01", "+1", "x", "9" * 30, "--5", "-", "\N{ARABIC-INDIC DIGIT ONE}"):
        assert await get(store, Numbered, other) is None
    assert await put(store, {"1": None, "x": None, "9" * 30: None}, 2) is Outcome.APPLIED
    assert ask(f"SELECT id FROM {unique}.doc") == [(-7,)]
    assert await store.load("doc", ["x"]) == [Stored(None, "0:2")]
    with pytest.raises(UnwritableError, match="'7' in document '8'"):
        await put(store, {"8": Numbered(7, "another's")}, 3)
    assert await store.reset("doc", {}) == 1
    await store.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [(uuid.UUID, uuid.UUID(int=7)), (dt.date, dt.date(2024, 2, 29)), (str, "käse '\\ %s {x}")],
)
async def test_keys_of_other_types(declared, kind, value):
    view = msgspec.defstruct("Thing", [("id", kind), ("n", int)], frozen=True)
    store = await declared(view, Table(key="id"))
    key = str(value)
    assert await put(store, {key: view(value, 1)}) is Outcome.APPLIED
    assert await get(store, view, key) == view(value, 1)
    assert await get(store, view, f"{key}x") is None
    assert await store.reset("doc", {}) == 1
    assert await get(store, view, key) is None
    await store.close()


async def test_hostile_names(declared, ask, servers):
    odd = "a\"b'c%d\\e{f} %s"
    view = msgspec.defstruct(
        "Odd", [("x", int), ("y", str, "it's %s \\")], frozen=True,
        rename={"x": "a'b%c{d} %s", "y": "select"},
    )  # fmt: skip
    for name in (f'{odd}.t"; DROP TABLE x; --%s', 'user".user'):
        store = await declared(view, Table(name=name, key=odd))
        assert await put(store, {odd: view(1, "2")}) is Outcome.APPLIED
        assert await get(store, view, odd) == view(1, "2")
        assert await store.reset("doc", {}) == 1
        schema = quoted(name.rpartition(".")[0]).replace("%%", "%")
        ask(f"DROP SCHEMA {schema} CASCADE")
        ask("DELETE FROM readside_store.projections WHERE projection = 'doc'")
        await store.close()


@pytest.mark.parametrize("setting", ["on", "off"])
def test_literals_mean_the_same_whatever_the_session_says(servers, setting):
    with psycopg.connect(servers.write_store) as connection:
        connection.execute(f"SET standard_conforming_strings = {setting}".encode())
        for text in ("it's", "back\\slash'", "%s %%", "", "ü\n"):
            (found,) = connection.execute(f"SELECT {literal(text)}".encode(), {}).fetchone()
            assert found == text


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


async def test_what_a_column_cannot_hold_is_refused_and_nothing_is_written(declared):
    class Values(readside.View):
        number: int = 0
        text: str = ""
        when: dt.datetime = dt.datetime(2024, 1, 1, tzinfo=UTC)

    store = await declared(Values)
    for view in (Values(2**63), Values(text="\0"), Values(when=dt.datetime(2024, 1, 1))):  # noqa: DTZ001 - the point
        with pytest.raises(UnwritableError):
            await put(store, {"1": Values(), "2": view})
        assert await store.load("doc", ["1", "2"]) == [Stored(None, "")] * 2
    assert dict(await store.checkpoints("doc", [0])) == {}
    await store.close()


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


async def test_what_is_left_out_of_the_json_is_in_the_table(declared, ask, unique):
    class Sparse(readside.View, omit_defaults=True):
        n: int = 5
        words: list[str] = []  # noqa: RUF012 - msgspec copies it
        maybe: int | None = None

    store = await declared(Sparse)
    await put(store, {"1": Sparse(), "2": Sparse(6, ["x"], 1)})
    assert ask(f"SELECT * FROM {unique}.doc ORDER BY key") == [
        ("1", 5, [], None),
        ("2", 6, ["x"], 1),
    ]
    assert await get(store, Sparse, "1") == Sparse()
    await store.close()


async def test_a_tag_comes_back(declared):
    class Cat(readside.View, tag="cat"):
        name: str

    class Dog(readside.View, tag="dog"):
        name: str

    store = await declared(Cat)
    await put(store, {"1": Cat("Tom")})
    assert await get(store, Cat | Dog, "1") == Cat("Tom")
    await store.close()


def test_views_that_cannot_be_tables():
    class Unset(readside.View):
        x: int | msgspec.UnsetType = msgspec.UNSET

    class Ambiguous(readside.View, omit_defaults=True):
        x: int | None = 5

    class Keyed(readside.View):
        key: str

    with pytest.raises(DeclarationError, match="UNSET"):
        columns_of(Unset)
    with pytest.raises(DeclarationError, match="left out"):
        columns_of(Ambiguous)
    with pytest.raises(DeclarationError, match="say what it is"):
        Sheet("shop", Projection("doc", Keyed))
    assert columns_of(dict[str, int]) is None


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
