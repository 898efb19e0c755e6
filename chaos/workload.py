"""What a transaction of the workload does: versions, history and events, all or nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import readside
from chaos.app import BUCKETS, Erased, FedLeft, FedRight, Wrote

SCHEMA = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.keys (key text PRIMARY KEY, version int NOT NULL DEFAULT 0);
CREATE TABLE chaos.history (
    key text NOT NULL, version int NOT NULL, kind text NOT NULL, mark bigint NOT NULL,
    bucket int NOT NULL, poison text NOT NULL, writer text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (key, version)
);
CREATE TABLE chaos.obstacle (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO chaos.obstacle VALUES (1);
"""

#: Versions after which even a stable key is erased: documents must not grow for ever.
_LIFE = 400
#: Keys that are hardly ever erased: their lists show a long history.
STABLE = tuple(f"s-{number}" for number in range(24))
#: Keys that are erased and come back all the time.
MORTAL = tuple(f"e-{number}" for number in range(24))
#: Streams of pairs: `l-3` and `r-3` feed `p-3`.
STREAMS = tuple(f"{side}-{number}" for side in "lr" for number in range(12))
KEYS = STABLE + MORTAL + STREAMS
#: Keys of transactions that stay open for long: nobody else shall wait for them.
RARE = tuple(f"t-{number}" for number in range(6))

Execute = Callable[[str, Sequence[Any]], Awaitable[Any]]


class Change(NamedTuple):
    """What a transaction wants: how many events of each key, and a poison on the last of all."""

    counts: Mapping[str, int]
    poison: str = ""


class Done(NamedTuple):
    """What it did, if it commits: the events to record, and the last version of each key."""

    events: list[readside.Event]
    versions: dict[str, int]


def small(chance: random.Random) -> Change:
    """A change as most are: one to three keys, one to three events each."""
    keys = chance.sample(KEYS, chance.choice((1, 1, 1, 2, 3)))
    return Change({key: chance.choice((1, 1, 1, 2, 3)) for key in keys})


def large(chance: random.Random, events: int) -> Change:
    """A change of many events over many keys."""
    keys = chance.sample(KEYS, 40)
    return Change(dict.fromkeys(keys, events // len(keys)))


async def perform(execute: Execute, change: Change, writer: str, chance: random.Random) -> Done:
    """Do everything of a change but the commit and the recording of its events.

    The row lock of a key is held from its version to the commit: so versions are the commit order.
    """
    events: list[readside.Event] = []
    rows: list[tuple[Any, ...]] = []
    versions: dict[str, int] = {}
    for key in sorted(change.counts):  # in order: no deadlocks
        count = change.counts[key]
        row = await execute(
            "UPDATE chaos.keys SET version = version + %s WHERE key = %s RETURNING version",
            [count, key],
        )
        last = versions[key] = row[0]
        for version in range(last - count + 1, last + 1):
            event, kind = _event(key, version, chance, change.poison if version == last else "")
            events.append(event)
            rows.append((key, version, kind, *_columns(event), writer))
    columns = [list(column) for column in zip(*rows, strict=True)]
    await execute(
        "INSERT INTO chaos.history (key, version, kind, mark, bucket, poison, writer)"
        " SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::bigint[], %s::int[],"
        " %s::text[], %s::text[]) RETURNING version",
        columns,
    )
    return Done(events, versions)


def _columns(event: readside.Event) -> tuple[int, int, str]:
    return (
        getattr(event, "mark", 0),
        getattr(event, "bucket", 0),
        getattr(event, "poison", ""),
    )


def _event(
    key: str, version: int, chance: random.Random, poison: str
) -> tuple[readside.Event, str]:
    mark = chance.getrandbits(48)
    side, _, number = key.partition("-")
    if side == "l":
        return FedLeft(key, f"p-{number}", version, mark), "fed"
    if side == "r":
        return FedRight(key, f"p-{number}", version, mark), "fed"
    bucket = mark % BUCKETS
    erase = version % _LIFE == 0 if side == "s" else chance.random() < 0.2
    if erase and not poison:
        return Erased(key, version, mark, bucket), "erased"
    return Wrote(key, version, mark, bucket, poison), "wrote"
