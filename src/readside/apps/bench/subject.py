"""The app that is measured, as `readside run` imports it; what it is comes from a file in its directory.

Its documents can be told beforehand, so that every one can be checked at the end.
"""

from __future__ import annotations

import random
import string
from pathlib import Path

import msgspec

import readside

#: In the directory in which the processes are started.
FILE = "bench.json"
#: Longer than any payload needs; random, for compression would make large payloads small.
_TEXT = "".join(random.Random(7).choices(string.ascii_letters + " ", k=70_000))  # noqa: S311 - text, no secret
#: Bytes of an event's JSON without its longest field, about.
_REST = 150


class Description(msgspec.Struct, frozen=True):
    """What an app of the bench is."""

    name: str
    write_store: str
    broker: str
    read_store: str
    partitions: int = 8
    projections: int = 1

    @property
    def names(self) -> list[str]:
        """The projections, named after the app: their documents lie beside those of others."""
        return [f"{self.name}_user{number}" for number in range(self.projections)]


class UserSaved(readside.Event, key="id"):
    """A user as he is now: what most outboxes carry."""

    id: int
    revision: int
    name: str
    email: str
    address: str
    about: str


class User(readside.View):
    """The document."""

    id: int
    revision: int
    name: str
    email: str
    address: str
    about: str


def saved(number: int, documents: int, payload: int) -> UserSaved:
    """The event of this number; every document is saved in turn."""
    revision, id_ = divmod(number, documents)
    start = number % 1000
    return UserSaved(
        id_ + 1,
        revision + 1,
        f"User {id_ + 1}",
        f"user{id_ + 1}@example.org",
        f"{number % 99} Long Street, 1{number % 9999:04} Example",
        _TEXT[start : start + max(1, payload - _REST)],
    )


def document(event: UserSaved) -> User:
    """What a reader is to see after an event."""
    return User(event.id, event.revision, event.name, event.email, event.address, event.about)


def declare(description: Description) -> readside.App:
    """Make the app."""
    app = readside.App(
        description.name,
        write_store=description.write_store,
        broker=description.broker,
        read_store=description.read_store,
        partitions=description.partitions,
    )
    for name in description.names:
        app.projection(name, User, mode="async").on(UserSaved)(document)
    return app


def __getattr__(name: str) -> readside.App:
    """Give the app to `readside run readside.apps.bench.subject:app`."""
    if name != "app":
        raise AttributeError(name)
    app = declare(msgspec.json.decode(Path(FILE).read_bytes(), type=Description))
    globals()["app"] = app
    return app
