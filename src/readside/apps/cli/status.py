"""``readside status``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import msgspec
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from readside.app import App
from readside.apps.cli.table import line, plain_console, render
from readside.core.errors import UnavailableError
from readside.operate.status import Status, status

_LOOK_EVERY = 1.0


async def show(app: App, target: str, *, json: bool, watch: bool, every_partition: bool) -> int:
    """Print the status once, or again and again."""
    console = plain_console()

    def table(seen: Status) -> RenderableType:
        return render(seen, target, console, every_partition=every_partition)

    try:
        dsn = (await (await app.runtime()).addresses()).write_store
        if watch:
            await _watch(dsn, app.name, table, json=json)
        seen = await status(dsn, app.name)
    finally:
        await app.close()
    if json:
        print(msgspec.json.encode(seen).decode())
    else:
        console.print(table(seen))
    return 0 if seen.healthy else 1


async def _watch(
    dsn: str, app: str, table: Callable[[Status], RenderableType], *, json: bool
) -> None:
    if not json and sys.stdout.isatty():
        await live(dsn, app, table)
    said = ""
    while True:
        try:
            seen = await status(dsn, app)
        except UnavailableError as error:
            if said != str(error):
                said = str(error)
                print(f"readside: waiting: {said}", file=sys.stderr)
        else:
            said = ""
            plain = f"{time.strftime('%H:%M:%S')} {seen.app}: {line(seen)}"
            print(msgspec.json.encode(seen).decode() if json else plain, flush=True)
        await asyncio.sleep(_LOOK_EVERY)


async def live(dsn: str, app: str, table: Callable[[Status], RenderableType]) -> None:
    """Show the status in place, for ever; a server that is away is waited for."""
    console = plain_console()
    with Live(
        console=console,
        auto_refresh=False,
        vertical_overflow="crop",
        redirect_stderr=sys.stderr.isatty(),
    ) as screen:
        while True:
            try:
                found: RenderableType = table(await status(dsn, app))
            except UnavailableError as error:
                found = Text(f"waiting: {error}", style="yellow")
            screen.update(found, refresh=True)
            await asyncio.sleep(_LOOK_EVERY)
