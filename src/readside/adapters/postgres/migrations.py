"""The SQL files of a package, applied in the order of their names and noted in a table."""

from __future__ import annotations

from importlib import resources

from readside.adapters.postgres.connection import Connection


def packaged(package: str) -> list[tuple[str, str]]:
    """The name and the text of each file in the folder `sql` of a package."""
    folder = resources.files(package) / "sql"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in found)


async def migrate(connection: Connection, package: str, schema: str) -> list[str]:
    """Apply those which a schema has not seen, in the caller's transaction; return their names."""
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
    await connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema}.migrations"
        " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())".encode()
    )
    found = await connection.execute(f"SELECT name FROM {schema}.migrations".encode())
    applied = {row[0] for row in await found.fetchall()}
    new = [(name, text) for name, text in packaged(package) if name not in applied]
    for name, text in new:
        await connection.execute(text.encode())
        note = f"INSERT INTO {schema}.migrations (name) VALUES (%s)"
        await connection.execute(note.encode(), [name])
    return [name for name, _ in new]
