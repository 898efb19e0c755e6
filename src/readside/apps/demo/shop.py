"""The service of the demo, as a user of readside would write it."""

from __future__ import annotations

import readside


class UserCreated(readside.Event, key="id"):
    """Somebody signed up."""

    id: int
    name: str
    email: str


class User(readside.View):
    """What the service shows of a user."""

    id: int
    name: str
    email: str


class Shop:
    """Commands write to PostgreSQL, queries read from the read store."""

    def __init__(self, write_store: str, broker: str, read_store: str) -> None:
        self.app = readside.App(
            "shop", write_store=write_store, broker=broker, read_store=read_store
        )
        self.users = self.app.projection("user", User, mode="async")

        @self.users.on
        def created(event: UserCreated) -> User:
            return User(event.id, event.name, event.email)

    async def install(self) -> None:
        """Make the service's own table, and readside's."""
        await (await self.app.runtime()).install()
        async with self.app.transaction() as tx:
            await tx.execute(
                "CREATE TABLE IF NOT EXISTS users"
                " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, email text)"
            )

    async def create_user(self, name: str, email: str) -> tuple[int, readside.Token]:
        """The command: one row and one event, both or neither."""
        async with self.app.transaction() as tx:
            row = await tx.fetchone(
                "INSERT INTO users (name, email) VALUES (%s, %s) RETURNING id", name, email
            )
            tx.record(UserCreated(row.id, name, email))
        return row.id, tx.token
