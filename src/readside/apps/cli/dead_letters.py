"""``readside dead-letters``: documents that are parked, and their events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from readside.app import App
from readside.apps.cli.target import notes_of
from readside.core.errors import SettingsError
from readside.operate.dead_letters import DeadLetters, ParkedDocument, Retried


class Choice(NamedTuple):
    """Which documents."""

    projection: str | None
    key: str | None
    error: str | None

    @property
    def any(self) -> bool:
        """Whether it chooses at all."""
        return any(part is not None for part in self)


class Discarded(msgspec.Struct):
    """How many events of a parked document were given up; it may be parked in several partitions."""

    projection: str
    partition: int
    key: str
    events: int


async def find(app: App, choice: Choice, *, json: bool) -> int:
    """List the parked documents."""
    async with _opened(app) as letters:
        found = await letters.find(*choice)
    if json:
        print(msgspec.json.encode(found).decode())
    elif not found:
        print("nothing is parked")
    else:
        _table(found)
    return 0


def _table(found: Sequence[ParkedDocument]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("document", "events", "tries", "parked at", "failing event", "error"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("events", "tries") else "left"
        )
    for one in found:
        error = one.error.splitlines()[0]
        table.add_row(
            one.name, f"{one.events}", f"{one.attempts}", one.parked_at[:19], one.event_type, error
        )
    Console(markup=False, highlight=False).print(table)


async def show(app: App, choice: Choice, *, json: bool) -> int:
    """Show parked documents with traceback and events."""
    async with _opened(app) as letters:
        details = [await letters.show(one) for one in await letters.find(*choice)]
    if json:
        print(msgspec.json.encode(details).decode())
        return 0
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for detail in details:
        one = detail.document
        console.print(Text(one.name, style="bold"), f" partition {one.partition}")
        console.print(f"  parked at {one.parked_at}, last try {one.tried_at}, tries {one.attempts}")
        console.print(detail.traceback, style="dim")
        for event in detail.waiting:
            line = f"  {event.position}  {event.type} v{event.version}  {event.payload}"
            console.print(line)
    if not details:
        print("nothing is parked")
    return 0


async def retry(app: App, target: str, choice: Choice, *, everything: bool, json: bool) -> int:
    """Fold parked events again; 1 if a document still cannot move on."""
    _chosen(choice, everything=everything)
    done: list[Retried] = []
    async with _opened(app) as letters:
        store = await (await app.runtime()).store()
        for one in await letters.find(*choice):
            projection = app.projections.get(one.projection)
            if projection is None:
                raise SettingsError(
                    f"{target} declares no projection {one.projection!r}.",
                    mend=f"readside forget {target} {one.projection}, if it is gone for good",
                )
            result = await letters.retry(one, projection, store)
            done.append(result)
            if not json:
                outcome = f"still parked: {result.error}" if result.error else "free again"
                print(f"{one.name}: {result.applied} events applied, {outcome}", flush=True)
    if json:
        print(msgspec.json.encode(done).decode())
    elif not done:
        print("nothing is parked")
    return 1 if any(result.error for result in done) else 0


async def discard(app: App, choice: Choice, *, everything: bool, whole: bool, json: bool) -> int:
    """Give up events, and retry the rest."""
    _chosen(choice, everything=everything)
    async with _opened(app) as letters:
        found = await letters.find(*choice)
        gone = [(one, await letters.discard(one, whole=whole)) for one in found]
    if json:
        said = [Discarded(one.projection, one.partition, one.key, count) for one, count in gone]
        print(msgspec.json.encode(said).decode())
    else:
        for one, count in gone:
            print(
                f"{one.name}: {count} events discarded; free the document with: dead-letters retry"
            )
        if not gone:
            print("nothing is parked")
    return 0


def _chosen(choice: Choice, *, everything: bool) -> None:
    if not choice.any and not everything:
        raise SettingsError(
            "Which documents?", mend="choose with --projection, --key or --error, or take --all"
        )


@asynccontextmanager
async def _opened(app: App) -> AsyncIterator[DeadLetters]:
    async with notes_of(app, "dead letters") as session:
        yield DeadLetters(session, app.name)
