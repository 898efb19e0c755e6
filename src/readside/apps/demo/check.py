"""Compares every user in the table with its document, through the stores' own clients."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from readside.apps.demo.documents import documents

_AT_ONCE = 1000


class Verdict(NamedTuple):
    """What the comparison found."""

    committed: int
    in_read_store: int
    missing: int
    mismatched: int

    @property
    def good(self) -> bool:
        """Whether every user is there and right."""
        return not self.missing and not self.mismatched


async def check(write_store: str, read_store: str) -> Verdict:
    """Read all rows and all documents, without any of readside's own code."""
    connection = await psycopg.AsyncConnection.connect(write_store)
    found = missing = mismatched = 0
    async with connection:
        cursor = await connection.execute("SELECT id, name, email FROM users ORDER BY id")
        rows = await cursor.fetchall()
    async with documents(read_store) as store:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            answers = await store.find([row[0] for row in part])
            for (id_, name, email), document in zip(part, answers, strict=True):
                if document is None:
                    missing += 1
                    continue
                found += 1
                if document != {"id": id_, "name": name, "email": email}:
                    mismatched += 1
    return Verdict(len(rows), found, missing, mismatched)
