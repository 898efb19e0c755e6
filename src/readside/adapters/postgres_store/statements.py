"""The statements of the store, and in which order they make one transaction of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from readside.adapters.postgres_store.columns import quoted
from readside.adapters.postgres_store.sheet import ID, Sheet, key_text
from readside.core.folding import Batch

Step = tuple[bytes, Mapping[str, Any]]

_OWN = "FROM readside_store.projections WHERE app = %(app)s AND projection = %(projection)s"

HELD = f"SELECT id {_OWN} AND inline = %(inline)s".encode()
CHECKPOINTS = (
    "SELECT partition, checkpoint FROM readside_store.checkpoints"
    f" WHERE projection = {ID} AND partition = ANY (%(partitions)s)"
).encode()
PARKED = (
    "SELECT key, parking FROM readside_store.parked"
    f" WHERE projection = {ID} AND partition = %(partition)s"
).encode()
UNPARK = (
    f"DELETE FROM readside_store.parked WHERE projection = {ID} AND partition = %(partition)s"
    " AND key = %(key)s AND parking = %(parking)s"
).encode()
HALT = (
    f"INSERT INTO readside_store.halted SELECT id, %(partition)s, %(reason)s {_OWN}"
    " ON CONFLICT (projection, partition) DO UPDATE SET reason = excluded.reason"
).encode()
GO_ON = (
    f"DELETE FROM readside_store.halted WHERE projection = {ID} AND partition = %(partition)s"
).encode()

_MOVE = (
    "WITH moved AS (UPDATE readside_store.checkpoints SET checkpoint = %(checkpoint)s"
    f" WHERE projection = {ID} AND partition = %(partition)s AND checkpoint = %(expected)s RETURNING 1)"
    " SELECT readside_store.insist(EXISTS (SELECT FROM moved), 'FENCED')"
).encode()
_BEGIN_AT = (
    "WITH begun AS (INSERT INTO readside_store.checkpoints"
    f" SELECT id, %(partition)s, %(checkpoint)s {_OWN} FOR SHARE ON CONFLICT DO NOTHING RETURNING 1)"
    " SELECT readside_store.insist(EXISTS (SELECT FROM begun), 'FENCED')"
).encode()
#: A batch without a checkpoint is fenced by nothing else from a reset that is under way.
_SHARE = (
    f"WITH own AS (SELECT id {_OWN} FOR SHARE)"
    " SELECT readside_store.insist(EXISTS (SELECT FROM own), 'FENCED')"
).encode()
#: Locks in the order of the keys, so that two partitions which feed the same documents wait for each
#: other and never in a circle. A row that was waited for is read as it is then. Texts by key are an
#: object, not a second table to join: no statistics can lead to a plan that reads everything.
_GUARD = (
    "SELECT readside_store.insist(count(*) = cardinality(%(known)s::text[])"
    " AND coalesce(bool_and(g.positions = (%(expected)s::jsonb ->> g.key)), true), 'CONFLICT')"
    f" FROM (SELECT key, positions FROM readside_store.documents WHERE projection = {ID}"
    " AND key = ANY (%(known)s::text[]) ORDER BY key FOR NO KEY UPDATE) AS g"
).encode()
_RENEW = (
    "UPDATE readside_store.documents SET positions = (%(positions)s::jsonb ->> key)"
    f" WHERE projection = {ID} AND key = ANY (%(known)s::text[])"
).encode()
_MAKE = (
    "WITH made AS (INSERT INTO readside_store.documents"
    f" SELECT {ID}, w.key, w.positions FROM unnest(%(new)s::text[], %(positions)s::text[])"
    " AS w(key, positions) ORDER BY w.key ON CONFLICT DO NOTHING RETURNING 1)"
    " SELECT readside_store.insist((SELECT count(*) FROM made) = cardinality(%(new)s::text[]), 'CONFLICT')"
).encode()
#: Locks documents, in the order of their keys, whether they are there or not. The rows are renewed, not
#: only locked: so a transaction which sees one moment only fails if another came between. Whoever empties
#: the projection or gives it another table waits for those who are writing into this one; they do not
#: wait for each other.
LOCK = (
    b"WITH own AS (SELECT id FROM readside_store.projections"
    b" WHERE app = %(app)s AND projection = %(projection)s AND inline"
    b" AND schema = %(schema)s AND relation = %(relation)s FOR KEY SHARE),"
    b" locked AS (INSERT INTO readside_store.documents AS d"
    b" SELECT own.id, w.key, '' FROM own, unnest(%(keys)s::text[]) AS w(key) ORDER BY w.key"
    b" ON CONFLICT (projection, key) DO UPDATE SET positions = d.positions)"
    b" SELECT readside_store.insist(EXISTS (SELECT FROM own),"
    b" 'inline projection ' || %(projection)s::text || ' has no table yet')"
)
#: Documents that were not loaded: the condition is that of `core.folding.precedes`.
_OVERWRITE = (
    "WITH put AS (INSERT INTO readside_store.documents AS d"
    f" SELECT {ID}, w.key, w.positions FROM unnest(%(keys)s::text[], %(positions)s::text[])"
    " AS w(key, positions) ORDER BY w.key ON CONFLICT (projection, key) DO UPDATE"
    " SET positions = excluded.positions WHERE d.positions = '' OR (starts_with(d.positions, %(prefix)s)"
    " AND length(d.positions) = length(excluded.positions) AND d.positions < excluded.positions)"
    " RETURNING 1)"
    " SELECT readside_store.insist((SELECT count(*) FROM put) = cardinality(%(keys)s::text[]), 'CONFLICT')"
).encode()
_PARK = (
    "INSERT INTO readside_store.parked"
    f" SELECT {ID}, %(partition)s, w.* FROM unnest(%(keys)s::text[], %(parkings)s::text[]) AS w"
    " ON CONFLICT (projection, partition, key) DO UPDATE SET parking = excluded.parking"
).encode()
#: A reset: nobody else works on the projection until it ends, commands that fold inline neither, and
#: what somebody wants who waited for it is fenced off, as the checkpoint is another one then.
SEIZE = f"SELECT id, schema, relation, key_column, key_type {_OWN} FOR UPDATE".encode()
#: First of all: waits for whoever is writing, and fences off whoever comes after.
STOP = b"DELETE FROM readside_store.checkpoints WHERE projection = %(id)s RETURNING partition, checkpoint"
FORGET = tuple(
    f"DELETE FROM readside_store.{table} WHERE projection = %(id)s".encode()
    for table in ("documents", "parked", "halted")
)
LEAVE = b"UPDATE readside_store.projections SET app = NULL WHERE id = %(id)s"
BEGIN_AGAIN = (
    b"INSERT INTO readside_store.checkpoints VALUES (%(id)s, %(partition)s, %(checkpoint)s)"
)


def empty(schema: str, relation: str, column: str, kind: str) -> bytes:
    """Removes the documents that readside knows, and says how many they were."""
    own = key_text(f"t.{quoted(column)}", kind)
    return (
        f"WITH gone AS (DELETE FROM {quoted(schema)}.{quoted(relation)} AS t"
        " USING readside_store.documents AS d"
        f" WHERE d.projection = %(id)s AND {own} = d.key RETURNING 1) SELECT count(*) FROM gone"
    ).encode()


def _json(texts: Mapping[str, str]) -> str:
    return msgspec.json.encode(texts).decode()


def guards(app: str, batch: Batch) -> Iterator[Step]:
    """Everything that can refuse a batch, the fence first, and the new positions."""
    names = {"app": app, "projection": batch.projection, "partition": batch.partition}
    if batch.checkpoint is None:
        yield _SHARE, names
    else:
        moved = {**names, "checkpoint": batch.checkpoint.encode()}
        if batch.expected is None:
            yield _BEGIN_AT, moved
        else:
            yield _MOVE, {**moved, "expected": batch.expected.encode()}
    yield from (_overwriting if batch.overwrites else _replacing)(batch, names)
    if batch.parked:
        keys = {"keys": [key for key, _ in batch.parked]}
        yield _PARK, {**names, **keys, "parkings": [parking for _, parking in batch.parked]}


def _replacing(batch: Batch, names: Mapping[str, Any]) -> Iterator[Step]:
    known = [write for write in batch.writes if write.expected]
    if known:
        values = {**names, "known": [write.key for write in known]}
        yield _GUARD, {**values, "expected": _json({one.key: one.expected for one in known})}
        yield _RENEW, {**values, "positions": _json({one.key: one.positions for one in known})}
    new = [write for write in batch.writes if not write.expected]
    if new:
        keys = {"new": [write.key for write in new]}
        yield _MAKE, {**names, **keys, "positions": [write.positions for write in new]}


def _overwriting(batch: Batch, names: Mapping[str, Any]) -> Iterator[Step]:
    if batch.writes:
        keys = [write.key for write in batch.writes]
        texts = [write.positions for write in batch.writes]
        yield (
            _OVERWRITE,
            {**names, "keys": keys, "positions": texts, "prefix": f"{batch.partition}:"},
        )


def contents(sheet: Sheet, documents: Mapping[str, bytes | None]) -> Iterator[Step]:
    """The rows of documents, by key; None for one that is to go."""
    gone = [key for key, document in documents.items() if document is None]
    if gone:
        yield sheet.delete, {"gone": [own for own in sheet.own(gone) if own is not None]}
    present = sorted((key, found) for key, found in documents.items() if found is not None)
    if present:
        text = sheet.documents([found for _, found in present])
        yield sheet.put, {"documents": text, "present": [key for key, _ in present]}
