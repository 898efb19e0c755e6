"""Views as rows in PostgreSQL: types, keys, names, and what no column can hold."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters import stores
from tests.adapters.stores import Numbered, get, put

import readside
from readside.adapters.postgres_store.columns import columns_of, literal, quoted
from readside.adapters.postgres_store.sheet import Sheet
from readside.core.errors import DeclarationError, UnwritableError
from readside.core.folding import Stored
from readside.core.projection import Projection
from readside.core.table import Table
from readside.ports.store import Outcome

ask, declared = stores.ask, stores.declared

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
