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
from readside.apps.process import collecting
from readside.apps.stall import StallWatch
from readside.apps.workers import command_of, workers
from readside.core.errors import ReadsideError, SettingsError
from readside.operate.status import Status, status
from readside.ports.ending import end
from readside.ports.traits import Promise
from readside.runtime import Addresses
from readside.service import Role, Service
from readside.wiring import broker_for

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


async def run(app: App, target: str, role: Role, *, processes: int, verbose: bool) -> int:
    """Run roles of an app until cancelled."""
    trouble = journal(logging.DEBUG if verbose else logging.INFO)
    runtime = await app.runtime()
    try:
        addresses = await runtime.addresses()
        if processes > 1:
            _check_workers(role, addresses, processes)
            role = "relay" if role == "all" else role
        service = Service(runtime, app.projections, role)
        watch = StallWatch(app.settings.stall_seconds)
        watch.attach()
        tasks = [
            asyncio.create_task(service.run()),
            asyncio.create_task(_view(service, app.name, addresses, target, trouble)),
            asyncio.create_task(collecting()),
        ]
        if processes > 1:
            more = processes if role == "relay" else processes - 1
            tasks.append(asyncio.create_task(_workers(service, target, more, verbose=verbose)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            return 0
        finally:
            await end(tasks)
            watch.detach()
    finally:
        await app.close()


def _check_workers(role: Role, addresses: Addresses, processes: int) -> None:
    if role == "relay":
        raise SettingsError(
            f"--role relay needs no {processes} processes: one relay works.",
            mend="leave --workers away, or start more relays as standbys",
        )
    if broker_for(addresses.broker).traits.remembers is Promise.NEVER:
        raise SettingsError(
            "Without a broker, one process does all the work.",
            mend="leave --workers away, or set READSIDE_BROKER=nats://…",
        )


async def _workers(service: Service, target: str, count: int, *, verbose: bool) -> None:
    await service.ready.wait()  # what cannot work has said so once by then, not in every process
    await workers(command_of(target, verbose=verbose), count)


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
