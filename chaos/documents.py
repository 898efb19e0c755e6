"""Reads documents behind readside's back, with the vendor's own client: out of Valkey, or out of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import psycopg
import redis
from psycopg.rows import dict_row

PROJECTIONS = ("lists", "registers", "counters", "pairs", "totals")
#: The read store is away, or does not answer.
AWAY = (redis.RedisError, psycopg.Error)
#: Seconds after which a silent server counts as away.
_PATIENCE = 3.0


class Documents(Protocol):
    """An open connection to whatever the documents are in."""

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        """The documents of these names, ``projection:key``, as JSON."""

    def all(self) -> dict[str, Any]:
        """All documents of all projections, decoded, by name."""


@contextmanager
def opened(url: str, patience: float = _PATIENCE) -> Iterator[Documents]:
    """Connect to a read store by its URL."""
    if url.startswith("postgresql:"):
        wait = f"-c statement_timeout={patience * 1000:.0f}"
        with psycopg.connect(
            url, autocommit=True, connect_timeout=3, options=wait, tcp_user_timeout=3000,
            application_name="chaos observer",
        ) as connection:  # fmt: skip
            yield _Tables(connection)
    else:
        with redis.Redis.from_url(
            url, socket_timeout=patience, socket_connect_timeout=patience, retry=None
        ) as client:
            yield _Keys(client)


class _Keys:
    """Documents under keys."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        return list(self._client.mget(names))

    def all(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for projection in PROJECTIONS:
            names = list(self._client.scan_iter(f"{projection}:*", count=1000))
            for name, document in zip(names, self.get(names) if names else (), strict=True):
                if document is not None:
                    found[name.decode()] = msgspec.json.decode(document)
        return found


class _Tables:
    """Documents in rows; each projection's at one moment."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = connection.cursor(row_factory=dict_row)

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        wanted: dict[str, list[str]] = {}
        for name in names:
            projection, _, key = name.partition(":")
            wanted.setdefault(projection, []).append(key)
        found: dict[str, bytes] = {}
        for projection, keys in wanted.items():
            rows = self._rows(projection, "WHERE key = ANY (%s)", [keys])
            found |= {name: msgspec.json.encode(row) for name, row in rows.items()}
        return [found.get(name) for name in names]

    def all(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for projection in PROJECTIONS:
            found |= self._rows(projection)
        return found

    def _rows(self, projection: str, which: str = "", values: Any = None) -> dict[str, Any]:
        self._cursor.execute(f"SELECT * FROM chaos.{projection} {which}".encode(), values)
        return {f"{projection}:{row.pop('key')}": row for row in self._cursor.fetchall()}
