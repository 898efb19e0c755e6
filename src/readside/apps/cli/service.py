"""``readside init`` and ``readside run``."""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec
from rich.console import RenderableType

from readside.app import App
from readside.apps.cli.status import live
from readside.apps.cli.table import line, plain_console, render
from readside.apps.journal import Trouble, journal
from readside.apps.stall import StallWatch
from readside.core.errors import ReadsideError
from readside.operate.status import Status, status
from readside.ports.ending import end
from readside.runtime import Addresses
from readside.service import Role, Service

log = logging.getLogger("readside")

#: Seconds between two looks, and between two reports if only the number of events has changed.
_LOOK_EVERY = 1.0
_REPORT_EVERY = 60.0


async def init(app: App, *, json: bool) -> int:
    """Install, and print what was done."""
    journal(logging.INFO)
    runtime = await app.runtime()
    try:
        done = await runtime.install()
    finally:
        await app.close()
    if json:
        print(msgspec.json.encode({"app": app.name, "done": done}).decode())
    else:
        print("\n".join(f"made: {what}" for what in done) or "nothing to do: everything is there")
    return 0


async def run(app: App, target: str, role: Role, *, verbose: bool) -> int:
    """Run roles of an app until cancelled."""
    trouble = journal(logging.DEBUG if verbose else logging.INFO)
    runtime = await app.runtime()
    try:
        addresses = await runtime.addresses()
        service = Service(runtime, app.projections, role)
        watch = StallWatch(app.settings.stall_seconds)
        watch.attach()
        work = asyncio.create_task(service.run())
        view = asyncio.create_task(_view(service, app.name, addresses, target, trouble))
        try:
            await asyncio.wait({work, view}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            await view
            return 0
        finally:
            await end((view, work))
            watch.detach()
    finally:
        await app.close()


async def _view(
    service: Service, app: str, addresses: Addresses, target: str, trouble: Trouble
) -> None:
    await service.ready.wait()
    log.info("app %s runs as %s", app, service.worker)
    if not sys.stdout.isatty():
        await _report(addresses.write_store, app, trouble)
    console = plain_console()

    def table(seen: Status) -> RenderableType:
        _notice(seen, trouble)
        return render(seen, target, console, every_partition=False)

    await live(addresses.write_store, app, table)


def _notice(seen: Status, trouble: Trouble) -> None:
    well = seen.relay.state == "streaming" and all(
        one.state == "following" for one in seen.projections
    )
    if well and trouble.over():
        log.info("everything works again")


async def _report(dsn: str, app: str, trouble: Trouble) -> None:
    """Say when a state changes, and once a minute how far everything is if events came."""
    loop = asyncio.get_running_loop()
    before: tuple[list[str], list[int]] = ([], [])
    said_at = 0.0
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            seen = await status(dsn, app)
        except ReadsideError:
            continue  # the roles have said so already
        _notice(seen, trouble)
        states = [seen.relay.state, *(one.state for one in seen.projections)]
        applied = [part.applied for one in seen.projections for part in one.partitions]
        due = loop.time() - said_at > _REPORT_EVERY and applied != before[1]
        if states != before[0] or due:
            print(line(seen), flush=True)
            before, said_at = (states, applied), loop.time()
